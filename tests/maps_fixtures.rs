//! Each `fixtures/maps/NAME.hl7` makes the Bundle in `NAME.json`, and the findings and deletions in `NAME.txt`. `UPDATE=1` writes them: review the diff.

mod maps_shared;

use kiln::fhir::{SaveMode, display_bundle};
use kiln::route::RouteSet;
use maps_shared::{Fate, messages_below, run, shipped, shipped_with};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

#[test]
fn every_fixture_makes_its_bundle() {
    check("fixtures/maps", &shipped());
}

#[test]
fn the_messages_of_kiln_try_make_their_bundles() {
    check("fixtures/try", &shipped());
}

/// A site's line `use: [provenance]` adds a MessageHeader and Provenances to whatever a route makes.
#[test]
fn with_the_overlay_messages_tell_where_it_comes_from() {
    check("fixtures/provenance", &shipped_with(&["provenance"]));
}

/// What HL7's guide leaves to the site: each a line in the site's file.
#[test]
fn with_the_guides_options_messages_make_more() {
    check("fixtures/overlays", &shipped_with(&["encounter-history", "immunization-orders", "person-vip", "business-event"]));
}

/// A site's line `use: [us-core]` adds what US Core 6.1.0 wants.
#[test]
fn with_us_core_resources_have_what_it_requires() {
    check("fixtures/us-core", &shipped_with(&["us-core"]));
}

/// An overlay is about a kind of resource: it leaves out no shipped route that makes one.
#[test]
fn an_overlay_changes_every_route_that_it_is_about() {
    let changed = extended();
    let set = shipped();
    let mut missing = Vec::new();
    for (route, info) in set.routes() {
        let saves = set.saves_of(route);
        let makes = |kind: &str| saves.iter().any(|(made, mode)| *made == kind && *mode != SaveMode::Find);
        let about = [
            ("us-core", makes("Patient") || makes("Encounter")),
            ("person-vip", makes("Patient") && makes("Encounter")),
            // A visit that was an error was nowhere before.
            ("encounter-history", makes("Encounter") && &*info.name != "delete-visit"),
            ("provenance", makes("Patient") || makes("Encounter")),
        ];
        for (overlay, _) in about.iter().filter(|(overlay, is)| *is && !changed.contains(&((*overlay).to_owned(), info.name.to_string()))) {
            missing.push(format!("{overlay} says nothing of {}", info.name));
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

/// Overlay and route of every shipped document that begins with `extend: ROUTE`.
fn extended() -> BTreeSet<(String, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("routes/overlays")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("the overlays are here").map(|e| e.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for document in std::fs::read_to_string(&path).expect("an overlay is text").split("\n---\n") {
                let word = |key: &str| document.lines().find_map(|l| l.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
                found.extend(word("$in: ").zip(word("extend: ")));
            }
        }
    }
    found
}

fn check(folder: &str, set: &RouteSet) {
    let update = std::env::var_os("UPDATE").is_some();
    let mut faults = String::new();
    for path in messages_below(folder) {
        let bytes = std::fs::read(&path).expect("the message can be read");
        let (bundle, findings) = match run(set, &bytes, Some("FELSENHOF")).1 {
            Fate::Made(output) => {
                let deletes = output.saves.entries.iter().flat_map(|s| s.deletes.iter().map(|path| format!("deletes {}.{}", s.name, path.join("."))));
                let findings = output.findings.iter().map(|f| format!("{} {} {}: {}", f.kind, f.place, f.line, f.text)).chain(deletes).collect();
                (display_bundle(&output.saves), findings)
            }
            Fate::Stopped(stop) => (json!({ "stop": stop.kind, "places": stop.places, "text": stop.text }), Vec::new()),
            Fate::Unreadable(why) => panic!("{}: {why}", path.display()),
            Fate::Unrouted => panic!("{}: no shipped route takes it", path.display()),
        };
        let bundle = serde_json::to_string_pretty(&bundle).expect("a Bundle is JSON") + "\n";
        let findings: String = findings.iter().map(|f| format!("{f}\n")).collect();
        compare(&path.with_extension("json"), &bundle, update, &mut faults);
        compare(&path.with_extension("txt"), &findings, update, &mut faults);
    }
    assert!(faults.is_empty(), "\n{faults}\nUPDATE=1 writes what was made; review it against the guide");
}

fn compare(path: &Path, made: &str, update: bool, faults: &mut String) {
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == made {
        return;
    }
    if update {
        if made.is_empty() {
            std::fs::remove_file(path).expect("an old expectation can be removed");
        } else {
            std::fs::write(path, made).expect("an expectation can be written");
        }
        return;
    }
    writeln!(faults, "{}:", path.display()).expect("text takes text");
    for line in difference(&expected.lines().collect::<Vec<_>>(), &made.lines().collect::<Vec<_>>()) {
        writeln!(faults, "  {line}").expect("text takes text");
    }
}

/// Lines that went (`-`) and came (`+`), by the longest common subsequence.
fn difference(old: &[&str], new: &[&str]) -> Vec<String> {
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            common[i][j] = if a == b { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            out.push(format!("- {}", old[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    out
}
