//! The JSON of `kiln explain`: shapes of their own, so that a change inside never changes what scripts read.

use crate::cli::explain_subject::Run;
use crate::cli::explain_why::Why;
use crate::fhir::Answered;
use crate::hl7v2::{Address, Message, Part};
use crate::route::{ElementLineage, Finding, Spot, Stage, Step, Stop, Use};
use serde_json::{Value, json};

/// A v2 place with its content.
pub(crate) fn place(message: &Message, address: &Address, part: Part) -> Value {
    json!({ "place": address.to_string(), "name": address.standard_name(), "text": message.text(part), "start": part.start, "end": part.end })
}

/// A place in a route file, with the line's text.
pub(crate) fn spot(run: &Run, at: &Spot) -> Value {
    json!({ "file": at.file(), "line": at.line_number(), "column": at.column, "source": run.quote(at) })
}

/// An element with everything about it.
pub(crate) fn element(run: &Run, message: &Message, element: &ElementLineage) -> Value {
    let from: Vec<_> = element.from.iter().map(|(address, part)| place(message, address, *part)).collect();
    let stages: Vec<_> = element.stages.iter().map(|s| stage(run, s)).collect();
    json!({ "path": element.path, "value": element.value, "from": from, "stages": stages })
}

fn stage(run: &Run, stage: &Stage) -> Value {
    let steps: Vec<_> = stage.steps.iter().map(step).collect();
    json!({ "map": &*stage.map, "at": stage.at.as_ref().map(|at| spot(run, at)), "place": stage.place.as_ref().map(ToString::to_string), "steps": steps })
}

/// What happened on the way.
pub(crate) fn step(step: &Step) -> Value {
    match step {
        Step::Condition { text, holds, at } => json!({ "kind": "condition", "text": text, "holds": holds, "at": at.to_string() }),
        Step::Asked { name, found } => json!({ "kind": "asked", "question": name, "found": found }),
        Step::Otherwise => json!({ "kind": "otherwise" }),
        Step::Table { table, code, found, unmapped } => json!({ "kind": "table", "table": &**table, "code": code, "found": found, "unmapped": unmapped }),
        Step::System { sent, uri } => json!({ "kind": "system", "sent": sent, "uri": uri }),
        Step::Converted(text) => json!({ "kind": "converted", "text": text }),
        Step::Failed(text) => json!({ "kind": "failed", "text": text }),
        Step::Map(map) => json!({ "kind": "map", "map": &**map }),
        Step::Refers { name, save } => json!({ "kind": "refers", "resource": name, "save": save }),
        Step::Derived => json!({ "kind": "derived" }),
    }
}

/// Why something is not there.
pub(crate) fn why(run: &Run, why: &Why) -> Value {
    let steps: Vec<_> = why.steps.iter().map(step).collect();
    json!({ "text": why.text, "at": why.at.as_ref().map(|at| spot(run, at)), "steps": steps })
}

/// A finding.
pub(crate) fn finding(f: &Finding) -> Value {
    json!({ "kind": f.kind, "place": f.place, "text": f.text, "line": f.line })
}

/// Why a run made nothing.
pub(crate) fn stop(s: &Stop) -> Value {
    json!({ "kind": s.kind, "text": s.text, "places": s.places, "line": s.line })
}

/// A question, and what it found.
pub(crate) fn asked(entry: &Answered) -> Value {
    let (question, found) = entry.answer.as_ref().map_or((None, None), |(question, found)| (Some(question.written()), Some(found.matches.len())));
    json!({ "name": entry.name, "target": entry.target, "question": question, "found": found })
}

/// A use in one word.
pub(crate) fn use_word(used: Use) -> &'static str {
    match used {
        Use::Unread => "unread",
        Use::Dropped => "dropped",
        Use::Condition => "condition",
        Use::Identity => "identity",
        Use::Lost => "lost",
        Use::Deletes => "deletes",
        Use::Carried => "carried",
    }
}
