//! `kiln journal show`: one message with everything that happened to it. Patient data is asked for here by name.

use crate::cli::Exit;
use crate::cli::explain_json;
use crate::cli::journal::{Place, disposition_painted, disposition_word, open, state_painted, state_word};
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, bytes, colour_json, err, out, paint, plain, plural, rfc3339, time};
use crate::cli::test_messages;
use crate::engine::{Complaint, Routes, answered, complaints, remake};
use crate::exchange::{Envelope, MessageId};
use crate::fhir::{Answers, display_bundle};
use crate::journal::{DeliveryRecord, DeliveryState, Disposition, JournalError, MessageRecord, OwedRecord, OwedState, Reader, ReplyRecord};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;

/// Show a message: the v2 text, its deliveries, every attempt, and the field behind what a server refuses
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal show 1042
  kiln journal show 1042 --fhir                  and what its routes make of it: the Bundle of each delivery
  kiln journal show 1042 --raw > message.hl7     the bytes as received
  kiln journal show 1042 --edited > message.hl7  the bytes as they are delivered, after the last edit
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
    /// Only the message, byte for byte, as the last edit left it
    #[arg(long, conflicts_with_all = ["json", "raw"])]
    edited: bool,
    /// What each delivery's route makes of it, by the route set that the delivery began with
    #[arg(long)]
    fhir: bool,
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
    if args.raw || args.edited {
        let bytes = if args.edited { record.content() } else { &record.envelope.bytes };
        let wrote = std::io::stdout().lock().write_all(bytes.expose());
        return if wrote.is_ok() { Exit::Done } else { Exit::CouldNot };
    }
    let reply = match reader.reply(record.id) {
        Ok(reply) => reply,
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    let makers = Makers { reader, envelope: Envelope { bytes: record.content().clone(), ..record.envelope.clone() }, sets: RefCell::default() };
    if args.json {
        out!("{}", as_json(&record, reply.as_ref(), &makers, args.fhir));
    } else {
        show(&record, &makers, args.fhir);
        reply.iter().for_each(show_reply);
    }
    Exit::Done
}

/// The route sets that made what was sent, and the message as they were given it.
struct Makers {
    reader: Reader,
    envelope: Envelope,
    sets: RefCell<BTreeMap<String, Option<Rc<Routes>>>>,
}

impl Makers {
    /// The set of a delivery: the one that it began with, else the one that was applied last. `None` if the journal has it no more.
    fn of(&self, delivery: &DeliveryRecord) -> Option<Rc<Routes>> {
        let hash = delivery.program.clone().unwrap_or_default();
        if let Some(known) = self.sets.borrow().get(&hash) {
            return known.clone();
        }
        let program = if hash.is_empty() { self.reader.applied() } else { self.reader.program(&hash) };
        let routes = program.ok().flatten().and_then(|program| Routes::unpack(&program).ok()).map(Rc::new);
        self.sets.borrow_mut().insert(hash, routes.clone());
        routes
    }

    /// What the route had been answered when it was run.
    fn answers(&self, delivery: &DeliveryRecord) -> Answers {
        self.reader.answers(delivery.id).ok().flatten().and_then(|answers| Answers::from_json(answers.expose())).unwrap_or_default()
    }

    /// What the server complains about in its last answer to a delivery that is not delivered, with the fields behind it.
    fn complaints(&self, delivery: &DeliveryRecord) -> Vec<Complaint> {
        let answered = delivery.attempts.iter().rev().find_map(|a| a.detail.as_ref()).filter(|_| delivery.state != DeliveryState::Delivered);
        let Some(detail) = answered.filter(|detail| detail.expose().contains("OperationOutcome")) else { return Vec::new() };
        self.of(delivery).map(|routes| complaints(detail.expose(), &routes, &delivery.route, &self.envelope, &self.answers(delivery))).unwrap_or_default()
    }

    /// What the route makes: resources, messages, or why nothing.
    fn made(&self, delivery: &DeliveryRecord) -> Result<Value, String> {
        let routes = self.of(delivery).ok_or("the journal does not have the route set that the delivery began with")?;
        let made = remake(&routes, &delivery.route, delivery.id.message, &self.envelope, &self.answers(delivery));
        let output = made.ok_or_else(|| format!("the route set has no route {}", delivery.route))??;
        if output.drafts.is_empty() {
            return Ok(json!({ "bundle": display_bundle(&output.saves) }));
        }
        Ok(json!({ "messages": output.drafts.iter().map(|draft| test_messages::text(&draft.bytes)).collect::<Vec<_>>() }))
    }
}

fn show_made(delivery: &DeliveryRecord, makers: &Makers) {
    match makers.made(delivery) {
        Ok(made) => {
            out!("  {}", paint(FAINT, "what its route makes:"));
            let messages = made.get("messages").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            messages.flat_map(|text| text.split('\r')).for_each(|line| out!("    {}", plain(line)));
            if let Some(bundle) = made.get("bundle") {
                out!("{}", colour_json(bundle.to_string().as_bytes()));
            }
        }
        Err(what) => out!("  {} {}", paint(WARN, "nothing can be made of it:"), plain(&what)),
    }
}

/// `the server refuses Patient.birthDate (value): it is made of PID-7, by routes/pid.yaml:12`.
fn show_complaint(complaint: &Complaint) {
    let element = complaint.element.as_deref().or(complaint.resource.as_deref()).unwrap_or("what was sent");
    out!("  {} {} ({}) {}", paint(BAD, "refused:"), paint(STRONG, &plain(element)), plain(&complaint.code), plain(&complaint.text));
    let fields: Vec<_> = complaint.fields.iter().map(ToString::to_string).collect();
    if !fields.is_empty() {
        let line = complaint.line.as_deref().map_or(String::new(), |line| format!(" by {line}"));
        out!("    it is made of {}{}", paint(NAME, &fields.join(", ")), paint(FAINT, &line));
    }
}

fn complaint_json(complaint: &Complaint) -> Value {
    let fields: Vec<_> = complaint.fields.iter().map(ToString::to_string).collect();
    json!({ "code": complaint.code, "text": complaint.text, "element": complaint.element, "resource": complaint.resource, "fields": fields, "line": complaint.line })
}

fn show(record: &MessageRecord, makers: &Makers, fhir: bool) {
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
    for edit in &record.edits {
        out!("\n{} {}", paint(STRONG, "Edited"), paint(FAINT, &format!("{} by {}", time(edit.at), plain(&edit.by))));
        show_segments(edit.bytes.expose());
    }
    for d in &record.deliveries {
        show_delivery(d);
        show_answers(&makers.answers(d));
        makers.complaints(d).iter().for_each(show_complaint);
        if fhir {
            show_made(d, makers);
        }
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
            let said = answered(detail.expose());
            let pretty = serde_json::from_str::<serde_json::Value>(&said).ok().and_then(|v| serde_json::to_string_pretty(&v).ok());
            for line in pretty.as_deref().unwrap_or(&said).lines() {
                out!("    {}", plain(line));
            }
        }
    }
}

fn as_json(record: &MessageRecord, reply: Option<&ReplyRecord>, makers: &Makers, fhir: bool) -> Value {
    let e = &record.envelope;
    let deliveries: Vec<_> = record
        .deliveries
        .iter()
        .map(|d| {
            let attempts: Vec<_> = d
                .attempts
                .iter()
                .map(|a| {
                    let detail = a.detail.as_ref().map(|d| answered(d.expose())).map(|said| serde_json::from_str(&said).unwrap_or_else(|_| json!(said)));
                    json!({ "at": rfc3339(a.at), "outcome": a.outcome, "code": a.code, "summary": a.summary, "detail": detail })
                })
                .collect();
            let complaints: Vec<_> = makers.complaints(d).iter().map(complaint_json).collect();
            let mut told = json!({ "number": d.id.number, "route": &*d.route, "target": &*d.target, "state": state_word(d.state),
                "notBefore": d.not_before.map(rfc3339), "program": d.program, "asked": asked(&makers.answers(d)), "attempts": attempts, "complaints": complaints });
            if fhir && let Some(told) = told.as_object_mut() {
                let made = makers.made(d).unwrap_or_else(|what| json!({ "fault": what }));
                told.insert("made".to_owned(), made);
            }
            told
        })
        .collect();
    let asked_of = |reply: &ReplyRecord| asked(&Answers::from_json(reply.answers.expose()).unwrap_or_default());
    let reply = reply.map(|reply| {
        json!({ "at": rfc3339(reply.at), "route": reply.route, "program": reply.program, "asked": asked_of(reply),
            "message": String::from_utf8_lossy(reply.bytes.expose()) })
    });
    let refused = match &record.disposition {
        Disposition::Refused { code, text } => json!({ "code": code, "text": text }),
        _ => Value::Null,
    };
    let edits: Vec<_> =
        record.edits.iter().map(|edit| json!({ "at": rfc3339(edit.at), "by": edit.by, "message": String::from_utf8_lossy(edit.bytes.expose()) })).collect();
    json!({
        "id": record.id.0, "received": rfc3339(e.received), "listener": &*e.listener, "peer": e.peer, "type": e.message_type,
        "sendingApplication": e.sending_application, "sendingFacility": e.sending_facility, "controlId": e.control_id.0,
        "disposition": disposition_word(&record.disposition), "refused": refused, "duplicates": record.duplicates,
        "acknowledgements": record.owed.as_ref().map(owed_json), "message": String::from_utf8_lossy(e.bytes.expose()), "edits": edits, "deliveries": deliveries,
        "reply": reply,
    })
}

fn asked(answers: &Answers) -> Vec<serde_json::Value> {
    answers.entries.iter().map(explain_json::asked).collect()
}
