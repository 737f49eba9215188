//! Every message that others wrote goes over the wire: each is answered as it should be, each is in the journal, and none stops the daemon.
//!
//! `tests/corpus_wire.expected` says what was answered; `UPDATE=1 cargo test --test corpus_wire` rewrites it.

mod cli_support;

use cli_support::{Daemon, PATIENCE, admit, kiln, run, wait_for};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

/// Files by folder and name, each cut into its messages.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/messages");
    let list = |folder: &Path| {
        let mut paths: Vec<PathBuf> = folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    let mut messages = Vec::new();
    for file in list(&root).iter().filter(|folder| folder.is_dir()).flat_map(|folder| list(folder)) {
        let name = file.strip_prefix(&root).expect("below the root").display().to_string();
        let bytes = std::fs::read(&file).expect("a readable file");
        for (n, range) in kiln::hl7v2::split(&bytes).into_iter().enumerate() {
            let number = if n == 0 { String::new() } else { format!("[{}]", n + 1) };
            messages.push((format!("{name}{number}"), bytes[range].to_vec()));
        }
    }
    messages
}

struct Peer {
    stream: TcpStream,
    probes: usize,
}

impl Peer {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, probes: 0 }
    }

    fn write(&mut self, message: &[u8]) {
        self.stream.write_all(&[&[0x0b], message, &[0x1c, 0x0d]].concat()).expect("it reads");
    }

    /// The next answer: MSA-1, MSA-2 and ERR-3.1.
    fn answer(&mut self) -> (String, String, String) {
        let (mut frame, mut byte) = (Vec::new(), [0]);
        while !frame.ends_with(&[0x1c, 0x0d]) {
            assert_eq!(self.stream.read(&mut byte).expect("an answer in time"), 1, "the connection was closed");
            frame.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&frame).into_owned();
        // The answer has the delimiters of the message.
        let header = text.find("MSH").expect("an answer begins with MSH");
        let (field, component) = (text.as_bytes()[header + 3] as char, text.as_bytes()[header + 4] as char);
        let segment = |name: &str| text.split('\r').find(|segment| segment.starts_with(name)).map(|segment| segment.split(field).collect::<Vec<_>>());
        let msa = segment("MSA").expect("an answer has an MSA");
        let part = |of: &[&str], n: usize| of.get(n).map(|field| field.split(component).next().unwrap_or_default().to_owned()).unwrap_or_default();
        let code = segment("ERR").map(|err| part(&err, 3)).unwrap_or_default();
        (part(&msa, 1), msa.get(2).copied().unwrap_or_default().to_owned(), code)
    }

    /// Sends a message, and behind it one whose answer is known: what comes before that is the message's answer, if it gets one.
    fn send(&mut self, message: &[u8]) -> Option<(String, String, String)> {
        self.probes += 1;
        let probe = format!("PROBE{}", self.probes);
        self.write(message);
        self.write(admit(&probe, &probe).as_bytes());
        let first = self.answer();
        if first.1 == probe {
            return None;
        }
        assert_eq!(self.answer().1, probe);
        Some(first)
    }
}

#[test]
fn every_message_is_answered_and_stored_and_none_stops_the_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    // Original mode: each message has one answer, at once, whatever MSH-15 says of the system that it was once sent to.
    // A disk that is nearly full for other reasons shall not stop the test. Without `duplicates: 0` a message that stands in two files would be stored once.
    let site = "journal: { low-water: 1MiB }\nconsole: { listen: 127.0.0.1:0 }\nlisteners: { all: { mllp: 127.0.0.1:0, duplicates: 0, mode: original } }\ntargets: { main: { folder: out } }\n";
    std::fs::write(folder.path().join("kiln.yaml"), site).expect("a file");
    let daemon = Daemon::start_with(kiln(folder.path()).arg("serve"));
    let mut peer = Peer::connect(daemon.address("all on "));

    let corpus = corpus();
    assert!(corpus.len() > 230, "{} messages", corpus.len());
    let mut found = String::new();
    for (name, message) in &corpus {
        match peer.send(message) {
            None => {
                let is_an_answer = message.split(|byte| matches!(byte, b'\r' | b'\n')).any(|segment| segment.starts_with(b"MSA"));
                assert!(is_an_answer, "{name} got no answer and is none itself");
                writeln!(found, "{name}: no answer")
            }
            Some((code, _, reason)) if reason.is_empty() => writeln!(found, "{name}: {code}"),
            Some((code, _, reason)) => writeln!(found, "{name}: {code} {reason}"),
        }
        .expect("a string takes text");
    }

    let stats = || -> serde_json::Value { serde_json::from_str(&run(folder.path(), &["journal", "stats", "--json"]).out).expect("JSON") };
    let all = stats();
    let stored: u64 = all["messages"].as_array().expect("a list").iter().filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(stored, (corpus.len() + peer.probes) as u64, "every message is in the journal, whatever was answered");
    // Each delivery comes to its end: delivered, a dead letter, or parked behind one.
    wait_for("every delivery to be tried", || {
        let target = &stats()["targets"][0];
        target["backlog"] == 0 || target["backlog"] == target["parked"]
    });
    assert_eq!(daemon.err().matches("panicked").count(), 0, "{}", daemon.err());
    assert_eq!(daemon.stop(), 0);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus_wire.expected");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &found).expect("the expectation can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("tests/corpus_wire.expected is in the repository");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
