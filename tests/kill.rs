//! `kill -9` at any moment, under load: what was acknowledged is in the journal, is delivered after the restart, and each
//! patient's resource is there once, in the state that the patient's last message gave it.
//!
//! 200 kills by default; `KILN_KILLS=5000 cargo test --test kill` for more.

mod cli_support;
mod engine_site;

use cli_support::free_port;
use kiln::exchange::ControlId;
use kiln::journal::{DeliveryState, Query, Reader};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Senders, each with its own connection and its own patients.
const SENDERS: usize = 4;
/// Patients of each sender.
const PATIENTS: usize = 5;
/// How long a sender rests after each message: the load must meet every kill, but the backlog must stay small enough for a test.
const REST: Duration = Duration::from_millis(8);
/// The longest wait between a start and its kill.
const LIFE_MS_MAX: u64 = 250;
/// The longest that a start, or the end of the backlog, may take.
const DEADLINE: Duration = Duration::from_secs(120);

fn kills() -> u64 {
    std::env::var("KILN_KILLS").map_or(200, |n| n.parse().expect("KILN_KILLS is a number"))
}

/// The process, which does not outlive a test that fails.
struct Kiln(Child);

impl Kiln {
    fn must_run(&mut self, site: &Path) {
        if let Some(status) = self.0.try_wait().expect("the process can be asked") {
            panic!("kiln ended by itself: {status}\n{}", std::fs::read_to_string(site.join("log")).unwrap_or_default());
        }
    }
}

impl Drop for Kiln {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(site: &Path) -> Kiln {
    let log = std::fs::File::options().append(true).create(true).open(site.join("log")).expect("the log can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["serve", "--config"]).arg(site.join("kiln.yaml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log can be shared")).stderr(log);
    Kiln(command.spawn().expect("kiln can be started"))
}

/// A number that spreads evenly: the kills must meet every moment, and a run must be told apart from the next.
fn spread(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

/// What a sender knows.
#[derive(Default)]
struct Sender {
    /// Control IDs that got their AA.
    accepted: Vec<String>,
    /// Each patient's last acknowledged family name.
    last: HashMap<String, String>,
    /// Messages that had to be sent again because no answer came.
    resent: u64,
}

/// Sends as a real sender does: one message at a time, again and again until its AA comes.
fn send_until(stop: &AtomicBool, sent: &AtomicU64, address: SocketAddr, sender: usize) -> Sender {
    let mut known = Sender::default();
    let mut connection: Option<TcpStream> = None;
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return known;
        }
        let control_id = format!("S{sender}-{n}");
        let patient = format!("P{sender}-{}", n % PATIENTS as u64);
        let family = format!("N{n}");
        let message = engine_site::adt(&control_id, &patient, &family);
        let frame = [b"\x0B", message.as_bytes(), b"\x1C\r"].concat();
        let mut attempts = 0;
        while !exchange(&mut connection, address, &frame, &control_id) {
            connection = None;
            attempts += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        known.resent += u64::from(attempts > 0);
        known.accepted.push(control_id);
        known.last.insert(patient, family);
        sent.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(REST);
    }
    known
}

/// One message and its answer; false if none came.
fn exchange(connection: &mut Option<TcpStream>, address: SocketAddr, frame: &[u8], control_id: &str) -> bool {
    if connection.is_none() {
        *connection = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    }
    let Some(stream) = connection else { return false };
    if stream.set_read_timeout(Some(Duration::from_secs(10))).is_err() || stream.write_all(frame).is_err() {
        return false;
    }
    let (mut answer, mut chunk) = (Vec::new(), [0; 1_024]);
    while !answer.ends_with(b"\x1C\r") {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => answer.extend_from_slice(&chunk[..n]),
            _ => return false,
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(&format!("\rMSA|AA|{control_id}\r")), "not the answer to {control_id}: {}", answer.escape_debug());
    true
}

/// A gauge of /metrics; `None` while nobody answers.
fn gauge(address: SocketAddr, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: kiln\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn wait_for(what: &str, site: &Path, kiln: &mut Kiln, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        let log = || std::fs::read_to_string(site.join("log")).unwrap_or_default().lines().rev().take(20).collect::<Vec<_>>().join("\n");
        kiln.must_run(site);
        assert!(began.elapsed() < DEADLINE, "never: {what}; the log's end, last line first:\n{}", log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "how much was killed and sent is the test's result")]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let site = folder.path();
    let (mllp, metrics) = (free_port(), free_port());
    let text = format!(
        "language: 1\njournal: {{ path: journal, low-water: 1MiB }}\nconsole: off\nmetrics: {{ listen: \"{metrics}\" }}\nreload: signal\n\
         listeners: {{ adt: {{ mllp: \"{mllp}\", authority: HOSP }} }}\ntargets: {{ main: {{ folder: out }}, ward: {{ folder: ward }} }}\n"
    );
    std::fs::write(site.join("kiln.yaml"), text).expect("the site file can be written");
    std::fs::create_dir(site.join("routes")).expect("a folder can be made");
    let ward = "route: ward\non: [\"ADT^*\"]\nto: ward\nmessage: { $copy: all, MSH-5: \"WARD\" }\n";
    std::fs::write(site.join("routes/ward.yaml"), ward).expect("a route can be written");

    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || send_until(&stop, &sent, mllp, sender))
        })
        .collect();
    let kills = kills();
    let began = Instant::now();
    for kill in 0..kills {
        let before = sent.load(Ordering::Relaxed);
        let mut kiln = start(site);
        // One in eight is killed while it starts; the others once they have acknowledged something.
        if kill % 8 != 0 {
            wait_for("an acknowledgement after a start", site, &mut kiln, || sent.load(Ordering::Relaxed) > before);
        }
        std::thread::sleep(Duration::from_millis(spread(kill) % LIFE_MS_MAX));
        kiln.must_run(site);
        kiln.0.kill().expect("the process can be killed");
        kiln.0.wait().expect("the process can be waited for");
    }
    // The last life: the senders finish, the backlog ends, and Kiln stops in order.
    let before = sent.load(Ordering::Relaxed);
    let mut kiln = start(site);
    wait_for("an acknowledgement in the last life", site, &mut kiln, || sent.load(Ordering::Relaxed) > before);
    stop.store(true, Ordering::Relaxed);
    let senders: Vec<Sender> = senders.into_iter().map(|s| s.join().expect("a sender does not panic")).collect();
    for target in ["main", "ward"] {
        wait_for("the end of the backlog", site, &mut kiln, || gauge(metrics, &format!("kiln_backlog{{target=\"{target}\"}}")) == Some(0));
    }
    // The gauge is looked at twice a second: what was accepted last may have come after it.
    let reader = |state| {
        let reader = Reader::open(&site.join("journal")).expect("the journal can be read");
        reader.search(&Query { state: Some(state), limit: 1, ..Query::default() }).expect("the journal can be searched").len()
    };
    wait_for("nothing pending in the journal", site, &mut kiln, || reader(DeliveryState::Pending) == 0);
    let pid = rustix::process::Pid::from_child(&kiln.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process can be asked to stop");
    assert!(kiln.0.wait().expect("the process can be waited for").success(), "a stop in order exits 0");

    let accepted: usize = senders.iter().map(|s| s.accepted.len()).sum();
    let resent: u64 = senders.iter().map(|s| s.resent).sum();
    eprintln!("{kills} kills in {:.0} s, {accepted} messages acknowledged, {resent} of them sent more than once", began.elapsed().as_secs_f64());
    assert!(accepted as u64 > kills, "there was no load");
    assert!(resent > 0, "no kill met a message on its way");
    check_journal(site, &senders);
    check_folder(site, &senders);
    check_ward(site, &senders);
}

/// Every control ID that got its AA is stored once and delivered once.
fn check_journal(site: &Path, senders: &[Sender]) {
    let reader = Reader::open(&site.join("journal")).expect("the journal can be read");
    let verified = reader.verify().expect("the journal can be verified");
    assert_eq!(verified.faults, [] as [String; 0]);
    let mut stored: BTreeMap<ControlId, Vec<DeliveryState>> = BTreeMap::new();
    let mut before = None;
    loop {
        let page = reader.search(&Query { before, limit: 1_000, ..Query::default() }).expect("the journal can be searched");
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        for found in page {
            stored.entry(found.control_id).or_default().extend(found.deliveries.into_iter().map(|d| d.state));
        }
    }
    for control_id in senders.iter().flat_map(|s| &s.accepted) {
        let states = stored.get(&ControlId(control_id.clone()));
        assert_eq!(states.map(Vec::as_slice), Some(&[DeliveryState::Delivered, DeliveryState::Delivered][..]), "{control_id}");
    }
}

/// Each patient is there once, as the last message said.
fn check_folder(site: &Path, senders: &[Sender]) {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in engine_site::files(&site.join("out")).into_iter().filter(|r| r["resourceType"] == "Patient") {
        let text = |value: &serde_json::Value| value.as_str().expect("the resource has it").to_owned();
        found.entry(text(&resource["identifier"][0]["value"])).or_default().push(text(&resource["name"][0]["family"]));
    }
    let expected: BTreeMap<String, Vec<String>> =
        senders.iter().flat_map(|s| &s.last).map(|(patient, family)| (patient.clone(), vec![family.clone()])).collect();
    assert_eq!(found, expected);
}

/// Each message that got its AA went on as HL7 v2, in one file; none did twice.
fn check_ward(site: &Path, senders: &[Sender]) {
    let mut sent: BTreeMap<String, u32> = BTreeMap::new();
    for entry in std::fs::read_dir(site.join("ward/messages")).expect("messages were sent on") {
        let text = std::fs::read_to_string(entry.expect("the folder can be read").path()).expect("a message is text");
        assert!(text.starts_with("MSH|") && text.ends_with('\r'), "a message is whole");
        *sent.entry(text.split('|').nth(9).unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert!(sent.values().all(|times| *times == 1), "a message was sent on twice");
    for control_id in senders.iter().flat_map(|s| &s.accepted) {
        assert!(sent.contains_key(control_id), "{control_id} was not sent on");
    }
}
