//! MLLP clients that others wrote send to `kiln serve`, each in its own way, and read what it answers (tests/peers).
//!
//! Their packages are installed with `npm ci` and a venv in tests/peers (.ci/run does both); `KILN_E2E=1` makes their absence a failure.
#![allow(clippy::print_stderr, reason = "what a reader of the test log wants to know")]

mod cli_support;

use cli_support::{Daemon, kiln, run, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// The messages of `kiln try`, and their control IDs: both hospitals, ADT and SIU, with letters outside ASCII.
fn messages() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/try");
    let mut files: Vec<_> = folder.read_dir().expect("the fixtures").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "hl7"));
    files.sort();
    assert!(files.len() >= 8);
    let with_id = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        let id = text.split('|').nth(9).expect("MSH-10").to_owned();
        (file, id)
    };
    files.into_iter().map(with_id).collect()
}

/// A daemon of its own, so that no client's message is a duplicate of another's.
struct House {
    folder: tempfile::TempDir,
    daemon: Daemon,
}

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site =
            "journal: { low-water: 1MiB }\nconsole: { listen: 127.0.0.1:0 }\nlisteners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\n";
        std::fs::write(folder.path().join("kiln.yaml"), site).expect("a file");
        let daemon = Daemon::start_with(kiln(folder.path()).arg("serve"));
        Self { folder, daemon }
    }

    fn port(&self) -> String {
        self.daemon.address("adt on ").port().to_string()
    }

    /// What the journal has, newest first: control ID and type.
    fn journal(&self) -> Vec<(String, String)> {
        let found = run(self.folder.path(), &["journal", "search", "--limit", "1000", "--json"]);
        let word = |json: &serde_json::Value, key: &str| json[key].as_str().expect("a text").to_owned();
        let lines = found.out.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.map(|json: serde_json::Value| (word(&json, "controlId"), word(&json, "type"))).collect()
    }

    fn stored_messages(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.journal().into_iter().filter(|(_, kind)| !kind.starts_with("ACK")).map(|(id, _)| id).collect();
        ids.sort();
        ids
    }
}

/// `None` where the client is not installed, with the reason on standard error.
fn client(kind: &str) -> Option<Command> {
    let (program, needs) = match kind {
        "node" => (PathBuf::from("node"), peers().join("node_modules")),
        _ => (peers().join("venv/bin").join(kind), peers().join("venv/bin").join(kind)),
    };
    if !needs.exists() {
        let reason = format!("{} is missing: `npm ci` and a venv with requirements.txt in tests/peers, or .ci/run", needs.display());
        assert!(!std::env::var("KILN_E2E").is_ok_and(|set| !matches!(set.as_str(), "" | "0")), "{reason}");
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut command = Command::new(program);
    command.current_dir(peers()).stdin(Stdio::null());
    Some(command)
}

/// The client sends all messages; it must read an AA for each, in order, and the journal must have exactly these.
fn sends_and_reads_an_aa_for_each(kind: &str, script: &str, name: &str) {
    let Some(mut command) = client(kind) else { return };
    let house = House::open();
    let messages = messages();
    command.args([script, name, &house.port()]).args(messages.iter().map(|(file, _)| file)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    let give_up = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > give_up {
            child.kill().expect("a child");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("a child");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let wanted: Vec<_> = messages.iter().map(|(_, id)| format!("AA {id}")).collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), wanted, "{name}: {err}");
    assert!(output.status.success(), "{name}: {err}");

    let mut ids: Vec<_> = messages.into_iter().map(|(_, id)| id).collect();
    ids.sort();
    assert_eq!(house.stored_messages(), ids, "{name}");
    // hl7v2-net acknowledges each acknowledgement: stored once each, and not answered, or there would be more.
    let acknowledgements = house.journal().len() - ids.len();
    assert!(acknowledgements == 0 || (name == "hl7v2-net" && acknowledgements <= ids.len()), "{name}: {acknowledgements}");
    assert_eq!(house.daemon.stop(), 0);
}

#[test]
fn medplum() {
    sends_and_reads_an_aa_for_each("node", "send.mjs", "medplum");
}

#[test]
fn node_hl7_client() {
    sends_and_reads_an_aa_for_each("node", "send.mjs", "node-hl7-client");
}

#[test]
fn hl7v2_net() {
    sends_and_reads_an_aa_for_each("node", "send.mjs", "hl7v2-net");
}

#[test]
fn simple_hl7() {
    sends_and_reads_an_aa_for_each("node", "send.mjs", "simple-hl7");
}

#[test]
fn python_hl7_asyncio() {
    sends_and_reads_an_aa_for_each("python", "send.py", "asyncio");
}

#[test]
fn python_hl7_client() {
    sends_and_reads_an_aa_for_each("python", "send.py", "client");
}

#[test]
fn hl7apy_reads_our_acknowledgements_strictly() {
    sends_and_reads_an_aa_for_each("python", "send.py", "hl7apy");
}

#[test]
fn a_client_that_sends_ahead_loses_nothing_though_it_reads_only_the_first_of_two_answers() {
    let Some(mut command) = client("node") else { return };
    let house = House::open();
    let messages = messages();
    command.args(["send.mjs", "node-hl7-client ahead", &house.port()]).args(messages.iter().map(|(file, _)| file));
    let mut child = command.stdout(Stdio::null()).spawn().expect("it is installed");
    wait_for("every message to be stored", || house.stored_messages().len() >= messages.len());
    child.kill().expect("a child");
    child.wait().expect("a child");
    assert_eq!(house.stored_messages(), messages.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

#[test]
fn mllp_send() {
    let Some(mut command) = client("mllp_send") else { return };
    let house = House::open();
    for (file, id) in messages() {
        let before = house.stored_messages().len();
        let arguments = ["--loose", "--port", &house.port(), "--file"];
        let output = client("mllp_send").unwrap_or_else(|| Command::new("mllp_send")).args(arguments).arg(&file).arg("127.0.0.1").output();
        let out = output.expect("it is installed").stdout;
        let out = String::from_utf8_lossy(&out);
        assert!(out.contains(&format!("MSA|AA|{id}\r")), "{out}");
        assert_eq!(house.stored_messages().len(), before + 1);
    }
    // Framed input from a pipe, and a host that is not there: the client's own exit code says so.
    assert!(!command.args(["--port", "1", "127.0.0.1"]).output().expect("it is installed").status.success());
}
