//! Answers in the protocol's JSON.

use crate::cli::lsp::place::{Units, uri_of};
use crate::cli::lsp::project::Project;
use crate::diagnostic::{Diagnostic, Severity, Sources, Span, title};
use crate::route::{Suggestion, SuggestionKind};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;

fn bytes(span: Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

/// A diagnostic; places in other files are named by `uri`.
pub(super) fn diagnostic(d: &Diagnostic, sources: &Sources, units: Units, uri: &dyn Fn(Span) -> Option<String>) -> Value {
    let text = sources.text(d.span.source);
    let mut message = d.message.clone();
    if !d.label.is_empty() {
        message.push_str(&format!(" ({})", d.label));
    }
    if let Some(help) = &d.help {
        message.push_str(&format!("\nhelp: {help}"));
    }
    let related: Vec<Value> = d
        .related
        .iter()
        .filter_map(|(span, said)| {
            let range = units.range(sources.text(span.source), &bytes(*span));
            Some(json!({ "location": { "uri": uri(*span)?, "range": range }, "message": said }))
        })
        .collect();
    let mut value = json!({
        "range": units.range(text, &bytes(d.span)),
        "severity": if d.severity == Severity::Error { 1 } else { 2 },
        "code": d.code,
        "source": "kiln",
        "message": message,
    });
    if !related.is_empty()
        && let Some(map) = value.as_object_mut()
    {
        map.insert("relatedInformation".to_owned(), json!(related));
    }
    value
}

/// Completion items, in the order given.
pub(super) fn completion(list: &[Suggestion], text: &str, at: usize, units: Units) -> Value {
    let items: Vec<Value> = list
        .iter()
        .enumerate()
        .map(|(n, s)| {
            let kind = match s.kind {
                SuggestionKind::Element => 10,
                SuggestionKind::Key | SuggestionKind::Keyword => 14,
                SuggestionKind::Path => 5,
                SuggestionKind::Function => 3,
                SuggestionKind::Name => 18,
                SuggestionKind::Code => 12,
            };
            // An edit stays on one line.
            let replaces = if text.get(s.replaces.clone()).is_some_and(|t| t.contains('\n')) { at..at } else { s.replaces.clone() };
            let mut item = json!({
                "label": s.label, "kind": kind, "sortText": format!("{n:05}"), "filterText": s.insert.trim_end(),
                "textEdit": { "range": units.range(text, &replaces), "newText": s.insert },
            });
            if let Some(map) = item.as_object_mut() {
                if !s.detail.is_empty() {
                    map.insert("detail".to_owned(), json!(s.detail));
                }
                if !s.documentation.is_empty() {
                    map.insert("documentation".to_owned(), json!({ "kind": "markdown", "value": s.documentation }));
                }
            }
            item
        })
        .collect();
    json!({ "isIncomplete": false, "items": items })
}

/// Where something is defined.
pub(super) fn locations(spans: &[Span], project: &Project, cache: &Path, units: Units) -> Value {
    let sources = project.assist.sources();
    let found: Vec<Value> = spans
        .iter()
        .filter_map(|span| {
            let uri = uri_of(&project.path(span.source, cache)?);
            Some(json!({ "uri": uri, "range": units.range(sources.text(span.source), &bytes(*span)) }))
        })
        .collect();
    json!(found)
}

/// A code's title, for hovering over a fault.
pub(super) fn fault(d: &Diagnostic) -> String {
    format!("**{}**: {}: {}. `kiln explain {}`", d.code, title(d.code).unwrap_or(""), d.message, d.code)
}

/// The changes that diagnostics offer where they touch a range.
pub(super) fn actions(diagnostics: &[&Diagnostic], sources: &Sources, around: &Range<usize>, uri: &str, units: Units) -> Value {
    let touching = |d: &&&Diagnostic| (d.span.start as usize) <= around.end && around.start <= d.span.end as usize;
    let actions: Vec<Value> = diagnostics
        .iter()
        .filter(touching)
        .filter_map(|d| {
            let (span, text) = d.repair(sources)?;
            let edit = json!({ "range": units.range(sources.text(span.source), &bytes(span)), "newText": text });
            let cured = diagnostic(d, sources, units, &|_| None);
            Some(json!({
                "title": format!("write `{text}`"), "kind": "quickfix", "isPreferred": true, "diagnostics": [cured],
                "edit": { "changes": { uri: [edit] } },
            }))
        })
        .collect();
    json!(actions)
}
