//! MLLP clients that others wrote send to `kiln serve`, each in its own way, and read what it answers; parsers that others wrote read the messages
//! that routes make (tests/peers).
//!
//! Their packages are installed with `npm ci`, a venv and Maven in tests/peers (.ci/run does all); `KILN_E2E=1` makes their absence a failure.
#![allow(clippy::print_stderr, reason = "what a reader of the test log wants to know")]

mod cli_support;
mod v2_support;

use cli_support::{Daemon, kiln, run, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use v2_support::proxy::{Faults, Proxy};

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
        Self::with("")
    }

    /// With further keys of its listener.
    fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site = format!(
            "journal: {{ low-water: 1MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0{more} }} }}\ntargets: {{ main: {{ folder: out }} }}\n"
        );
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
        "java" => (PathBuf::from("java"), peers().join("hapi/classpath")),
        _ => (peers().join("venv/bin").join(kind), peers().join("venv/bin").join(kind)),
    };
    if !needs.exists() {
        let reason = format!("{} is missing: `npm ci`, a venv with requirements.txt and Maven in tests/peers, or .ci/run", needs.display());
        assert!(!std::env::var("KILN_E2E").is_ok_and(|set| !matches!(set.as_str(), "" | "0")), "{reason}");
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut command = Command::new(program);
    if kind == "java" {
        command.args(["-cp", std::fs::read_to_string(needs).expect("a text").trim(), "hapi/Peer.java"]);
    }
    command.current_dir(peers()).stdin(Stdio::null());
    Some(command)
}

/// The client sends all messages; it must read an AA for each, in order, and the journal must have exactly these.
fn sends_and_reads_an_aa_for_each(kind: &str, script: &str, name: &str) {
    sends(kind, script, name, None);
    // These take what one read gives for an answer.
    let reads_once = matches!(name, "node-hl7-client" | "client" | "batch" | "file");
    sends(kind, script, name, Some(Faults { split_answer: if reads_once { 0 } else { Faults::HARMLESS.split_answer }, ..Faults::HARMLESS }));
}

/// Directly, or by way of a proxy that splits and delays.
fn sends(kind: &str, script: &str, name: &str, faults: Option<Faults>) {
    let Some(mut command) = client(kind) else { return };
    let house = House::open();
    let messages = messages();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let proxy = faults.map(|faults| runtime.block_on(Proxy::before(house.daemon.address("adt on "), faults, 7)));
    let port = proxy.as_ref().map_or_else(|| house.port(), |proxy| proxy.address.port().to_string());
    command
        .args([script, name, &port].into_iter().filter(|argument| !argument.is_empty()))
        .args(messages.iter().map(|(file, _)| file))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
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
fn hapi() {
    sends_and_reads_an_aa_for_each("java", "send", "");
}

#[test]
fn hl7apy_reads_our_acknowledgements_strictly() {
    sends_and_reads_an_aa_for_each("python", "send.py", "hl7apy");
}

/// python-hl7 asks for both acknowledgements, reads both, and accepts the second; the journal knows that it did.
fn takes_both_acknowledgements(kind: &str, more: &str, own_port: Option<String>) {
    let Some(mut command) = client("python") else { return };
    let house = House::with(more);
    let output = command.args(["enhanced.py", kind, &house.port()]).args(own_port).output().expect("it is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.lines().collect::<Vec<_>>(), ["CA PY1", "AA PY1"], "{err}");
    let shown = || run(house.folder.path(), &["journal", "show", "1"]).out;
    wait_for("the acceptance", || shown().contains("accept  CA\n") && shown().contains("result  AA, told and accepted"));
    assert_eq!(house.daemon.stop(), 0);
}

#[test]
fn python_hl7_in_enhanced_mode_on_one_connection() {
    takes_both_acknowledgements("sender", ", enhanced: { own: AL }", None);
}

#[test]
fn python_hl7_in_enhanced_mode_with_a_listener_of_its_own() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    takes_both_acknowledgements("listener", &format!(", enhanced: {{ to: '127.0.0.1:{port}', own: AL }}"), Some(port.to_string()));
}

#[test]
fn python_hl7_sends_a_batch_and_reads_ours() {
    sends_and_reads_an_aa_for_each("python", "send.py", "batch");
}

#[test]
fn python_hl7_sends_a_file_of_batches_and_reads_ours() {
    sends_and_reads_an_aa_for_each("python", "send.py", "file");
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

/// Every message that the cases of the language make, by route and number.
fn made() -> Vec<Vec<u8>> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language/cases");
    let mut made = Vec::new();
    let mut files: Vec<_> = cases.read_dir().expect("the cases").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("message-")));
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a case");
        let (head, rest) = text.split_once("\n=== message\n").expect("its messages");
        let (_, routes) = head.split_once("=== routes\n").expect("its routes");
        let (messages, _) = rest.split_once("\n=== makes\n").expect("what it makes");
        let mut sources = kiln::diagnostic::Sources::default();
        sources.add("case.yaml", routes);
        let Some(set) = kiln::route::load(sources, &kiln::route::LoadOptions::default()).set else { continue };
        for message in messages.split("\n\n") {
            let bytes = message.trim_end().replace('\n', "\r") + "\r";
            let message = kiln::hl7v2::Message::parse(bytes.into_bytes().into(), &kiln::hl7v2::ParseOptions::default()).expect("it parses");
            let context = kiln::route::Context {
                received: kiln::exchange::Timestamp(1_767_225_600_000),
                zone: None,
                authority: None,
                message: kiln::exchange::MessageId(7),
                listener: "adt",
                answers: kiln::fhir::Answers::NONE,
            };
            for route in set.matching("adt", &message).taken {
                made.extend(set.run(route, &message, &context).into_iter().flat_map(|o| o.drafts).map(|d| d.bytes));
            }
        }
    }
    made
}

/// The deepest values of a message, delimiters resolved and escapes as they are written, in the shape that tests/peers/read.py prints.
fn leaves(message: &kiln::hl7v2::Message) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    for segment in 0..message.segment_count() {
        for field in 1..=message.field_count(segment) {
            if segment == 0 && field <= 2 {
                continue;
            }
            for (r, repetition) in message.repetitions(message.field(segment, field)).enumerate() {
                for c in 1..=message.component_count(repetition) {
                    let component = message.component(repetition, c);
                    for s in 1..=message.subcomponent_count(component) {
                        let text = message.raw_text(message.subcomponent(component, s)).into_owned();
                        if !text.is_empty() {
                            found.push(serde_json::json!([segment, field, r + 1, c, s, text]));
                        }
                    }
                }
            }
        }
    }
    found
}

/// python-hl7 finds each value where Kiln finds it; HL7apy reads the same segments and writes them back as they are.
#[test]
fn parsers_of_others_read_what_routes_make() {
    let Some(mut plain) = client("python") else { return };
    let Some(mut strict) = client("python") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let made = made();
    assert!(made.len() >= 15, "{}", made.len());
    let (mut files, mut wanted, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (n, bytes) in made.into_iter().enumerate() {
        let message = kiln::hl7v2::Message::parse(bytes.clone().into(), &kiln::hl7v2::ParseOptions::default()).expect("Kiln reads what it writes");
        let file = folder.path().join(format!("{n}.hl7"));
        // Both read text; that its bytes are those of MSH-18, Kiln's own parser has just seen.
        std::fs::write(&file, message.charset().decode(&bytes).as_bytes()).expect("a file");
        wanted.push(serde_json::Value::Array(leaves(&message)));
        names.push((0..message.segment_count()).map(|n| message.segment_name(n).to_owned()).collect::<Vec<_>>());
        files.push(file);
    }
    let run = |command: &mut Command, reader: &str| {
        let output = command.args(["read.py", reader]).args(&files).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it is installed");
        assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("JSON");
        text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect::<Vec<serde_json::Value>>()
    };
    for (n, (seen, wanted)) in run(&mut plain, "hl7").into_iter().zip(&wanted).enumerate() {
        assert_eq!(seen, *wanted, "message {n}: {}", std::fs::read_to_string(&files[n]).unwrap_or_default());
    }
    for (seen, wanted) in run(&mut strict, "hl7apy").into_iter().zip(&names) {
        let names: Vec<_> = seen.as_array().expect("a list").iter().map(|leaf| leaf[5].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(names, *wanted);
    }
}
