//! Words of an expression around a position, and the types of paths.

use crate::diagnostic::SourceId;
use crate::hl7v2::{self, FieldDef};
use crate::route::expression::{Places, parse};
use crate::route::names::intern;
use crate::route::types::{Ty, V2Types};
use crate::route::{Expr, ExprKind, PathStep};
use std::ops::Range;

/// Letters of names, paths and variables.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '-' | '[' | ']')
}

/// Where the word that ends at `at` begins.
pub(crate) fn start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or("");
    before.char_indices().rev().take_while(|(_, c)| in_word(*c)).last().map_or(before.len(), |(n, _)| n)
}

/// The whole word around `at`.
pub(crate) fn around(text: &str, at: usize) -> Range<usize> {
    let rest = text.get(at..).unwrap_or("");
    let end = at + rest.find(|c: char| !in_word(c)).unwrap_or(rest.len());
    let begin = start(text, at);
    // A bracket that closes something else is no part of the word.
    let word = text.get(begin..end).unwrap_or("");
    let surplus = word.matches(']').count() > word.matches('[').count() && word.ends_with(']');
    begin..if surplus { end - 1 } else { end }
}

/// The word before the one that begins at `at`.
pub(crate) fn before(text: &str, at: usize) -> &str {
    let head = text.get(..at).unwrap_or("").trim_end();
    head.get(start(head, head.len())..).unwrap_or("")
}

/// Within a string of an expression: where its content begins.
pub(crate) fn string_start(text: &str, at: usize) -> Option<usize> {
    let (mut open, mut escaped) = (None, false);
    for (n, c) in text.get(..at)?.char_indices() {
        match (open, c) {
            (Some(_), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(_), '"') if !escaped => open = None,
            (None, '"') => open = Some(n + 1),
            _ => {}
        }
        escaped = false;
    }
    open
}

/// The path that a comparison's string is compared with: `PID-8` in `PID-8 in ("M", "`.
pub(crate) fn compared(text: &str) -> Option<&str> {
    let mut head = text.trim_end_matches('"').trim_end();
    if let Some(open) = head.rfind('(')
        && head.get(..open).is_some_and(|h| h.trim_end().ends_with(" in"))
        && head.get(open..).is_some_and(|list| list.chars().all(|c| c != ')'))
    {
        head = head.get(..open)?.trim_end().strip_suffix(" in")?.trim_end();
        head = head.strip_suffix(" not").unwrap_or(head).trim_end();
    } else {
        head = head.strip_suffix('=')?;
        head = head.strip_suffix('!').unwrap_or(head).trim_end();
    }
    let path = head.get(start(head, head.len())..)?;
    (!path.is_empty()).then_some(path)
}

/// The type of the first values that an expression yields, where that can be told from the dictionaries.
pub(crate) fn type_of(text: &str, current: &[Ty], v2: &V2Types) -> Option<Ty> {
    let expr = parse(text, &Places::verbatim(SourceId(0), 0, text.len())).ok()?;
    of(&expr, current, v2)
}

fn of(expr: &Expr, current: &[Ty], v2: &V2Types) -> Option<Ty> {
    match &expr.kind {
        ExprKind::Segment { segment, field, tail, .. } => {
            let Some(name) = intern_known(&segment.text, v2) else {
                let typed = field.is_none() && v2.is_datatype(&segment.text);
                return typed.then(|| Ty::V2 { datatype: intern(&segment.text), table: None }).and_then(|ty| steps(ty, tail, v2));
            };
            let Some(field) = field else { return Some(Ty::Segment(name)) };
            let facts = v2.field(name, *field)?;
            steps(Ty::V2 { datatype: facts.datatype, table: facts.table }, tail, v2)
        }
        ExprKind::Type { name, tail } => {
            let table = current.iter().find_map(|t| match t {
                Ty::V2 { datatype, table } if *datatype == name.text => Some(*table),
                _ => None,
            });
            if !v2.is_datatype(&name.text) {
                return intern_known(&name.text, v2).map(Ty::Segment);
            }
            steps(Ty::V2 { datatype: intern(&name.text), table: table.flatten() }, tail, v2)
        }
        ExprKind::Call(name, arguments) if matches!(name.text.as_str(), "first" | "last" | "distinct") => of(arguments.first()?, current, v2),
        ExprKind::Call(name, _) if name.text == "sender" => Some(Ty::V2 { datatype: "HD", table: None }),
        ExprKind::Call(name, _) if name.text == "event" => Some(Ty::V2 { datatype: "ID", table: Some("0003") }),
        ExprKind::Where(inner, _) | ExprKind::Else(inner, _) | ExprKind::As(inner, _) | ExprKind::If(_, inner, _) => of(inner, current, v2),
        ExprKind::Tail(inner, tail) => steps(of(inner, current, v2)?, tail, v2),
        _ => None,
    }
}

fn intern_known(name: &str, v2: &V2Types) -> Option<&'static str> {
    v2.is_segment(name).then(|| intern(name))
}

fn steps(mut ty: Ty, tail: &[PathStep], v2: &V2Types) -> Option<Ty> {
    for step in tail {
        if let PathStep::Component(n) = step {
            let Ty::V2 { datatype, .. } = ty else { return None };
            let facts = v2.component(datatype, *n)?;
            ty = Ty::V2 { datatype: facts.datatype, table: facts.table };
        }
    }
    Some(ty)
}

/// What the standard says of a field, in the newest release that has it with a type.
pub(crate) fn field_of(segment: &str, n: u16) -> Option<FieldDef> {
    let usable = |f: &FieldDef| !f.datatype().is_empty() && f.usage() != hl7v2::Usage::Withdrawn;
    let newest =
        |fits: &dyn Fn(&FieldDef) -> bool| hl7v2::Version::ALL.iter().rev().find_map(|v| hl7v2::segment(*v, segment)?.field(usize::from(n)).filter(fits));
    newest(&usable).or_else(|| newest(&|f| !f.datatype().is_empty()))
}

/// What the standard says of a component.
pub(crate) fn component_of(datatype: &str, n: u16) -> Option<FieldDef> {
    let usable = |f: &FieldDef| !f.datatype().is_empty() && f.usage() != hl7v2::Usage::Withdrawn;
    let newest =
        |fits: &dyn Fn(&FieldDef) -> bool| hl7v2::Version::ALL.iter().rev().find_map(|v| hl7v2::datatype(*v, datatype)?.component(usize::from(n)).filter(fits));
    newest(&usable).or_else(|| newest(&|f| !f.datatype().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_what_stands_before_them() {
        let text = "first(PID-3[1].4) via lab-codes";
        assert_eq!(&text[around(text, 8)], "PID-3[1].4");
        assert_eq!(&text[around(text, text.len())], "lab-codes");
        assert_eq!(before(text, around(text, text.len()).start), "via");
        assert_eq!(string_start("a = \"x", 6), Some(5));
        assert_eq!(string_start("a = \"x\" ", 8), None);
        assert_eq!(compared("PID-8 = \""), Some("PID-8"));
        assert_eq!(compared("x where CX.5 not in (\"A\", \""), Some("CX.5"));
        assert_eq!(compared("if x then \""), None);
    }
}
