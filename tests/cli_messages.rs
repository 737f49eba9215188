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
