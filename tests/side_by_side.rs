//! docs/side-by-side.md: its Kiln mapping makes what the other three make, each of its mistakes has the diagnostic that the page names, and the page
//! shows the files as they are. What the others do was recorded by docs/side-by-side/run.

mod cli_support;

use cli_support::run;
use serde_json::Value;
use std::fs::{create_dir, read_to_string, write};
use std::path::{Path, PathBuf};

const SITE: &str = "listeners: { adt: { mllp: 127.0.0.1:2575 } }\ntargets: { main: { folder: out } }\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/side-by-side")
}

fn file(name: &str) -> String {
    read_to_string(folder().join(name)).expect("a file of the comparison")
}

fn site(routes: &str) -> tempfile::TempDir {
    let site = tempfile::tempdir().expect("a folder");
    write(site.path().join("kiln.yaml"), SITE).expect("a file");
    create_dir(site.path().join("routes")).expect("a folder");
    write(site.path().join("routes/patient.yaml"), routes).expect("a file");
    site
}

fn mistakes() -> Vec<Value> {
    serde_json::from_str::<Value>(&file("mistakes.json")).expect("JSON").as_array().expect("a list").clone()
}

fn tried() -> Vec<Value> {
    file("tried.jsonl").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

#[test]
fn all_four_make_the_same_patient() {
    let site = site(&file("patient.yaml"));
    write(site.path().join("admit.hl7"), file("admit.hl7")).expect("a file");
    let made = run(site.path(), &["map", "--route", "small", "--json", "admit.hl7"]).expect(0);
    let made: Value = serde_json::from_str(&made.out).expect("JSON");
    let patient = made.pointer("/bundle/entry/0/resource").expect("a patient");
    let good: Vec<Value> = tried().into_iter().filter(|row| row["mistake"].is_null()).collect();
    assert_eq!(good.len(), 5);
    for row in good {
        assert_eq!(&row["made"], patient, "{}", row["language"]);
    }
}

#[test]
fn each_mistake_is_found_before_a_message_is_there() {
    let good = file("patient.yaml");
    for mistake in mistakes() {
        let edit = |n: usize| mistake["kiln"][n].as_str().expect("text");
        assert_eq!(good.matches(edit(0)).count(), 1, "{mistake}");
        let ran = run(site(&good.replace(edit(0), edit(1))).path(), &["check", "--json"]);
        let found: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert!(found.iter().any(|d| d["code"] == mistake["code"]), "{}: {}", mistake["mistake"], ran.out);
    }
    let ran = run(site(&good).path(), &["check", "--json"]).expect(0);
    assert_eq!(ran.out, "", "the mapping itself has no fault");
}

#[test]
fn the_page_says_what_was_tried() {
    let page = read_to_string(folder().with_extension("md")).expect("the page");
    for name in ["admit.hl7", "patient.yaml", "transformer.js", "template.liquid", "expressions.yaml"] {
        assert!(page.contains(file(name).trim_end()), "{name} stands in the page as it is");
    }
    let tried = tried();
    for mistake in mistakes() {
        let name = mistake["mistake"].as_str().expect("text");
        let row = page.lines().find(|l| l.starts_with(&format!("| {name} |"))).unwrap_or_else(|| panic!("no row for {name}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells[2].starts_with("before") && cells[2].contains(mistake["code"].as_str().expect("text")), "{row}");
        for (cell, language) in [(3, "javascript"), (4, "liquid"), (5, "jexl")] {
            let when = tried.iter().find(|t| t["language"] == language && t["mistake"] == mistake["mistake"]).expect("tried")["when"].as_str().expect("text");
            assert!(cells[cell].starts_with(when), "{name}, {language}: {when} is not {}", cells[cell]);
        }
    }
}
