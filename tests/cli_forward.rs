//! `kiln serve` between a sender and a receiver of HL7 v2: what is forwarded, in which order, after which failures, and over a restart.

mod cli_support;
mod v2_support;

use cli_support::{Daemon, run, wait_for};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::runtime::Runtime;
use v2_support::{Receiver, Seen, Step, ack, adt, framed};

/// A runtime for the receivers of a test.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A site of a listener `adt`, another for answers, and a target `ward`.
fn site(folder: &Path, ward: &str, route: &str) {
    let site = format!(
        "journal: {{ low-water: 1MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\n\
         listeners: {{ adt: {{ mllp: 127.0.0.1:0 }}, answers: {{ mllp: 127.0.0.1:0 }} }}\n\
         targets: {{ main: {{ folder: out }}, ward: {{ {ward} }} }}\n"
    );
    std::fs::write(folder.join("kiln.yaml"), site).expect("a file");
    std::fs::create_dir_all(folder.join("routes")).expect("a folder");
    std::fs::write(folder.join("routes/ward.yaml"), route).expect("a file");
}

const AS_RECEIVED: &str = "route: to-ward\non: otherwise\nto: ward\nmessage: as-received\n";
/// Besides the shipped routes, which take ADT^A08 too.
const A08_AS_RECEIVED: &str = "route: to-ward\non: ADT^A08\nto: ward\nmessage: as-received\n";

/// Sends to a listener on one connection, and wants each accepted: AA, or CA where the message asks for that.
fn send(address: SocketAddr, messages: &[Vec<u8>]) {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(cli_support::PATIENCE)).expect("a socket");
    for message in messages {
        let start = message.iter().position(|byte| *byte == b'M').expect("an MSH");
        let separator = char::from(message[start + 3]);
        let id = String::from_utf8_lossy(message).split(separator).nth(9).expect("MSH-10").to_owned();
        stream.write_all(&[b"\x0B", message.as_slice(), b"\x1C\r"].concat()).expect("it reads");
        let wanted = ["AA", "CA"].map(|code| format!("MSA{separator}{code}{separator}{id}\r"));
        let mut answers = String::new();
        let mut buffer = [0; 4096];
        while !(answers.ends_with("\x1C\r") && wanted.iter().any(|msa| answers.contains(msa))) {
            let n = stream.read(&mut buffer).expect("an answer");
            assert!(n > 0, "closed: {answers}");
            answers.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
}

fn stats(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&run(folder, &["journal", "stats", "--json"]).expect(0).out).expect("JSON")
}

/// How many deliveries to `ward` are in this state.
fn ward(folder: &Path, state: &str) -> u64 {
    stats(folder)["targets"].as_array().into_iter().flatten().filter(|t| t["target"] == "ward").filter_map(|t| t[state].as_u64()).sum()
}

fn show(folder: &Path, number: u64) -> serde_json::Value {
    serde_json::from_str(&run(folder, &["journal", "show", &number.to_string(), "--json"]).expect(0).out).expect("JSON")
}

#[test]
fn what_is_forwarded_keeps_its_bytes() {
    let runtime = runtime();
    let receiver = runtime.block_on(Receiver::accepting());
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &format!("mllp: \"{}\"", receiver.address), AS_RECEIVED);
    let daemon = Daemon::start(folder.path());
    // Other delimiters, no end at the last segment, LF and CRLF, Latin-1, an unknown segment, a delimiter too much, blank lines before.
    let odd: Vec<Vec<u8>> = vec![
        b"MSH#*~\\&#A#B#C#D#2026##XYZ*Q99#O1#P#2.3\rZZZ#1#".to_vec(),
        b"MSH|^~\\&|A|B|C|D|2026||XYZ^Q99|O2|P|2.5\nZZZ|a||||\nPID|1||7^^^H||M\xFCller\n\n".to_vec(),
        b"\r\n\r\nMSH|^~\\&|A|B|C|D|2026||XYZ^Q99|O3|P|2.5||||||8859/1\r\nPID|||||M\xFCller\\X0D\\^^^\r\nzz1|x\r\n".to_vec(),
    ];
    send(daemon.address("adt on "), &odd);
    wait_for("all to be forwarded", || receiver.seen().len() == 3);
    assert_eq!(receiver.seen().into_iter().map(|seen| seen.bytes).collect::<Vec<_>>(), odd);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_patients_messages_stay_in_order_over_several_connections_and_failures() {
    let runtime = runtime();
    // Every fifth message is refused for now, every seventh loses its answer, every eleventh its connection before that.
    let count = Arc::new(AtomicUsize::new(0));
    let receiver = runtime.block_on(Receiver::start(move |seen| match count.fetch_add(1, Ordering::SeqCst) {
        n if n % 11 == 10 => vec![Step::Reset],
        n if n % 7 == 6 => vec![Step::Close],
        n if n % 5 == 4 => vec![Step::Say(framed(&ack("AE", &seen.control_id(), "ERR|||206^x^HL70357|E\r")))],
        _ => vec![seen.ack("AA")],
    }));
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &format!("mllp: \"{}\", parallel: 4, timeout: 2s", receiver.address), A08_AS_RECEIVED);
    let daemon = Daemon::start(folder.path());
    let messages: Vec<Vec<u8>> = (0..36).map(|n| adt(&format!("C{n:03}"), &format!("P{}", n % 6), "").into_bytes()).collect();
    send(daemon.address("adt on "), &messages);
    wait_for("all to be delivered", || ward(folder.path(), "delivered") == 36);
    let mut by_patient: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in receiver.seen() {
        let patient = seen.text().split("PID|1||").nth(1).and_then(|rest| rest.split('^').next()).expect("PID-3").to_owned();
        by_patient.entry(patient).or_default().push(seen.control_id());
    }
    assert_eq!(by_patient.len(), 6);
    for (patient, mut ids) in by_patient {
        // A repetition follows its original at once: nothing of the patient comes in between, and nothing comes out of order.
        ids.dedup();
        let wanted: Vec<String> = (0..36).filter(|n| format!("P{}", n % 6) == patient).map(|n| format!("C{n:03}")).collect();
        assert_eq!(ids, wanted, "{patient}");
    }
    let by_connection: std::collections::BTreeSet<usize> = receiver.seen().iter().map(|seen| seen.connection).collect();
    assert!(by_connection.len() > 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_refusal_is_a_dead_letter_that_says_why_and_is_replayed() {
    let runtime = runtime();
    let well = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&well);
    let receiver = runtime.block_on(Receiver::start(move |seen| {
        let refusal = ack("AE", &seen.control_id(), "ERR||PID^1^3|101^Required field missing^HL70357|E||||the ward has no bed for Meier\r");
        if now.load(Ordering::SeqCst) { vec![seen.ack("AA")] } else { vec![Step::Say(framed(&refusal))] }
    }));
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &format!("mllp: \"{}\"", receiver.address), A08_AS_RECEIVED);
    let daemon = Daemon::start(folder.path());
    send(daemon.address("adt on "), &[adt("C1", "7", "").into_bytes()]);
    wait_for("the dead letter", || ward(folder.path(), "deadLetters") == 1);
    let shown = show(folder.path(), 1);
    let delivery = shown["deliveries"].as_array().expect("deliveries").iter().find(|d| d["target"] == "ward").expect("the ward's").clone();
    let attempt = &delivery["attempts"][0];
    assert_eq!(
        (attempt["code"].as_str(), attempt["summary"].as_str()),
        (Some("ack-ae"), Some("the receiver answered AE (101, Required field missing)")),
        "{shown}"
    );
    assert!(!daemon.err().contains("Meier"), "{}", daemon.err());
    well.store(true, Ordering::SeqCst);
    run(folder.path(), &["journal", "replay", "1", "--target", "ward"]).expect(0);
    wait_for("the replay", || ward(folder.path(), "delivered") == 1);
    assert_eq!(receiver.control_ids(), ["C1", "C1"]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_application_acknowledgement_at_a_listener_ends_the_delivery_also_after_a_restart() {
    let runtime = runtime();
    let receiver = runtime.block_on(Receiver::start(|seen: &Seen| vec![seen.ack("CA")]));
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &format!("mllp: \"{}\", replies: answers, application-wait: 1h", receiver.address), A08_AS_RECEIVED);
    let daemon = Daemon::start(folder.path());
    // Two of one patient, and one of another: it does not wait for them.
    let messages: Vec<Vec<u8>> = [("C1", "7"), ("C2", "7"), ("C3", "8")].into_iter().map(|(id, patient)| adt(id, patient, "AL|AL").into_bytes()).collect();
    send(daemon.address("adt on "), &messages);
    wait_for("the messages of both patients", || receiver.control_ids() == ["C1", "C3"]);
    wait_for("both to be accepted", || {
        let states = |n: u64| show(folder.path(), n)["deliveries"].to_string();
        states(1).contains("awaits-acknowledgement") && states(3).contains("awaits-acknowledgement")
    });

    let answer = |daemon: &Daemon, code: &str, id: &str| {
        let mut stream = TcpStream::connect(daemon.address("answers on ")).expect("it accepts");
        stream.write_all(&framed(&ack(code, id, ""))).expect("it reads");
    };
    // One for a message that nobody sent changes nothing, and the other patient's ends its own.
    answer(&daemon, "AA", "C9");
    answer(&daemon, "AA", "C3");
    wait_for("the other patient's delivery", || ward(folder.path(), "delivered") == 1);
    assert_eq!(receiver.control_ids(), ["C1", "C3"]);

    daemon.signal("KILL");
    drop(daemon);
    let daemon = Daemon::start(folder.path());
    answer(&daemon, "AA", "C1");
    wait_for("the delivery that was accepted before the restart, and the next of its patient", || receiver.control_ids() == ["C1", "C3", "C2"]);
    assert_eq!(ward(folder.path(), "delivered"), 2);
    wait_for("it to be accepted", || show(folder.path(), 2)["deliveries"].to_string().contains("awaits-acknowledgement"));
    answer(&daemon, "AE", "C2");
    wait_for("the refusal", || ward(folder.path(), "deadLetters") == 1);
    assert_eq!(receiver.control_ids().len(), 3, "what was accepted is not sent again");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_route_that_splits_and_changes_sends_each_message_once() {
    let runtime = runtime();
    let refused = Arc::new(AtomicUsize::new(0));
    let receiver = runtime.block_on(Receiver::start(move |seen| {
        let busy = seen.control_id() == "L1-2" && refused.fetch_add(1, Ordering::SeqCst) < 2;
        vec![seen.ack(if busy { "CE" } else { "AA" })]
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let route = "route: to-ward\non: ORU^R01\nto: ward\nmessage:\n  $each: OBR\n  $copy: all\n  MSH: { MSH-5: \"WARD\", MSH-6: \"HOSP\" }\n  MSH-10: join(\"-\", MSH-10, OBR-1)\n";
    site(folder.path(), &format!("mllp: \"{}\"", receiver.address), route);
    let daemon = Daemon::start(folder.path());
    let oru = "MSH|^~\\&|LAB|OLD|X||20260401120000||ORU^R01^ORU_R01|L1|P|2.5.1\rPID|1||7^^^H^MR||Meier\rOBR|1|A1||GLU\rOBX|1|NM|GLU||5.5||||||F\rOBR|2|A2||NA\rOBX|1|NM|NA||140||||||F\rOBR|3|A3||K\rOBX|1|NM|K||4||||||F\r";
    send(daemon.address("adt on "), &[oru.as_bytes().to_vec()]);
    wait_for("all three", || ward(folder.path(), "delivered") == 1);
    assert_eq!(receiver.control_ids(), ["L1-1", "L1-2", "L1-2", "L1-2", "L1-3"]);
    assert!(receiver.seen().iter().all(|seen| seen.text().starts_with("MSH|^~\\&|LAB|OLD|WARD|HOSP|")));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_was_sent_before_an_edit_or_by_other_routes_does_not_count() {
    let runtime = runtime();
    let strict = Arc::new(AtomicBool::new(true));
    let strictness = Arc::clone(&strict);
    let receiver = runtime
        .block_on(Receiver::start(move |seen| vec![seen.ack(if seen.control_id() == "L1-2" && strictness.load(Ordering::SeqCst) { "AR" } else { "AA" })]));
    let folder = tempfile::tempdir().expect("a folder");
    let route = |receiver: &str| {
        format!(
            "route: to-ward\non: ORU^R01\nto: ward\nmessage:\n  $each: OBR\n  $copy: all\n  MSH: {{ MSH-5: \"{receiver}\" }}\n  MSH-10: join(\"-\", MSH-10, OBR-1)\n"
        )
    };
    site(folder.path(), &format!("mllp: \"{}\"", receiver.address), &route("WARD"));
    let daemon = Daemon::start(folder.path());
    let oru = "MSH|^~\\&|LAB|OLD|X||20260401120000||ORU^R01^ORU_R01|L1|P|2.5.1\rPID|1||7^^^H^MR||Meier\rOBR|1|A1||GLU\rOBX|1|NM|GLU||5.5||||||F\rOBR|2|A2||NA\rOBX|1|NM|NA||140||||||F\r";
    send(daemon.address("adt on "), &[oru.as_bytes().to_vec()]);
    let refused_again = |times: usize| {
        let refused = || show(folder.path(), 1)["deliveries"].to_string().matches("\"code\":\"ack-ar\"").count();
        wait_for("the next refusal", || refused() == times && ward(folder.path(), "deadLetters") == 1);
    };
    refused_again(1);
    // In the same way: what the receiver has it does not get twice.
    run(folder.path(), &["journal", "replay", "1"]).expect(0);
    refused_again(2);
    assert_eq!(receiver.control_ids(), ["L1-1", "L1-2", "L1-2"]);
    // After an edit of the first of them.
    std::fs::write(folder.path().join("edited.hl7"), oru.replace("|5.5|", "|6.6|")).expect("a file");
    run(folder.path(), &["journal", "replay", "1", "--with", "edited.hl7", "--as-received"]).expect(0);
    refused_again(3);
    assert_eq!(receiver.control_ids()[3..], ["L1-1", "L1-2"]);
    assert!(receiver.seen()[3].text().contains("|6.6|"), "{}", receiver.seen()[3].text());
    // By another route of that name.
    std::fs::write(folder.path().join("routes/ward.yaml"), route("ICU")).expect("a file");
    run(folder.path(), &["reload"]).expect(0);
    strict.store(false, Ordering::SeqCst);
    run(folder.path(), &["journal", "replay", "1"]).expect(0);
    wait_for("the delivery", || ward(folder.path(), "delivered") == 1);
    assert_eq!(receiver.control_ids()[5..], ["L1-1", "L1-2"]);
    assert!(receiver.seen()[5..].iter().all(|seen| seen.text().contains("|ICU|") && !seen.text().contains("|5.5|")));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_site_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), "mllp: \"ward.example\"", A08_AS_RECEIVED);
    let checked = |code: i32| run(folder.path(), &["check"]).expect(code).out;
    assert!(checked(1).contains("a host and a port"));
    for (ward, told) in [
        ("mllp: \"w:1\", settle: 3s", "`settle` has no meaning for a target of kind `mllp`"),
        ("mllp: \"w:1\", auth: { bearer: { env: X } }", "`auth` has no meaning for a target of kind `mllp`"),
        ("folder: ward, expect: accept", "`expect` has no meaning for a target of kind `folder`"),
        ("mllp: \"w:1\", replies: answer", "answers"),
        ("mllp: \"w:1\", expect: accept, replies: answers", "`replies` has no meaning with `expect: accept`"),
        ("mllp: \"w:1\", retry-on: [AA]", "a code of an acknowledgement"),
        ("http: \"https://w/hl7\", tls: { name: x }", "`name` has no meaning where a URL says the server's name"),
        ("mllp: \"w:1\", tls: { ca: nothing.pem }", "nothing.pem"),
    ] {
        site(folder.path(), ward, A08_AS_RECEIVED);
        let ran = run(folder.path(), &["check"]);
        assert!(ran.out.contains(told), "{ward}: {}", ran.out);
    }
    site(folder.path(), "mllp: \"127.0.0.1:2575\", tls: true, replies: answers, retry-on: [AE, CE, \"207\"], rate: 50/s", A08_AS_RECEIVED);
    let ran = run(folder.path(), &["check"]).expect(0);
    assert!(ran.out.contains("no faults"), "{}", ran.out);
}

#[test]
fn a_receiver_that_is_not_there_is_told_online() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    site(folder.path(), &format!("mllp: \"{port}\""), A08_AS_RECEIVED);
    let ran = run(folder.path(), &["check", "--online"]).expect(1);
    assert!(ran.out.contains("K740") && ran.out.contains("target `ward`: the receiver could not be reached"), "{}", ran.out);
    let runtime = runtime();
    let receiver = runtime.block_on(Receiver::accepting());
    site(folder.path(), &format!("mllp: \"{}\"", receiver.address), A08_AS_RECEIVED);
    let ran = run(folder.path(), &["check", "--online"]).expect(0);
    assert!(!ran.out.contains("K740"), "{}", ran.out);
    assert!(receiver.seen().is_empty(), "nothing is sent");
}
