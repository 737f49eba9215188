//! The daemon with a folder target on a disk that loses power: every message that got AA is stored, and delivered once in the end.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops where it is surprised, and tells what it did")]

mod cli_support;
mod powerloss;

use cli_support::{exchange, get, kiln, wait_for};
use kiln::exchange::ControlId;
use kiln::journal::{DeliveryState, Query, Reader};
use powerloss::Disk;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PATIENTS: u64 = 7;

/// A second way for each message: as HL7 v2, a file each.
const WARD: &str = "route: ward\non: [\"ADT^*\"]\nto: ward\nmessage: { $copy: all, MSH-5: \"WARD\" }\n";

/// A daemon that may die at any moment.
struct Running {
    child: Child,
    listener: Option<SocketAddr>,
    console: Option<SocketAddr>,
}

fn address(line: &str, after: &str) -> Option<SocketAddr> {
    let rest = line.split(after).nth(1)?;
    rest.split([',', ';', '/', '\n', ' ']).next()?.parse().ok()
}

/// Starts the daemon on this disk and waits until it accepts or is gone.
fn start(disk: &Disk, crash: Option<(u64, u64)>, sabotage: Option<&str>) -> Running {
    let site = disk.beside("site");
    std::fs::create_dir_all(&site).unwrap();
    let path = disk.path();
    let text = format!(
        "journal: {{ path: {0}/journal, low-water: 1MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\n\
         targets: {{ main: {{ folder: {0}/out }}, ward: {{ folder: {0}/ward }} }}\n",
        path.display()
    );
    std::fs::write(site.join("kiln.yaml"), text).unwrap();
    std::fs::create_dir_all(site.join("routes")).unwrap();
    std::fs::write(site.join("routes/ward.yaml"), WARD).unwrap();
    let mut command = kiln(&site);
    command.arg("serve").stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some((at, seed)) = crash {
        disk.under(&mut command, at, seed);
    }
    if let Some(sabotage) = sabotage {
        command.env("KILN_SABOTAGE", sabotage);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let (mut listener, mut console) = (None, None);
    while listener.is_none() && lines.read_line(&mut line).unwrap() > 0 {
        listener = address(&line, "adt on ");
        console = address(&line, "console http://");
    }
    // Its later lines go nowhere, and must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Running { child, listener, console }
}

fn message(control: &str, patient: u64, state: u64) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ADT^A08^ADT_A01|{control}|P|2.5.1\rEVN|A08|20260301120000\r\
         PID|1||{patient}^^^HOSP^MR||State{state}^Eva||19700102|F\rPV1|1|I|W1^101^1||||||||||||||||V{patient}\r"
    )
}

/// Every file below a folder, as text.
fn texts(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(texts(&entry.path()));
        } else {
            found.extend(std::fs::read_to_string(entry.path()));
        }
    }
    found
}

/// What is wrong in the end, after power has failed in every round.
fn power_fails(sabotage: Option<&str>) -> Vec<String> {
    let rounds: u64 = std::env::var("KILN_POWERLOSS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let mut disk = Disk::new();
    let mut chance = std::env::var("KILN_POWERLOSS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7_u64);
    let mut acknowledged: Vec<String> = Vec::new();
    // For each patient: the state of the last message with an AA, and of the last that was sent at all.
    let mut states: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    // `kept`: rounds after which the folder still had patients; without them, later deliveries would make up for what was lost.
    let (mut state, mut crashed, mut kept) = (0, 0, 0);
    for round in 0..rounds {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let crash_at = 100 + (chance >> 33) % 2500;
        let mut running = start(&disk, Some((crash_at, chance | 1)), sabotage);
        let before = acknowledged.len();
        while let Some(listener) = running.listener.filter(|_| acknowledged.len() < before + 150) {
            state += 1;
            let (patient, control) = (4711 + state % PATIENTS, format!("P{state}"));
            let text = message(&control, patient, state);
            let sent = std::panic::catch_unwind(|| exchange(listener, text.as_bytes()));
            states.entry(patient).or_default().1 = state;
            match sent {
                Ok(answer) if answer.contains(&format!("MSA|AA|{control}")) => {
                    acknowledged.push(control);
                    states.entry(patient).or_default().0 = state;
                }
                Ok(answer) if answer.is_empty() => break,
                Ok(answer) => panic!("an unexpected answer: {answer}"),
                // It no longer listens.
                Err(_) => break,
            }
        }
        // It is dying, unless this round was over before its operation came.
        let deadline = Instant::now() + Duration::from_secs(5);
        while acknowledged.len() < before + 150 && running.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        crashed += u64::from(running.child.try_wait().unwrap().is_some());
        let _ = running.child.kill();
        let status = running.child.wait().unwrap();
        println!("round {round}: crash at operation {crash_at}, {status}, {} more acknowledged", acknowledged.len() - before);
        disk.power_on();
        kept += u64::from(!texts(&disk.path().join("out/Patient")).is_empty());
    }
    let mut running = start(&disk, None, None);
    let Some(console) = running.console else {
        running.child.wait().unwrap();
        return vec!["the daemon does not start on what power loss left".into()];
    };
    let began = Instant::now();
    wait_for("everything is delivered", || {
        let stats: serde_json::Value = serde_json::from_str(&get(console, "/api/stats").1).unwrap();
        stats["targets"].as_array().unwrap().iter().all(|target| target["backlog"] == 0)
    });
    println!("{} acknowledged, power failed under it in {crashed} of {rounds} rounds, the rest delivered in {:?}", acknowledged.len(), began.elapsed());
    running.child.kill().unwrap();
    running.child.wait().unwrap();

    let reader = Reader::open(&disk.path().join("journal")).unwrap();
    let mut faults = reader.verify().unwrap().faults;
    for control in &acknowledged {
        let found = reader.search(&Query { control_id: Some(ControlId(control.clone())), ..Query::default() }).unwrap();
        if found.len() != 1 {
            faults.push(format!("{control} got AA and is there {} times", found.len()));
        } else if !found[0].deliveries.iter().all(|d| d.state == DeliveryState::Delivered) {
            faults.push(format!("{control} got AA and is not delivered"));
        }
    }
    // As HL7 v2: each message that got AA once, and none twice.
    let mut onward: BTreeMap<String, u32> = BTreeMap::new();
    for text in texts(&disk.path().join("ward/messages")) {
        let whole = text.starts_with("MSH|^~\\&|ADT1|HOSP|WARD|") && text.contains("\rPV1|1|I|W1^101^1|") && text.ends_with('\r');
        let control = text.split('|').nth(9).unwrap_or_default().to_owned();
        if !whole {
            faults.push(format!("the file of {control} is not whole"));
        }
        *onward.entry(control).or_default() += 1;
    }
    for (control, times) in onward.iter().filter(|(_, times)| **times > 1) {
        faults.push(format!("{control} was sent on {times} times"));
    }
    faults.extend(acknowledged.iter().filter(|control| !onward.contains_key(*control)).map(|control| format!("{control} got AA and was not sent on")));
    let patients = texts(&disk.path().join("out/Patient"));
    for (patient, (acknowledged, sent)) in states {
        let mine: Vec<_> = patients.iter().filter(|text| text.contains(&format!("\"{patient}\""))).collect();
        let held = mine.first().and_then(|text| text.split("State").nth(1)?.split('"').next()?.parse().ok()).unwrap_or(0);
        if mine.len() != 1 || !(acknowledged..=sent).contains(&held) {
            faults.push(format!("patient {patient} is there {} times with state {held}; acknowledged {acknowledged}, sent {sent}", mine.len()));
        }
    }
    assert!(acknowledged.len() > 50, "too little was acknowledged to mean anything");
    if kept * 2 <= rounds {
        faults.push(format!("the folder had patients after {kept} of {rounds} power failures"));
    }
    assert!(crashed * 2 > rounds, "the test has lost its teeth: power failed in {crashed} of {rounds} rounds");
    faults
}

#[test]
fn after_power_failures_every_aa_is_stored_and_delivered() {
    let faults = power_fails(None);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Must fail: `cargo test --features sabotage --test journal_powerloss_serve must`.
#[cfg(feature = "sabotage")]
#[test]
fn a_daemon_that_answers_before_the_commit_must_be_noticed() {
    let faults = power_fails(Some("early-ack"));
    assert!(!faults.is_empty(), "an AA before the commit was not noticed: this test proves nothing");
    println!("noticed: {}", faults[0]);
}

/// Must fail.
#[cfg(feature = "sabotage")]
#[test]
fn a_daemon_that_commits_without_fsync_must_be_noticed() {
    let faults = power_fails(Some("sync-off"));
    assert!(!faults.is_empty(), "synchronous=OFF was not noticed: this test proves nothing");
    println!("noticed: {}", faults[0]);
}
