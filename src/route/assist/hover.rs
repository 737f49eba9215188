//! Hover: what the dictionaries and declarations say of the word at a position, in Markdown.

use crate::fhir::{self, Element, Strength, Type};
use crate::hl7v2;
use crate::route::assist::View;
use crate::route::assist::context::{Context, Wanted, element as element_of};
use crate::route::assist::index::Doc;
use crate::route::assist::outline::{Quote, Section, Where};
use crate::route::assist::words;
use crate::route::functions::FUNCTIONS;
use crate::route::keys::{IN, KINDS, OWN, Place, ROW, find};
use crate::route::types::{FieldType, Ty, V2Types};
use std::ops::Range;

/// What stands somewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Hover {
    /// Bytes of the text that it is about.
    pub range: Range<usize>,
    /// Markdown.
    pub text: String,
}

/// So many codes are listed.
const CODES_SHOWN: usize = 12;

/// Words of the grammar.
pub(crate) const KEYWORDS: &[(&str, &str)] = &[
    ("if", "`if COND then A else B`: A where the condition holds, else B"),
    ("then", "`if COND then A else B`"),
    ("else", "`if COND then A else B`"),
    ("and", "both hold"),
    ("or", "one of them holds"),
    ("not", "`not C`, `x not valued`, `x not in (...)`"),
    ("valued", "`x valued`: the sender wrote something"),
    ("deleted", "`x deleted`: the sender wrote `\"\"`, which removes"),
    ("where", "`PATH where COND`: only the values for which the condition holds; in it, the path's own type means the candidate"),
    ("in", "`x in (\"A\", \"B\")`, `x in TABLE`, `x in systems`: some value is one of these"),
    ("as", "`x as TYPE`, `x as TYPE-Variant`: chooses the map"),
    ("via", "`x via TABLE`, `x via TABLE.column`: chooses the table"),
    ("all", "`all OBX-5`: of the whole message, whatever the groups"),
    ("nothing", "no value"),
    ("by", "`merge by EXPR`: what identifies the resource"),
];

pub(super) fn hover(view: &View<'_>, at: usize) -> Option<Hover> {
    let section = view.outline.section(at)?;
    match view.outline.locate(&view.text, at)? {
        Where::Key(n) => {
            let range = view.outline.entry(n)?.key.clone();
            let chain = view.outline.chain(n);
            key(view, section, &chain, view.part(&range)).map(|text| Hover { range, text })
        }
        Where::Value(n) => value(view, section, n, at),
        Where::Inside(_) => None,
    }
}

fn key(view: &View<'_>, section: &Section, chain: &[usize], written: &str) -> Option<String> {
    let name = written.strip_suffix('+').unwrap_or(written);
    let (own, around) = chain.split_last()?;
    if section.roots.first() == Some(own) {
        return KINDS.iter().find(|k| k.first == name).map(|k| format!("**{}:** {}", k.first, k.meaning));
    }
    let declared = |keys| find(keys, name).map(|k| format!("**{}**: {}", k.name, k.meaning));
    match view.context(&section.roots, around) {
        Context::Document(keys) | Context::Keys(keys) => declared(keys).or_else(|| (name == IN.name).then(|| format!("**$in**: {}", IN.meaning))),
        Context::Row => declared(ROW),
        Context::Body(_, place) if name.starts_with('$') => {
            find(OWN, name).filter(|k| k.allowed(place) || place == Place::Map).map(|k| format!("**{}**: {}", k.name, k.meaning))
        }
        Context::Body(ty, _) => {
            let (ty, plain) = (ty?, name.strip_prefix('_').unwrap_or(name));
            let (e, branch) = element_of(ty, plain)?;
            Some(element(ty, e, branch))
        }
        Context::Extensions(_) => {
            let def = fhir::extension(name)?;
            let mut text = format!("**{}**: {}\n\n`{}`", def.name(), def.title(), def.url());
            if let Some(value) = def.value() {
                text.push_str(&format!("\n\n{}", types(value)));
            }
            let parts: Vec<&str> = def.parts().map(|p| p.name()).collect();
            if !parts.is_empty() {
                text.push_str(&format!("\n\nparts: {}", parts.join(", ")));
            }
            Some(text)
        }
        Context::Parts(def) => def.part(name).map(|p| format!("**{name}** of {}: {}", def.name(), types(p.value()))),
        Context::Lists(ty) => ty.and_then(|t| Some(element(t, t.element(name)?, None))),
        Context::Draft(_, place) if name.starts_with('$') => find(OWN, name).filter(|k| k.allowed(place)).map(|k| format!("**{}**: {}", k.name, k.meaning)),
        Context::Draft(..) => {
            let last = name.rsplit_once('.').map(|(_, last)| last).filter(|last| last.starts_with(|c: char| c.is_ascii_uppercase()));
            let v2 = &view.assist.index.v2;
            path(name, &[], v2)
                .or_else(|| path(last?, &[], v2))
                .or_else(|| (name.len() > 3 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).then(|| format!("**{name}**: a group of the message")))
        }
        Context::Question(_) if name.starts_with('$') => find(OWN, name).map(|k| format!("**{}**: {}", k.name, k.meaning)),
        Context::Question(ty) => {
            let plain = name.split(':').next().unwrap_or(name);
            fhir::search_parameters(ty?.name()).into_iter().find(|p| p.name == plain).map(parameter)
        }
        Context::Types => fhir::type_named(name).map(|t| format!("**{name}**: {}", t.short())),
        _ => None,
    }
}

fn value(view: &View<'_>, section: &Section, n: usize, at: usize) -> Option<Hover> {
    let entry = view.outline.entry(n)?;
    if at < entry.value.start || at > entry.value.end {
        return None;
    }
    let chain = view.outline.chain(n);
    let wanted = view.wanted(&section.roots, &chain);
    let text = view.part(&entry.value);
    if entry.quote == Quote::Quoted {
        if let Wanted::Element(e, _) = wanted {
            return code(e, text).map(|text| Hover { range: entry.value.clone(), text });
        }
        return table_name(text).map(|text| Hover { range: entry.value.clone(), text });
    }
    let here = at - entry.value.start;
    let absolute = |r: &Range<usize>| entry.value.start + r.start..entry.value.start + r.end;
    let mut current = view.current(&section.roots, &chain);
    if let Some(open) = words::string_start(text, here) {
        let end = text.get(open..).and_then(|t| t.find('"')).map_or(text.len(), |n| open + n);
        let inside = text.get(open..end)?;
        let found = match text.get(..open).and_then(words::compared) {
            Some(path) => match words::type_of(path, &current, &view.assist.index.v2)? {
                Ty::V2 { table: Some(table), .. } => {
                    hl7v2::newest_table(table).and_then(|t| t.display(inside).map(|d| format!("**{inside}**: {d}\n\nv2 table {table}, {}", t.name())))
                }
                _ => None,
            },
            None => match wanted {
                Wanted::Element(e, _) => code(e, inside),
                _ => None,
            },
        };
        return found.map(|text| Hover { range: absolute(&(open..end)), text });
    }
    if let Some((path, _)) = text.get(..here).and_then(|t| t.rsplit_once(" where ")) {
        let from = words::start(path, path.len());
        if let Some(ty) = path.get(from..).and_then(|p| words::type_of(p, &current, &view.assist.index.v2)) {
            current.insert(0, ty);
        }
    }
    let range = words::around(text, here);
    let word = text.get(range.clone())?.trim_matches(['[', ']']);
    let before = words::before(text, range.start);
    let (found, range) = match before {
        "via" => (view.assist.index.named("table", word.split('.').next()?).next_back().map(table), range),
        "in" if view.assist.index.named("table", word).next().is_some() => (view.assist.index.named("table", word).next_back().map(table), range),
        "as" => (head_word(view, word), range),
        _ if text.get(range.end..).is_some_and(|t| t.starts_with('(')) => (function(word), range),
        _ if word.starts_with('$') => (variable(view, section, &chain, word), range),
        _ if word.starts_with(|c: char| c.is_ascii_uppercase()) => {
            let cut = cut(word, here - range.start.min(here));
            let found = match wanted {
                Wanted::Head => head_word(view, word),
                Wanted::Key(k) if matches!(k.name, "$map" | "type" | "after") => head_word(view, word),
                _ => path(word.get(..cut).unwrap_or(word), &current, &view.assist.index.v2),
            };
            (found.or_else(|| head_word(view, word)), range.start..range.start + cut)
        }
        _ => match wanted {
            Wanted::Key(k) if matches!(k.name, "from") && table_name(word).is_some() => (table_name(word), range),
            Wanted::Key(k) if matches!(k.name, "to") => (value_set(word), range),
            _ => (KEYWORDS.iter().find(|(k, _)| *k == word).map(|(k, meaning)| format!("**{k}**: {meaning}")), range),
        },
    };
    found.map(|text| Hover { range: absolute(&range), text })
}

/// Where the part of a path ends that the cursor is on: in `PID-3.4.1`, on the 4, behind the 4.
fn cut(word: &str, here: usize) -> usize {
    let rest = word.get(here.min(word.len())..).unwrap_or("");
    let next = rest.find(['.', '-']).map_or(word.len(), |n| here + n);
    // On the segment's own name that name alone is asked for.
    if next == 0 { word.len() } else { next }
}

fn variable(view: &View<'_>, section: &Section, chain: &[usize], word: &str) -> Option<String> {
    let name = word.trim_start_matches('$').split('.').next()?;
    let (_, how) = view.variables(&section.roots, chain).into_iter().find(|(n, _)| n == name)?;
    Some(if how == "$takes" { format!("**${name}**: told by whoever calls this map (`$takes`)") } else { format!("**${name}**: named by `$let`") })
}

fn function(name: &str) -> Option<String> {
    let f = FUNCTIONS.iter().find(|f| f.name == name)?;
    Some(format!("```\n{}\n```\n{}\n\nexample: `{}`", f.signature, f.meaning, f.example))
}

/// A type, segment or map by name.
fn head_word(view: &View<'_>, word: &str) -> Option<String> {
    let plain = word.split('-').next()?;
    if let Some(ty) = fhir::type_named(plain) {
        return Some(format!("**{}** (FHIR R4): {}", ty.name(), ty.short()));
    }
    path(plain, &[], &view.assist.index.v2)
}

/// A v2 path.
fn path(word: &str, current: &[Ty], v2: &V2Types) -> Option<String> {
    let (head, last) = match word.rfind(['.', '-']) {
        Some(n) => (word.get(..n)?, word.get(n + 1..)?),
        None => (word, ""),
    };
    let number = last.split('[').next()?.parse::<u16>().ok();
    match (words::type_of(head, current, v2), number) {
        (Some(Ty::Segment(name)), Some(n)) => v2.field(name, n).map(|facts| field(name, n, &facts)),
        (Some(Ty::V2 { datatype, .. }), Some(n)) => v2.component(datatype, n).map(|facts| component(datatype, n, &facts)),
        _ => match words::type_of(word, current, v2)? {
            Ty::Segment(name) => Some(match hl7v2::newest_segment(name) {
                Some(s) => format!("**{name}**: {}\n\n{} fields in the newest version that has it", s.name(), s.field_count()),
                None => format!("**{name}**: a segment of this site"),
            }),
            Ty::V2 { datatype, .. } => Some(datatype_text(datatype)),
            _ => None,
        },
    }
}

fn datatype_text(datatype: &str) -> String {
    let Some(def) = hl7v2::newest_datatype(datatype) else { return format!("**{datatype}**: a data type of this site") };
    let parts: Vec<String> = (1..=def.component_count()).filter_map(|n| def.component(n).map(|c| format!("{n} {}", c.name()))).take(CODES_SHOWN).collect();
    if parts.is_empty() { format!("**{datatype}**: {}", def.name()) } else { format!("**{datatype}**: {}\n\n{}", def.name(), parts.join(" · ")) }
}

/// `CX, repeats, table 0203`.
pub(super) fn field_shape(segment: &str, n: u16, facts: &FieldType) -> String {
    let name = words::field_of(segment, n).map_or("", |f| f.name());
    shape_of(facts, name)
}

pub(super) fn component_shape(datatype: &str, n: u16, facts: &FieldType) -> String {
    let name = words::component_of(datatype, n).map_or("", |f| f.name());
    shape_of(facts, name)
}

fn shape_of(facts: &FieldType, name: &str) -> String {
    let repeats = if facts.repeats { "*" } else { "" };
    format!("{name}: {}{repeats}", facts.datatype).trim_start_matches(": ").to_owned()
}

/// A field as the standard has it.
pub(super) fn field(segment: &str, n: u16, facts: &FieldType) -> String {
    let def = words::field_of(segment, n);
    described(&format!("{segment}-{n}"), def, facts)
}

/// A component as the standard has it.
pub(super) fn component(datatype: &str, n: u16, facts: &FieldType) -> String {
    described(&format!("{datatype}.{n}"), words::component_of(datatype, n), facts)
}

fn described(path: &str, def: Option<hl7v2::FieldDef>, facts: &FieldType) -> String {
    let type_name = hl7v2::newest_datatype(facts.datatype).map_or("", |d| d.name());
    let mut text = format!("**{path}**: {}\n\n{}", def.map_or("of this site", |d| d.name()), facts.datatype);
    if !type_name.is_empty() {
        text.push_str(&format!(" ({type_name})"));
    }
    text.push_str(if facts.repeats { ", repeats" } else { ", once" });
    if let Some(def) = def {
        text.push_str(match def.usage() {
            hl7v2::Usage::Required => ", required",
            hl7v2::Usage::Optional => ", optional",
            hl7v2::Usage::Conditional => ", conditional",
            hl7v2::Usage::Backward => ", kept for older senders",
            hl7v2::Usage::Withdrawn => ", withdrawn",
        });
    }
    if let Some(table) = facts.table.and_then(table_name) {
        text.push_str(&format!("\n\n{table}"));
    }
    text
}

/// `table 0001, Administrative Sex: F Female · M Male · ...`.
fn table_name(id: &str) -> Option<String> {
    let table = hl7v2::newest_table(id)?;
    let codes: Vec<String> = table.codes().take(CODES_SHOWN).map(|(code, display)| format!("`{code}` {display}")).collect();
    let more = table.codes().nth(CODES_SHOWN).map_or("", |_| " · …");
    Some(if codes.is_empty() { format!("table {id}, {}", table.name()) } else { format!("table {id}, {}: {}{more}", table.name(), codes.join(" · ")) })
}

fn value_set(name: &str) -> Option<String> {
    let set = fhir::value_set(name)?;
    let codes: Vec<String> = set.codes().take(CODES_SHOWN).map(|(_, code, display)| format!("`{code}` {display}")).collect();
    let more = set.codes().nth(CODES_SHOWN).map_or("", |_| " · …");
    Some(format!("**{}**\n\n`{}`\n\n{}{more}", set.name(), set.url(), codes.join(" · ")))
}

/// A code of the value set that is bound there.
fn code(element: Element, text: &str) -> Option<String> {
    let binding = element.binding()?;
    let plain = text.rsplit('|').next()?;
    let (system, display) = binding.value_set.find(plain)?;
    Some(format!("**{plain}**: {display}\n\n`{system}`"))
}

/// A table of the site or a shipped one.
pub(super) fn table(doc: &Doc) -> String {
    let mut text = format!("table **{}**: {} codes", doc.name, doc.rows);
    if !doc.from.is_empty() {
        text.push_str(&format!(", from v2 table {}", doc.from.trim_matches(['[', ']'])));
    }
    if !doc.to.is_empty() {
        text.push_str(&format!(", to {}", doc.to));
    }
    if !doc.columns.is_empty() {
        text.push_str(&format!("; columns {}", doc.columns.join(", ")));
    }
    text
}

/// `0..*, HumanName`.
pub(super) fn shape(e: Element) -> String {
    let most = e.max().map_or("*".to_owned(), |n| n.to_string());
    let types: Vec<&str> = e.types().take(4).map(Type::name).collect();
    let more = if e.types().count() > 4 { " or more" } else { "" };
    format!("{}..{most}, {}{more}", e.min(), types.join(" or "))
}

/// A search parameter.
pub(super) fn parameter(p: fhir::SearchParameter) -> String {
    let targets: Vec<&str> = p.targets().collect();
    let to = if targets.is_empty() { String::new() } else { format!(" to {}", targets.join(", ")) };
    format!("**{}**: a search parameter, {}{to}", p.name, p.kind)
}

fn types(e: Element) -> String {
    let mut text = e.types().map(Type::name).collect::<Vec<_>>().join(" or ");
    let targets: Vec<&str> = e.targets().collect();
    if !targets.is_empty() {
        text.push_str(&format!(" to {}", targets.join(", ")));
    }
    text
}

/// A FHIR element with what its definition says.
pub(super) fn element(ty: Type, e: Element, branch: Option<Type>) -> String {
    let most = e.max().map_or("*".to_owned(), |n| n.to_string());
    let kind = branch.map_or_else(|| types(e), |t| t.name().to_owned());
    let name = branch.map_or(e.name(), |b| e.json_name(b));
    let mut text = format!("**{}.{name}**: {}\n\n{}..{most}, {kind}", ty.name(), e.short(), e.min());
    if let Some(binding) = e.binding() {
        let strength = match binding.strength {
            Strength::Required => "required",
            Strength::Extensible => "extensible",
            Strength::Preferred => "preferred",
            Strength::Example => "example",
        };
        let set = binding.value_set;
        let codes: Vec<&str> = set.codes().take(CODES_SHOWN).map(|(_, code, _)| code).collect();
        let more = if set.codes().count() > CODES_SHOWN { " …" } else { "" };
        text.push_str(&format!("\n\nbinding ({strength}): {}", set.name()));
        if !codes.is_empty() {
            text.push_str(&format!(": {}{more}", codes.join(" ")));
        }
    }
    if e.is_modifier() {
        text.push_str("\n\nchanges the meaning of what stands around it");
    }
    text
}
