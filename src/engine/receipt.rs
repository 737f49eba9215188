//! What the journal keeps of an attempt, as JSON: where each resource is, and what the run noticed. No values of the message.

use crate::exchange::Phi;
use crate::fhir::Saves;
use crate::route::Output;
use crate::target::{Receipt, Saved, Sent, Stage};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Of a delivery that succeeded.
pub(super) fn json(receipt: &Receipt, mapped: &Output) -> String {
    let name = |entry: usize| mapped.saves.entries.get(entry).map_or("", |save| save.name.as_str());
    let saved: Vec<_> =
        receipt.saved.iter().map(|s| json!({ "name": name(s.entry), "type": s.resource_type, "id": s.id, "etag": s.etag, "status": s.status })).collect();
    let findings: Vec<_> = mapped.findings.iter().map(|f| json!({ "kind": f.kind, "text": f.text, "place": f.place, "line": f.line })).collect();
    if receipt.messages.is_empty() {
        return json!({ "saved": saved, "findings": findings }).to_string();
    }
    json!({ "saved": saved, "messages": receipt.messages, "findings": findings }).to_string()
}

/// The detail of an attempt that saved a part and then failed.
#[derive(Serialize, Deserialize)]
struct Partial {
    /// What was saved; the name makes it recognisable among servers' answers.
    #[serde(rename = "kiln-saved")]
    saved: Vec<PartialSaved>,
    /// How far messages have come; absent in what an earlier version wrote.
    #[serde(rename = "kiln-sent", default, skip_serializing_if = "Vec::is_empty")]
    sent: Vec<PartialSent>,
    /// What the server said.
    answer: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PartialSaved {
    entry: usize,
    id: String,
    etag: Option<String>,
    status: u16,
}

#[derive(Serialize, Deserialize)]
struct PartialSent {
    message: usize,
    control_id: String,
    code: String,
    /// `done`, `open`, or until when the application acknowledgement is awaited, in ms since 1970.
    stage: String,
}

/// Adds what was saved to what the server said, so that the next attempt, also after a restart, does not save it again.
pub(super) fn with_partial(answer: Option<Phi<String>>, saved: &[Saved], sent: &[Sent]) -> Option<Phi<String>> {
    if saved.is_empty() && sent.is_empty() {
        return answer;
    }
    let saved = saved.iter().map(|s| PartialSaved { entry: s.entry, id: s.id.clone(), etag: s.etag.clone(), status: s.status }).collect();
    let stage = |stage| match stage {
        Stage::Done => "done".to_owned(),
        Stage::Open => "open".to_owned(),
        Stage::Awaited(until) => until.to_string(),
    };
    let sent = sent.iter().map(|s| PartialSent { message: s.draft, control_id: s.control_id.clone(), code: s.code.clone(), stage: stage(s.stage) }).collect();
    let partial = Partial { saved, sent, answer: answer.map(Phi::into_exposed) };
    Some(Phi::new(serde_json::to_string(&partial).expect("strings and numbers always become JSON")))
}

/// What [`with_partial`] wrote; nothing for any other detail.
pub(super) fn read_partial(detail: &str, saves: &Saves) -> Vec<Saved> {
    let Ok(partial) = serde_json::from_str::<Partial>(detail) else { return Vec::new() };
    let of_entry = |s: PartialSaved| {
        let resource_type = saves.entries.get(s.entry)?.resource_type;
        Some(Saved { entry: s.entry, resource_type, id: s.id, etag: s.etag, status: s.status })
    };
    partial.saved.into_iter().filter_map(of_entry).collect()
}

/// How far messages had come, as [`with_partial`] wrote it; nothing for any other detail.
pub(super) fn read_sent(detail: &str) -> Vec<Sent> {
    let Ok(partial) = serde_json::from_str::<Partial>(detail) else { return Vec::new() };
    let read = |s: PartialSent| {
        let stage = match s.stage.as_str() {
            "done" => Stage::Done,
            until => until.parse().map_or(Stage::Open, Stage::Awaited),
        };
        Sent { draft: s.message, control_id: s.control_id, code: s.code, stage }
    };
    partial.sent.into_iter().map(read).collect()
}
