//! What was expected of a message beside what was made: a list of deviations, each a line.

use crate::cli::paint::{BAD, FAINT, GOOD, NAME, WARN, paint, plain};
use crate::cli::test_messages::differences;
use crate::fhir::{Aspect, Change, disagreements};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One thing that is not as expected.
#[derive(Clone, Debug)]
pub(crate) struct Deviation {
    /// The route, where it is about one.
    pub(crate) route: String,
    /// The resource: `patient (Patient)`.
    pub(crate) resource: String,
    /// `Patient.name[0].family`.
    pub(crate) place: String,
    pub(crate) change: Change,
    pub(crate) old: Option<Value>,
    pub(crate) new: Option<Value>,
}

impl Deviation {
    fn new(route: &str, place: impl Into<String>, change: Change, old: Option<Value>, new: Option<Value>) -> Self {
        Self { route: route.to_owned(), resource: String::new(), place: place.into(), change, old, new }
    }

    /// A line for people, with colours.
    pub(crate) fn line(&self) -> String {
        let place = paint(NAME, &plain(&self.place));
        match self.change {
            Change::Changed => format!("{place}: {} {} {}", paint(BAD, &shown(self.old.as_ref())), paint(FAINT, "->"), paint(GOOD, &shown(self.new.as_ref()))),
            Change::Added => format!("{} {place}{}", paint(GOOD, "+"), value_after(self.new.as_ref())),
            Change::Removed => format!("{} {place}{}", paint(BAD, "-"), value_after(self.old.as_ref())),
            Change::Reordered => format!("{} {place}: the same entries in another order", paint(WARN, "~")),
        }
    }

    /// The same without colours.
    pub(crate) fn text(&self) -> String {
        let about = [self.route.as_str(), self.resource.as_str()].iter().filter(|t| !t.is_empty()).map(|t| format!("{t}: ")).collect::<String>();
        format!("{about}{}", anstream::adapter::strip_str(&self.line()))
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let change = match self.change {
            Change::Changed => "changed",
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Reordered => "reordered",
        };
        json!({ "route": self.route, "resource": self.resource, "place": self.place, "change": change, "expected": self.old, "made": self.new })
    }
}

fn value_after(value: Option<&Value>) -> String {
    value.map_or_else(String::new, |v| format!(": {}", shown(Some(v))))
}

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 160;

/// A value in one line, cut where it is long.
pub(crate) fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    if text.chars().count() <= SHOWN_MAX {
        return plain(&text).into_owned();
    }
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    format!("{}…", plain(&cut))
}

/// Everything in which the message did not do what the case says. What the case does not say is not looked at.
pub(crate) fn compare(expected: &Map<String, Value>, made: &Map<String, Value>) -> Vec<Deviation> {
    let mut found = Vec::new();
    for key in ["ack", "disposition"] {
        if let (Some(old), Some(new)) = (expected.get(key), made.get(key))
            && normal(old) != normal(new)
        {
            found.push(Deviation::new("", key, Change::Changed, Some(told(key, old)), Some(told(key, new))));
        }
    }
    let empty = Map::new();
    let (Some(Value::Object(old)), new) = (expected.get("routes"), made.get("routes").and_then(Value::as_object).unwrap_or(&empty)) else { return found };
    for (name, a) in old {
        match new.get(name) {
            Some(b) => outcome(name, a, b, &mut found),
            None => found.push(Deviation::new(name, "the message is not taken by this route", Change::Removed, None, None)),
        }
    }
    for (name, b) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        found.push(Deviation::new(name, "the message is taken by this route, too", Change::Added, None, Some(brief(b))));
    }
    found
}

/// `"AR"` and `{ "code": "AR" }` say the same.
fn normal(ack: &Value) -> Value {
    match ack {
        Value::String(code) if code == "AA" || code == "none" => ack.clone(),
        Value::String(code) => json!({ "code": code }),
        other => other.clone(),
    }
}

/// An acknowledgement in few words: `AR 201 at MSH-9`.
fn told(key: &str, value: &Value) -> Value {
    let (true, Some(code)) = (key == "ack", value.get("code").and_then(Value::as_str)) else { return value.clone() };
    let mut text = code.to_owned();
    for fault in value.get("err").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!(
            " {} at {}",
            fault.get("code").map_or_else(String::new, Value::to_string),
            fault.get("at").and_then(Value::as_str).unwrap_or("?")
        ));
    }
    json!(text)
}

/// `makes 3 resources`, `stops: no-identity (PID-3)`.
fn brief(outcome: &Value) -> Value {
    match outcome.get("stop") {
        Some(stop) => {
            let fields: Vec<_> = stop.get("fields").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            let kind = stop.get("kind").and_then(Value::as_str).unwrap_or("?");
            json!(if fields.is_empty() { format!("stops: {kind}") } else { format!("stops: {kind} ({})", fields.join(", ")) })
        }
        None => {
            let (made, what) = outcome.get("messages").map_or((outcome.get("saves"), "resource"), |m| (Some(m), "message"));
            let count = made.and_then(Value::as_array).map_or(0, Vec::len);
            json!(format!("makes {}", crate::cli::paint::plural(count as u64, what)))
        }
    }
}

fn outcome(route: &str, old: &Value, new: &Value, found: &mut Vec<Deviation>) {
    match (old.get("stop"), new.get("stop")) {
        (None, None) => {}
        (Some(a), Some(b)) if fits(a, b) => return,
        _ if old.as_object().is_some_and(Map::is_empty) && new.get("stop").is_none() => return,
        _ => return found.push(Deviation::new(route, "outcome", Change::Changed, Some(brief(old)), Some(brief(new)))),
    }
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned();
    if let (Some(a), Some(b)) = (list(old, "saves"), list(new, "saves")) {
        saves(route, &a, &b, found);
    }
    if let (Some(a), Some(b)) = (list(old, "messages"), list(new, "messages")) {
        found.extend(differences(&a, &b).into_iter().map(|d| Deviation::new(route, d.told(), d.change, d.old, d.new)));
    }
    for (key, word) in [("findings", "finding"), ("asked", "question")] {
        let (Some(a), Some(b)) = (list(old, key), list(new, key)) else { continue };
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        a.iter().for_each(|v| *counts.entry(text(v)).or_default() -= 1);
        b.iter().for_each(|v| *counts.entry(text(v)).or_default() += 1);
        for (finding, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
            let (change, place) = (if count > 0 { Change::Added } else { Change::Removed }, format!("{word} {finding}"));
            let times = (count.abs() > 1).then(|| json!(format!("{} times", count.abs())));
            found.push(Deviation::new(route, place, change, times.clone(), times));
        }
    }
}

/// A stop without `fields` is one for whatever reason of that kind.
fn fits(expected: &Value, made: &Value) -> bool {
    ["kind", "fields"].iter().all(|key| expected.get(key).is_none_or(|v| made.get(key) == Some(v)))
}

fn saves(route: &str, old: &[Value], new: &[Value], found: &mut Vec<Deviation>) {
    for d in disagreements(old, new) {
        let place = match d.aspect {
            Aspect::Element => match d.difference.place() {
                place if place.is_empty() => d.resource_type.clone(),
                place if place.starts_with('[') => format!("{}{place}", d.resource_type),
                place => format!("{}.{place}", d.resource_type),
            },
            Aspect::Presence => d.resource_type.clone(),
            Aspect::Identity | Aspect::Save => d.difference.place(),
        };
        let mut deviation = Deviation::new(route, place, d.difference.change, d.difference.old, d.difference.new);
        deviation.resource = if d.name.is_empty() { d.resource_type } else { format!("{} ({})", d.name, d.resource_type) };
        found.push(deviation);
    }
}
