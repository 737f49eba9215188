//! `kiln check --fix`: slips with one cure are mended in the site's own files, everything else stays as it is.

mod cli_support;
use cli_support::run;
use serde_json::Value;
use std::fs;

const SITE: &str = "listeners: { adt: { mllp: 127.0.0.1:2575 } }\ntargets: { main: { folder: out } }\n";

const SLIPS: &str = "route: mine
on: ADT^A01
to: mian
resources:
    patient:
        $map: PID -> Patient
        $saev: merge by PID-3
        birthdat: PID-7   
        gendre: \"femal\"
        maritalStatus: { text: \"PID-16\" }
";

const MENDED: &str = "route: mine
on: ADT^A01
to: main
resources:
  patient:
    $map: PID -> Patient
    $save: merge by PID-3
    birthDate: PID-7
    gender: \"female\"
    maritalStatus: { text: PID-16 }
";

fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("routes")).expect("a folder");
    fs::write(folder.path().join("kiln.yaml"), SITE).expect("a file");
    fs::write(folder.path().join("routes/mine.yaml"), SLIPS).expect("a file");
    folder
}

#[test]
fn slips_are_mended_and_told_and_the_second_time_there_is_nothing_to_do() {
    let folder = site();
    let file = folder.path().join("routes/mine.yaml");
    let ran = run(folder.path(), &["check", "--fix"]);
    let text = fs::read_to_string(&file).expect("the file");
    assert_eq!(text, MENDED, "{}{}", ran.out, ran.err);
    for told in ["`mian` is now `main`", "`birthdat` is now `birthDate`", "K119", "laid out"] {
        assert!(ran.out.contains(told), "{told}: {}", ran.out);
    }
    let names: Vec<_> = fs::read_dir(folder.path().join("routes")).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, ["mine.yaml"], "nothing is left beside the file");
    let again = run(folder.path(), &["check", "--fix", "--dry-run"]);
    assert_eq!(again.code, 0, "{}", again.out);
}

#[test]
fn a_dry_run_shows_a_difference_and_changes_nothing() {
    let folder = site();
    let ran = run(folder.path(), &["check", "--fix", "--dry-run"]).expect(1);
    assert!(ran.out.contains("-to: mian\n") && ran.out.contains("+to: main\n"), "{}", ran.out);
    assert_eq!(fs::read_to_string(folder.path().join("routes/mine.yaml")).expect("the file"), SLIPS);
    run(folder.path(), &["check", "--dry-run"]).expect(2);
}

#[test]
fn edits_are_bytes_and_say_whether_they_are_certain() {
    let folder = site();
    let ran = run(folder.path(), &["check", "--json"]).expect(1);
    let lines: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let target = lines.iter().find(|l| l["code"] == "K701").expect("the target");
    let edit = &target["edits"][0];
    let (start, end) = (edit["start"].as_u64().expect("a byte") as usize, edit["end"].as_u64().expect("a byte") as usize);
    assert_eq!(&SLIPS[start..end], "mian");
    assert_eq!((edit["text"].as_str(), edit["certain"].as_bool()), (Some("main"), Some(true)));
}

#[test]
fn a_short_word_that_may_be_a_slip_of_many_is_left_alone() {
    let folder = site();
    let file = folder.path().join("routes/mine.yaml");
    let text = "extend: PID -> Patient\nmaritalStatus: PIX-16\n";
    fs::write(&file, text).expect("a file");
    run(folder.path(), &["check", "--fix"]).expect(1);
    assert_eq!(fs::read_to_string(&file).expect("the file"), text);
}

#[test]
fn a_map_that_replaces_a_shipped_one_counts_once() {
    let folder = site();
    let count = |text: &str| {
        fs::write(folder.path().join("routes/mine.yaml"), text).expect("a file");
        let ran = run(folder.path(), &["check"]);
        ran.out.lines().last().and_then(|l| l.split(": ").next()).map(str::to_owned).expect("a summary")
    };
    assert_eq!(count("map: CX -> Identifier\nvalue: CX.1\nsystem: CX.4\n"), count("# nothing\n"));
}
