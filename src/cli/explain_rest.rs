//! `kiln explain MESSAGE`: what of a message is in nothing that its routes make.

use crate::cli::Exit;
use crate::cli::explain_field::uses;
use crate::cli::explain_json as shape;
use crate::cli::explain_subject::Subject;
use crate::cli::explain_text as text;
use crate::cli::explain_why::why;
use crate::cli::paint::{FAINT, STRONG, WARN, out, paint, plain};
use crate::route::{Survey, Use, ValueUse};
use serde_json::json;

/// What Kiln itself reads of a header to store, route and acknowledge a message: no route needs to.
const OWN: [u16; 6] = [9, 10, 12, 15, 16, 18];

/// Is the value the business of a route at all? Kiln's own header fields and numbers that only count are not.
pub(crate) fn is_content(value: &ValueUse) -> bool {
    let header = value.place.segment == "MSH" && value.place.field.is_some_and(|n| OWN.contains(&n));
    !header && !value.place.is_sequence()
}

/// The sections, from the worst.
const SECTIONS: [(Use, &str, &str); 6] = [
    (Use::Unread, "unread", "Read by no route"),
    (Use::Dropped, "dropped", "Taken away by a line"),
    (Use::Condition, "conditionsOnly", "Read in conditions only"),
    (Use::Lost, "lost", "Read, but in nothing that is made"),
    (Use::Identity, "identityOnly", "In an identity only"),
    (Use::Deletes, "deletes", "Deletes an element"),
];

/// What the routes make: FHIR, messages, or both.
fn made(subject: &Subject) -> &'static str {
    let messages = |r: &crate::cli::explain_subject::Run| r.set.info(r.route).messages;
    match (subject.runs.iter().any(messages), subject.runs.iter().all(messages)) {
        (true, true) if !subject.runs.is_empty() => "the messages that are made",
        (true, _) => "FHIR or in a message that is made",
        _ => "FHIR",
    }
}

/// Explains what is left.
pub(crate) fn explain(subject: &Subject, json: bool) -> Exit {
    let values = uses(subject);
    let message = &subject.message;
    let content: Vec<&ValueUse> = values.iter().filter(|v| is_content(v)).collect();
    let carried = content.iter().filter(|v| v.used == Use::Carried).count();
    let failed = subject.runs.is_empty() || subject.runs.iter().any(|r| r.lineage.stop.is_some());
    let exit = if failed { Exit::Found } else { Exit::Done };
    if json {
        let mut told = json!({ "message": subject.name, "type": message.message_type(), "notes": subject.notes, "valued": content.len(), "carried": carried });
        if let Some(fields) = told.as_object_mut() {
            for (used, name, _) in SECTIONS {
                let places: Vec<_> = content.iter().filter(|v| v.used == used).map(|v| shape::place(message, &v.place, v.part)).collect();
                fields.insert(name.to_owned(), json!(places));
            }
            let routes: Vec<_> = subject
                .runs
                .iter()
                .map(|r| {
                    let findings: Vec<_> = r.lineage.findings.iter().map(shape::finding).collect();
                    let asked: Vec<_> = r.answers.entries.iter().map(shape::asked).collect();
                    json!({ "route": &*r.lineage.route, "asked": asked, "stop": r.lineage.stop.as_ref().map(shape::stop), "findings": findings })
                })
                .collect();
            fields.insert("routes".to_owned(), json!(routes));
        }
        out!("{told}");
        return exit;
    }
    text::heading(subject);
    let surveys: Vec<Survey> = subject.runs.iter().map(|r| r.set.survey(r.route)).collect();
    for (used, _, title) in SECTIONS {
        let there: Vec<_> = content.iter().filter(|v| v.used == used).collect();
        if there.is_empty() {
            continue;
        }
        out!("{} {}", paint(STRONG, title), paint(FAINT, &format!("({})", there.len())));
        for value in there {
            out!("  {}", text::place(message, &value.place, value.part));
            if used == Use::Unread {
                continue;
            }
            for (run, survey) in subject.runs.iter().zip(&surveys) {
                if let Some(own) = run.lineage.values.iter().find(|v| v.part == value.part && v.used == used) {
                    why(run, survey, own).iter().take(1).for_each(|w| text::reason(run, w, "      "));
                }
            }
        }
        out!("");
    }
    for run in &subject.runs {
        if !run.lineage.findings.is_empty() {
            out!("{}", paint(STRONG, &format!("Findings of route {}", run.lineage.route)));
        }
        for f in &run.lineage.findings {
            out!("  {} {}: {}  {}", paint(WARN, f.kind), plain(&f.place), plain(&f.text), paint(FAINT, &f.line));
        }
    }
    let others = values.len() - content.len();
    out!(
        "{carried} of {} values are in {} {}",
        content.len(),
        made(subject),
        paint(FAINT, &format!("({others} more: Kiln's own header fields, and numbers that only count)"))
    );
    exit
}
