//! A route that makes messages, from outside: what `kiln map` prints and what the daemon writes are the same.

mod cli_support;
use cli_support::{Daemon, exchange, run, wait_for};
use std::collections::BTreeMap;
use std::path::Path;

const SITE: &str = "journal: { path: journal, low-water: 1MiB }
console: { listen: 127.0.0.1:0 }
listeners: { lab: { mllp: 127.0.0.1:0 } }
targets: { main: { folder: out }, ward: { folder: ward }, lake: { folder: lake, layout: ndjson } }
";

const ROUTE: &str = "route: lab-to-ward
on: ORU^R01
when: PV1-2 = \"I\"
to: ward
message:
  $each: OBR
  $copy: all
  NTE: nothing
  MSH: { MSH-5: \"WARD\", MSH-6: \"HOSP\" }
  MSH-10: join(\"-\", MSH-10, OBR-1)
  PID-3: { $from: PID-3, CX.4: if CX.4.1 = \"OLDLAB\" then \"HOSP&1.2.3.4&ISO\" }
";

/// Two orders; the trailing delimiters, the escape and the odd white space are the sender's.
const RESULT: &str = "MSH|^~\\&|LAB|OLD|X||20260401120000||ORU^R01^ORU_R01|77|P|2.5.1|||AL|NE\r\
PID|1||4711^^^OLDLAB^MR||O\\T\\Hara^Eva||19700101|F|||\r\
PV1|1|I|W1^^^\r\
OBR|1|A1||GLU^Glucose^L\r\
OBX|1|NM|GLU||5.50|mmol/L||||F|||  \r\
NTE|1||a note\r\
OBR|2|A2||NA\r\
OBX|1|NM|NA||140|mmol/L|||||F\r";

fn wanted(control_id: &str) -> Vec<String> {
    let head = |order: &str| {
        format!(
            "MSH|^~\\&|LAB|OLD|WARD|HOSP|20260401120000||ORU^R01^ORU_R01|{control_id}-{order}|P|2.5.1|||AL|NE\rPID|1||4711^^^HOSP&1.2.3.4&ISO^MR||O\\T\\Hara^Eva||19700101|F|||\rPV1|1|I|W1^^^\r"
        )
    };
    vec![
        format!("{}OBR|1|A1||GLU^Glucose^L\rOBX|1|NM|GLU||5.50|mmol/L||||F|||  \r", head("1")),
        format!("{}OBR|2|A2||NA\rOBX|1|NM|NA||140|mmol/L|||||F\r", head("2")),
    ]
}

fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("kiln.yaml"), SITE).expect("a file");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/ward.yaml"), ROUTE).expect("a file");
    std::fs::write(folder.path().join("lab.hl7"), RESULT).expect("a file");
    folder
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = std::fs::read_dir(folder.join("ward/messages")) else { return BTreeMap::new() };
    let paths = entries.map(|e| e.expect("an entry").path());
    paths.map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read_to_string(&p).expect("text"))).collect()
}

#[test]
fn map_prints_each_message_a_segment_a_line_or_its_bytes() {
    let folder = site();
    let [first, second] = <[String; 2]>::try_from(wanted("77")).expect("two");
    let shown = run(folder.path(), &["map", "lab.hl7", "--route", "lab-to-ward"]).expect(0);
    assert_eq!(shown.out, format!("{}\n{}", first.replace('\r', "\n"), second.replace('\r', "\n")));
    assert!(shown.err.contains("route lab-to-ward makes 2 messages"), "{}", shown.err);
    assert_eq!(run(folder.path(), &["map", "lab.hl7", "--route", "lab-to-ward", "--raw"]).expect(0).out, format!("{first}{second}"));
    let json: serde_json::Value =
        serde_json::from_str(&run(folder.path(), &["map", "lab.hl7", "--route", "lab-to-ward", "--json"]).expect(0).out).expect("JSON");
    assert_eq!(json["messages"], serde_json::json!([first, second]));
}

#[test]
fn the_daemon_writes_a_file_for_each_that_sorts_by_message() {
    let folder = site();
    let daemon = Daemon::start(folder.path());
    let lab = daemon.address("lab on ");
    let answer = exchange(lab, RESULT.as_bytes());
    assert!(answer.contains("A|77"), "{answer} {}", daemon.err());
    wait_for("two files", || files(folder.path()).len() == 2);
    let written = files(folder.path());
    let mut texts: Vec<String> = written.values().cloned().collect();
    texts.sort();
    assert_eq!(texts, wanted("77"));
    assert!(written.keys().all(|name| name.ends_with(".hl7") && !name.contains("4711") && !name.contains("77-")), "{written:?}");

    assert!(exchange(lab, RESULT.replace("|77|", "|78|").as_bytes()).contains("A|78"));
    wait_for("two more", || files(folder.path()).len() == 4);
    assert!(files(folder.path()).keys().take(2).eq(written.keys()), "files sort by message");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_target_of_resources_is_refused_before_anything_runs() {
    let folder = site();
    std::fs::write(folder.path().join("routes/ward.yaml"), ROUTE.replace("to: ward", "to: lake")).expect("a file");
    let checked = run(folder.path(), &["check", "--format", "short"]).expect(1);
    assert!(checked.out.contains("routes/ward.yaml:4:5: error[K711]"), "{}", checked.out);
}

/// A fixture holds messages a segment a line, and a difference names the field.
#[test]
fn fixtures_hold_messages_and_differences_name_fields() {
    let folder = site();
    std::fs::create_dir(folder.path().join("tests")).expect("a folder");
    std::fs::rename(folder.path().join("lab.hl7"), folder.path().join("tests/lab.hl7")).expect("a file");
    std::fs::write(folder.path().join("tests/given.json"), "{ \"routes\": [\"lab-to-ward\"] }").expect("a file");
    assert!(run(folder.path(), &["test", "--update"]).expect(0).out.contains("1 created"));
    let text = std::fs::read_to_string(folder.path().join("tests/lab.expected.json")).expect("it was written");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let segments = wanted("77").into_iter().map(|m| m.split_terminator('\r').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(told["routes"]["lab-to-ward"]["messages"], serde_json::json!(segments));
    assert!(run(folder.path(), &["test"]).expect(0).out.contains("1 passed"));

    let changed = ROUTE.replace("\"WARD\"", "\"ICU\"").replace("NTE: nothing", "OBX.NTE: nothing\n  PID-5.2: nothing");
    std::fs::write(folder.path().join("routes/ward.yaml"), changed).expect("a file");
    let ran = run(folder.path(), &["test"]).expect(1);
    for line in ["message[1] MSH-5: \"WARD\" -> \"ICU\"", "message[2] MSH-5: \"WARD\" -> \"ICU\"", "- message[1] PID-5.2: \"Eva\""] {
        assert!(ran.out.contains(line), "{line}:\n{}", ran.out);
    }
    assert!(run(folder.path(), &["test", "--coverage"]).expect(1).out.contains("route lab-to-ward  6 of 6 lines made something"), "{}", ran.out);
    std::fs::write(folder.path().join("routes/ward.yaml"), ROUTE.replace("$each: OBR", "$each: OBR[1]")).expect("a file");
    let ran = run(folder.path(), &["test"]).expect(1);
    assert!(ran.out.contains("- message[2]"), "{}", ran.out);
    std::fs::write(folder.path().join("routes/ward.yaml"), ROUTE.replace("OBR-1)", "OBR-10)")).expect("a file");
    let ran = run(folder.path(), &["test"]).expect(1);
    assert!(ran.out.contains("makes 2 messages") && ran.out.contains("stops: control-id-repeats (MSH-10)"), "{}", ran.out);
}

/// An edit is shown over the journal before it goes live, by field and without content.
#[test]
fn history_shows_which_fields_of_messages_would_change() {
    let folder = site();
    let daemon = Daemon::start(folder.path());
    assert!(exchange(daemon.address("lab on "), RESULT.as_bytes()).contains("A|77"));
    wait_for("two files", || files(folder.path()).len() == 2);
    assert_eq!(daemon.stop(), 0);
    let draft = folder.path().join("draft");
    std::fs::create_dir(&draft).expect("a folder");
    let with = |routes: &str, more: &[&str]| {
        std::fs::write(draft.join("ward.yaml"), routes).expect("a file");
        run(folder.path(), &[&["test", "--history", "--site", "draft"], more].concat())
    };
    assert!(with(ROUTE, &[]).expect(0).out.contains("nothing changes"));
    let changed = ROUTE.replace("NTE: nothing", "PID-5.2: nothing\n  PV1: nothing").replace("\"WARD\"", "\"ICU\"");
    let ran = with(&changed, &[]).expect(1);
    for line in ["message MSH-5: changes", "message PID-5.2: disappears", "message PV1: disappears", "message NTE: appears"] {
        assert!(ran.out.contains(line), "{line}:\n{}", ran.out);
    }
    assert!(!["Hara", "Eva", "4711", "a note"].iter().any(|mark| ran.out.contains(mark)), "{}", ran.out);
    assert!(with(&changed, &["--values"]).expect(1).out.contains("Eva"));
    assert!(with(&ROUTE.replace("route: lab-to-ward", "route: other"), &[]).expect(1).out.contains("message: disappears"));
}
