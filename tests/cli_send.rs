//! `kiln send` against receivers that answer well, badly, or not at all.

mod cli_support;
use cli_support::{Ran, admit, kiln, run};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a receiver does with the n-th message; the answer goes out as it is. `None` closes the connection.
type Answer = dyn Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync;

fn receiver(answer: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (answer, count): (Arc<Answer>, _) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut stream = stream.expect("a connection");
                let mut gathered = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    gathered.extend_from_slice(&buffer[..n]);
                    while let Some(end) = gathered.windows(2).position(|w| w == [0x1c, 0x0d]) {
                        let frame: Vec<u8> = gathered.drain(..end + 2).collect();
                        let message = String::from_utf8_lossy(&frame[1..end]).into_owned();
                        match answer(count.fetch_add(1, Ordering::SeqCst), &message) {
                            Some(bytes) => stream.write_all(&bytes).expect("a reader"),
                            None => return,
                        }
                    }
                }
            });
        }
    });
    address
}

fn control_id(message: &str) -> &str {
    message.split('|').nth(9).unwrap_or("")
}

fn framed(text: &str) -> Vec<u8> {
    format!("\u{b}{text}\u{1c}\r").into_bytes()
}

fn ack(code: &str, control_id: &str) -> Vec<u8> {
    framed(&format!("MSH|^~\\&|R|R|S|S|2026||ACK|A1|P|2.5.1\rMSA|{code}|{control_id}\r"))
}

fn folder_with(message: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("m.hl7"), message).expect("a file");
    folder
}

#[test]
fn an_accepted_message_is_shown_and_exits_0() {
    let address = receiver(|_, m| Some(ack("AA", control_id(m))));
    let folder = folder_with(&admit("C1", "7").replace('\r', "\n"));
    let ran = run(folder.path(), &["send", "m.hl7", "--to", &address.to_string()]).expect(0);
    assert!(ran.out.starts_with("AA  C1  m.hl7"), "{}", ran.out);
    let ran = run(folder.path(), &["send", "m.hl7", "--to", &address.to_string(), "--json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((json["accepted"].as_bool(), json["code"].as_str(), json["controlId"].as_str()), (Some(true), Some("AA"), Some("C1")));
}

#[test]
fn segments_end_in_carriage_returns_on_the_wire() {
    let address = receiver(|_, m| Some(ack(if m.contains('\n') || m.matches('\r').count() != 4 { "AR" } else { "AA" }, control_id(m))));
    let folder = folder_with(&admit("C1", "7").replace('\r', "\r\n"));
    run(folder.path(), &["send", "m.hl7", "--to", &address.to_string()]).expect(0);
}

#[test]
fn a_refusal_tells_what_to_fix_and_exits_1() {
    let nak =
        "MSH|^~\\&|R|R|S|S|2026||ACK|A1|P|2.5.1\rMSA|AE|C1\rERR||PID^1^3|101^Required field missing^HL70357|E||||the patient has no identifier\u{1b}[2J\r";
    let address = receiver(move |_, _| Some(framed(nak)));
    let folder = folder_with(&admit("C1", "7"));
    let ran = run(folder.path(), &["send", "m.hl7", "--to", &address.to_string()]).expect(1);
    assert!(ran.out.contains("AE  C1"), "{}", ran.out);
    assert!(ran.out.contains("101 at PID^1^3: the patient has no identifier\\u{1b}[2J"), "{}", ran.out);
}

#[test]
fn answers_that_answer_something_else_do_not_count() {
    let folder = folder_with(&admit("C1", "7"));
    let send = |address: SocketAddr| run(folder.path(), &["send", "m.hl7", "--to", &address.to_string(), "--timeout", "500ms"]);
    let other = send(receiver(|_, _| Some(ack("AA", "C2")))).expect(1);
    assert!(other.out.contains("answers another message"), "{}", other.out);
    let none = send(receiver(|_, _| Some(framed("hello")))).expect(1);
    assert!(none.out.contains("no MSA segment"), "{}", none.out);
    let closed = send(receiver(|_, _| None)).expect(1);
    assert!(closed.out.contains("closed without an answer"), "{}", closed.out);
    let silent = send(receiver(|_, _| Some(Vec::new()))).expect(1);
    assert!(silent.out.contains("no answer within 500ms"), "{}", silent.out);
}

#[test]
fn nobody_there_exits_2() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let folder = folder_with(&admit("C1", "7"));
    let ran = run(folder.path(), &["send", "m.hl7", "--to", &port.to_string(), "--timeout", "1s"]).expect(2);
    assert!(ran.out.contains("no connection to"), "{}", ran.out);
}

#[test]
fn a_receiver_that_closes_after_each_answer_loses_nothing() {
    // It closes as hl7apy's server does: after the answer.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).expect("a message");
            let message = String::from_utf8_lossy(&buffer[1..n]).into_owned();
            stream.write_all(&ack("AA", control_id(&message))).expect("a reader");
        }
    });
    let folder = folder_with(&[admit("C1", "7"), admit("C2", "8"), admit("C3", "9")].concat());
    let ran = run(folder.path(), &["send", "m.hl7", "--to", &address.to_string()]).expect(0);
    assert_eq!(ran.out.lines().filter(|l| l.starts_with("AA")).count(), 3, "{}", ran.out);
}

#[test]
fn standard_input_is_a_file_too() {
    let address = receiver(|_, m| Some(ack("AA", control_id(m))));
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = kiln(folder.path())
        .args(["send", "-", "--to", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("piped").write_all(admit("C1", "7").as_bytes()).expect("a reader");
    Ran::of(child.wait_with_output().expect("its end")).expect(0);
}

#[test]
fn load_counts_only_its_own_positive_answers() {
    let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let seen_by = Arc::clone(&seen);
    let address = receiver(move |n, m| {
        seen_by.lock().expect("no panic").insert((control_id(m).to_owned(), m.split('|').nth(22).unwrap_or("").to_owned()));
        match n % 10 {
            3 => Some(ack("AE", control_id(m))),
            7 => Some(ack("AA", "somebody-else")),
            9 => None,
            _ => Some(ack("AA", control_id(m))),
        }
    });
    let folder = folder_with(&admit("C1", "7"));
    let args = ["send", "m.hl7", "--to", &address.to_string(), "--repeat", "400", "--connections", "4", "--json", "--acked", "acked"];
    let ran = run(folder.path(), &args).expect(1);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let figure = |name: &str| json[name].as_u64().expect("a number");
    assert_eq!((figure("sent"), figure("accepted"), figure("refused"), figure("wrongAnswer"), figure("noAnswer")), (400, 280, 40, 40, 40));
    assert!(json["micros"]["p50"].as_u64() > Some(0) && json["micros"]["p99"].as_u64() <= json["micros"]["max"].as_u64());
    assert_eq!(seen.lock().expect("no panic").len(), 400, "each copy has a control ID of its own");
    let acked = std::fs::read_to_string(folder.path().join("acked")).expect("the file");
    assert_eq!(acked.lines().count(), 280);
    assert!(acked.lines().all(|id| seen.lock().expect("no panic").iter().any(|(c, _)| c == id)));
}

#[test]
fn a_rate_is_kept() {
    let address = receiver(|_, m| Some(ack("AA", control_id(m))));
    let folder = folder_with(&admit("C1", "7"));
    let args = ["send", "m.hl7", "--to", &address.to_string(), "--for", "1s", "--rate", "100", "--connections", "2", "--json"];
    let json: serde_json::Value = serde_json::from_str(&run(folder.path(), &args).expect(0).out).expect("JSON");
    assert_eq!(json["accepted"].as_u64(), Some(100), "{json}");
}
