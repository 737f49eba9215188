//! The doors of the grammar: an expression, the value of `$each` and `$from`, the value of `$save`.

use crate::diagnostic::{Diagnostic, suggest};
use crate::route::expression::grammar::Parser;
use crate::route::expression::place::Places;
use crate::route::expression::words::{Fault, Word, words};
use crate::route::{Each, Expr, Save, Verb};

/// Reads an expression. `places` tells where the text stands in its file. The diagnostic is a K110.
pub(crate) fn parse(text: &str, places: &Places) -> Result<Expr, Box<Diagnostic>> {
    run(text, places, |p| {
        let expr = p.expression()?;
        p.end("an operator or the end of the expression").map_err(|fault| if p.at_comma() { fault.help(listed(text)) } else { fault })?;
        Ok(expr)
    })
}

/// How to write several values where one expression stands.
fn listed(text: &str) -> String {
    if text.contains(['(', '[', '{', '"', '#', '\n']) {
        "several values are a list: a line for each, that begins with `- `".to_owned()
    } else {
        format!("several values are a list: `[{text}]`")
    }
}

/// Reads `PATH` or `PATH by KEY`.
pub(crate) fn parse_each(text: &str, places: &Places) -> Result<Each, Box<Diagnostic>> {
    run(text, places, |p| {
        let values = p.expression()?;
        let by = if p.take_word("by") { Some(p.expression()?) } else { None };
        p.end(if by.is_some() { "the end of the grouping key" } else { "an operator, `by` or the end of the expression" })?;
        Ok(Each { values, by })
    })
}

/// The verbs of `$save` and whether each takes, needs or refuses a `by`.
const VERBS: &[(&str, Verb, By)] = &[
    ("update", Verb::Update, By::Needed),
    ("create", Verb::Create, By::Allowed),
    ("merge", Verb::Merge, By::Needed),
    ("put", Verb::Put, By::Needed),
    ("patch", Verb::Patch, By::Needed),
    ("find", Verb::Find, By::Needed),
    ("delete", Verb::Delete, By::Needed),
    ("contained", Verb::Contained, By::Refused),
    ("logical", Verb::Logical, By::Refused),
];

#[derive(Clone, Copy, PartialEq)]
enum By {
    Needed,
    Allowed,
    Refused,
}

/// Reads the value of `$save`: a verb, and for most `by EXPR` or `by [EXPR, EXPR]`.
pub(crate) fn parse_save(text: &str, places: &Places) -> Result<Save, Box<Diagnostic>> {
    run(text, places, |p| {
        let first = p.now().clone();
        let word = match &first.word {
            Word::Lower(w) => w.clone(),
            _ => String::new(),
        };
        let all = "update by, create by, create, merge by, put by, patch by, find by, delete by, contained, logical";
        let Some((name, verb, by)) = VERBS.iter().find(|(name, ..)| *name == word) else {
            let found = p.written(&first);
            let fault = Fault::new(first.range, format!("expected how to save the resource, found {found}"));
            return Err(match suggest(&word, VERBS.iter().map(|(name, ..)| *name)) {
                Some(meant) => fault.help(format!("did you mean `{meant}`? the verbs are {all}")).fix_if(meant.only()),
                None => fault.help(format!("the verbs are {all}")),
            });
        };
        p.at += 1;
        let mut save = Save { verb: *verb, by: Vec::new(), span: places.span(0..text.trim_end().len()) };
        if p.peek_word("by") && *by != By::Refused {
            p.at += 1;
            if p.take_sign("[") {
                save.by.push(p.expression()?);
                while p.take_sign(",") {
                    save.by.push(p.expression()?);
                }
                p.sign("]", "`,` or `]`")?;
            } else {
                save.by.push(p.expression()?);
            }
            p.end("an operator or the end of the identity")?;
        } else if *by == By::Needed {
            let here = p.whole();
            let found = p.written(&here);
            return Err(Fault::new(here.range, format!("expected `by` after `{name}`, found {found}"))
                .help(format!("`{name} by PID-3` says what identifies the resource at the target")));
        } else if p.peek_word("by") {
            let range = p.now().range.start..text.trim_end().len();
            return Err(Fault::new(range, format!("`{name}` has no `by`")).help("what is saved in this way has no identity of its own"));
        } else {
            p.end(if *by == By::Allowed { "`by` or the end" } else { "the end" })?;
        }
        Ok(save)
    })
}

fn run<T>(text: &str, places: &Places, rule: impl FnOnce(&mut Parser<'_>) -> Result<T, Fault>) -> Result<T, Box<Diagnostic>> {
    let read = words(text).and_then(|tokens| rule(&mut Parser { text, tokens, places, at: 0, depth: 0, links: 0 }));
    read.map_err(|fault| {
        let mut diagnostic = Diagnostic::error("K110", places.span(fault.range), fault.message);
        diagnostic.label = fault.label;
        diagnostic.help = fault.help;
        diagnostic.fix = fault.fix;
        Box::new(diagnostic)
    })
}
