//! A large document in OBX-5 goes from the socket through the journal to a server, whole, and without being held several times.
//!
//! `cargo test --release --test document -- --nocapture` prints the figures of docs/performance.md.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "what is measured is said")]

mod cli_support;

use cli_support::{Daemon, kiln, wait_for};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// As many bytes as the figure is about; the listener's limit is 64 MiB.
const DOCUMENT_BYTES: usize = 40_000_000;

/// Base64, without a repeat that anything could be clever about.
fn document() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut text = String::with_capacity(DOCUMENT_BYTES);
    while text.len() < DOCUMENT_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for shift in (0..48).step_by(6) {
            text.push(char::from(LETTERS[(state >> shift) as usize % 64]));
        }
    }
    text
}

fn report(document: &str) -> String {
    format!(
        "MSH|^~\\&|LAB|HAFENKLINIK|KILN|KILN|20260302081500+0100||ORU^R01^ORU_R01|NL-40M|P|2.5.1|||||DEU|UNICODE UTF-8\r\
         PID|1||70012^^^HAFENKLINIK^MR||Kiesel^Petronella||19610412|F\r\
         ORC|RE|P1^KIS|F1^LAB\r\
         OBR|1|P1^KIS|F1^LAB|18748-4^Diagnostic imaging study^LN|||20260302080000+0100|||||||||||||||20260302081500+0100||RAD|F\r\
         OBX|1|ED|18748-4^Diagnostic imaging study^LN||^application^pdf^Base64^{document}||||||F\r"
    )
}

/// Sends one message and reads its acknowledgement.
fn send(daemon: &Daemon, message: &str) -> String {
    let mut stream = TcpStream::connect(daemon.address("adt on ")).expect("the listener accepts");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a socket has timeouts");
    for piece in [&b"\x0B"[..], message.as_bytes(), b"\x1C\r"] {
        stream.write_all(piece).expect("the listener reads");
    }
    stream.shutdown(Shutdown::Write).expect("the socket is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in UTF-8");
    answer
}

/// The most memory that the daemon ever had resident, in bytes.
fn peak(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("its process is there");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("Linux tells it");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("in kB") * 1024
}

/// A FHIR server that takes transactions: what it was sent, head and body.
fn server() -> (u16, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let (told, requests) = sync_channel(64);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let told = told.clone();
            std::thread::spawn(move || while answer(&stream, &told).is_some() {});
        }
    });
    (port, requests)
}

fn answer(mut stream: &TcpStream, told: &SyncSender<(String, Vec<u8>)>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let content = if head.starts_with("POST / ") || head.starts_with("POST /r4 ") {
        let sent: Value = serde_json::from_slice(&body).ok()?;
        let mut entries = String::new();
        for (n, entry) in sent["entry"].as_array()?.iter().enumerate() {
            let kind = entry["resource"]["resourceType"].as_str()?;
            write!(entries, "{}{{\"response\":{{\"status\":\"201\",\"location\":\"{kind}/{n}/_history/1\"}}}}", if n == 0 { "" } else { "," }).ok()?;
        }
        format!("{{\"resourceType\":\"Bundle\",\"type\":\"transaction-response\",\"entry\":[{entries}]}}")
    } else {
        "{\"resourceType\":\"Bundle\",\"type\":\"searchset\",\"total\":0}".to_owned()
    };
    told.send((head, body)).ok()?;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{content}", content.len()).ok()
}

/// Starts a daemon with this target, sends the document, waits until it is `done`, and says how many bytes that took beside the program and its routes, which
/// need more in a debug build.
fn pass(target: &str, folder: &std::path::Path, document: &str, done: impl FnMut() -> bool) -> usize {
    std::fs::write(
        folder.join("kiln.yaml"),
        format!("journal: {{ path: journal }}\nconsole: {{ listen: 127.0.0.1:0 }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0, limits: {{ frame: 64MiB, frame-time: 120s }} }} }}\ntargets: {{ main: {{ {target} }} }}\n"),
    )
    .expect("the folder is writable");
    // The allocator gives back what was freed at once, not a tenth of a second or more later: what is measured is what Kiln holds.
    let daemon = Daemon::start_with(kiln(folder).env("MIMALLOC_PURGE_DELAY", "0").arg("serve"));
    let before = peak(&daemon);
    let began = Instant::now();
    let acknowledgement = send(&daemon, &report(document));
    assert!(acknowledgement.contains("MSA|AA|NL-40M"), "{acknowledgement}");
    wait_for("the document to arrive", done);
    let after = peak(&daemon);
    println!(
        "{target}: {:.0} MB at most, {:.0} MB of them before, so {:.2} times its {} MB; {:.1} s",
        after as f64 / 1e6,
        before as f64 / 1e6,
        after as f64 / document.len() as f64,
        document.len() / 1_000_000,
        began.elapsed().as_secs_f64()
    );
    assert_eq!(daemon.stop(), 0);
    after.saturating_sub(before)
}

/// The report's form and the observation's value hold it whole.
fn holds(report: &Value, observation: &Value, document: &str) {
    assert_eq!(report["presentedForm"][0]["contentType"], "application/pdf");
    assert!(report["presentedForm"][0]["data"] == *document, "the report's form is another document");
    let extension = observation["extension"].as_array().expect("a list").iter().find(|e| e["valueAttachment"].is_object()).expect("the value");
    assert!(extension["valueAttachment"]["data"] == *document, "the observation's value is another document");
}

#[test]
fn a_document_of_40_mb_reaches_a_server_and_takes_less_than_two_times_its_memory() {
    let document = document();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (port, requests) = server();
    let mut sent = None;
    let peak = pass(&format!("fhir: \"http://127.0.0.1:{port}/r4\""), folder.path(), &document, || {
        sent = sent.take().or_else(|| requests.try_iter().find(|(head, _)| head.starts_with("POST /r4 ")));
        sent.is_some()
    });
    let (head, body) = sent.expect("it was waited for");
    assert!(head.to_ascii_lowercase().contains("content-length: "), "servers need not take chunks: {head}");
    let bundle: Value = serde_json::from_slice(&body).expect("JSON");
    let resource = |kind: &str| bundle["entry"].as_array().and_then(|all| all.iter().map(|e| &e["resource"]).find(|r| r["resourceType"] == kind)).expect(kind);
    holds(resource("DiagnosticReport"), resource("Observation"), &document);
    assert!(peak < 2 * document.len(), "{peak} bytes beside the program");
}

#[test]
fn a_document_of_40_mb_reaches_a_folder_and_takes_less_than_two_times_its_memory() {
    let document = document();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let read = |kind: &str| -> Option<Value> {
        let file = std::fs::read_dir(folder.path().join("out").join(kind)).ok()?.next()?.ok()?;
        serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()
    };
    let peak = pass("folder: out", folder.path(), &document, || read("Observation").is_some() && read("DiagnosticReport").is_some());
    holds(&read("DiagnosticReport").expect("a file"), &read("Observation").expect("a file"), &document);
    assert!(peak < 2 * document.len(), "{peak} bytes beside the program");
}
