//! What becomes of one message, as the daemon would have it: the acknowledgement, the routes that take it, and what they make.

use crate::cli::answers::{Canned, Source};
use crate::cli::test_messages;
use crate::diagnostic::suggest;
use crate::engine::{Door, judge};
use crate::exchange::{MessageId, Phi, Timestamp};
use crate::fhir::{Answers, statements};
use crate::hl7v2::{Fault, Message, ParseOptions, Tolerate, Validation};
use crate::journal::Disposition;
use crate::route::{Context, Finding, Output, RouteId, RouteSet, Stop};
use crate::site::{ListenerSite, Unrouted};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::panic::AssertUnwindSafe;

/// Where and when a message is taken to come in.
#[derive(Clone)]
pub(crate) struct Arrival {
    /// The listener's name; empty where there is no site: then `from:` in routes does not count.
    pub(crate) listener: String,
    pub(crate) zone: Option<String>,
    pub(crate) authority: Option<String>,
    /// How it is read.
    pub(crate) options: ParseOptions,
    pub(crate) tolerate: Tolerate,
    pub(crate) validate: Option<Validation>,
    pub(crate) unrouted: Unrouted,
    pub(crate) frame_bytes_max: usize,
    pub(crate) received: Timestamp,
    pub(crate) message: MessageId,
    /// Answers to the routes' questions.
    pub(crate) answers: Option<Canned>,
}

impl Arrival {
    /// At a listener of the site, or nowhere in particular.
    pub(crate) fn at(listener: Option<&ListenerSite>) -> Self {
        Self {
            listener: listener.map(|l| l.socket.name.to_string()).unwrap_or_default(),
            zone: listener.and_then(|l| l.zone.clone()),
            authority: listener.and_then(|l| l.authority.clone()),
            options: listener.map(ListenerSite::parse_options).unwrap_or_default(),
            tolerate: listener.map(|l| l.tolerate).unwrap_or_default(),
            validate: listener.and_then(|l| l.validate.clone()),
            unrouted: listener.map_or(Unrouted::Accept, |l| l.unrouted),
            frame_bytes_max: listener.map_or(usize::MAX, |l| l.socket.frame_bytes_max),
            received: Timestamp(0),
            message: MessageId(1),
            answers: None,
        }
    }

    /// The same as a route sees it, with what its questions found.
    pub(crate) fn context<'c>(&'c self, answers: &'c Answers) -> Context<'c> {
        Context {
            received: self.received,
            zone: self.zone.as_deref(),
            authority: self.authority.as_deref(),
            message: self.message,
            listener: &self.listener,
            answers,
        }
    }
}

/// What became of it.
pub(crate) struct Ran {
    /// True if it is an acknowledgement, which gets none.
    pub(crate) answers: bool,
    /// Why it is refused.
    pub(crate) fault: Option<Fault>,
    /// What it does against what its listener holds it to.
    pub(crate) invalid: Vec<Fault>,
    pub(crate) disposition: Disposition,
    /// `None` if it cannot be read.
    pub(crate) message: Option<Phi<Message>>,
    /// Each route that takes it, in the order of the set, and what it made.
    pub(crate) routes: Vec<(RouteId, Result<Output, Stop>)>,
    /// What the questions of each of them found.
    pub(crate) found: Vec<Answers>,
}

/// Judges the message as intake does, and runs the routes that take it; or those of `only`, whether they match or not.
pub(crate) fn run(bytes: &Bytes, arrival: &Arrival, set: &RouteSet, only: Option<&[RouteId]>) -> Ran {
    let door = Door {
        listener: &arrival.listener,
        options: arrival.options,
        tolerate: arrival.tolerate,
        validate: arrival.validate.as_ref(),
        unrouted: arrival.unrouted,
        frame_bytes_max: arrival.frame_bytes_max,
        wide: true,
    };
    let verdict = judge(bytes, bytes.len() > arrival.frame_bytes_max, &door, set);
    let mut source = arrival.answers.clone().map_or(Source::Nobody, Source::Canned);
    let (mut routes, mut found) = (Vec::new(), Vec::new());
    if let Some(message) = &verdict.message {
        for route in only.unwrap_or(&verdict.taken) {
            let answers = source.answers(set, *route, message.expose(), &arrival.context(Answers::NONE));
            routes.push((*route, make(set, *route, message.expose(), &arrival.context(&answers))));
            found.push(answers);
        }
    }
    Ran { answers: verdict.answers, fault: verdict.fault, invalid: verdict.invalid, disposition: verdict.disposition, message: verdict.message, routes, found }
}

/// A panic is a defect of Kiln and must not end what looks at a thousand messages.
fn make(set: &RouteSet, route: RouteId, message: &Message, context: &Context<'_>) -> Result<Output, Stop> {
    std::panic::catch_unwind(AssertUnwindSafe(|| set.run(route, message, context))).unwrap_or_else(|_| {
        let text = "a defect in kiln: the run of the route panicked; standard error names the place".to_owned();
        Err(Stop { kind: "defect", text, places: Vec::new(), unknown: Vec::new(), line: String::new() })
    })
}

impl Ran {
    /// `"AA"`, `"none"`, or `{ code, err: [{ code, at }] }`.
    pub(crate) fn ack(&self) -> Value {
        match &self.fault {
            _ if self.answers => json!("none"),
            None if !self.invalid.is_empty() => {
                let err: Vec<Value> = self.invalid.iter().map(|fault| json!({ "code": fault.code, "at": fault.location.path() })).collect();
                json!({ "code": "AE", "err": err })
            }
            None => json!("AA"),
            Some(fault) => json!({ "code": "AR", "err": [{ "code": fault.code, "at": fault.location.path() }] }),
        }
    }

    /// The shape that expectations have: `ack`, `disposition`, and what each route made.
    pub(crate) fn told(&self, set: &RouteSet) -> Map<String, Value> {
        let mut told = Map::new();
        told.insert("ack".to_owned(), self.ack());
        told.insert("disposition".to_owned(), json!(crate::cli::journal::disposition_word(&self.disposition)));
        let of_route = |((route, made), found): (&(RouteId, Result<Output, Stop>), &Answers)| {
            let mut outcome = outcome(made, set.info(*route).messages);
            if let (false, Ok(_), Value::Object(object)) = (found.entries.is_empty(), made, &mut outcome) {
                let asked = found.entries.iter().map(|entry| {
                    let what = entry.answer.as_ref().map_or_else(|| "not asked".to_owned(), |(question, _)| question.written());
                    json!(format!("{}: {what}", entry.name))
                });
                object.insert("asked".to_owned(), asked.collect());
            }
            (set.info(*route).name.to_string(), outcome)
        };
        let routes = self.routes.iter().zip(&self.found).map(of_route).collect();
        told.insert("routes".to_owned(), Value::Object(routes));
        told
    }
}

/// `{ saves, findings }`, of a route with `message:` `{ messages, findings }`; or `{ stop: { kind, fields } }`. Sentences are left out: they may be worded better one day.
fn outcome(made: &Result<Output, Stop>, messages: bool) -> Value {
    match made {
        Ok(output) => {
            let mut findings: Vec<String> = Vec::new();
            for one in output.findings.iter().map(finding) {
                // Two lines that read one field notice the same.
                if !findings.contains(&one) {
                    findings.push(one);
                }
            }
            match messages {
                true => json!({ "messages": test_messages::statements(&output.drafts), "findings": findings }),
                false => json!({ "saves": statements(&output.saves), "findings": findings }),
            }
        }
        Err(stop) => json!({ "stop": { "kind": stop.kind, "fields": stop.places } }),
    }
}

/// `conversion at PID-7`.
pub(crate) fn finding(f: &Finding) -> String {
    format!("{} at {}", f.kind, f.place)
}

/// The route of that name, or a sentence that says which there are.
pub(crate) fn named(set: &RouteSet, name: &str) -> Result<RouteId, String> {
    set.named(name).ok_or_else(|| {
        let names: Vec<_> = set.routes().map(|(_, r)| &*r.name).collect();
        let near = suggest(name, names.iter().copied()).map_or_else(|| format!("there are {}", names.join(", ")), |n| format!("did you mean {n}?"));
        format!("there is no route {name}; {near}")
    })
}
