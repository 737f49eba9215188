//! What the journal keeps of an attempt, as JSON: where each resource is, and what the run noticed. No values of the message.

use crate::exchange::Phi;
use crate::fhir::{Answers, Saves};
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

/// The detail of an attempt that saved a part and then failed, or whose answer speaks of entries in another order than they are saved in.
#[derive(Serialize, Deserialize)]
struct Partial {
    /// What was saved; the name makes it recognisable among servers' answers.
    #[serde(rename = "kiln-saved")]
    saved: Vec<PartialSaved>,
    /// How far messages have come; absent in what an earlier version wrote.
    #[serde(rename = "kiln-sent", default, skip_serializing_if = "Vec::is_empty")]
    sent: Vec<PartialSent>,
    /// By what it was made: only what is made in the same way again has these entries.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    made: String,
    /// The entries that the refused request held, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    about: Vec<usize>,
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

/// What a message becomes is decided by its bytes, the route set and what the route's questions found: the same mark, the same entries.
pub(super) fn mark(program: &str, message: &[u8], answers: &Answers) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(program.as_bytes()).update(message);
    if !answers.entries.is_empty() {
        hash.update(&(message.len() as u64).to_le_bytes()).update(answers.to_json().as_bytes());
    }
    hash.finalize().to_hex().chars().take(16).collect()
}

#[derive(Serialize, Deserialize)]
struct PartialSent {
    message: usize,
    control_id: String,
    code: String,
    /// `done`, `open`, or until when the application acknowledgement is awaited, in ms since 1970.
    stage: String,
}

/// Adds what was saved or sent to what the server said, so that the next attempt, also after a restart, does not do it again; and which entries
/// the answer speaks of, unless they are the first ones in their order.
pub(super) fn with_partial(answer: Option<Phi<String>>, saved: &[Saved], sent: &[Sent], about: &[usize], made: &str) -> Option<Phi<String>> {
    let in_order = about.iter().enumerate().all(|(n, entry)| n == *entry) && about.len() != 1;
    if saved.is_empty() && sent.is_empty() && (about.is_empty() || in_order) {
        return answer;
    }
    let saved = saved.iter().map(|s| PartialSaved { entry: s.entry, id: s.id.clone(), etag: s.etag.clone(), status: s.status }).collect();
    let stage = |stage| match stage {
        Stage::Done => "done".to_owned(),
        Stage::Open => "open".to_owned(),
        Stage::Awaited(until) => until.to_string(),
    };
    let sent = sent.iter().map(|s| PartialSent { message: s.draft, control_id: s.control_id.clone(), code: s.code.clone(), stage: stage(s.stage) }).collect();
    let about = if in_order { Vec::new() } else { about.to_vec() };
    let partial = Partial { saved, sent, made: made.to_owned(), about, answer: answer.map(Phi::into_exposed) };
    Some(Phi::new(serde_json::to_string(&partial).expect("strings and numbers always become JSON")))
}

/// What the server said, of what the journal keeps of an attempt.
pub fn answered(detail: &str) -> String {
    let (answer, _) = read_answer(detail);
    if answer.is_empty() { detail.to_owned() } else { answer }
}

/// What the server said, and the entries that it speaks of in the order of its request; none where they are the first ones.
pub(super) fn read_answer(detail: &str) -> (String, Vec<usize>) {
    match serde_json::from_str::<Partial>(detail) {
        Ok(partial) => (partial.answer.unwrap_or_default(), partial.about),
        Err(_) => (detail.to_owned(), Vec::new()),
    }
}

/// What [`with_partial`] wrote; nothing for any other detail, or for what was made in another way. Without a mark it may have been made in any.
fn read_made(detail: &str, made: Option<&str>) -> Option<Partial> {
    let partial = serde_json::from_str::<Partial>(detail).ok()?;
    // An earlier version did not keep it.
    (partial.made.is_empty() || made.is_none_or(|made| partial.made == made)).then_some(partial)
}

/// What [`with_partial`] wrote; nothing for any other detail, or for what was made of another message or by other routes.
pub(super) fn read_partial(detail: &str, saves: &Saves, made: &str) -> Vec<Saved> {
    let Some(partial) = read_made(detail, Some(made)) else { return Vec::new() };
    let of_entry = |s: PartialSaved| {
        let resource_type = saves.entries.get(s.entry)?.resource_type;
        Some(Saved { entry: s.entry, resource_type, id: s.id, etag: s.etag, status: s.status })
    };
    partial.saved.into_iter().filter_map(of_entry).collect()
}

/// How far messages had come, as [`with_partial`] wrote it; nothing for any other detail, or for messages that were made in another way.
pub(super) fn read_sent(detail: &str, made: Option<&str>) -> Vec<Sent> {
    let Some(partial) = read_made(detail, made) else { return Vec::new() };
    let read = |s: PartialSent| {
        let stage = match s.stage.as_str() {
            "done" => Stage::Done,
            until => until.parse().map_or(Stage::Open, Stage::Awaited),
        };
        Sent { draft: s.message, control_id: s.control_id, code: s.code, stage }
    };
    partial.sent.into_iter().map(read).collect()
}
