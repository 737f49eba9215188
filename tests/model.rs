//! The engine against its model: a run with faults, `kill -9` and reloads leaves on the server what a run without them leaves, one delivery at a time.
//!
//! Messages of a few patients who share doctors and wards: admitted, moved, changed, discharged, cancelled, merged, booked. In the wild run answers
//! are lost, requests refused, the server is away, Kiln is killed at any moment and its routes are changed. Each message is sent until it has its AA.
//!
//! Runs for about a minute, on HAPI one round. `KILN_MODEL_SECONDS=3600 cargo test --test model` for longer; `KILN_SEED=N` for the same again.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod cli_support;
mod servers_support;

use cli_support::Daemon;
use kiln::journal::{DeliveryState, Query, Reader};
use serde_json::{Map, Value};
use servers_support::proxy::{Proxy, spread};
use servers_support::{Kind, Server};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Messages of a round.
const MESSAGES: usize = 60;
const PATIENTS: u64 = 6;
const TYPES: [&str; 5] = ["Patient", "Encounter", "Appointment", "Practitioner", "Location"];

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        spread(self.0) % n
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// The messages of a round: the same for the same seed.
fn messages(dice: &mut Dice) -> Vec<String> {
    let mut visits = vec![0; PATIENTS as usize];
    (0..MESSAGES)
        .map(|n| {
            let patient = dice.below(PATIENTS);
            let other = (patient + 1 + dice.below(PATIENTS - 1)) % PATIENTS;
            let roll = dice.below(100);
            let (ward, doctor, name) = (dice.below(3), dice.below(3), dice.below(1000));
            let event = match roll {
                0..20 => "ADT^A01^ADT_A01",
                20..50 => "ADT^A08^ADT_A01",
                50..60 => "ADT^A02^ADT_A02",
                60..68 => "ADT^A03^ADT_A03",
                68..75 => "ADT^A11^ADT_A09",
                75..83 => "ADT^A40^ADT_A39",
                83..93 => "SIU^S12^SIU_S12",
                _ => "SIU^S15^SIU_S12",
            };
            if roll < 20 {
                visits[patient as usize] += 1;
            }
            let visit = visits[patient as usize];
            let id = |p: u64| format!("P{p}^^^HOSP^MR");
            let head = format!("MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301{:02}{:02}00||{event}|M{n}|P|2.5.1\r", 8 + n / 60, n % 60);
            let pid = format!("PID|1||{}||Doe{name}^Ada||197001{:02}|F\r", id(patient), 1 + patient);
            if event.starts_with("SIU") {
                let number = patient * 2 + dice.below(2);
                return format!(
                    "{head}SCH|A{number}^HOSP|A{number}F^HOSP|||||R{name}^Reason|||30|min|^^30^202603{:02}0900^202603{:02}0930\r{pid}RGS|1\r\
                     AIP|1||D{doctor}^Meier^Eva^^^^^^HOSP\r",
                    1 + name % 28,
                    1 + name % 28
                );
            }
            let evn = format!("EVN||20260301{:02}{:02}00\r", 8 + n / 60, n % 60);
            if event.contains("A40") {
                return format!("{head}{evn}{pid}MRG|{}\r", id(other));
            }
            format!("{head}{evn}{pid}PV1|1|I|W{ward}^1^1^HOSP||||D{doctor}^Meier^Eva^^^^^^HOSP||||||||||||V{patient}-{visit}^^^HOSP\r")
        })
        .collect()
}

fn site(folder: &Path, base: &str, parallel: usize) {
    let site = format!(
        "language: 1\njournal: {{ path: journal, low-water: 1MiB }}\nconsole: off\nreload: signal\nlisteners: {{ adt: {{ mllp: \"127.0.0.1:0\" }} }}\n\
         targets: {{ main: {{ fhir: \"{base}\", parallel: {parallel}, settle: 50ms }} }}\n"
    );
    std::fs::write(folder.join("kiln.yaml"), site).expect("written");
    std::fs::create_dir_all(folder.join("routes")).expect("made");
    routes(folder, 0);
}

/// A route that none of the messages takes: another set of routes with the same results.
fn routes(folder: &Path, version: u64) {
    let text = format!(
        "route: other\non: ADT^A60\nto: main\nresources:\n  patient: {{ $map: PID -> Patient, $save: merge by PID-3, gender: \"{}\" }}\n",
        ["male", "female", "other", "unknown"][version as usize % 4]
    );
    std::fs::write(folder.join("routes/other.yaml"), text).expect("written");
}

/// Sends and waits for the AA; false if none came.
fn exchange(stream: &mut Option<TcpStream>, to: SocketAddr, text: &str) -> bool {
    if stream.is_none() {
        *stream = TcpStream::connect(to).ok();
    }
    let Some(open) = stream else { return false };
    let _ = open.set_read_timeout(Some(Duration::from_secs(10)));
    if open.write_all(&[b"\x0b", text.as_bytes(), b"\x1c\r"].concat()).is_err() {
        return false;
    }
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\x1c\r") {
        if !open.read(&mut byte).is_ok_and(|n| n > 0) {
            return false;
        }
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("MSA|AA|"), "{answer}");
    true
}

/// How each message ended, by control ID.
fn ends(folder: &Path) -> BTreeMap<String, Vec<DeliveryState>> {
    let reader = Reader::open(&folder.join("journal")).expect("the journal can be read");
    let all = reader.search(&Query { limit: 10_000, ..Query::default() }).expect("the journal can be searched");
    all.into_iter().map(|found| (found.control_id.0, found.deliveries.into_iter().map(|d| d.state).collect())).collect()
}

/// Waits grow to a minute while a server is away; so this may take longer than other waits.
fn until_settled(folder: &Path, daemon: &Daemon) {
    let give_up = Instant::now() + Duration::from_secs(180);
    loop {
        let left = ends(folder).values().flatten().filter(|state| matches!(state, DeliveryState::Pending)).count();
        if left == 0 {
            return;
        }
        assert!(Instant::now() < give_up, "{left} are never settled\n{}", daemon.err());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The server's resources without what no two runs share: ids are replaced by identifiers.
async fn state(server: &Server) -> Vec<String> {
    let mut all = Vec::new();
    for resource_type in TYPES {
        all.extend(server.all(resource_type).await);
    }
    let place = |r: &Value| format!("{}/{}", r["resourceType"].as_str().unwrap_or_default(), r["id"].as_str().unwrap_or_default());
    let names: BTreeMap<String, String> = all.iter().map(|r| (place(r), format!("{} {}", r["resourceType"], r["identifier"]))).collect();
    let mut state: Vec<String> = all.into_iter().map(|r| plain(r, &names).to_string()).collect();
    state.sort();
    state
}

fn plain(value: Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(object) => {
            let mut object: Vec<(String, Value)> =
                object.into_iter().filter(|(key, _)| key != "meta" && key != "id").map(|(k, v)| (k, plain(v, names))).collect();
            object.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(object))
        }
        Value::Array(list) => Value::Array(list.into_iter().map(|v| plain(v, names)).collect()),
        Value::String(text) => Value::String(names.get(&text).cloned().unwrap_or(text)),
        other => other,
    }
}

/// One delivery at a time, and nothing goes wrong.
async fn calm(server: &Server, messages: &[String]) -> (Vec<String>, BTreeMap<String, Vec<DeliveryState>>) {
    server.reset().await;
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &server.base, 1);
    let daemon = Daemon::start(folder.path());
    let (to, mut stream) = (daemon.address("adt on "), None);
    for text in messages {
        assert!(exchange(&mut stream, to, text));
    }
    until_settled(folder.path(), &daemon);
    assert_eq!(daemon.stop(), 0);
    (state(server).await, ends(folder.path()))
}

/// Everything goes wrong that may. Gives how often Kiln was killed and its routes were changed, too.
async fn wild(server: &Server, messages: &[String], dice: &mut Dice) -> (Vec<String>, BTreeMap<String, Vec<DeliveryState>>, [u64; 2]) {
    server.reset().await;
    let proxy = Proxy::before(&server.base).await;
    proxy.seed(dice.below(u64::MAX));
    proxy.faults(12, 8);
    proxy.delay(Duration::from_millis(10));
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &proxy.base, 8);
    let mut daemon = Daemon::start(folder.path());
    let (mut stream, mut counts) = (None, [0; 2]);
    for text in messages {
        if dice.percent(6) {
            routes(folder.path(), dice.below(4));
            daemon.signal("HUP");
            counts[1] += 1;
        }
        // Away, and back after the next messages.
        match dice.below(20) {
            0 => proxy.faults(0, 100),
            1..4 => proxy.faults(12, 8),
            _ => {}
        }
        if dice.percent(5) {
            // In the middle of a message, or of whatever Kiln is doing.
            if dice.percent(50) {
                let half = &text.as_bytes()[..text.len() / 2];
                let _ = TcpStream::connect(daemon.address("adt on ")).and_then(|mut s| s.write_all(&[b"\x0b", half].concat()));
            }
            drop(daemon);
            counts[0] += 1;
            daemon = Daemon::start(folder.path());
            stream = None;
        }
        while !exchange(&mut stream, daemon.address("adt on "), text) {
            stream = None;
        }
    }
    proxy.faults(0, 0);
    until_settled(folder.path(), &daemon);
    assert_eq!(proxy.overlaps(), [] as [String; 0], "an identity was under way twice");
    assert_eq!(daemon.stop(), 0);
    (state(server).await, ends(folder.path()), counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr, reason = "the seed and what was done are the test's result")]
async fn a_wild_run_ends_as_a_calm_one() {
    let seconds = std::env::var("KILN_MODEL_SECONDS").map_or(40, |n| n.parse().expect("KILN_MODEL_SECONDS is a number"));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let seed: u64 = std::env::var("KILN_SEED").map_or(clock % 1_000_000, |n| n.parse().expect("KILN_SEED is a number"));
    for server in Server::each().await {
        let began = Instant::now();
        for round in 0.. {
            let seed = seed + round;
            eprintln!("{:?}: KILN_SEED={seed}", server.kind);
            let mut dice = Dice(seed.wrapping_mul(0x1_0000));
            let messages = messages(&mut dice);
            let (expected, ends_calm) = calm(&server, &messages).await;
            let (found, ends_wild, [kills, reloads]) = wild(&server, &messages, &mut dice).await;
            eprintln!("{:?}: {} resources; {kills} kills, {reloads} reloads; {:.0} s", server.kind, found.len(), began.elapsed().as_secs_f64());
            assert_eq!(ends_wild, ends_calm, "KILN_SEED={seed}");
            let missing: Vec<&String> = expected.iter().filter(|r| !found.contains(r)).collect();
            let more: Vec<&String> = found.iter().filter(|r| !expected.contains(r)).collect();
            assert!(missing.is_empty() && more.is_empty(), "KILN_SEED={seed}\nonly calm: {missing:#?}\nonly wild: {more:#?}");
            assert_eq!(found.len(), expected.len(), "KILN_SEED={seed}: something is there twice");
            if server.kind == Kind::Hapi || began.elapsed() > Duration::from_secs(seconds) {
                break;
            }
        }
    }
}
