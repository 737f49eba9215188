//! The shipped routes, ready to run, for the tests of the maps.
#![allow(dead_code, reason = "each test reads what it needs")]

use bytes::Bytes;
use kiln::exchange::{MessageId, Timestamp};
use kiln::hl7v2::{Message, ParseOptions};
use kiln::route::{Context, LoadOptions, Output, RouteId, RouteSet, Stop, load};
use kiln::site::route_sources;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// 2026-01-15T12:00:00Z.
const RECEIVED: Timestamp = Timestamp(1_768_478_400_000);

/// What became of one message.
pub(crate) enum Fate {
    /// It is not HL7 v2.
    Unreadable(String),
    /// No shipped route takes messages of this type.
    Unrouted,
    /// A route's run; the only one, as no two shipped routes take one message.
    Made(Output),
    /// The route said why it could not.
    Stopped(Stop),
}

/// Loads what ships in the binary. The maps are only good without errors and without warnings.
pub(crate) fn shipped() -> Arc<RouteSet> {
    shipped_with(&[])
}

/// The same with shipped overlays switched on.
pub(crate) fn shipped_with(overlays: &[&str]) -> Arc<RouteSet> {
    let options = LoadOptions { overlays: overlays.iter().map(|o| (*o).to_owned()).collect(), ..LoadOptions::default() };
    let loaded = load(route_sources(&[]).expect("shipped files are text"), &options);
    let faults: Vec<String> = loaded.diagnostics.iter().map(|d| format!("{} {}: {}", d.code, loaded.sources.path(d.span.source), d.message)).collect();
    assert!(faults.is_empty(), "the shipped routes have faults:\n{}", faults.join("\n"));
    loaded.set.expect("routes without faults load")
}

/// Reads one message and runs the route that takes it.
pub(crate) fn run(set: &RouteSet, bytes: &[u8], authority: Option<&str>) -> (String, Fate) {
    let message = match Message::parse(Bytes::copy_from_slice(bytes), &ParseOptions::default()) {
        Ok(message) => message,
        Err(fault) => return (String::new(), Fate::Unreadable(fault.to_string())),
    };
    let kind = message.message_type();
    let taken: Vec<RouteId> = set.matching("test", &message).taken;
    let context =
        Context { received: RECEIVED, zone: Some("Europe/Berlin"), authority, message: MessageId(1), listener: "test", answers: kiln::fhir::Answers::NONE };
    let fate = match taken.as_slice() {
        [] => Fate::Unrouted,
        [route] => match set.run(*route, &message, &context) {
            Ok(output) => Fate::Made(output),
            Err(stop) => Fate::Stopped(stop),
        },
        more => panic!("{} shipped routes take {kind}", more.len()),
    };
    (kind, fate)
}

/// All `.hl7` files below a folder, sorted.
pub(crate) fn messages_below(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no messages in {folder}");
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "hl7") {
            found.push(path);
        }
    }
}
