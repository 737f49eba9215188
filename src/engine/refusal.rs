//! What a sender is told when a message cannot be mapped or delivered: ERR from the route's stop or the server's OperationOutcome.
//!
//! Never a value of the message and never a server's own words: only paths, codes of closed lists, and the v2 field behind an element.

use crate::engine::pacts::Refusal;
use crate::engine::{Routes, receipt};
use crate::exchange::Envelope;
use crate::fhir::{Answers, value_set};
use crate::hl7v2::{AckCode, Address, Fault, Location, Message};
use crate::route::{Context, Lineage, Outcome, ResourceLineage, RouteId, Stop};
use crate::target::Setback;
use serde_json::Value;

/// Faults that one acknowledgement names at most.
const FAULTS_MAX: usize = 10;

/// A route stopped: the message's fault.
pub(super) fn of_stop(stop: &Stop) -> Refusal {
    let code = match stop.kind {
        "required-empty" | "no-identity" => Fault::REQUIRED_FIELD_MISSING,
        "unmapped-code" => Fault::TABLE_VALUE,
        "invalid" => Fault::DATA_TYPE,
        _ => Fault::INTERNAL,
    };
    let places: Vec<Location> = stop.places.iter().filter_map(|place| location(place)).collect();
    let places = if places.is_empty() { vec![Location::default()] } else { places };
    let faults = places.into_iter().take(FAULTS_MAX).map(|place| Fault::new(place, code, stop.text.clone())).collect();
    Refusal { code: AckCode::ApplicationError, faults }
}

/// Something else stands in the way, in words without patient data. `ours`: the sender can do nothing about it.
pub(super) fn of_words(text: &str, ours: bool) -> Refusal {
    let code = if ours { AckCode::ApplicationReject } else { AckCode::ApplicationError };
    Refusal { code, faults: vec![Fault::new(Location::default(), Fault::INTERNAL, text)] }
}

/// A server refused what was made of the message. `detail` is its answer.
pub(super) fn of_answer(detail: Option<&str>, setback: &Setback, routes: &Routes, route: RouteId, envelope: &Envelope, answers: &Answers) -> Refusal {
    let issues = detail.map(issues).unwrap_or_default();
    let lineage = if issues.is_empty() { None } else { lineage(routes, route, envelope, answers) };
    let mut faults: Vec<Fault> = Vec::new();
    for issue in issues.iter().take(FAULTS_MAX) {
        let behind = lineage.as_ref().and_then(|lineage| behind(lineage, &setback.about, issue));
        let what = behind.as_ref().and_then(|behind| behind.element.as_deref()).or(issue.path.as_deref()).unwrap_or("what was made of the message");
        let text = format!("the server refuses {what} ({})", issue.code);
        let place = behind.as_ref().and_then(|behind| behind.fields.first().map(of_address)).unwrap_or_default();
        let fault = Fault::new(place, fault_code(&issue.code), text);
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() {
        faults.push(Fault::new(Location::default(), Fault::INTERNAL, setback.summary.as_str()));
    }
    Refusal { code: AckCode::ApplicationError, faults }
}

/// What a server complains about, and where it came from. Patient data: for the screen of whoever asks for the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    /// A code of FHIR's issue-type.
    pub code: String,
    /// What the server says about it.
    pub text: String,
    /// The element, such as `Patient.birthDate`, as far as the server names it.
    pub element: Option<String>,
    /// The resource's name in the route.
    pub resource: Option<String>,
    /// The v2 fields that made the element, or the nearest that holds it.
    pub fields: Vec<Address>,
    /// The line of a route file that made it.
    pub line: Option<String>,
}

/// What a server's answer to a delivery complains about: each issue with the v2 field and the line behind its element. `detail` is what the
/// journal keeps of the attempt, `envelope` the message as it was mapped, `routes` the set that mapped it.
pub fn complaints(detail: &str, routes: &Routes, route: &str, envelope: &Envelope, answers: &Answers) -> Vec<Complaint> {
    let (answer, about) = receipt::read_answer(detail);
    let found = issues(&answer);
    let route = routes.set.named(route).filter(|_| !found.is_empty());
    let lineage = route.and_then(|route| lineage(routes, route, envelope, answers));
    let complaint = |issue: &Issue| {
        let behind = lineage.as_ref().and_then(|lineage| behind(lineage, &about, issue)).unwrap_or_default();
        Complaint { code: issue.code.clone(), text: issue.text.clone(), element: behind.element.clone().or_else(|| issue.path.clone()), ..behind }
    };
    found.iter().map(complaint).collect()
}

/// What an issue of an OperationOutcome is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issue {
    /// A code of FHIR's issue-type.
    code: String,
    /// The server's own words: patient data.
    text: String,
    /// `Patient.birthDate`, without anything that could be a value.
    path: Option<String>,
    /// `name[0].family`, where the server leaves the type out because the entry says which resource it is.
    within: Option<String>,
    /// Which entry of the Bundle.
    entry: Option<usize>,
}

/// The issues that are errors, of an OperationOutcome or of the entries of a Bundle.
fn issues(text: &str) -> Vec<Issue> {
    let Ok(body) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    // With a part that was saved, the answer stands within.
    if let Some(answer) = body.get("answer").and_then(Value::as_str) {
        return issues(answer);
    }
    let entries = body.get("entry").and_then(Value::as_array).into_iter().flatten();
    let outcomes = entries.filter_map(|entry| entry.pointer("/response/outcome").or_else(|| entry.get("resource")));
    let mut found = Vec::new();
    for outcome in std::iter::once(&body).chain(outcomes).filter(|o| o.get("resourceType").and_then(Value::as_str) == Some("OperationOutcome")) {
        for issue in outcome.get("issue").and_then(Value::as_array).into_iter().flatten() {
            let word = |key: &str| issue.get(key).and_then(Value::as_str);
            if matches!(word("severity"), Some("warning" | "information")) {
                continue;
            }
            let known = |code: &&str| value_set("issue-type").is_some_and(|set| set.find(code).is_some());
            let code = word("code").filter(known).unwrap_or("invalid").to_owned();
            let written = ["expression", "location"].iter().find_map(|key| issue.get(*key)?.as_array()?.iter().find_map(Value::as_str));
            let (entry, path, within) = written.map_or((None, None, None), element_path);
            let text = word("diagnostics").or_else(|| issue.pointer("/details/text").and_then(Value::as_str)).unwrap_or("").to_owned();
            found.push(Issue { code, text, path, within, entry });
        }
    }
    found
}

/// `Bundle.entry[2].resource.ofType(Patient).name[0].family` as entry 2 and `Patient.name[0].family`; without a type, as entry 2 and, last,
/// `name[0].family`. What could hold a value ends the path.
fn element_path(written: &str) -> (Option<usize>, Option<String>, Option<String>) {
    let (mut entry, mut rest) = (None, written.trim().trim_start_matches('/'));
    if let Some((number, after)) = rest.strip_prefix("Bundle.entry[").and_then(|r| r.split_once(']')) {
        entry = number.parse().ok();
        rest = after.trim_start_matches('.').trim_start_matches("resource").trim_start_matches('.');
        // HAPI says in a comment which resource it is; servers also write `ofType(Patient)`.
        if let Some(after) = rest.strip_prefix("ofType(") {
            let (name, after) = after.split_once(')').unwrap_or((after, ""));
            return (entry, path(&format!("{name}{after}")), None);
        }
    }
    let typed = path(rest);
    let within = if typed.is_none() && entry.is_some() { Some(names(rest).join(".")).filter(|within| !within.is_empty()) } else { None };
    (entry, typed, within)
}

/// Element names and indexes, as far as there is nothing else.
fn names(written: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in written.split(['.', '/']) {
        let (name, index) = part.split_once('[').map_or((part, None), |(name, index)| (name, Some(index)));
        let plain = !name.is_empty() && name.len() <= 40 && name.chars().all(|c| c.is_ascii_alphanumeric());
        let index = index.map(|i| i.trim_end_matches(']'));
        if !plain || index.is_some_and(|i| i.len() > 4 || !i.chars().all(|c| c.is_ascii_digit())) {
            break;
        }
        parts.push(index.map_or_else(|| name.to_owned(), |i| format!("{name}[{i}]")));
    }
    parts
}

/// The same, beginning with a type: types and elements are FHIR's own words.
fn path(written: &str) -> Option<String> {
    let parts = names(written);
    let head = parts.first().map(|p| p.split('[').next().unwrap_or(p).to_owned())?;
    crate::fhir::type_named(&head)?;
    Some(parts.join("."))
}

fn lineage(routes: &Routes, route: RouteId, envelope: &Envelope, answers: &Answers) -> Option<Lineage> {
    let manner = routes.manner(&envelope.listener);
    let message = Message::parse(envelope.bytes.expose().clone(), &manner.parse_options()).ok()?;
    let context = Context {
        received: envelope.received,
        zone: manner.zone(),
        authority: manner.authority(),
        message: crate::exchange::MessageId(0),
        listener: &envelope.listener,
        answers,
    };
    Some(routes.set.lineage(route, &message, &context))
}

/// The resource that an issue is about, and the v2 fields and the line that made its element, or the nearest element around it that came from
/// the message. `about` are the entries that the request held in its order; none where they are the first ones.
fn behind(lineage: &Lineage, about: &[usize], issue: &Issue) -> Option<Complaint> {
    // A request of its own speaks of its one resource without a number.
    let entry = match (issue.entry, about) {
        (Some(n), []) => Some(n),
        (Some(n), _) => about.get(n).copied(),
        (None, [one]) => Some(*one),
        (None, _) => None,
    };
    let saved: Vec<_> = lineage.resources.iter().filter(|r| matches!(r.outcome, Outcome::Saved(_))).collect();
    let path = issue.path.as_deref();
    let resource_type = path.map(|path| path.split(['.', '[']).next().unwrap_or_default());
    let of_type = |r: &&&ResourceLineage| resource_type.is_none_or(|t| t == r.resource_type);
    let numbered = saved.iter().find(|r| matches!(r.outcome, Outcome::Saved(n) if Some(n) == entry)).filter(of_type);
    // Without a number a type says which resource it is, unless there are several of it.
    let alone = || if entry.is_none() && resource_type.is_some() && saved.iter().filter(of_type).count() == 1 { saved.iter().find(of_type) } else { None };
    let resource = numbered.or_else(alone)?;
    let path = issue.path.clone().or_else(|| {
        // Only what is an element of that type is told: anything else could be a value.
        let first = issue.within.as_deref()?.split(['.', '[']).next()?;
        let is_element = resource.elements.iter().any(|e| e.path.split('.').nth(1).and_then(|name| name.split('[').next()) == Some(first));
        is_element.then(|| format!("{}.{}", resource.resource_type, issue.within.as_deref().unwrap_or_default()))
    });
    let mut found = Complaint { resource: Some(resource.name.clone()), element: path.clone(), ..Complaint::default() };
    let bare = |path: &str| path.split('[').map(|p| p.split_once(']').map_or(p, |(_, rest)| rest)).collect::<String>();
    // With its indexes first, then without; then the element around it.
    let mut wanted = path.unwrap_or_default();
    while wanted.contains('.') {
        let within = |whole: &str, part: &str| whole == part || whole.strip_prefix(part).is_some_and(|rest| rest.starts_with(['.', '[']));
        let exact = resource.elements.iter().find(|e| !e.from.is_empty() && within(&e.path, &wanted));
        let loose = || resource.elements.iter().find(|e| !e.from.is_empty() && within(&bare(&e.path), &bare(&wanted)));
        if let Some(element) = exact.or_else(loose) {
            found.fields = element.from.iter().map(|(address, _)| address.clone()).collect();
            found.line = element.stages.iter().rev().find_map(|stage| stage.at.as_ref()).map(|at| at.line.to_string());
            return Some(found);
        }
        let Some((before, _)) = wanted.rsplit_once('.') else { break };
        wanted = before.to_owned();
    }
    Some(found)
}

fn fault_code(issue: &str) -> u16 {
    match issue {
        "required" | "not-found" => Fault::REQUIRED_FIELD_MISSING,
        "value" | "structure" => Fault::DATA_TYPE,
        "code-invalid" => Fault::TABLE_VALUE,
        "too-long" => Fault::VALUE_TOO_LONG,
        "duplicate" | "multiple-matches" => Fault::DUPLICATE_KEY,
        _ => Fault::INTERNAL,
    }
}

fn location(place: &str) -> Option<Location> {
    Address::read(place).as_ref().map(of_address)
}

fn of_address(address: &Address) -> Location {
    Location {
        segment: address.segment.clone(),
        sequence: address.occurrence.unwrap_or(1),
        field: address.field.map_or(0, u32::from),
        repetition: if address.field.is_some() { address.repetition.unwrap_or(1) } else { 0 },
        component: address.component.map_or(0, u32::from),
        subcomponent: address.subcomponent.map_or(0, u32::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_servers_write_them_and_never_a_value() {
        for (written, entry, expected) in [
            ("Patient.birthDate", None, Some("Patient.birthDate")),
            ("Patient.name[0].family", None, Some("Patient.name[0].family")),
            ("Bundle.entry[2].resource.ofType(Patient).name[0].family", Some(2), Some("Patient.name[0].family")),
            ("Bundle.entry[2].resource", Some(2), None),
            ("Bundle.entry[2].resource.name[0].family", Some(2), None),
            ("Patient.identifier.where(value='4711').system", None, Some("Patient.identifier")),
            ("/f:Patient/f:birthDate", None, None),
            ("Doe", None, None),
            ("", None, None),
        ] {
            let (found, path, _) = element_path(written);
            assert_eq!((found, path), (entry, expected.map(str::to_owned)), "{written}");
        }
        assert_eq!(element_path("Bundle.entry[2].resource.name[0].family").2.as_deref(), Some("name[0].family"));
    }

    #[test]
    fn an_outcome_becomes_issues_without_its_words() {
        let text = r#"{"resourceType":"OperationOutcome","issue":[
            {"severity":"error","code":"value","diagnostics":"Doe is not a date","expression":["Patient.birthDate"]},
            {"severity":"warning","code":"invalid"},{"severity":"fatal","code":"Doe"}]}"#;
        let found = issues(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].code.as_str(), found[0].path.as_deref()), ("value", Some("Patient.birthDate")));
        assert_eq!((found[1].code.as_str(), found[1].path.as_deref()), ("invalid", None));
    }
}
