//! Lineage over every message here with the shipped routes: recording changes nothing, and what it says of a value is so.

use kiln::diagnostic::Sources;
use kiln::exchange::{MessageId, Timestamp};
use kiln::hl7v2::{Message, ParseOptions, split};
use kiln::route::{Context, ElementLineage, LoadOptions, Outcome, RouteSet, Step, Use, load};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn shipped() -> Arc<RouteSet> {
    let mut sources = Sources::default();
    for (path, text) in kiln::site::shipped() {
        sources.add_shipped(format!("shipped/{path}"), text);
    }
    load(sources, &LoadOptions::default()).set.expect("the shipped routes have no errors")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "hl7") {
            found.push(path);
        }
    }
}

fn messages() -> Vec<(String, Message)> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"), &mut found);
    let mut messages = Vec::new();
    for path in found {
        let bytes = std::fs::read(&path).expect("a file");
        for range in split(&bytes) {
            if let Ok(message) = Message::parse(bytes[range].to_vec().into(), &ParseOptions::default()) {
                messages.push((path.display().to_string(), message));
            }
        }
    }
    messages
}

fn context() -> Context<'static> {
    Context {
        received: Timestamp(1_764_000_000_000),
        zone: None,
        authority: Some("HOSP"),
        message: MessageId(1),
        listener: "test",
        answers: kiln::fhir::Answers::NONE,
    }
}

#[test]
fn a_recorded_run_makes_what_a_run_makes() {
    let (set, context) = (shipped(), context());
    let (mut runs, mut elements) = (0, 0);
    for (name, message) in messages() {
        for (route, _) in set.routes() {
            let lineage = set.lineage(route, &message, &context);
            match set.run(route, &message, &context) {
                Ok(output) => {
                    assert!(lineage.stop.is_none(), "{name}");
                    assert_eq!(lineage.findings, output.findings, "{name}");
                    let saved: Vec<_> = lineage.resources.iter().filter(|r| matches!(r.outcome, Outcome::Saved(_))).collect();
                    assert_eq!(saved.len(), output.saves.entries.len(), "{name}");
                    for resource in saved {
                        let Outcome::Saved(n) = resource.outcome else { continue };
                        let save = &output.saves.entries[n];
                        assert_eq!(save.name, resource.name);
                        let body = save.body.to_value(&|n| output.saves.entries[n].name.clone());
                        let mut there = Vec::new();
                        values(&body, resource.resource_type, &mut there);
                        let told: Vec<_> = resource.elements.iter().map(|e| (e.path.clone(), e.value.clone())).collect();
                        assert_eq!(told, there, "{name}: {}", resource.name);
                        elements += told.len();
                    }
                }
                Err(stop) => assert_eq!(lineage.stop, Some(stop), "{name}"),
            }
            runs += 1;
        }
    }
    assert!(runs > 1_000 && elements > 20_000, "{runs} runs, {elements} elements");
}

fn values(value: &serde_json::Value, path: &str, found: &mut Vec<(String, serde_json::Value)>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(n, _)| *n != "resourceType") {
                values(value, &format!("{path}.{name}"), found);
            }
        }
        serde_json::Value::Array(entries) => entries.iter().enumerate().for_each(|(n, value)| values(value, &format!("{path}[{n}]"), found)),
        leaf => found.push((path.to_owned(), leaf.clone())),
    }
}

fn plain(element: &ElementLineage) -> bool {
    element.stages.iter().flat_map(|s| &s.steps).all(|s| matches!(s, Step::Condition { .. } | Step::Otherwise | Step::Map(_) | Step::Refers { .. }))
}

/// The strongest thing that can be said: a text that nothing changed is, letter for letter, what stands at the place that is told.
#[test]
fn what_was_not_changed_is_what_was_sent() {
    let (set, context) = (shipped(), context());
    let (mut same, mut constants, mut other) = (0, 0, 0);
    let mut wrong = Vec::new();
    for (name, message) in messages() {
        for route in set.matching("test", &message).taken {
            let lineage = set.lineage(route, &message, &context);
            for resource in &lineage.resources {
                for element in &resource.elements {
                    assert!(!element.stages.is_empty(), "{name}: {} has no stage", element.path);
                    match (&element.from[..], &element.value) {
                        ([], _) => constants += 1,
                        ([(place, part)], serde_json::Value::String(value)) if plain(element) && !element.path.ends_with(".reference") && !is_time(value) => {
                            let sent = message.text(*part);
                            let (sent, value): (String, String) = (digits(&sent), digits(value));
                            if value.contains(&sent) || sent.contains(&value) {
                                same += 1
                            } else {
                                wrong.push(format!("{name}: {} is not {place}", element.path))
                            }
                        }
                        _ => other += 1,
                    }
                }
            }
            for value in lineage.values.iter().filter(|_| lineage.values.len() < 500) {
                let carried = lineage
                    .resources
                    .iter()
                    .flat_map(|r| &r.elements)
                    .filter(|e| !e.refers)
                    .flat_map(|e| &e.from)
                    .any(|(_, p)| p.start <= value.part.start && value.part.end <= p.end);
                assert!(!carried || value.used == Use::Carried, "{name}: {}", value.place);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {same}, {constants} constants, {other} others:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    assert!(same > 2_000 && constants > 1_000, "{same} values, {constants} constants, {other} others");
}

/// Messages that routes make: recording changes nothing, every value is told, and a copied one is what stands at the place that is told.
#[test]
fn each_value_of_a_message_that_is_made_has_its_lineage() {
    let mut sources = Sources::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lineage");
    for file in ["onward.yaml", "plainly.yaml"] {
        sources.add(file, std::fs::read_to_string(folder.join(file)).expect("routes"));
    }
    let loaded = load(sources, &LoadOptions::default());
    let set = loaded.set.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let context = context();
    let (mut copied, mut other, mut drafts) = (0, 0, 0);
    for (name, message) in messages() {
        for (route, info) in set.routes() {
            let lineage = set.lineage(route, &message, &context);
            let Ok(output) = set.run(route, &message, &context) else {
                assert!(lineage.stop.is_some(), "{name}");
                continue;
            };
            assert_eq!((lineage.messages.len(), &lineage.findings), (output.drafts.len(), &output.findings), "{name}");
            for (told, draft) in lineage.messages.iter().zip(&output.drafts) {
                drafts += 1;
                let made = Message::parse(draft.bytes.clone().into(), &ParseOptions { charset: Some(draft.charset), ..ParseOptions::default() })
                    .expect("what is written can be read");
                let mut there = Vec::new();
                for segment in 0..made.segment_count() {
                    let leaves = made.valued_leaves(segment).into_iter().filter(|(field, _)| segment > 0 || *field > 2);
                    there.extend(leaves.map(|(field, part)| (made.address(segment, field, part).to_string(), made.text(part).into_owned())));
                }
                let fields: Vec<_> =
                    told.fields.iter().filter(|f| f.value != "\"\"").map(|f| (f.path.clone(), f.value.as_str().expect("text").to_owned())).collect();
                assert_eq!(fields, there, "{name}: route {}", info.name);
                for field in &told.fields {
                    assert!(!field.stages.is_empty(), "{name}: {} has no stage", field.path);
                    let changed = field.stages.iter().flat_map(|s| &s.steps).any(|s| !matches!(s, Step::Condition { .. } | Step::Otherwise));
                    match (&field.from[..], field.value.as_str()) {
                        ([(_, part)], Some(value)) if !changed && *info.name != *"order" => {
                            assert!(message.text(*part) == value || message.is_null(*part), "{name}: route {}: {}", info.name, field.path);
                            copied += 1;
                        }
                        _ => other += 1,
                    }
                }
            }
            if *info.name == *"copies" {
                let lost: Vec<_> = lineage.values.iter().filter(|v| v.used != Use::Carried).map(|v| v.place.to_string()).collect();
                // A set that Kiln reads and doesn't write: MSH-18 says the one that it wrote instead.
                let written_anew = output.drafts.iter().any(|d| d.charset != message.charset());
                assert_eq!(lost, if written_anew { vec!["MSH-18"] } else { vec![] }, "{name}");
            }
        }
    }
    assert!(drafts > 500 && copied > 50_000 && other > 500, "{drafts} messages, {copied} copied, {other} others");
}

fn is_time(value: &str) -> bool {
    value.as_bytes().get(10) == Some(&b'T')
}

/// Letters and digits only.
fn digits(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}
