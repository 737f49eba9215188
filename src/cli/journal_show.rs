//! `kiln journal show`: one message with everything that happened to it. Patient data is asked for here by name.

use crate::cli::Exit;
use crate::cli::explain_json;
use crate::cli::journal::{Place, disposition_painted, disposition_word, open, state_painted, state_word};
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, bytes, err, out, paint, plain, plural, rfc3339, time};
use crate::exchange::MessageId;
use crate::fhir::Answers;
use crate::journal::{DeliveryRecord, Disposition, JournalError, MessageRecord, OwedRecord, OwedState, ReplyRecord};
use serde_json::json;
use std::io::Write;

/// Show a message: the v2 text, its deliveries, every attempt
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal show 1042
  kiln journal show 1042 --raw > message.hl7     the bytes as received
  kiln journal show 1042 --json

This prints patient data.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// The message's number, from `kiln journal search`
    number: u64,
    /// Only the message, byte for byte
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Some(reader) = args.place.folder().and_then(|f| open(&f)) else { return Exit::CouldNot };
    let record = match reader.show(MessageId(args.number)) {
        Ok(record) => record,
        Err(JournalError::Missing) => {
            err!("kiln: there is no message {} in this journal", args.number);
            return Exit::Found;
        }
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    if args.raw {
        let wrote = std::io::stdout().lock().write_all(record.envelope.bytes.expose());
        return if wrote.is_ok() { Exit::Done } else { Exit::CouldNot };
    }
    let reply = match reader.reply(record.id) {
        Ok(reply) => reply,
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    let answers = |d: &DeliveryRecord| reader.answers(d.id).ok().flatten().and_then(|answers| Answers::from_json(answers.expose())).unwrap_or_default();
    if args.json {
        out!("{}", as_json(&record, reply.as_ref(), &answers));
    } else {
        show(&record, &answers);
        reply.iter().for_each(show_reply);
    }
    Exit::Done
}

fn show(record: &MessageRecord, answers: &dyn Fn(&DeliveryRecord) -> Answers) {
    let e = &record.envelope;
    let line = |name: &str, value: &str| out!("{}  {value}", paint(FAINT, &format!("{name:>10}")));
    out!("{} {}", paint(STRONG, &format!("Message {}", record.id.0)), disposition_painted(&record.disposition));
    if let Disposition::Refused { code, text } = &record.disposition {
        line("refused", &format!("{code}: {}", plain(text)));
    }
    line("received", &format!("{} from {} by {}", time(e.received), e.peer, e.listener));
    line("type", &plain(&e.message_type));
    line("sender", &format!("{} / {}", plain(&e.sending_application), plain(&e.sending_facility)));
    line("control ID", &paint(NAME, &plain(&e.control_id.0)));
    line("size", &bytes(e.bytes.expose().len() as u64));
    if record.duplicates > 0 {
        line("duplicates", &record.duplicates.to_string());
    }
    if let Some(owed) = &record.owed {
        line("accept", &accept_words(owed));
        line("result", &application_words(owed));
    }
    out!("");
    show_segments(e.bytes.expose());
    for d in &record.deliveries {
        show_delivery(d);
        show_answers(&answers(d));
    }
}

fn show_segments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for segment in text.split(['\r', '\n']).filter(|s| !s.is_empty()) {
        let (name, rest) = segment.split_at_checked(3).unwrap_or((segment, ""));
        out!("{}{}", paint(NAME, &plain(name)), plain(rest));
    }
}

/// What the sender of a question was answered.
fn show_reply(reply: &ReplyRecord) {
    out!("\n{} {}", paint(STRONG, &format!("Answered by route {}", reply.route)), paint(FAINT, &time(reply.at)));
    show_answers(&Answers::from_json(reply.answers.expose()).unwrap_or_default());
    show_segments(reply.bytes.expose());
}

/// What a route asked, and how much it found.
fn show_answers(answers: &Answers) {
    for entry in &answers.entries {
        let what = entry.answer.as_ref().map_or_else(
            || "not asked".to_owned(),
            |(question, found)| format!("{} at {}: {}", plain(&question.written()), plain(&entry.target), plural(found.matches.len() as u64, "resource")),
        );
        out!("  asked `{}`: {what}", plain(&entry.name));
    }
}

/// The accept acknowledgement of enhanced mode.
fn accept_words(owed: &OwedRecord) -> String {
    owed.accept.clone().unwrap_or_else(|| "not answered: the sender does not want it".to_owned())
}

/// The application acknowledgement of enhanced mode.
fn application_words(owed: &OwedRecord) -> String {
    let code = owed.code.clone().unwrap_or_else(|| if owed.positive == Some(false) { "AE or AR" } else { "AA" }.to_owned());
    let at = owed.at.map(|at| format!(", {}", time(at))).unwrap_or_default();
    let note = if owed.note.is_empty() { String::new() } else { format!(" ({}{at})", plain(&owed.note)) };
    match owed.state {
        OwedState::Open => "not known yet: it waits for the deliveries".to_owned(),
        OwedState::NotWanted => "not told: the sender does not want it".to_owned(),
        OwedState::Due => format!("{code}, to be told{}{note}", owed.not_before.map(|at| format!(" not before {}", time(at))).unwrap_or_default()),
        OwedState::Sent => format!("{code}, told{note}"),
        OwedState::Accepted => format!("{code}, told and accepted{note}"),
        OwedState::GivenUp => format!("{code}, given up{note}"),
    }
}

fn owed_word(state: OwedState) -> &'static str {
    match state {
        OwedState::Open => "open",
        OwedState::Due => "due",
        OwedState::NotWanted => "not-wanted",
        OwedState::Sent => "sent",
        OwedState::Accepted => "accepted",
        OwedState::GivenUp => "given-up",
    }
}

fn owed_json(owed: &OwedRecord) -> serde_json::Value {
    json!({
        "accept": owed.accept, "application": owed.code, "state": owed_word(owed.state), "positive": owed.positive, "decided": owed.decided.map(rfc3339),
        "attempts": owed.attempts, "notBefore": owed.not_before.map(rfc3339), "at": owed.at.map(rfc3339), "note": owed.note,
        "message": owed.bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes.expose()).into_owned()),
    })
}

fn show_delivery(d: &DeliveryRecord) {
    out!("\n{} {}", paint(STRONG, &format!("Delivery {} to {} by route {}", d.id.number, d.target, d.route)), state_painted(d.state));
    if let Some(at) = d.not_before {
        out!("  next attempt not before {}", time(at));
    }
    for a in &d.attempts {
        let style = match a.outcome {
            "delivered" => GOOD,
            "dead-letter" => BAD,
            _ => WARN,
        };
        let code = if a.code.is_empty() { String::new() } else { format!(" {}", paint(STRONG, &plain(&a.code))) };
        out!("  {}  {}{code}  {}", paint(FAINT, &time(a.at)), paint(style, a.outcome), plain(&a.summary));
        if let Some(detail) = &a.detail {
            let pretty = serde_json::from_str::<serde_json::Value>(detail.expose()).ok().and_then(|v| serde_json::to_string_pretty(&v).ok());
            for line in pretty.as_deref().unwrap_or(detail.expose()).lines() {
                out!("    {}", plain(line));
            }
        }
    }
}

fn as_json(record: &MessageRecord, reply: Option<&ReplyRecord>, answers: &dyn Fn(&DeliveryRecord) -> Answers) -> serde_json::Value {
    let e = &record.envelope;
    let deliveries: Vec<_> = record
        .deliveries
        .iter()
        .map(|d| {
            let attempts: Vec<_> = d
                .attempts
                .iter()
                .map(|a| {
                    let detail = a.detail.as_ref().map(|d| serde_json::from_str(d.expose()).unwrap_or_else(|_| json!(d.expose())));
                    json!({ "at": rfc3339(a.at), "outcome": a.outcome, "code": a.code, "summary": a.summary, "detail": detail })
                })
                .collect();
            json!({ "number": d.id.number, "route": &*d.route, "target": &*d.target, "state": state_word(d.state), "notBefore": d.not_before.map(rfc3339),
                "program": d.program, "asked": asked(&answers(d)), "attempts": attempts })
        })
        .collect();
    let asked_of = |reply: &ReplyRecord| asked(&Answers::from_json(reply.answers.expose()).unwrap_or_default());
    let reply = reply.map(|reply| {
        json!({ "at": rfc3339(reply.at), "route": reply.route, "program": reply.program, "asked": asked_of(reply),
            "message": String::from_utf8_lossy(reply.bytes.expose()) })
    });
    let refused = match &record.disposition {
        Disposition::Refused { code, text } => json!({ "code": code, "text": text }),
        _ => serde_json::Value::Null,
    };
    json!({
        "id": record.id.0, "received": rfc3339(e.received), "listener": &*e.listener, "peer": e.peer, "type": e.message_type,
        "sendingApplication": e.sending_application, "sendingFacility": e.sending_facility, "controlId": e.control_id.0,
        "disposition": disposition_word(&record.disposition), "refused": refused, "duplicates": record.duplicates,
        "acknowledgements": record.owed.as_ref().map(owed_json), "message": String::from_utf8_lossy(e.bytes.expose()), "deliveries": deliveries,
        "reply": reply,
    })
}

fn asked(answers: &Answers) -> Vec<serde_json::Value> {
    answers.entries.iter().map(explain_json::asked).collect()
}
