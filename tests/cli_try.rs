//! `kiln try --once`: the main job, end to end, with nothing configured.

mod cli_support;
use cli_support::{Ran, kiln, run};

#[test]
fn everything_is_acknowledged_delivered_and_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = kiln(folder.path());
    command.env("TMPDIR", folder.path());
    let ran = Ran::of(command.args(["try", "--once"]).output().expect("the binary starts")).expect(0);
    assert!(ran.out.matches("AA ").count() >= 6, "{}", ran.out);
    for wanted in [
        "mllp://127.0.0.1:",
        "ADT^A01",
        "SIU^S12",
        "saved Patient/",
        "\"resourceType\": \"Patient\"",
        "saved Appointment/",
        "/metrics",
        "kiln journal search --journal",
    ] {
        assert!(ran.out.contains(wanted), "no {wanted} in\n{}", ran.out);
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "it leaves nothing behind");
}

#[test]
fn machines_get_a_line_per_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = run(folder.path(), &["try", "--once", "--json"]).expect(0);
    for line in ran.out.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!((json["code"].as_str(), json["delivered"].as_bool()), (Some("AA"), Some(true)), "{line}");
        assert!(json["resources"].as_array().is_some_and(|r| !r.is_empty()), "{line}");
    }
}
