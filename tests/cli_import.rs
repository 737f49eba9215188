//! `kiln import`: archives of every kind into a running daemon, each message once, whatever is interrupted.

mod cli_support;

use cli_support::moody::{Mood, ROUTE, Server, odd};
use cli_support::{Daemon, admit, get, kiln, run, wait_for};
use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::process::Stdio;

const SITE: &str =
    "console: { listen: 127.0.0.1:0 }\nlisteners:\n  adt: { mllp: 127.0.0.1:0, duplicates: off, acknowledge: mapped }\ntargets: { main: { 'null': true } }\n";

fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("kiln.yaml"), SITE).expect("a file");
    folder
}

fn messages(from: usize, to: usize) -> String {
    (from..to).map(|n| admit(&format!("N{n:05}"), &format!("P{}", n % 50))).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, bytes.as_slice()).expect("memory");
    }
    tar.into_inner().expect("memory")
}

fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("memory");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

/// How often each control ID is in the journal, and the order of all.
fn stored(folder: &Path) -> (BTreeMap<String, usize>, Vec<String>) {
    let found = run(folder, &["journal", "search", "--json", "--limit", "10000"]).expect(0).out;
    let mut ids: Vec<_> = found.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")).collect();
    ids.sort_by_key(|m| m["id"].as_u64());
    let ids: Vec<String> = ids.iter().map(|m| m["controlId"].as_str().expect("a text").to_owned()).collect();
    let mut counts = BTreeMap::new();
    ids.iter().for_each(|id| *counts.entry(id.clone()).or_insert(0) += 1);
    (counts, ids)
}

#[test]
fn every_kind_of_archive_is_read_in_its_order_and_once() {
    let folder = site();
    let batch = format!("FHS|^~\\&\r\nBHS|^~\\&\r\n{}BTS|10\r\nFTS|1\r\n", messages(10, 20));
    let files = vec![("2024/a.hl7", messages(20, 30).into_bytes()), ("2024/b.hl7.gz", gzip(messages(30, 40).as_bytes())), ("empty.hl7", Vec::new())];
    let later = vec![("c.hl7", messages(50, 60).into_bytes()), ("d.hl7", messages(60, 70).into_bytes())];
    for (name, bytes) in [
        ("1-plain", messages(0, 10).into_bytes()),
        ("2-batch.hl7.gz", gzip(batch.as_bytes())),
        ("3-zip", zip(&files)),
        ("4-tar", tar(&[("e.hl7", messages(40, 50).into_bytes())])),
        ("5.tar.gz", gzip(&tar(&later))),
    ] {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    let daemon = Daemon::start(folder.path());
    let all = ["import", "1-plain", "2-batch.hl7.gz", "3-zip", "4-tar", "5.tar.gz"];
    let ran = run(folder.path(), &all).expect(0);
    assert!(ran.out.contains("3-zip: 20 messages to adt"), "{}", ran.out);
    let (counts, order) = stored(folder.path());
    assert_eq!((counts.len(), order.len()), (70, 70));
    assert!(order.is_sorted(), "{order:?}");
    let shown = run(folder.path(), &["journal", "show", "31", "--json"]).expect(0).out;
    assert!(shown.contains("import:3-zip@") && shown.contains("/2/2024/b.hl7#1"), "{shown}");

    // Once; and again on request. Another archive of the same name is another archive.
    let ran = run(folder.path(), &[&all[..], &["--json"]].concat()).expect(0);
    assert!(ran.out.lines().count() == 5 && ran.out.lines().all(|l| l.contains("\"imported before\"")), "{}", ran.out);
    assert_eq!(stored(folder.path()).1.len(), 70);
    run(folder.path(), &["import", "4-tar", "--again", "--listener", "adt"]).expect(0);
    assert_eq!(stored(folder.path()).1.len(), 80);
    std::fs::write(folder.path().join("1-plain"), messages(70, 73)).expect("written");
    run(folder.path(), &["import", "1-plain"]).expect(0);
    assert_eq!(stored(folder.path()).1.len(), 83);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_is_refused_is_counted_by_reason_and_what_is_damaged_is_told() {
    let folder = site();
    let nobody = |n: usize| admit(&format!("R{n}"), "").replace("^^^HOSP^MR", "");
    let text = format!("{}{}{}no message\r", messages(0, 3), nobody(1), nobody(2));
    std::fs::write(folder.path().join("mixed.hl7"), &text).expect("written");
    let packed = gzip(messages(10, 200).as_bytes());
    std::fs::write(folder.path().join("cut.gz"), &packed[..packed.len() / 2]).expect("written");
    std::fs::write(folder.path().join("count.hl7"), format!("BHS|^~\\&\r{}BTS|7\r", messages(300, 302))).expect("written");
    let daemon = Daemon::start(folder.path());
    let ran = run(folder.path(), &["import", "mixed.hl7"]).expect(1);
    assert!(ran.out.contains("accepted  3") && ran.out.contains("refused   2"), "{}", ran.out);
    assert!(ran.out.contains("AE 101"), "{}", ran.out);
    let ran = run(folder.path(), &["import", "cut.gz", "--json"]).expect(1);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert!(told["flaws"][0].as_str().is_some_and(|f| f.contains("damaged or cut short")) && told["finished"] == true, "{told}");
    assert!(told["accepted"].as_u64().is_some_and(|n| n > 0 && n < 190), "{told}");
    let ran = run(folder.path(), &["import", "count.hl7"]).expect(1);
    assert!(ran.out.contains("BTS-1 says 7 messages, and 2 came"), "{}", ran.out);
    // What was wrong stays wrong, and is told once.
    let ran = run(folder.path(), &["import", "count.hl7"]).expect(1);
    assert!(ran.out.contains("imported before") && ran.out.matches("BTS-1 says").count() == 1, "{}", ran.out);
    std::fs::write(folder.path().join("counts.hl7"), (0..60).map(|n| format!("BHS|^~\\&\r{}BTS|7\r", messages(400 + n, 401 + n))).collect::<String>())
        .expect("written");
    let ran = run(folder.path(), &["import", "counts.hl7"]).expect(1);
    assert!(ran.out.matches("BTS-1 says").count() == 50 && ran.out.contains("flaw  and 10 more"), "{}", ran.out);
    assert!(!daemon.err().contains("mixed.hl7"), "{}", daemon.err());
    drop(daemon);

    let ran = run(folder.path(), &["import", "mixed.hl7", "--again"]).expect(2);
    assert!(ran.err.contains("no daemon runs") && ran.err.contains("kiln serve"), "{}", ran.err);
    let _daemon = Daemon::start(folder.path());
    let ran = run(folder.path(), &["import", "mixed.hl7", "--again", "--listener", "lab"]).expect(2);
    assert!(ran.err.contains("no listener `lab`"), "{}", ran.err);
    let ran = run(folder.path(), &["import", "nothing.zip"]).expect(2);
    assert!(ran.err.contains("no such file"), "{}", ran.err);
}

/// MLLP cannot carry UTF-16, and a listener says so in UTF-16.
#[test]
fn a_refusal_in_utf_16_is_a_refusal() {
    let folder = site();
    std::fs::write(folder.path().join("wide.hl7"), messages(0, 2).encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).expect("written");
    let daemon = Daemon::start(folder.path());
    let ran = run(folder.path(), &["import", "wide.hl7"]).expect(1);
    assert!(ran.out.contains("accepted  0") && ran.out.contains("refused   2") && ran.out.contains("AR 103"), "{}", ran.out);
    assert_eq!(daemon.stop(), 0);
}

/// Kills the command once the daemon has this many more messages.
fn import_killed_after(folder: &Path, daemon: &Daemon, archive: &str, messages: usize) {
    assert_eq!(import_ended_after(folder, daemon, archive, messages, "KILL"), None, "it was killed before it was done");
}

/// Asks it to stop then.
fn import_interrupted_after(folder: &Path, daemon: &Daemon, archive: &str, messages: usize) {
    assert_eq!(import_ended_after(folder, daemon, archive, messages, "INT"), Some(1), "it was asked to stop before it was done");
}

fn import_ended_after(folder: &Path, daemon: &Daemon, archive: &str, messages: usize, signal: &str) -> Option<i32> {
    let count = || {
        let metrics = get(daemon.address("console http://"), "/metrics").1;
        metrics.lines().filter_map(|l| l.strip_prefix("kiln_acks_total{listener=\"adt\",code=\"AA\"} ")?.parse::<usize>().ok()).sum::<usize>()
    };
    let before = count();
    let mut command = kiln(folder).args(["import", archive]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_for("some messages", || count() >= before + messages || command.try_wait().expect("a child").is_some());
    let _ = std::process::Command::new("kill").args([&format!("-{signal}"), &command.id().to_string()]).status().expect("kill is there");
    command.wait().expect("a child").code()
}

#[test]
fn another_archive_of_the_same_name_is_not_taken_for_the_interrupted_one() {
    const MESSAGES: usize = 4_000;
    let folder = site();
    for (n, year) in ["2024", "2025"].into_iter().enumerate() {
        std::fs::create_dir(folder.path().join(year)).expect("a folder");
        std::fs::write(folder.path().join(year).join("adt.hl7"), messages(n * MESSAGES, (n + 1) * MESSAGES)).expect("written");
    }
    let daemon = Daemon::start(folder.path());
    import_killed_after(folder.path(), &daemon, "2024/adt.hl7", 20);
    run(folder.path(), &["import", "2025/adt.hl7"]).expect(0);
    run(folder.path(), &["import", "2024/adt.hl7"]).expect(0);
    let (counts, _) = stored(folder.path());
    assert_eq!(counts.len(), 2 * MESSAGES);
    assert!(counts.values().all(|n| *n == 1), "{:?}", counts.iter().filter(|(_, n)| **n != 1).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_is_wrong_with_an_archive_is_told_once_however_often_it_was_interrupted() {
    let folder = site();
    std::fs::write(folder.path().join("count.hl7"), format!("BHS|^~\\&\r{}BTS|7\rBHS|^~\\&\r{}BTS|4000\r", messages(0, 5), messages(1_000, 5_000)))
        .expect("written");
    let daemon = Daemon::start(folder.path());
    for _ in 0..2 {
        import_interrupted_after(folder.path(), &daemon, "count.hl7", 300);
    }
    let ran = run(folder.path(), &["import", "count.hl7", "--json"]).expect(1);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((told["flaws"].as_array().map(Vec::len), &told["messages"]), (Some(1), &4_005.into()), "{told}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn two_files_of_one_name_in_an_archive_are_two_files() {
    let folder = site();
    let files = [("a.hl7", messages(0, 15).into_bytes()), ("a.hl7", messages(15, 30).into_bytes()), ("b.hl7", messages(30, 5_000).into_bytes())];
    std::fs::write(folder.path().join("twice.tar"), tar(&files)).expect("written");
    let daemon = Daemon::start(folder.path());
    // All of the three were under way when it ended, and none of them was noted.
    import_killed_after(folder.path(), &daemon, "twice.tar", 35);
    run(folder.path(), &["import", "twice.tar"]).expect(0);
    let (counts, _) = stored(folder.path());
    assert_eq!((counts.len(), counts.values().sum::<usize>()), (5_000, 5_000), "{:?}", counts.iter().filter(|(_, n)| **n != 1).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn none_overtakes_a_message_that_could_not_be_stored() {
    let server = Server::start(Mood::Busy);
    let text = format!("listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets:\n  main: {{ {} }}\n  other: {{ 'null': true }}\n", server.target());
    let routes = format!("{ROUTE}---\n{}", ROUTE.replace("odd", "again").replace(", ZZZ^Z02", "").replace("to: main", "to: other"));
    let folder = cli_support::moody::site(&text, &routes);
    let text = std::fs::read_to_string(folder.path().join("kiln.yaml"))
        .expect("a file")
        .replace("low-water: 1MiB", "low-water: 1MiB, backlog-max: 2, backlog-resume: 1");
    std::fs::write(folder.path().join("kiln.yaml"), text).expect("written");
    let daemon = Daemon::start(folder.path());
    std::fs::write(folder.path().join("1.hl7"), odd("WAITS", "1", "Meier").replace("ZZZ^Z01", "ZZZ^Z02")).expect("written");
    run(folder.path(), &["import", "1.hl7"]).expect(0);
    let nobodys = |control_id: &str| odd(control_id, "2", "Meier").replace("ZZZ^Z01", "ZZZ^Z09");
    let all = format!("{}{}{}", nobodys("FIRST"), odd("SECOND", "2", "Meier"), nobodys("THIRD"));
    std::fs::write(folder.path().join("2.hl7"), all).expect("written");
    let ran = run(folder.path(), &["import", "2.hl7"]).expect(1);
    assert!(ran.out.contains("could not store a message, its log says why; once it can, the same command goes on"), "{}", ran.out);
    assert!(ran.out.contains("accepted  1"), "{}", ran.out);
    // The search is some moments behind the journal.
    wait_for("the first to be found", || stored(folder.path()).1.len() >= 2);
    assert_eq!(stored(folder.path()).1, ["WAITS", "FIRST"]);
    server.mood(Mood::Well);
    wait_for("the first delivery", || server.saved("1") == 1);
    wait_for("the rest", || run(folder.path(), &["import", "2.hl7"]).code == 0);
    wait_for("all to be found", || stored(folder.path()).1.len() >= 4);
    assert_eq!(stored(folder.path()).1, ["WAITS", "FIRST", "SECOND", "THIRD"]);
    assert_eq!(daemon.stop(), 0);
}

/// Command and daemon are killed by turns, and the command is asked to stop; duplicates are not known to this listener.
#[test]
fn whatever_is_interrupted_each_message_is_stored_once() {
    const MESSAGES: usize = 6_000;
    let folder = site();
    let halves = [("a.hl7", messages(0, MESSAGES / 2).into_bytes()), ("b.hl7", messages(MESSAGES / 2, MESSAGES).into_bytes())];
    std::fs::write(folder.path().join("year.zip"), zip(&halves)).expect("written");
    let mut daemon = Daemon::start(folder.path());
    let count = |daemon: &Daemon| {
        let metrics = get(daemon.address("console http://"), "/metrics").1;
        metrics.lines().filter_map(|l| l.strip_prefix("kiln_acks_total{listener=\"adt\",code=\"AA\"} ")?.parse::<usize>().ok()).sum::<usize>()
    };
    for round in 0..9 {
        let before = count(&daemon);
        let mut command = kiln(folder.path()).args(["import", "year.zip"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        wait_for("some messages", || count(&daemon) >= before + 150 + 40 * round || command.try_wait().expect("a child").is_some());
        match round % 3 {
            0 => command.kill().expect("a child"),
            1 => {
                daemon.signal("KILL");
                drop(daemon);
                daemon = Daemon::start(folder.path());
            }
            _ => {
                let status = std::process::Command::new("kill").args(["-INT", &command.id().to_string()]).status().expect("kill is there");
                assert!(status.success());
            }
        }
        let output = command.wait_with_output().expect("a child");
        if round % 3 == 2 {
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.code() == Some(1) && told.contains("interrupted; the same command goes on"), "{output:?}");
        } else if round % 3 == 1 {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
        }
    }
    let ran = run(folder.path(), &["import", "year.zip", "--json"]).expect(0);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&told["messages"], &told["accepted"], &told["finished"]), (&MESSAGES.into(), &MESSAGES.into(), &true.into()), "{told}");
    let (counts, order) = stored(folder.path());
    assert_eq!((counts.len(), order.len()), (MESSAGES, MESSAGES), "{:?}", counts.iter().filter(|(_, n)| **n != 1).collect::<Vec<_>>());
    assert!(order.is_sorted());
}
