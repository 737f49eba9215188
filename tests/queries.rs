//! Questions over MLLP, answered by what a FHIR server finds: `reply` and `ask` from the socket to the server and back, and what the journal keeps of it.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod cli_support;
mod servers_support;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use cli_support::{Daemon, exchange, run, wait_for};
use serde_json::{Value, json};
use servers_support::{Kind, Server};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SYSTEMS: &str =
    "systems: here\nmatch:\n  - { namespace: HOSP, system: \"http://hosp.example/mrn\" }\n  - { oid: 1.2.3.4, system: \"urn:oid:1.2.3.4\" }\n";

fn site(base: &str, more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/systems.yaml"), format!("{SYSTEMS}{more}")).expect("a file");
    let text = format!(
        "console: {{ listen: 127.0.0.1:0 }}\njournal: {{ path: journal, low-water: 1MiB }}\nuse: [queries]\n\
         listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ fhir: \"{base}\", timeout: 5s }} }}\n"
    );
    std::fs::write(folder.path().join("kiln.yaml"), text).expect("a file");
    folder
}

async fn create(server: &Server, resource: Value) {
    let url = format!("{}/{}", server.base, resource["resourceType"].as_str().expect("a type"));
    let answer = server.client.post(url).header("Content-Type", "application/fhir+json").body(resource.to_string()).send().await.expect("the server is there");
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// Three of one family and one of another.
async fn patients(server: &Server) {
    for (n, family, given) in [(1, "Meier", "Eva"), (2, "Meier", "Adam"), (3, "Meierhof", "Ida"), (4, "Schulz", "Eva")] {
        create(
            server,
            json!({
                "resourceType": "Patient",
                "identifier": [
                    { "system": "http://hosp.example/mrn", "value": format!("A{n}"), "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR" }] } },
                    { "system": "urn:oid:1.2.3.4", "value": format!("B{n}") },
                ],
                "name": [{ "use": "official", "family": family, "given": [given, "M."] }],
                "gender": "female",
                "birthDate": format!("198{n}-01-31"),
                "address": [{ "line": ["Weg 1"], "city": "Berlin", "postalCode": "10115" }],
                "telecom": [{ "system": "phone", "value": "030 1", "use": "home" }],
            }),
        )
        .await;
    }
}

fn question(event: &str, id: &str, qpd: &str, rest: &str) -> String {
    format!("MSH|^~\\&|PDC|CLINIC|KILN|HOSP|20260401083000||QBP^{event}^QBP_Q21|{id}|P|2.5\rQPD|{qpd}\r{rest}")
}

fn ask(address: std::net::SocketAddr, event: &str, id: &str, qpd: &str, rest: &str) -> Vec<String> {
    exchange(address, question(event, id, qpd, rest).as_bytes()).split('\r').map(str::to_owned).filter(|s| !s.is_empty()).collect()
}

/// The segments of that name, without it.
fn of<'a>(answer: &'a [String], name: &str) -> Vec<&'a str> {
    answer.iter().filter_map(|segment| segment.strip_prefix(name)).filter_map(|rest| rest.strip_prefix('|')).collect()
}

#[track_caller]
fn one<'a>(answer: &'a [String], name: &str) -> &'a str {
    match of(answer, name).as_slice() {
        [one] => one,
        other => panic!("{} {name} in {answer:#?}", other.len()),
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn shown(folder: &Path, number: u64) -> Value {
    json(&run(folder, &["journal", "show", &number.to_string(), "--json"]).expect(0).out)
}

#[tokio::test(flavor = "multi_thread")]
async fn demographics_are_found_page_by_page_and_told_in_pid() {
    for server in Server::each().await {
        patients(&server).await;
        let folder = site(&server.base, "");
        let daemon = Daemon::start(folder.path());
        let address = daemon.address("adt on ");

        // Both criteria must fit; nothing of what the server was asked is lost on the way back.
        let found = ask(address, "Q22", "Q1", "IHE PDQ Query^^IHE|T1|@PID.5.1.1^MEI*~@PID.7^19810131", "RCP|I|10^RD\r");
        assert!(found[0].starts_with("MSH|^~\\&|KILN|HOSP|PDC|CLINIC|"), "{}", found[0]);
        assert!(found[0].contains("|RSP^K22^RSP_K21|"), "{}", found[0]);
        assert_eq!(one(&found, "MSA"), "AA|Q1");
        assert!(one(&found, "QAK").starts_with("T1|OK|IHE PDQ Query^^IHE|"), "{found:#?}");
        assert_eq!(one(&found, "QPD"), "IHE PDQ Query^^IHE|T1|@PID.5.1.1^MEI*~@PID.7^19810131");
        assert_eq!(one(&found, "PID"), "||A1^^^HOSP^MR~B1^^^&1.2.3.4&ISO||Meier^Eva^M.^^^^L||19810131|F|||Weg 1^^Berlin^^10115||030 1^PRN^PH^^^^^^^^^030 1");
        assert!(of(&found, "DSC").is_empty(), "there is no more: {found:#?}");

        // Only what is known in the domain that is asked for.
        let only = ask(address, "Q22", "Q2", "IHE PDQ Query|T2|@PID.3.1^B1~@PID.3.4.2^1.2.3.4|||||^^^&1.2.3.4&ISO", "RCP|I\r");
        assert!(one(&only, "PID").starts_with("||B1^^^&1.2.3.4&ISO||Meier"), "{only:#?}");

        let none = ask(address, "Q22", "Q3", "IHE PDQ Query|T3|@PID.5.1.1^Niemand", "RCP|I\r");
        assert_eq!((one(&none, "MSA"), of(&none, "PID").len()), ("AA|Q3", 0));
        assert!(one(&none, "QAK").starts_with("T3|NF|"), "{none:#?}");

        // Two at a time, and each exactly once, also when the daemon is another one by then.
        let first = ask(address, "Q22", "Q4", "IHE PDQ Query|T4|@PID.5.1.1^Mei", "RCP|I|2^RD\r");
        assert_eq!(of(&first, "PID").len(), 2, "{first:#?}");
        let pointer = one(&first, "DSC").strip_suffix("|I").expect("DSC-2 says that it is interactive").to_owned();
        assert_eq!(daemon.stop(), 0);
        let daemon = Daemon::start(folder.path());
        let address = daemon.address("adt on ");
        let second = ask(address, "Q22", "Q5", "IHE PDQ Query|T4|@PID.5.1.1^Mei", &format!("RCP|I|2^RD\rDSC|{pointer}\r"));
        assert_eq!(of(&second, "PID").len(), 1, "{second:#?}");
        assert!(of(&second, "DSC").is_empty(), "{second:#?}");
        let mut all: Vec<&str> = of(&first, "PID").into_iter().chain(of(&second, "PID")).map(|pid| &pid[2..4]).collect();
        all.sort_unstable();
        assert_eq!(all, ["A1", "A2", "A3"]);

        // Somebody else's pointer, and one that nobody gave.
        let stolen =
            exchange(address, question("Q22", "Q6", "IHE PDQ Query|T4|@PID.5.1.1^Mei", &format!("DSC|{pointer}\r")).replace("PDC|", "OTHER|").as_bytes());
        assert!(stolen.contains("MSA|AE|Q6") && stolen.contains("ERR||DSC^1^1|204^") && stolen.contains("QAK|T4|AE"), "{stolen}");
        let made_up = ask(address, "Q22", "Q7", "IHE PDQ Query|T4|@PID.5.1.1^Mei", "DSC|1.0.00000000000000\r");
        assert_eq!(one(&made_up, "MSA"), "AE|Q7");

        // A domain that the site does not name: which repetition it is.
        let unknown = ask(address, "Q22", "Q8", "IHE PDQ Query|T8|@PID.5.1.1^Mei|||||^^^HOSP~^^^NOWHERE", "RCP|I\r");
        assert_eq!((one(&unknown, "MSA"), of(&unknown, "PID").len()), ("AE|Q8", 0));
        assert_eq!(one(&unknown, "ERR"), "|QPD^1^8^2|204^Unknown key identifier^HL70357|E||||this patient identification domain is not known here");
        assert!(one(&unknown, "QAK").starts_with("T8|AE|"), "{unknown:#?}");

        assert_eq!(daemon.stop(), 0);
        // The journal has the question and what was answered, and delivers nothing.
        let record = shown(folder.path(), 1);
        assert_eq!(record["deliveries"], json!([]));
        assert_eq!(record["reply"]["route"], json!("pdq"));
        assert!(record["reply"]["message"].as_str().is_some_and(|m| m.contains("MSA|AA|Q1") && m.contains("||A1^^^HOSP^MR")), "{record}");
        let explained = run(folder.path(), &["explain", "1", "message.PID-5"]).expect(0);
        assert!(explained.out.contains("Patient -> PID") && explained.out.contains("Patient?family=MEI&birthdate=1981-01-31"), "{}", explained.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_are_cross_referenced() {
    for server in Server::each().await {
        patients(&server).await;
        create(&server, json!({ "resourceType": "Patient", "identifier": [{ "system": "http://hosp.example/mrn", "value": "A2" }] })).await;
        let folder = site(&server.base, "");
        let daemon = Daemon::start(folder.path());
        let address = daemon.address("adt on ");

        let found = ask(address, "Q23", "P1", "IHE PIX Query|T1|A1^^^HOSP", "RCP|I\r");
        assert!(found[0].contains("|RSP^K23^RSP_K23|"), "{}", found[0]);
        assert_eq!((one(&found, "MSA"), one(&found, "QAK")), ("AA|P1", "T1|OK|IHE PIX Query"));
        assert_eq!(one(&found, "PID"), "||B1^^^&1.2.3.4&ISO||~^^^^^^S");
        assert_eq!(one(&found, "QPD"), "IHE PIX Query|T1|A1^^^HOSP");

        let nothing = ask(address, "Q23", "P2", "IHE PIX Query|T2|A1^^^HOSP|^^^HOSP", "RCP|I\r");
        assert_eq!((one(&nothing, "MSA"), one(&nothing, "QAK"), of(&nothing, "PID").len()), ("AA|P2", "T2|NF|IHE PIX Query", 0));

        let source = ask(address, "Q23", "P3", "IHE PIX Query|T3|A1^^^NOWHERE", "RCP|I\r");
        assert_eq!((one(&source, "MSA"), one(&source, "QAK")), ("AE|P3", "T3|AE|IHE PIX Query"));
        assert!(one(&source, "ERR").starts_with("|QPD^1^3^1^4|204^"), "{source:#?}");

        let unknown = ask(address, "Q23", "P4", "IHE PIX Query|T4|A9^^^HOSP", "RCP|I\r");
        assert_eq!((one(&unknown, "MSA"), one(&unknown, "QAK")), ("AE|P4", "T4|AE|IHE PIX Query"));
        assert!(one(&unknown, "ERR").starts_with("|QPD^1^3^1^1|204^"), "{unknown:#?}");

        let domain = ask(address, "Q23", "P5", "IHE PIX Query|T5|A1^^^HOSP|^^^&1.2.3.4&ISO~^^^NOWHERE", "RCP|I\r");
        assert_eq!((one(&domain, "MSA"), one(&domain, "QAK"), of(&domain, "PID").len()), ("AE|P5", "T5|AE|IHE PIX Query", 0));
        assert!(one(&domain, "ERR").starts_with("|QPD^1^4^2|204^"), "{domain:#?}");

        // Two patients have it: nobody may say which is meant.
        let twins = ask(address, "Q23", "P6", "IHE PIX Query|T6|A2^^^HOSP", "RCP|I\r");
        assert_eq!((one(&twins, "MSA"), one(&twins, "QAK")), ("AE|P6", "T6|AE|IHE PIX Query"));
        assert_eq!(of(&twins, "PID").len(), 0, "{twins:#?}");
        assert_eq!(daemon.stop(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_slow_or_away_is_an_answer_in_error_and_a_repetition_gets_the_same() {
    let Some(server) = Server::start(Kind::Medplum).await else { return };
    patients(&server).await;
    let quick = "---\nextend: pdq\nask: { found: { $timeout: 1s } }\n";
    let folder = site(&server.base, quick);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");

    server.control("fault", json!({ "delayMs": 4000 })).await;
    let slow = ask(address, "Q22", "S1", "IHE PDQ Query|T1|@PID.5.1.1^Schulz", "RCP|I\r");
    assert_eq!((one(&slow, "MSA"), one(&slow, "QPD")), ("AE|S1", "IHE PDQ Query|T1|@PID.5.1.1^Schulz"), "{slow:#?}");
    assert!(one(&slow, "ERR").contains("207^") && one(&slow, "ERR").contains("was not answered within 1 s"), "{slow:#?}");
    server.control("fault", json!({ "delayMs": 0 })).await;
    // The very same again is a duplicate, and gets what the journal keeps.
    assert_eq!(ask(address, "Q22", "S1", "IHE PDQ Query|T1|@PID.5.1.1^Schulz", "RCP|I\r"), slow);
    let well = ask(address, "Q22", "S2", "IHE PDQ Query|T1|@PID.5.1.1^Schulz", "RCP|I\r");
    assert_eq!(one(&well, "MSA"), "AA|S2", "{well:#?}");

    drop(server);
    for n in 3..8 {
        let away = ask(address, "Q22", &format!("S{n}"), "IHE PDQ Query|T1|@PID.5.1.1^Schulz", "RCP|I\r");
        assert_eq!(one(&away, "MSA"), format!("AE|S{n}"));
        assert!(away.iter().filter(|s| !s.starts_with("QPD")).all(|s| !s.contains("Schulz")), "only the question itself has the name: {away:#?}");
    }
    wait_for("the breaker to open", || daemon.err().contains("the breaker is open"));
    assert!(!daemon.err().contains("Schulz") && !daemon.out().contains("Schulz"), "no patient data in the log");
    assert_eq!(daemon.stop(), 0);
}

const LOOK_UP: &str = r#"---
route: visit
on: ZZZ^Z01
to: main
ask:
  doctor: { $search: Practitioner, $at: main, $none: refuse, CACHEidentifier: PV1-7 }
resources:
  patient: { $map: PID -> Patient, $save: create by PID-3 }
  encounter: { $map: PV1 -> Encounter, $save: create by PV1-19, status: "in-progress", subject: patient, participant: { individual: first(doctor) } }
"#;

/// A server that finds another practitioner each time it is asked, and refuses the first transaction.
#[derive(Default)]
struct Fickle {
    asked: AtomicUsize,
    /// Nobody is found as long as this is set.
    empty: AtomicBool,
    /// So many transactions are still refused.
    refuses: AtomicUsize,
    saved: Mutex<Vec<Value>>,
}

impl Fickle {
    async fn start() -> (Arc<Self>, String) {
        let state = Arc::new(Self { refuses: AtomicUsize::new(1), ..Self::default() });
        let app = axum::Router::new().fallback(Self::answer).with_state(Arc::clone(&state));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}/fhir", socket.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(socket, app).await });
        (state, base)
    }

    async fn answer(State(state): State<Arc<Self>>, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let (status, answer) = match head.uri.path().trim_start_matches("/fhir") {
            "/Practitioner/_search" => {
                let n = state.asked.fetch_add(1, Ordering::SeqCst) + 1;
                let found = json!([{ "search": { "mode": "match" }, "resource": { "resourceType": "Practitioner", "id": format!("d{n}") } }]);
                let entry = if state.empty.load(Ordering::SeqCst) { json!([]) } else { found };
                (200, json!({ "resourceType": "Bundle", "type": "searchset", "entry": entry }))
            }
            "" | "/" => match state.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
                Ok(_) => (503, json!({ "resourceType": "OperationOutcome" })),
                Err(_) => {
                    let bundle: Value = serde_json::from_slice(&body).expect("a Bundle");
                    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
                    let done = entries.iter().enumerate().map(|(n, entry)| {
                        let location = format!("{}/{n}/_history/1", entry["resource"]["resourceType"].as_str().unwrap_or("Thing"));
                        json!({ "response": { "status": "201 Created", "location": location } })
                    });
                    let done: Vec<Value> = done.collect();
                    state.saved.lock().expect("no panic").extend(entries.into_iter().map(|mut entry| entry["resource"].take()));
                    (200, json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": done }))
                }
            },
            _ => (404, json!({ "resourceType": "OperationOutcome" })),
        };
        Response::builder().status(status).header("Content-Type", "application/fhir+json").body(Body::from(answer.to_string())).expect("a response")
    }

    fn doctors(&self) -> Vec<Value> {
        let saved = self.saved.lock().expect("no panic");
        saved.iter().filter(|r| r["resourceType"] == json!("Encounter")).map(|r| r["participant"][0]["individual"]["reference"].clone()).collect()
    }
}

fn visit(id: &str, doctor: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ZZZ^Z01|{id}|P|2.5.1\rPID|1||P{id}^^^HOSP^MR||Meier^Eva\r\
         PV1|1|I|||||{doctor}^Arzt^^^^^^^HOSP||||||||||||V{id}^^^HOSP\r"
    )
}

fn state(folder: &Path, number: u64) -> Value {
    shown(folder, number)["deliveries"][0]["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_maps_by_what_was_found_at_first_and_a_replay_asks_anew() {
    let (server, base) = Fickle::start().await;
    let folder = site(&base, &LOOK_UP.replace("CACHE", ""));
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    // The first transaction is refused, and so the delivery is made again, after a restart as well as in the same daemon.
    assert!(exchange(address, visit("1", "D1").as_bytes()).contains("MSA|AA|1"));
    wait_for("the delivery", || state(folder.path(), 1) == json!("delivered"));
    assert_eq!((server.doctors(), server.asked.load(Ordering::SeqCst)), (vec![json!("Practitioner/d1")], 1), "asked once, and mapped by that");

    server.empty.store(true, Ordering::SeqCst);
    assert!(exchange(address, visit("2", "D2").as_bytes()).contains("MSA|AA|2"));
    wait_for("the dead letter", || state(folder.path(), 2) == json!("dead letter") || state(folder.path(), 2) == json!("dead-letter"));
    let record = shown(folder.path(), 2);
    assert_eq!(record["deliveries"][0]["attempts"][0]["code"], json!("none-found"), "{record}");
    server.empty.store(false, Ordering::SeqCst);
    drop(run(folder.path(), &["journal", "replay", "2"]).expect(0));
    wait_for("the replay", || state(folder.path(), 2) == json!("delivered"));
    assert_eq!(server.doctors(), [json!("Practitioner/d1"), json!("Practitioner/d3")], "a replay asks anew");

    // Explained by what was found then, without asking anybody.
    let explained = run(folder.path(), &["explain", "1", "Encounter.participant"]).expect(0);
    assert!(explained.out.contains("asked `doctor`: Practitioner?identifier=http://hosp.example/mrn|D1 at main: 1 resource"), "{}", explained.out);
    assert!(explained.out.contains("Practitioner/d1"), "{}", explained.out);
    assert_eq!(server.asked.load(Ordering::SeqCst), 3);
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_cache_answers_the_same_question_once() {
    let (server, base) = Fickle::start().await;
    server.refuses.store(0, Ordering::SeqCst);
    let folder = site(&base, &LOOK_UP.replace("CACHE", "$cache: 1h, "));
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    for (n, doctor) in [("1", "D1"), ("2", "D1"), ("3", "D2")] {
        assert!(exchange(address, visit(n, doctor).as_bytes()).contains(&format!("MSA|AA|{n}")));
        wait_for("the delivery", || server.doctors().len() == n.parse::<usize>().expect("a number"));
    }
    assert_eq!(server.doctors(), ["d1", "d1", "d2"].map(|id| json!(format!("Practitioner/{id}"))));
    assert_eq!(daemon.stop(), 0);
}
