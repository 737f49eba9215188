//! `acknowledge: mapped` and `delivered`, through sockets: what the sender hears, when, and what has become of the message by then; also
//! across `kill -9`.

mod cli_support;
use cli_support::{Daemon, PATIENCE, admit, exchange, get, run, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HEAD: &str = "console: { listen: 127.0.0.1:0 }\njournal: { path: journal, low-water: 1MiB }\n";
const ROUTE: &str = "route: odd\non: [ZZZ^Z01, ZZZ^Z02]\nto: main\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";

fn site(text: &str, route: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/odd.yaml"), route).expect("a file");
    std::fs::write(folder.path().join("kiln.yaml"), format!("{HEAD}{text}")).expect("a file");
    folder
}

fn odd(control_id: &str, patient: &str, family: &str) -> String {
    admit(control_id, patient).replace("ADT^A01^ADT_A01", "ZZZ^Z01").replace("Meier", family)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The journal's record of the newest message with this control ID.
fn record(folder: &Path, control_id: &str) -> Value {
    let found = run(folder, &["journal", "search", "--control-id", control_id, "--json"]).expect(0).out;
    let number = parse(found.lines().next().expect("it is there"))["id"].to_string();
    parse(run(folder, &["journal", "show", &number, "--json"]).expect(0).out.trim())
}

/// What the server does with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Saves; 422 to patients of the family REFUSE.
    Well,
    /// 503.
    Busy,
    /// Saves, and closes the connection without an answer.
    Mute,
    /// 422 to everything.
    Against,
}

/// A FHIR server, as much of one as is needed here.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    /// Patients' identifiers that were saved.
    saved: Arc<Mutex<Vec<String>>>,
    delay: Arc<Mutex<Duration>>,
    asked: Arc<Mutex<usize>>,
}

impl Server {
    fn start(mood: Mood) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let server = Self { address, mood: Arc::new(Mutex::new(mood)), saved: Arc::default(), delay: Arc::default(), asked: Arc::default() };
        let serve = server.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let serve = serve.clone();
                std::thread::spawn(move || serve.connection(stream));
            }
        });
        server
    }

    fn mood(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }

    fn saved(&self, patient: &str) -> usize {
        self.saved.lock().expect("no panic").iter().filter(|p| *p == patient).count()
    }

    fn asked(&self) -> usize {
        *self.asked.lock().expect("no panic")
    }

    fn target(&self) -> String {
        format!("fhir: 'http://{}/r4', timeout: 2s, settle: 100ms", self.address)
    }

    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
        let mut stream = stream;
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                    continue;
                }
                return;
            }
            let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok())).unwrap_or(0);
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let Some((status, answer)) = self.answer(&head, &body) else { return };
            let answer = answer.to_string();
            let text = format!("HTTP/1.1 {status}\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, head: &str, body: &[u8]) -> Option<(&'static str, Value)> {
        if head.starts_with("GET") && head.contains("/metadata") {
            return Some(("200 OK", json!({ "resourceType": "CapabilityStatement", "status": "active", "fhirVersion": "4.0.1" })));
        }
        let Ok(bundle) = serde_json::from_slice::<Value>(body) else {
            // A search: what was saved may be found, without an id that anything hangs on.
            return Some(("200 OK", json!({ "resourceType": "Bundle", "type": "searchset", "total": 0 })));
        };
        *self.asked.lock().expect("no panic") += 1;
        std::thread::sleep(*self.delay.lock().expect("no panic"));
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        let mood = *self.mood.lock().expect("no panic");
        let refused = bundle.to_string().contains("REFUSE");
        if mood == Mood::Busy {
            return Some(("503 Service Unavailable", json!({ "resourceType": "OperationOutcome" })));
        }
        if mood == Mood::Against || refused {
            let expression = ["Bundle.entry[0].resource.ofType(Patient).name[0].family"];
            let issue = json!([{ "severity": "error", "code": "value", "diagnostics": "REFUSE is no name", "expression": expression }]);
            return Some(("422 Unprocessable Entity", json!({ "resourceType": "OperationOutcome", "issue": issue })));
        }
        let mut saved = self.saved.lock().expect("no panic");
        saved.extend(entries.iter().filter_map(|e| e["resource"]["identifier"][0]["value"].as_str().map(str::to_owned)));
        if mood == Mood::Mute {
            return None;
        }
        let done: Vec<_> =
            (0..entries.len()).map(|n| json!({ "response": { "status": "201 Created", "location": format!("Patient/{n}x/_history/1") } })).collect();
        Some(("200 OK", json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": done })))
    }
}

fn one_target(acknowledge: &str, target: &str) -> String {
    format!("listeners: {{ adt: {{ mllp: 127.0.0.1:0, {acknowledge} }} }}\ntargets: {{ main: {{ {target} }} }}\n")
}

#[test]
fn mapped_means_that_every_route_could_make_something_of_it() {
    let folder = site(&one_target("acknowledge: mapped", "folder: out"), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    wait_for("the delivery", || record(folder.path(), "C1")["deliveries"][0]["state"] == "delivered");

    // Nobody can say who this is.
    let without = odd("C2", "", "Meier").replace("^^^HOSP^MR", "");
    let answer = exchange(address, without.as_bytes());
    assert!(answer.contains("\rMSA|AE|C2\rERR||PID^1^3"), "{}", answer.escape_debug());
    assert!(
        answer.contains("|101^Required field missing^HL70357|E||||") && !answer.contains("Meier") && !answer.contains("odd.yaml"),
        "{}",
        answer.escape_debug()
    );
    let kept = record(folder.path(), "C2");
    assert_eq!((&kept["disposition"], kept["deliveries"].as_array().map(Vec::len)), (&json!("refused"), Some(0)), "{kept}");

    // Before 2.5 the reason stands in MSA-3, and all places in ERR-1.
    let old = without.replace("C2", "C3").replace("|2.5.1\r", "|2.3\r");
    let answer = exchange(address, old.as_bytes());
    assert!(answer.contains("\rMSA|AE|C3|") && answer.contains("\rERR|PID^1^3^101&"), "{}", answer.escape_debug());

    // A refused message is never a duplicate: once the route can make something of it, the same bytes are accepted.
    let text = std::fs::read_to_string(folder.path().join("routes/odd.yaml")).expect("a file");
    std::fs::write(folder.path().join("routes/odd.yaml"), text.replace("update by PID-3", "create")).expect("a file");
    let console = daemon.address("console http://");
    wait_for("the change", || get(console, "/metrics").1.contains("kiln_route_set_reloads_total{result=\"applied\"} 2"));
    assert!(exchange(address, without.as_bytes()).contains("MSA|AA|C2"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn delivered_means_that_the_server_has_it() {
    let server = Server::start(Mood::Well);
    let folder = site(&one_target("acknowledge: delivered", &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    *server.delay.lock().expect("no panic") = Duration::from_millis(300);
    let began = Instant::now();
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert!(began.elapsed() >= Duration::from_millis(300) && server.saved("1") == 1);
    // The same again is a duplicate, and answered in the same way at once.
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(server.saved("1"), 1);

    // The server's reason, and the field behind the element that it complains about; not its words, which may be anybody's.
    let answer = exchange(address, odd("C2", "2", "REFUSE").as_bytes());
    assert!(answer.contains("\rMSA|AE|C2\rERR||PID^1^5^1^1"), "{}", answer.escape_debug());
    assert!(answer.contains("|102^Data type error^HL70357|E||||the server refuses Patient.name[0].family (value)"), "{}", answer.escape_debug());
    assert!(!answer.contains("REFUSE"), "{}", answer.escape_debug());
    let kept = record(folder.path(), "C2");
    assert_eq!((&kept["disposition"], &kept["deliveries"][0]["state"]), (&json!("refused"), &json!("skipped")), "{kept}");
    assert_eq!(kept["deliveries"][0]["attempts"][0]["outcome"], "refused", "{kept}");
    run(folder.path(), &["journal", "search", "--state", "dead-letter"]).expect(1);
    assert!(run(folder.path(), &["journal", "verify"]).expect(0).out.contains("sound"));
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    assert!(metrics.contains("kiln_acks_total{listener=\"adt\",code=\"AE\"} 1") && metrics.contains("kiln_dead_letters{target=\"main\"} 0"), "{metrics}");
    // A refused message is judged anew.
    assert!(exchange(address, odd("C2", "2", "REFUSE").as_bytes()).contains("MSA|AE|C2"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn who_waits_too_long_gets_no_answer_and_whoever_sends_again_waits_for_the_same() {
    let server = Server::start(Mood::Busy);
    let folder = site(&one_target("acknowledge: delivered, reply-wait: 400ms", &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    let began = Instant::now();
    assert_eq!(exchange(address, odd("C1", "1", "Meier").as_bytes()), "", "no answer");
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(record(folder.path(), "C1")["deliveries"][0]["state"], "pending", "delivery goes on");
    server.mood(Mood::Well);
    wait_for("the answer", || exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(server.saved("1"), 1);
    assert!(record(folder.path(), "C1")["duplicates"].as_u64() >= Some(1));
    // It stops at once, although somebody waits.
    server.mood(Mood::Busy);
    let waiting = std::thread::spawn(move || exchange(address, odd("C2", "2", "Meier").as_bytes()));
    wait_for("the message", || run(folder.path(), &["journal", "search", "--control-id", "C2"]).code == 0);
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(waiting.join().expect("it ends"), "");
}

#[test]
fn what_may_have_happened_is_never_refused() {
    let server = Server::start(Mood::Mute);
    let folder = site(&one_target("acknowledge: delivered, reply-wait: 1s", &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    // It was saved, but the answer was lost; the next attempt is refused.
    let sender = std::thread::spawn(move || exchange(address, odd("C1", "1", "Meier").as_bytes()));
    wait_for("the first attempt", || server.saved("1") == 1);
    server.mood(Mood::Against);
    assert_eq!(sender.join().expect("it ends"), "");
    wait_for("the dead letter", || record(folder.path(), "C1")["deliveries"][0]["state"] == "dead-letter");
    assert_eq!(record(folder.path(), "C1")["disposition"], "accepted");
    assert_eq!(exchange(address, odd("C1", "1", "Meier").as_bytes()), "", "nobody knows yet");
    // An operator does.
    run(folder.path(), &["journal", "skip", "1"]).expect(0);
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_refusal_withdraws_all_deliveries_unless_one_was_done() {
    let (slow, server) = (Server::start(Mood::Busy), Server::start(Mood::Well));
    let text = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0, acknowledge: delivered, reply-wait: 3s }}, part: {{ mllp: 127.0.0.1:0, acknowledge: delivered, delivered-to: [main], reply-wait: 10s }} }}\n\
         targets: {{ main: {{ {} }}, other: {{ {} }}, disk: {{ folder: out }} }}\n",
        server.target(),
        slow.target()
    );
    let folder = site(&text, &ROUTE.replace("to: main", "to: [main, other]").replace(", ZZZ^Z02", ""));
    let disk = "route: also\non: ZZZ^Z02\nto: [main, disk]\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";
    std::fs::write(folder.path().join("routes/also.yaml"), disk).expect("a file");
    let daemon = Daemon::start(folder.path());
    let (adt, part) = (daemon.address("adt on "), daemon.address("part on "));

    // One target refuses while the other has not done anything yet: both are taken back.
    assert!(exchange(adt, odd("C1", "1", "REFUSE").as_bytes()).contains("MSA|AE|C1"));
    let kept = record(folder.path(), "C1");
    let states: Vec<_> = (0..2).map(|n| kept["deliveries"][n]["state"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!((kept["disposition"].as_str(), states), (Some("refused"), vec!["skipped".to_owned(); 2]), "{kept}");
    slow.mood(Mood::Well);
    let asked = slow.asked();

    // A listener that waits for one target only does not wait for the other.
    slow.mood(Mood::Busy);
    assert!(exchange(part, odd("C2", "2", "Meier").as_bytes()).contains("MSA|AA|C2"));
    assert_eq!(slow.saved("2"), 0);
    slow.mood(Mood::Well);
    wait_for("the other target", || slow.saved("2") == 1);
    assert!(slow.saved("1") == 0 && slow.asked() > asked, "what was taken back is never sent");

    // The folder has it already when the server refuses: then nobody can say that nothing happened.
    *server.delay.lock().expect("no panic") = Duration::from_millis(700);
    let message = odd("C3", "3", "REFUSE").replace("ZZZ^Z01", "ZZZ^Z02");
    assert_eq!(exchange(adt, message.as_bytes()), "");
    let kept = record(folder.path(), "C3");
    assert_eq!(
        (&kept["disposition"], &kept["deliveries"][0]["state"], &kept["deliveries"][1]["state"]),
        (&json!("accepted"), &json!("dead-letter"), &json!("delivered")),
        "{kept}"
    );
    assert_eq!(daemon.stop(), 0);
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

/// One message at a time on one connection at a time, again and again until an answer comes.
fn send_until_answered(address: SocketAddr, message: &str) -> String {
    let give_up = Instant::now() + PATIENCE * 2;
    loop {
        assert!(Instant::now() < give_up, "no answer to {}", message.escape_debug());
        let answer = (|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            stream.write_all(&[&[0x0b], message.as_bytes(), &[0x1c, 0x0d]].concat()).ok()?;
            let (mut answer, mut byte) = (Vec::new(), [0]);
            while !answer.ends_with(&[0x1c, 0x0d]) {
                stream.read(&mut byte).ok().filter(|n| *n > 0)?;
                answer.push(byte[0]);
            }
            Some(String::from_utf8_lossy(&answer).into_owned())
        })();
        match answer {
            Some(answer) => return answer,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn across_kills_every_yes_was_delivered_and_no_refused_message_ever_is() {
    const KILLS: u64 = 12;
    let server = Server::start(Mood::Well);
    *server.delay.lock().expect("no panic") = Duration::from_millis(4);
    let mllp = free_port();
    let text = one_target("acknowledge: delivered, reply-wait: 5s", &server.target()).replace("mllp: 127.0.0.1:0", &format!("mllp: {mllp}"));
    let folder = site(&text, ROUTE);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut told: BTreeMap<String, String> = BTreeMap::new();
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let id = format!("S{sender}-{n}");
                    let answer = send_until_answered(mllp, &odd(&id, &id, if n % 3 == 0 { "REFUSE" } else { "Meier" }));
                    let code = answer.split("MSA|").nth(1).and_then(|rest| rest.get(..2)).unwrap_or_default().to_owned();
                    assert!(answer.contains(&format!("MSA|{code}|{id}")), "{}", answer.escape_debug());
                    told.insert(id, code);
                    n += 1;
                }
                told
            })
        })
        .collect();
    for kill in 0..KILLS {
        let daemon = Daemon::start(folder.path());
        std::thread::sleep(Duration::from_millis(60 + 37 * (kill * 7 % 11)));
        daemon.signal("KILL");
    }
    let daemon = Daemon::start(folder.path());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let told: BTreeMap<String, String> = senders.into_iter().flat_map(|s| s.join().expect("all were answered")).collect();
    let saved: BTreeSet<String> = server.saved.lock().expect("no panic").iter().cloned().collect();
    let of = |code: &str| told.iter().filter(|(_, c)| *c == code).map(|(id, _)| id.clone()).collect::<BTreeSet<_>>();
    let (yes, no) = (of("AA"), of("AE"));
    assert!(yes.len() > 10 && no.len() > 5 && yes.len() + no.len() == told.len(), "{told:?}");
    let missing: Vec<_> = yes.difference(&saved).take(5).collect();
    assert!(missing.is_empty(), "told AA, and not there: {missing:?}\n{}", record(folder.path(), missing[0]));
    let there: Vec<_> = no.intersection(&saved).take(5).collect();
    assert!(there.is_empty(), "told AE, and there: {there:?}");
    // The journal agrees, and nothing is left behind.
    for id in no.iter().take(5) {
        assert_eq!(record(folder.path(), id)["disposition"], "refused");
    }
    for state in ["pending", "dead-letter", "parked"] {
        wait_for(state, || run(folder.path(), &["journal", "search", "--state", state]).code == 1);
    }
    assert!(run(folder.path(), &["journal", "verify"]).expect(0).out.contains("sound"));
    assert_eq!(daemon.stop(), 0);
}
