//! Bad site files, each beside what `kiln check` says of it. `KILN_UPDATE=1 cargo test --test cli_check` rewrites the expectations.

mod cli_support;
use cli_support::{Ran, kiln, run};
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site");
    let mut cases: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn each_bad_site_file_is_told_as_expected() {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.file_name().expect("a name").to_str().expect("UTF-8");
        // The last comment line may set the environment: `# env KILN__A=b`.
        let text = std::fs::read_to_string(&case).expect("readable");
        let mut command = kiln(case.parent().expect("a folder"));
        for variable in text.lines().filter_map(|l| l.strip_prefix("# env ")) {
            let (key, value) = variable.split_once('=').expect("NAME=VALUE");
            command.env(key, value);
        }
        let ran = Ran::of(command.args(["check", name]).output().expect("the binary starts"));
        // How many routes ship is not this test's business.
        let (faults, end) = ran.out.trim_end().rsplit_once('\n').unwrap_or(("", ran.out.trim_end()));
        let verdict = end.split_once(": ").map_or(end, |(_, verdict)| verdict);
        let told = format!("exit {}\n{faults}\n{verdict}\n{}", ran.code, ran.err);
        let beside = case.with_extension("expected");
        if std::env::var_os("KILN_UPDATE").is_some() {
            std::fs::write(&beside, &told).expect("writable");
        } else if std::fs::read_to_string(&beside).unwrap_or_default() != told {
            wrong.push(format!("{name} says:\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_examples_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for example in ["examples/kiln.yaml", "examples/container/kiln.yaml"] {
        let ran = run(root, &["check", "--format", "short", example]).expect(0);
        // What is missing on this machine, such as a secret, is a warning.
        assert!(!ran.out.contains("error"), "{}", ran.out);
    }
}

#[test]
fn formats_for_machines_name_file_line_and_column() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site");
    let short = run(&folder, &["check", "--format", "short", "typos.yaml"]).expect(1);
    assert!(short.out.contains("typos.yaml:3:3"), "{}", short.out);
    let github = run(&folder, &["check", "--format", "github", "typos.yaml"]).expect(1);
    assert!(github.out.contains("::error file=typos.yaml,line=3"), "{}", github.out);
    let json = run(&folder, &["check", "--json", "typos.yaml"]).expect(1);
    for line in json.out.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

#[test]
fn nothing_to_check_is_told_and_is_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = run(folder.path(), &["check"]).expect(2);
    assert!(ran.err.contains("nothing to check") && ran.err.contains("kiln.yaml"), "{}", ran.err);
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    let ran = run(folder.path(), &["check", "empty"]).expect(2);
    assert!(ran.err.contains("no route file in empty"), "{}", ran.err);
    // A site file needs no routes of its own: the shipped ones are checked against it.
    std::fs::write(folder.path().join("kiln.yaml"), "listeners: { adt: { mllp: 127.0.0.1:2575 } }\ntargets: { main: { folder: out } }\n").expect("a file");
    run(folder.path(), &["check"]).expect(0);
}
