//! `kiln test` over the site in `tests/test_command`, with what it prints beside it; and `kiln test --history` over a journal that a daemon wrote.
//! `UPDATE=1` writes the expected output: review the difference.

mod cli_support;
use cli_support::{Daemon, Ran, admit, exchange, run, wait_for};
use std::path::{Path, PathBuf};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/test_command");

/// A copy of the site, so that nothing here is changed.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&Path::new(HERE).join("site"), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, target).map(drop).expect("a file") }
    }
}

/// Times are as they are.
fn steady(text: &str) -> String {
    let text = regex::Regex::new(r#"in \d+\.\d\d s"#).expect("good").replace_all(text, "in 0.00 s").into_owned();
    let text = regex::Regex::new(r#"time="[0-9.]+""#).expect("good").replace_all(&text, "time=\"0.000\"").into_owned();
    regex::Regex::new(r#""seconds":[0-9.e-]+"#).expect("good").replace_all(&text, "\"seconds\":0").into_owned()
}

#[track_caller]
fn prints(name: &str, printed: &str) {
    let file = Path::new(HERE).join(format!("{name}.expected"));
    let printed = steady(printed);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &printed).expect("an expectation can be written");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(printed == expected, "{name}: UPDATE=1 writes what is printed now:\n{printed}");
}

#[test]
fn each_form_of_the_report_is_as_it_was() {
    let site = site();
    for (name, args) in [
        ("text", &["test"][..]),
        ("verbose", &["test", "--verbose", "--lines", "3", "--filter", "e"]),
        ("json", &["test", "--json"]),
        ("junit", &["test", "--format", "junit"]),
        ("tap", &["test", "--format", "tap"]),
        ("coverage", &["test", "tests/passes.hl7", "--coverage"]),
    ] {
        let ran = run(site.path(), args);
        assert_eq!(ran.code, i32::from(name != "coverage"), "{name}: {}", ran.err);
        prints(name, &ran.out);
    }
    run(site.path(), &["test", "tests/passes.hl7", "--coverage-lcov", "lcov.info"]).expect(0);
    prints("lcov", &std::fs::read_to_string(site.path().join("lcov.info")).expect("it was written"));
}

#[test]
fn the_report_goes_to_a_file_and_the_terminal_gets_text() {
    let site = site();
    let ran = run(site.path(), &["test", "--format", "junit", "--output", "report.xml"]).expect(1);
    let file = std::fs::read_to_string(site.path().join("report.xml")).expect("it was written");
    assert!(file.starts_with("<?xml") && !ran.out.contains("<?xml"), "{}", ran.out);
    assert_eq!(steady(&file), std::fs::read_to_string(Path::new(HERE).join("junit.expected")).expect("it is there"));
    assert_eq!(steady(&ran.out), std::fs::read_to_string(Path::new(HERE).join("text.expected")).expect("it is there"));
}

#[test]
fn update_writes_what_is_made_keeps_what_is_left_open_and_deletes_nothing() {
    let site = site();
    let at = |name: &str| site.path().join("tests").join(name);
    let text = |name: &str| std::fs::read_to_string(at(name)).unwrap_or_default();
    let ran = run(site.path(), &["test", "--update"]).expect(1);
    assert!(ran.out.contains("1 created, 4 updated") && ran.out.contains("4 could not be run"), "{}", ran.out);
    assert!(ran.out.contains("gender: \"male\" -> \"female\""), "it says what it changes:\n{}", ran.out);
    for kept in ["broken.expected.json", "no-json.expected.json", "orphan.expected.json", "nowhere.expected.json", "acknowledged.expected.json"] {
        assert_eq!(text(kept), std::fs::read_to_string(format!("{HERE}/site/tests/{kept}")).expect("it is there"), "{kept}");
        if kept != "acknowledged.expected.json" {
            std::fs::remove_file(at(kept)).expect("it is there");
        }
    }
    let open: serde_json::Value = serde_json::from_str(&text("only-the-route.expected.json")).expect("JSON");
    assert!(open["note"].is_string() && open["given"]["zone"] == "Europe/Berlin" && open.get("ack").is_none(), "{open}");
    assert!(open["routes"]["adt"]["saves"].is_array() && open["routes"].get("merge").is_none(), "{open}");
    for name in ["broken.hl7", "no-json.hl7", "nowhere.hl7"] {
        std::fs::remove_file(at(name)).expect("it is there");
    }
    let ran = run(site.path(), &["test"]).expect(0);
    assert!(ran.out.starts_with("11 fixtures: 11 passed"), "{}", ran.out);
    // Once more changes nothing.
    let before = text("changed.expected.json");
    assert!(run(site.path(), &["test", "--update"]).expect(0).out.starts_with("11 fixtures: 11 passed"));
    assert_eq!(text("changed.expected.json"), before);
}

#[test]
fn the_site_is_found_from_the_fixture() {
    let site = site();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let fixture = site.path().join("tests/strict").display().to_string();
    assert!(run(elsewhere.path(), &["test", &fixture]).expect(0).out.contains("1 passed"));
    let config = site.path().join("kiln.yaml").display().to_string();
    assert!(run(elsewhere.path(), &["test", "--config", &config, "--filter", "strict"]).expect(0).out.contains("1 passed"));
    let folder = site.path().display().to_string();
    assert!(run(elsewhere.path(), &["test", "--site", &folder, "--filter", "strict"]).expect(0).out.contains("1 passed"));
    // Other routes, other results.
    let other = elsewhere.path().join("other.yaml");
    std::fs::write(&other, "extend: PID -> Patient\ngender: \"other\"\n").expect("a file");
    let passes = site.path().join("tests/passes.expected.json").display().to_string();
    let ran = run(elsewhere.path(), &["test", &passes, "--routes", &other.display().to_string()]).expect(1);
    assert!(ran.out.contains("Patient.gender: \"female\" -> \"other\""), "{}", ran.out);
}

#[test]
fn what_cannot_be_run_says_what_to_do_and_exits_2() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    std::fs::create_dir(folder.path().join("bad")).expect("a folder");
    std::fs::write(folder.path().join("bad/x.yaml"), "map: PID -> Patient\nnmae: PID-5\n").expect("a file");
    std::fs::write(folder.path().join("a.hl7"), admit("C1", "7")).expect("a file");
    for (args, told) in [
        (&["test"][..], "there are no fixtures: put a message into tests/NAME.hl7"),
        (&["test", "empty"], "there are no messages (*.hl7) in empty"),
        (&["test", "nowhere"], "there is no file or folder nowhere"),
        (&["test", "a.hl7", "--filter", "b"], "no fixture has b in its path or note"),
        (&["test", "a.hl7", "--config", "x.yaml"], "there is no file x.yaml"),
        (&["test", "a.hl7", "--routes", "bad"], "error[K301]"),
        (&["test", "--history"], "there is no kiln.yaml here"),
        (&["test", "--history", "--journal", "none", "--site", "empty"], "there is no journal in none"),
        (&["test", "--history", "--format", "tap"], "--history is written as text or json"),
        (&["test", "--history", "--update"], "--update"),
        (&["test", "--values"], "--history"),
    ] {
        let ran = run(folder.path(), args).expect(2);
        assert!(ran.err.contains(told), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
    let low = run(folder.path(), &["test", "a.hl7", "--update", "--coverage-min", "100"]).expect(1);
    assert!(low.err.contains("--coverage-min asks for 100 %"), "{}", low.err);
}

#[test]
fn the_shipped_routes_do_what_their_fixtures_expect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update: &[&str] = if std::env::var_os("UPDATE").is_some() { &["--update"] } else { &[] };
    let ran = run(root, &[&["test", "fixtures/shipped", "--coverage"], update].concat()).expect(0);
    assert!(ran.out.contains("route siu") && ran.out.contains("10 fixtures: "), "{}", ran.out);
}

/// A journal with admissions of six patients, two of whom nobody can identify, and one message that no route takes.
struct Past {
    folder: tempfile::TempDir,
}

const MARKS: [&str; 5] = ["Zebrafink", "19700102", "1970-01-02", "PAT70", "0731111"];

fn past() -> Past {
    let folder = tempfile::tempdir().expect("a folder");
    let config =
        "listeners:\n  adt: { mllp: 127.0.0.1:0 }\ntargets:\n  main: { folder: out }\nconsole: { listen: off }\njournal: { path: journal, low-water: 1B }\n";
    std::fs::write(folder.path().join("kiln.yaml"), config).expect("a file");
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    for n in 1..=6 {
        let message = admit(&format!("C{n}"), &format!("PAT70{n}")).replace("Meier", "Zebrafink").replace("|F\r", "|F|||||0731111^PRN^PH\r");
        let message = if n > 4 { message.replace("^^^HOSP^MR", "") } else { message };
        assert!(exchange(address, message.as_bytes()).contains("MSA|AA"));
    }
    assert!(exchange(address, admit("C7", "7").replace("ADT^A01^ADT_A01", "ADT^A99").as_bytes()).contains("MSA|AA"));
    wait_for("the deliveries", || {
        let stats: serde_json::Value = serde_json::from_str(&run(folder.path(), &["journal", "stats", "--json"]).expect(0).out).expect("JSON");
        stats["targets"][0]["delivered"] == 4 && stats["targets"][0]["deadLetters"] == 2
    });
    assert_eq!(daemon.stop(), 0);
    Past { folder }
}

impl Past {
    /// What would change with this file of routes.
    fn with(&self, routes: &str, more: &[&str]) -> Ran {
        let draft = self.folder.path().join("draft");
        let _ = std::fs::remove_dir_all(&draft);
        std::fs::create_dir(&draft).expect("a folder");
        std::fs::write(draft.join("draft.yaml"), routes).expect("a file");
        run(self.folder.path(), &[&["test", "--history", "--site", "draft"], more].concat())
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(self.folder.path().join("journal"))
            .expect("the journal")
            .map(|e| e.expect("an entry").path())
            .filter(|p| p.extension().is_some_and(|e| e == "db" || e == "sqlite"))
            .map(|p| (p.clone(), std::fs::read(&p).expect("a file")))
            .collect();
        files.sort();
        files
    }
}

#[test]
fn history_shows_what_would_change_and_names_no_patient() {
    let past = past();
    let before = past.files();
    let ran = past.with("extend: PID -> Patient\n", &[]).expect(0);
    assert!(ran.out.contains("7 messages compared") && ran.out.contains("nothing changes"), "{}", ran.out);
    let ran = past
        .with(
            "extend: PID -> Patient\ngender: \"other\"\ntelecom: [{ $from: PID-13, use: \"work\" }]\nbirthDate: nothing\nactive: \"true\"\n\
             ---\nsystems: own\nmatch:\n  - { namespace: HOSP, system: \"https://hosp.example/mrn\" }\n",
            &[],
        )
        .expect(1);
    prints("history", &ran.out[..ran.out.find(" compared").expect("it says how many")]);
    for mark in MARKS {
        assert!(!ran.out.contains(mark) && !ran.err.contains(mark), "{mark}:\n{}", ran.out);
    }
    let open = past.with("extend: PID -> Patient\nname: nothing\n", &["--values"]).expect(1);
    assert!(open.out.contains("Zebrafink"), "{}", open.out);
    assert_eq!(past.files(), before, "nothing is written");
    assert!(!before.is_empty());
}

#[test]
fn history_shows_stops_routes_and_ways_of_saving() {
    let past = past();
    let route = |save: &str| {
        format!("route: adt\non: [\"ADT^*\"]\nto: main\nresources:\n  patient:\n    $map: PID -> Patient\n    $save: {save}\n    $missing: skip\n")
    };
    let rows = |ran: &Ran| -> Vec<(String, String, String, u64)> {
        let row = |line: &str| -> Option<(String, String, String, u64)> {
            let v: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let text = |key: &str| v[key].as_str().map(str::to_owned);
            Some((text("section")?, text("place")?, text("change")?, v["messages"].as_u64()?))
        };
        ran.out.lines().filter_map(row).collect()
    };
    let ran = past.with(&route("update by PID-3"), &["--json"]).expect(1);
    let found = rows(&ran);
    let has = |section: &str, place: &str, change: &str, messages: u64| {
        let wanted = (section.to_owned(), place.to_owned(), change.to_owned(), messages);
        assert!(found.contains(&wanted), "{wanted:?} is not in\n{}", ran.out);
    };
    has("save", "Patient: save", "merge by -> update by", 4);
    has("stop", "route adt", "no longer stops: no-identity (PID-3, PID-2, PID-4)", 2);
    has("routing", "route adt", "takes it", 1);
    has("routing", "message", "unrouted -> accepted", 1);
    has("resource", "Location", "disappears", 4);
    has("resource", "Patient", "appears", 1);
    let order: Vec<_> = found.iter().map(|(section, ..)| section.as_str()).collect();
    let rank = |s: &&str| ["identity", "save", "stop", "routing", "resource", "element", "finding"].iter().position(|w| w == s);
    assert!(order.windows(2).all(|w| rank(&w[0]) <= rank(&w[1])), "{order:?}");
    // Fewer messages, by each way of choosing them.
    let count = |more: &[&str]| -> u64 {
        let ran = past.with(&route("merge by PID-3"), &[&["--json"], more].concat());
        let last: serde_json::Value = serde_json::from_str(ran.out.lines().last().expect("a line")).expect("JSON");
        last["messages"].as_u64().expect("a number")
    };
    assert_eq!(count(&["--limit", "3"]), 3);
    assert_eq!(count(&["--limit", "7"]), 7);
    assert_eq!(count(&["--limit", "0"]), 7);
    assert_eq!(count(&["--type", "ADT^A01"]), 6);
    assert_eq!(count(&["--listener", "other"]), 0);
    assert_eq!(count(&["--since", "1h"]), 7);
    assert_eq!(count(&["--since", "2099-01-01"]), 0);
}

/// More messages than are read at a time: each is compared once, while the daemon runs.
#[test]
fn a_long_history_is_read_page_by_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let config =
        "listeners:\n  adt: { mllp: 127.0.0.1:0 }\ntargets:\n  main: { null: true }\nconsole: { listen: off }\njournal: { path: journal, low-water: 1B }\n";
    std::fs::write(folder.path().join("kiln.yaml"), config).expect("a file");
    std::fs::write(folder.path().join("admit.hl7"), admit("C1", "1")).expect("a file");
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ").to_string();
    run(folder.path(), &["send", "admit.hl7", "--to", &address, "--repeat", "900", "--connections", "4"]).expect(0);
    std::fs::create_dir(folder.path().join("draft")).expect("a folder");
    std::fs::write(folder.path().join("draft/draft.yaml"), "extend: PID -> Patient\ngender: \"other\"\n").expect("a file");
    for (limit, messages) in [("0", 900), ("400", 400), ("800", 800), ("801", 801), ("900", 900)] {
        let ran = run(folder.path(), &["test", "--history", "--site", "draft", "--json", "--limit", limit]).expect(1);
        let rows: Vec<serde_json::Value> = ran.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!((&rows[0]["place"], &rows[0]["messages"]), (&"Patient.gender".into(), &messages.into()), "{limit}: {}", ran.out);
        let newest: Vec<_> = rows[0]["examples"].as_array().expect("a list").iter().map(|e| e["message"].as_u64().expect("a number")).collect();
        assert_eq!(newest, [900, 899, 898], "{limit}");
        let last = rows.last().expect("a row");
        assert_eq!((&last["messages"], &last["older"]), (&messages.into(), &(messages < 900).into()), "{limit}: {last}");
    }
    assert_eq!(daemon.stop(), 0);
}
