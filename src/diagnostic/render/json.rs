//! One JSON object per diagnostic. Its shape is its own, so that an inner rename never breaks a script.

use crate::diagnostic::render::word;
use crate::diagnostic::{Diagnostic, Sources, Span};
use serde_json::{Value, json};

pub(super) fn write(out: &mut String, sources: &Sources, diagnostic: &Diagnostic) {
    let mut object = json!({
        "code": diagnostic.code,
        "severity": word(diagnostic.severity),
        "message": diagnostic.message,
    });
    let related: Vec<Value> = diagnostic
        .related
        .iter()
        .map(|(span, text)| {
            let mut there = place(sources, *span);
            there["text"] = json!(text);
            there
        })
        .collect();
    if let (Value::Object(object), Value::Object(place)) = (&mut object, place(sources, diagnostic.span)) {
        object.extend(place);
        object.insert("label".to_owned(), json!(diagnostic.label));
        object.insert("help".to_owned(), json!(diagnostic.help));
        object.insert("fix".to_owned(), json!(diagnostic.fix));
        let edits: Vec<Value> = diagnostic
            .repair(sources)
            .into_iter()
            .map(|(span, text)| {
                let certain = diagnostic.certain_repair(sources).is_some();
                json!({ "file": sources.path(span.source), "start": span.start, "end": span.end, "text": text, "certain": certain })
            })
            .collect();
        object.insert("edits".to_owned(), Value::Array(edits));
        object.insert("related".to_owned(), Value::Array(related));
    }
    out.push_str(&object.to_string());
}

/// Lines and columns count from 1 and characters; `start` and `end` are bytes from 0.
fn place(sources: &Sources, span: Span) -> Value {
    let (line, column) = sources.line_column(span);
    let (end_line, end_column) = sources.line_column(Span { start: span.end, ..span });
    json!({
        "file": sources.path(span.source), "line": line, "column": column, "end_line": end_line, "end_column": end_column, "start": span.start, "end": span.end,
    })
}
