//! What a route asks before it maps: which answers count for which message, and whose fault it is when there are none.

mod cli_support;
mod fhir_double;
mod v2_support;

use cli_support::moody::{record, site};
use cli_support::session::{Session, asking, msa};
use cli_support::{Daemon, exchange, get, run, wait_for};
use fhir_double::{Server, outcome};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use v2_support::Receiver;

const SYSTEMS: &str = "---\nsystems: here\nmatch:\n  - { namespace: HOSP, system: \"http://hosp.example/mrn\" }\n";

/// A route that asks `main` for the doctor of PV1-7, says in `line` what that is for, and delivers to `to`.
fn route(to: &str, line: &str) -> String {
    format!(
        "route: visit\non: ZZZ^Z01\nto: {to}\nask:\n  doctor: {{ $search: Practitioner, $at: main, identifier: PV1-7.1 }}\n\
         resources:\n  who: {{ $map: PID -> Patient, $save: update by PID-3, {line} }}\n{SYSTEMS}"
    )
}

/// A site that delivers to `main`, a FHIR server, and has a folder `disk`.
fn served_by(server: &Server, route: &str, listener: &str) -> tempfile::TempDir {
    let text = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0{listener} }} }}\n\
         targets: {{ main: {{ fhir: 'http://{}/r4', timeout: 2s, settle: 100ms }}, disk: {{ folder: out }} }}\n",
        server.address
    );
    site(&text, route)
}

/// Whoever is asked for has the number that is asked for as id: `d` and the value.
fn practitioner(query: &str) -> (u16, Value) {
    let id = query.split(['?', '&']).find_map(|part| part.strip_prefix("identifier=")).unwrap_or_default();
    let found = json!([{ "search": { "mode": "match" }, "resource": { "resourceType": "Practitioner", "id": format!("d{id}") } }]);
    (200, json!({ "resourceType": "Bundle", "type": "searchset", "total": 1, "entry": found }))
}

fn visit(id: &str, doctor: &str, family: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ZZZ^Z01|{id}|P|2.5.1\rPID|1||P{id}^^^HOSP^MR||{family}^Eva\r\
         PV1|1|I|||||{doctor}^Arzt^^^^^^^HOSP||||||||||||V{id}^^^HOSP\r"
    )
}

fn state(folder: &Path, id: &str) -> Value {
    record(folder, id)["deliveries"][0]["state"].clone()
}

/// How many deliveries to a target are in this state.
fn count(folder: &Path, target: &str, state: &str) -> u64 {
    let stats: Value = serde_json::from_str(&run(folder, &["journal", "stats", "--json"]).expect(0).out).expect("JSON");
    stats["targets"].as_array().into_iter().flatten().filter(|t| t["target"] == target).filter_map(|t| t[state].as_u64()).sum()
}

#[test]
fn an_edited_message_is_not_mapped_by_what_was_found_for_the_one_before() {
    let server = Server::searching(
        |asked| asked.body.to_string().contains("REFUSE").then(|| (422, outcome("value", None))),
        |kind, query| (kind == "Practitioner").then(|| practitioner(query)),
    );
    let folder = served_by(&server, &route("main", "generalPractitioner: doctor"), "");
    let daemon = Daemon::start(folder.path());
    for id in ["C1", "C2"] {
        assert!(exchange(daemon.address("adt on "), visit(id, "1", "REFUSE").as_bytes()).contains("MSA|AA"));
        wait_for("the dead letter", || state(folder.path(), id) == "dead-letter");
    }
    let edited = folder.path().join("edited.hl7");
    for (number, id, how) in [("1", "C1", &["--as-received"][..]), ("2", "C2", &[])] {
        std::fs::write(&edited, visit(id, "2", "Meier")).expect("a file");
        let args = [&["journal", "replay", number, "--with", "edited.hl7"], how].concat();
        run(folder.path(), &args).expect(0);
        wait_for("the delivery", || state(folder.path(), id) == "delivered");
    }
    let doctors: Vec<Value> = server.stored().iter().map(|patient| patient["generalPractitioner"][0]["reference"].clone()).collect();
    assert_eq!(doctors, ["Practitioner/d2", "Practitioner/d2"], "both say doctor 2 now");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_was_sent_counts_only_for_the_same_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let strict = Arc::new(AtomicUsize::new(1));
    let strictness = Arc::clone(&strict);
    let receiver = runtime
        .block_on(Receiver::start(move |seen| vec![seen.ack(if seen.control_id() == "L1-2" && strictness.load(Ordering::SeqCst) > 0 { "AR" } else { "AA" })]));
    let asked = AtomicUsize::new(0);
    let server = Server::searching(
        |_| None,
        move |kind, _| (kind == "Practitioner").then(|| practitioner(&format!("identifier={}", asked.fetch_add(1, Ordering::SeqCst) + 1))),
    );
    let text = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\n\
         targets: {{ main: {{ fhir: 'http://{}/r4', timeout: 2s }}, ward: {{ mllp: \"{}\" }} }}\n",
        server.address, receiver.address
    );
    let route = format!(
        "route: to-ward\non: ORU^R01\nto: ward\nask:\n  doctor: {{ $search: Practitioner, $at: main, identifier: PV1-7.1 }}\n\
         message:\n  $each: OBR\n  $copy: all\n  MSH-8: first(doctor).id\n  MSH-10: join(\"-\", MSH-10, OBR-1)\n{SYSTEMS}"
    );
    let folder = site(&text, &route);
    let daemon = Daemon::start(folder.path());
    let oru = "MSH|^~\\&|LAB|OLD|X||20260401120000||ORU^R01^ORU_R01|L1|P|2.5.1\rPID|1||7^^^HOSP^MR||Meier\rPV1|1|I|||||1^Arzt^^^^^^^HOSP\rOBR|1|A1||GLU\rOBX|1|NM|GLU||5.5||||||F\rOBR|2|A2||NA\rOBX|1|NM|NA||140||||||F\r";
    exchange(daemon.address("adt on "), oru.as_bytes());
    wait_for("the dead letter", || count(folder.path(), "ward", "deadLetters") == 1);
    // By the same answers the first one is not sent again, and by others it is.
    run(folder.path(), &["journal", "replay", "1", "--as-received"]).expect(0);
    wait_for("the second refusal", || receiver.control_ids().len() == 3 && count(folder.path(), "ward", "deadLetters") == 1);
    strict.store(0, Ordering::SeqCst);
    run(folder.path(), &["journal", "replay", "1"]).expect(0);
    wait_for("the delivery", || count(folder.path(), "ward", "delivered") == 1);
    let sent: Vec<(String, String)> =
        receiver.seen().iter().map(|seen| (seen.control_id(), seen.text().split('|').nth(7).unwrap_or_default().to_owned())).collect();
    let sent: Vec<(&str, &str)> = sent.iter().map(|(id, doctor)| (id.as_str(), doctor.as_str())).collect();
    assert_eq!(sent, [("L1-1", "d1"), ("L1-2", "d1"), ("L1-2", "d1"), ("L1-1", "d2"), ("L1-2", "d2")]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_server_that_refuses_every_question_in_the_same_way_fills_no_dead_letters() {
    let refuses = Arc::new(AtomicUsize::new(1));
    let still = Arc::clone(&refuses);
    let server = Server::searching(
        |_| None,
        move |kind, query| {
            let refused = || (400, outcome("processing", None));
            (kind == "Practitioner").then(|| if still.load(Ordering::SeqCst) > 0 { refused() } else { practitioner(query) })
        },
    );
    let folder = served_by(&server, &route("disk", "maritalStatus: { text: first(doctor).id }"), "");
    let daemon = Daemon::start(folder.path());
    let open = || get(daemon.address("console http://"), "/metrics").1.contains("kiln_breaker_open{target=\"main\"} 1");
    for n in 0..40 {
        exchange(daemon.address("adt on "), visit(&format!("C{n}"), "1", "Meier").as_bytes());
    }
    wait_for("the breaker of the server that is asked to open", open);
    wait_for("all to have been tried", || count(folder.path(), "disk", "backlog") + count(folder.path(), "disk", "deadLetters") == 40);
    assert_eq!(count(folder.path(), "disk", "deadLetters"), 19, "the twentieth says whose fault it is");
    assert!(!get(daemon.address("console http://"), "/metrics").1.contains("kiln_breaker_open{target=\"disk\"} 1"), "the folder is not at fault");
    refuses.store(0, Ordering::SeqCst);
    wait_for("the rest to be delivered", || count(folder.path(), "disk", "delivered") == 21);
    assert!(!open());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_sender_in_enhanced_mode_is_told_whose_fault_it_is_that_a_question_was_refused() {
    let server = Server::searching(|_| None, |kind, _| (kind == "Practitioner").then(|| (422, outcome("value", None))));
    let folder = served_by(&server, &route("main", "generalPractitioner: doctor"), ", acknowledge: delivered");
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&visit("C1", "1", "Meier"), "AL", "AL"));
    assert_eq!(msa(&session.expect()), ("CA".to_owned(), "C1".to_owned()));
    // The message's: AE. What the sender can do nothing about is AR.
    assert_eq!(msa(&session.expect()), ("AE".to_owned(), "C1".to_owned()));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_batch_that_is_answered_by_its_errors_has_the_answers_to_its_questions() {
    let server = Server::start(|_| None);
    let route = "route: find\non: QBP^Q22\ntypes: { QPD-3: QIP }\nask:\n  found: { $search: Patient, $at: main, family: QPD-3.2 where QIP.1 = \"@PID.5.1.1\" }\n\
                 reply: RSP^K22^RSP_K21\nmessage:\n  MSA: { MSA-1: \"AA\", MSA-2: MSH-10 }\n  QAK: { QAK-1: QPD-2, QAK-2: \"NF\" }\n  QPD: QPD\n";
    let folder = served_by(&server, route, ", batch: errors");
    let daemon = Daemon::start(folder.path());
    let question = "MSH|^~\\&|PDC|CLINIC|KILN|HOSP|20260401083000||QBP^Q22^QBP_Q21|Q1|P|2.5\rQPD|IHE PDQ Query|T1|@PID.5.1.1^Meier\rRCP|I\r";
    let batch = format!("BHS|^~\\&|PDC|CLINIC|KILN|HOSP|20260401||name||B1\r{question}{}BTS|2\r", visit("C1", "1", "Meier"));
    let answer = exchange(daemon.address("adt on "), batch.as_bytes());
    assert!(answer.contains("|RSP^K22^RSP_K21|") && answer.contains("MSA|AA|Q1\r"), "{answer}");
    assert!(!answer.contains("MSA|AA|C1") && answer.contains("\rBTS|1"), "what was taken without a fault is not told: {answer}");
    assert_eq!(daemon.stop(), 0);
}
