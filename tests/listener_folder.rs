//! A folder as a listener of a real daemon: what is read when, where it goes, and that `kill -9` at any moment makes no message lost or stored twice.

mod cli_support;

use cli_support::moody::{Mood, ROUTE, Server, odd};
use cli_support::{Daemon, admit, get, run, wait_for};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(listener: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        site.write(listener);
        std::fs::create_dir(site.path("in")).expect("a folder");
        site
    }

    fn write(&self, listener: &str) {
        let quiet = if listener.contains("quiet:") { "" } else { "quiet: 100ms, " };
        let text =
            format!("console: {{ listen: 127.0.0.1:0 }}\nlisteners:\n  scans: {{ folder: in, {quiet}{listener} }}\ntargets: {{ main: {{ 'null': true }} }}\n");
        std::fs::write(self.path("kiln.yaml"), text).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Daemon {
        Daemon::start(self.folder.path())
    }

    /// Puts a file into the folder as a careful sender does.
    fn put(&self, name: &str, bytes: &[u8]) {
        let draft = self.path("in").join(format!(".{name}"));
        std::fs::write(&draft, bytes).expect("written");
        std::fs::rename(draft, self.path("in").join(name)).expect("moved");
    }

    #[track_caller]
    fn arrives(&self, name: &str) -> Vec<u8> {
        let path = self.path("in").join(name);
        wait_for(name, || path.exists());
        std::fs::read(path).expect("it stays")
    }

    fn names(&self, folder: &str) -> Vec<String> {
        names(&self.path("in").join(folder))
    }

    /// Control ID and peer of each message, in the order of storing.
    fn messages(&self) -> Vec<(String, String)> {
        let found = run(self.folder.path(), &["journal", "search", "--json", "--limit", "10000"]).expect(0).out;
        let found = found.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let mut found: Vec<_> = found.map(|m| (m["id"].as_u64().expect("a number"), m["controlId"].as_str().expect("a text").to_owned())).collect();
        found.sort_unstable();
        let peer = |id: u64| {
            let shown = run(self.folder.path(), &["journal", "show", &id.to_string(), "--json"]).expect(0).out;
            serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")["peer"].as_str().expect("a text").to_owned()
        };
        if found.len() > 50 {
            return found.into_iter().map(|(_, control_id)| (control_id, String::new())).collect();
        }
        found.into_iter().map(|(id, control_id)| (control_id, peer(id))).collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn batch(ids: &[&str], stated: usize) -> String {
    let messages: String = ids.iter().map(|id| admit(id, "4711")).collect();
    format!("FHS|^~\\&|A|B\rBHS|^~\\&|A|B\r{messages}BTS|{stated}\rFTS|1\r")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// MSA-1 and MSA-2 of each acknowledgement.
fn answers(ack: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(ack).into_owned();
    text.split('\r').filter_map(|line| line.strip_prefix("MSA|")).map(|rest| rest.split('|').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn files_go_where_their_messages_went_with_the_answers_beside() {
    let site = Site::new("acknowledge: mapped");
    site.put("before.hl7", admit("1", "4711").as_bytes());
    let daemon = site.start();
    assert!(daemon.out().contains("scans from in"), "{}", daemon.out());
    assert_eq!(site.arrives("done/before.hl7"), admit("1", "4711").as_bytes());
    assert_eq!(answers(&site.arrives("done/before.hl7.ack")), ["AA 1"]);

    site.put("batch.hl7", batch(&["2", "3", "4"], 3).replace('\r', "\r\n").as_bytes());
    site.arrives("done/batch.hl7");
    assert_eq!(answers(&site.arrives("done/batch.hl7.ack")), ["AA 2", "AA 3", "AA 4"]);
    site.put("packed.hl7.gz", &gzip(format!("{}{}", admit("5", "4711"), admit("6", "4712")).as_bytes()));
    site.arrives("done/packed.hl7.gz");
    let expected = ["before.hl7#1", "batch.hl7#1", "batch.hl7#2", "batch.hl7#3", "packed.hl7.gz#1", "packed.hl7.gz#2"];
    assert_eq!(site.messages().iter().map(|(_, peer)| peer.as_str()).collect::<Vec<_>>(), expected);

    // One is refused, a count is wrong, the file is cut, there is nothing in it: it failed, and what could be taken is.
    let nobody = admit("8", "").replace("^^^HOSP^MR", "");
    site.put("refused.hl7", format!("{}{nobody}", admit("7", "4711")).as_bytes());
    site.arrives("failed/refused.hl7");
    assert_eq!(answers(&site.arrives("failed/refused.hl7.ack")), ["AA 7", "AE 8"]);
    site.put("count.hl7", batch(&["9", "10"], 3).as_bytes());
    site.arrives("failed/count.hl7");
    assert_eq!(answers(&site.arrives("failed/count.hl7.ack")), ["AA 9", "AA 10"]);
    wait_for("the count to be told", || daemon.err().contains("BTS-1 says 3 messages, and 2 came"));
    let packed = gzip(format!("{}{}", admit("11", "4711"), admit("12", &"9".repeat(50_000))).as_bytes());
    site.put("MEIER_EVA.hl7.gz", &packed[..packed.len() - 12]);
    site.arrives("failed/MEIER_EVA.hl7.gz");
    site.put("empty.hl7", b"\r\n");
    site.arrives("failed/empty.hl7");
    assert!(!site.path("in/failed/empty.hl7.ack").exists());
    assert_eq!((site.names("done").len(), site.names("")), (6, vec![".kiln".to_owned(), "done".to_owned(), "failed".to_owned()]));
    for place in [".kiln/files", ".kiln/notes", ".kiln/answers"] {
        assert_eq!(site.names(place), [""; 0], "{place}");
    }
    let console = daemon.address("console http://");
    for line in ["kiln_files_total{listener=\"scans\",result=\"done\"} 3", "kiln_files_total{listener=\"scans\",result=\"failed\"} 4"] {
        wait_for(line, || get(console, "/metrics").1.lines().any(|l| l == line));
    }
    assert!(!daemon.err().contains("MEIER") && !daemon.err().contains("refused.hl7"), "names may tell of patients: {}", daemon.err());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_is_still_written_and_what_nobody_wants_stays() {
    let site = Site::new("files: [\"*.hl7\", lab*], answers: off, quiet: 700ms");
    for name in ["a.txt", "b.hl7.part", "c.hl7~", "labor"] {
        std::fs::write(site.path("in").join(name), admit(name, "4711")).expect("written");
    }
    let daemon = site.start();
    // A sender that takes its time writes for longer than a file must stay quiet.
    let mut file = std::fs::File::create(site.path("in/slow.hl7")).expect("a file");
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < Duration::from_millis(2_000) {
        file.write_all(admit(&format!("S{written}"), "4711").as_bytes()).expect("written");
        written += 1;
        std::thread::sleep(Duration::from_millis(100));
        assert!(site.path("in/slow.hl7").exists(), "taken while it was written");
    }
    drop(file);
    let read = site.arrives("done/slow.hl7");
    assert_eq!(String::from_utf8_lossy(&read).matches("MSH|").count(), written);
    site.arrives("done/labor");
    assert_eq!(site.messages().len(), written + 1);
    // A name that was there before keeps its file.
    site.put("slow.hl7", admit("again", "4711").as_bytes());
    assert_eq!(site.arrives("done/slow.hl7.1"), admit("again", "4711").as_bytes());
    assert_eq!(site.names("done"), ["labor", "slow.hl7", "slow.hl7.1"]);
    assert_eq!(site.names(""), [".kiln", "a.txt", "b.hl7.part", "c.hl7~", "done", "failed"]);
    // Other places, while it runs; and away with it.
    std::fs::create_dir(site.path("archive")).expect("a folder");
    site.write("done: archive");
    run(site.folder.path(), &["reload"]).expect(0);
    site.put("moved.hl7", admit("moved", "4711").as_bytes());
    wait_for("the new place", || site.path("archive/moved.hl7").exists());
    assert_eq!(daemon.stop(), 0);
}

/// The file that comes after a long one was looked at before that was read.
#[test]
fn a_file_that_grows_while_another_is_read_is_left_to_its_sender() {
    let site = Site::new("duplicates: off, quiet: 1s");
    let long: String = (0..3_000).map(|n| admit(&format!("L{n:04}"), "4711")).collect();
    let (early, late) = (admit("EARLY", "4711"), admit("LATE", "4712"));
    let daemon = site.start();
    site.put("1-long.hl7", long.as_bytes());
    site.put("2-slow.hl7", early.as_bytes());
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).open(site.path("in/2-slow.hl7")).expect("its sender still has it");
        file.write_all(text.as_bytes()).expect("written");
    };
    let console = daemon.address("console http://");
    wait_for("the long one to be read", || get(console, "/metrics").1.contains("kiln_messages_received_total{listener=\"scans\""));
    let (half, rest) = late.split_at(60);
    append(half);
    site.arrives("done/1-long.hl7");
    append(rest);
    assert_eq!(site.arrives("done/2-slow.hl7"), format!("{early}{late}").as_bytes());
    assert_eq!(answers(&site.arrives("done/2-slow.hl7.ack")), ["AA EARLY", "AA LATE"]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_cannot_be_read_now_is_tried_again() {
    let site = Site::new("");
    for place in [".kiln/files", ".kiln/notes", ".kiln/answers"] {
        std::fs::create_dir_all(site.path("in").join(place)).expect("a folder");
    }
    // A file that was begun, and that the disk does not give back: a link to itself, then a folder.
    let (note, begun) = (site.path("in/.kiln/notes/a.hl7"), site.path("in/.kiln/files/a.hl7"));
    std::fs::write(&note, r#"{"done":0,"newest":0,"refused":0,"flawed":false,"answers":0}"#).expect("written");
    std::os::unix::fs::symlink("a.hl7", &begun).expect("a link");
    let daemon = site.start();
    let told = |n: usize| daemon.err().matches("a folder cannot be read or written").count() == n;
    wait_for("the first fault", || told(1));
    assert!(note.exists(), "what says how far the file was read is kept");
    let other = site.path("in/.kiln/other");
    std::os::unix::fs::symlink(site.folder.path(), &other).expect("a link");
    std::fs::rename(&other, &begun).expect("put in its place");
    wait_for("the second fault", || told(2));
    assert!(note.exists() && !site.path("in/failed/a.hl7").exists(), "it is not damaged: {}", daemon.err());
    std::fs::write(&other, admit("1", "4711")).expect("written");
    std::fs::rename(&other, &begun).expect("put in its place");
    assert_eq!(site.arrives("done/a.hl7"), admit("1", "4711").as_bytes());
    assert_eq!(answers(&site.arrives("done/a.hl7.ack")), ["AA 1"]);

    // One that lies there without a note is nobody's to write over.
    std::fs::write(site.path("in/.kiln/files/b.hl7"), admit("2", "4711")).expect("written");
    site.put("b.hl7", admit("3", "4711").as_bytes());
    wait_for("the third fault", || daemon.err().contains("lies a file that nobody reads"));
    assert_eq!(std::fs::read(site.path("in/.kiln/files/b.hl7")).expect("it stays"), admit("2", "4711").as_bytes());
    std::fs::rename(site.path("in/.kiln/files/b.hl7"), site.path("in/c.hl7")).expect("moved");
    site.arrives("done/b.hl7");
    site.arrives("done/c.hl7");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn utf_16_is_answered_in_utf_16() {
    let site = Site::new("acknowledge: mapped");
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let narrow = |bytes: &[u8]| {
        let units: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        String::from_utf16(&units).expect("UTF-16")
    };
    let daemon = site.start();
    let umlaut = |control_id: &str| admit(control_id, "4711").replace("|ADT1|", "|Ädt|");
    site.put("well.hl7", &wide(&format!("\u{feff}{}{}", umlaut("1"), umlaut("2"))));
    site.arrives("done/well.hl7");
    let ack = narrow(&site.arrives("done/well.hl7.ack"));
    assert_eq!(answers(ack.as_bytes()), ["AA 1", "AA 2"]);
    assert!(ack.contains("|Ädt|") && ack.ends_with('\r') && !ack.contains("\r\r"), "{ack}");
    site.put("ill.hl7", &wide(&format!("{}{}", umlaut("3"), admit("4", "").replace("^^^HOSP^MR", ""))));
    site.arrives("failed/ill.hl7");
    assert_eq!(answers(narrow(&site.arrives("failed/ill.hl7.ack")).as_bytes()), ["AA 3", "AE 4"]);
    assert_eq!(daemon.stop(), 0);
}

/// What waits for a target is near its limit, and the second message would bring too much: the third, which nobody takes, could be stored at once.
#[test]
fn none_overtakes_a_message_that_could_not_be_stored() {
    let server = Server::start(Mood::Busy);
    let site = cli_support::moody::site(
        &format!("listeners:\n  scans: {{ folder: in, quiet: 100ms }}\ntargets:\n  main: {{ {} }}\n  other: {{ 'null': true }}\n", server.target()),
        &format!("{ROUTE}---\n{}", ROUTE.replace("odd", "again").replace(", ZZZ^Z02", "").replace("to: main", "to: other")),
    );
    let text = std::fs::read_to_string(site.path().join("kiln.yaml"))
        .expect("a file")
        .replace("low-water: 1MiB", "low-water: 1MiB, backlog-max: 2, backlog-resume: 1");
    std::fs::write(site.path().join("kiln.yaml"), text).expect("written");
    let daemon = Daemon::start(site.path());
    let put = |name: &str, text: &str| {
        std::fs::write(site.path().join(format!("in/.{name}")), text).expect("written");
        std::fs::rename(site.path().join(format!("in/.{name}")), site.path().join("in").join(name)).expect("moved");
    };
    put("1.hl7", &odd("WAITS", "1", "Meier").replace("ZZZ^Z01", "ZZZ^Z02"));
    wait_for("the first file", || site.path().join("in/done/1.hl7").exists());
    let nobodys = |control_id: &str| odd(control_id, "2", "Meier").replace("ZZZ^Z01", "ZZZ^Z09");
    // All three are handed over at once; the first is on its way to the disk while the others are looked at.
    put("2.hl7", &format!("{}{}{}", nobodys("FIRST"), odd("SECOND", "2", "Meier"), nobodys("THIRD")));
    wait_for("the fault", || daemon.err().contains("too many deliveries are waiting"));
    server.mood(Mood::Well);
    wait_for("the second file", || site.path().join("in/done/2.hl7").exists());
    let found = || {
        let found = run(site.path(), &["journal", "search", "--json"]).expect(0).out;
        let mut found: Vec<_> = found.lines().map(cli_support::moody::parse).map(|m| (m["id"].as_u64(), m["controlId"].as_str().map(str::to_owned))).collect();
        found.sort();
        found
    };
    // The search is some moments behind the journal.
    wait_for("all to be found", || found().len() >= 4);
    let found = found();
    let order: Vec<_> = found.iter().filter_map(|(_, control_id)| control_id.as_deref()).collect();
    assert_eq!(order, ["WAITS", "FIRST", "SECOND", "THIRD"]);
    assert_eq!(answers(&std::fs::read(site.path().join("in/done/2.hl7.ack")).expect("it is there")), ["AA FIRST", "AA SECOND", "AA THIRD"]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_folder_that_is_away_is_told_once_and_looked_for() {
    let site = Site::new("");
    let daemon = site.start();
    std::fs::rename(site.path("in"), site.path("away")).expect("moved");
    std::fs::write(site.path("in"), "no folder").expect("a file");
    wait_for("the fault", || daemon.err().contains("a folder cannot be read or written"));
    let console = daemon.address("console http://");
    let faults =
        || get(console, "/metrics").1.lines().find_map(|l| l.strip_prefix("kiln_frame_faults_total{listener=\"scans\",fault=\"folder\"} ").map(str::to_owned));
    assert_eq!(faults().as_deref(), Some("1"));
    std::fs::remove_file(site.path("in")).expect("removed");
    std::fs::rename(site.path("away"), site.path("in")).expect("moved");
    site.put("back.hl7", admit("1", "4711").as_bytes());
    site.arrives("done/back.hl7");
    assert_eq!(daemon.err().matches("a folder cannot be read or written").count(), 1);
}

/// Duplicates are not known here, so that a message which was handed over twice is there twice.
#[test]
fn kill_at_any_moment_loses_nothing_and_stores_nothing_twice() {
    const FILES: usize = 30;
    const MESSAGES: usize = 60;
    const KILLS: usize = 12;
    let site = Site::new("duplicates: off");
    let mut expected = BTreeMap::new();
    for file in 0..FILES {
        let ids: Vec<String> = (0..MESSAGES).map(|n| format!("F{file:02}N{n:03}")).collect();
        let text: String = ids.iter().map(|id| admit(id, &format!("P{file}"))).collect();
        site.put(&format!("f{file:02}.hl7"), text.as_bytes());
        expected.extend(ids.into_iter().map(|id| (id, 1)));
    }
    // A file whose messages were stored in the last moment before a kill has no answers beside it.
    let done = || site.names("done").iter().filter(|name| !name.ends_with(".ack")).count();
    let stored = |daemon: &Daemon| {
        let metrics = get(daemon.address("console http://"), "/metrics").1;
        metrics.lines().filter_map(|l| l.strip_prefix("kiln_acks_total{listener=\"scans\",code=\"AA\"} ")?.parse::<usize>().ok()).sum::<usize>()
    };
    for kill in 0..KILLS {
        let daemon = site.start();
        // Somewhere within a file, another place each time.
        let enough = 37 + 29 * (kill % 5);
        wait_for("some messages", || stored(&daemon) >= enough || done() == FILES);
        daemon.signal("KILL");
        drop(daemon);
    }
    let daemon = site.start();
    wait_for("the last file", || done() == FILES);
    let mut found = BTreeMap::new();
    let messages = site.messages();
    for (control_id, _) in &messages {
        *found.entry(control_id.clone()).or_insert(0) += 1;
    }
    assert_eq!(found, expected);
    for file in 0..FILES {
        let of_file = |id: &&String| id.starts_with(&format!("F{file:02}"));
        let order: Vec<_> = messages.iter().map(|(id, _)| id).filter(of_file).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
    assert_eq!(site.names("failed"), [""; 0]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_stop_within_a_file_goes_on_at_the_next_start() {
    let site = Site::new("duplicates: off");
    let ids: Vec<String> = (0..3_000).map(|n| format!("N{n:04}")).collect();
    let text: String = ids.iter().map(|id| admit(id, "4711")).collect();
    let daemon = site.start();
    site.put("long.hl7", text.as_bytes());
    let console = daemon.address("console http://");
    wait_for("the first messages", || get(console, "/metrics").1.contains("kiln_messages_received_total{listener=\"scans\""));
    assert_eq!(daemon.stop(), 0);
    let before = site.messages().len();
    let daemon = site.start();
    site.arrives("done/long.hl7");
    assert_eq!(site.messages().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ids, "{before} were stored before the stop");
    assert_eq!(answers(&site.arrives("done/long.hl7.ack")).len(), ids.len());
    assert_eq!(daemon.stop(), 0);
}
