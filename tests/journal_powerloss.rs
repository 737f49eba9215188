//! Power loss, a full disk, a failing one, kill -9: whatever was acknowledged is there. And proof that these tests would notice.
//!
//! Each test starts this very binary again as a child that runs `the_child`; what the child was told by the journal it writes to a file
//! beside the disk at once, as a sender would see an acknowledgement.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops where it is surprised, and tells what it did")]

mod journal_support;
mod powerloss;

use journal_support::{NEW_YEAR, append, delivered, envelope, options};
use kiln::exchange::{DeliveryId, MessageId, Timestamp};
use kiln::journal::{AppendFault, DeliveryState, Journal, Options, Reader, Settle, SettleFault, Settlement};
use powerloss::Disk;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Small enough that a short run sees new segments, logs that start over, and truncated ones.
fn small(path: &Path) -> Options {
    Options { segment_bytes: 300_000, wal_bytes_max: 400_000, keep: Duration::from_secs(3600), ..options(path) }
}

/// What the child told, one line each: `ack CONTROL ID`, `settled ID`, `state ID`.
#[derive(Clone)]
struct Told(Arc<Mutex<std::fs::File>>);

impl Told {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

#[test]
fn the_child() {
    let Ok(role) = std::env::var("KILN_CHILD") else { return };
    let path = std::env::var_os("KILN_CHILD_DISK").map(std::path::PathBuf::from).unwrap().join("journal");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(std::env::var_os("KILN_CHILD_TOLD").unwrap()).unwrap();
    let told = Told(Arc::new(Mutex::new(file)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Ok(journal) = Journal::open(small(&path)) else { std::process::exit(3) };
    match role.as_str() {
        "load" => runtime.block_on(load(journal, told)),
        fault => runtime.block_on(faults(journal, told, fault)),
    }
}

/// Eight senders, one dispatcher and a little retention, until the end comes from outside.
async fn load(journal: Journal, told: Told) {
    let round: u64 = std::env::var("KILN_CHILD_ROUND").unwrap().parse().unwrap();
    let most: u64 = std::env::var("KILN_CHILD_MESSAGES").unwrap().parse().unwrap();
    let senders = (0..8_u64).map(|sender| {
        let (journal, told) = (journal.clone(), told.clone());
        tokio::spawn(async move {
            for n in 0..most {
                let control = format!("R{round}S{sender}N{n}");
                let mut message = append(envelope(&control, n % 50), &["main", "disk"]);
                // Of each sender's messages some are old enough for retention.
                message.envelope.received = Timestamp(NEW_YEAR + i64::try_from(round).unwrap() * 7_200_000);
                match journal.append(message).await {
                    Ok(stored) => told.line(&format!("ack {control} {}", stored.id().0)),
                    Err(AppendFault::Failing) => std::process::exit(74),
                    Err(_) => {}
                }
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let dispatcher = tokio::spawn({
        let (journal, told) = (journal.clone(), told.clone());
        async move {
            loop {
                let window = journal.pending("disk", None, 20).await.unwrap();
                for pending in &window {
                    let state = format!("{}", pending.id.message.0);
                    let outcome =
                        Settlement::Delivered { receipt: kiln::exchange::Phi::new("{}".into()), learned: vec![], forget: vec![], target_state: Some(state) };
                    if journal.settle(Settle { delivery: pending.id, at: Timestamp(NEW_YEAR), program: None, outcome }).await.is_ok() {
                        told.line(&format!("settled {} {}", pending.id.message.0, pending.id.number));
                    }
                }
                if window.is_empty() {
                    journal.arrivals("disk").notified().await;
                }
            }
        }
    });
    let _ = journal.prune(Timestamp(NEW_YEAR + i64::try_from(round).unwrap() * 7_200_000)).await;
    for sender in senders {
        sender.await.unwrap();
    }
    dispatcher.abort();
    journal.close().await;
}

fn child(role: &str, disk: &Path, told: &Path, round: u64, messages: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["the_child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env("KILN_CHILD", role).env("KILN_CHILD_DISK", disk).env("KILN_CHILD_TOLD", told);
    command.env("KILN_CHILD_ROUND", round.to_string()).env("KILN_CHILD_MESSAGES", messages.to_string());
    command.stdout(std::process::Stdio::null());
    command
}

/// Checks all that was ever told against a journal; the faults that were found.
fn check(path: &Path, told: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let text = std::fs::read_to_string(told).unwrap_or_default();
    if text.is_empty() {
        return faults;
    }
    let journal = match Journal::open(small(path)) {
        Ok(journal) => journal,
        Err(error) => return vec![format!("it does not open: {error}")],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut ids, mut gone) = (BTreeMap::new(), 0);
        let first = journal
            .stats()
            .await
            .unwrap()
            .segments
            .get(1)
            .map_or(0, |segment| segment.file.trim_start_matches("segment-").trim_end_matches(".db").parse::<u64>().unwrap());
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["ack", control, id] => {
                    let id: u64 = id.parse().unwrap();
                    if let Some(other) = ids.insert(id, (*control).to_owned()) {
                        faults.push(format!("{control} and {other} were both given {id}"));
                    }
                    match journal.payload(MessageId(id)).await {
                        Ok(envelope) if envelope.control_id.0 == *control => {}
                        Ok(envelope) => faults.push(format!("{id} is {}, not {control}", envelope.control_id.0)),
                        // Delivered everywhere and old: only "main" never delivers, so nothing may be gone.
                        Err(error) => faults.push(format!("{control} ({id}) was acknowledged and is lost: {error}")),
                    }
                }
                ["settled", id, number] => {
                    let id = DeliveryId { message: MessageId(id.parse().unwrap()), number: number.parse().unwrap() };
                    match journal.show(id.message).await {
                        Ok(record) if record.deliveries.iter().any(|delivery| delivery.id == id && delivery.state == DeliveryState::Delivered) => {}
                        Ok(_) => faults.push(format!("the outcome of {id:?} is lost")),
                        Err(_) if id.message.0 < first => gone += 1,
                        Err(error) => faults.push(format!("{id:?} was settled and is lost: {error}")),
                    }
                }
                _ => {}
            }
        }
        assert_eq!(gone, 0, "`main` keeps every message");
        // The target's state is that of the last outcome told, or of one that was stored after it and not told any more.
        let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("settled ")?.strip_suffix(" 1")).collect();
        if let Some(last) = told.last() {
            let state = journal.target_state("disk").await.unwrap().unwrap_or_default();
            let later = !told.contains(&state.as_str()) && !state.is_empty() && {
                let record = journal.show(MessageId(state.parse().unwrap())).await.unwrap();
                record.deliveries.iter().any(|delivery| delivery.id.number == 1 && delivery.state == DeliveryState::Delivered)
            };
            if state != *last && !later {
                faults.push(format!("the target's state is {state:?}, and {last} was told last"));
            }
        }
        faults.extend(journal.verify().await.unwrap().faults);
        journal.close().await;
    });
    faults
}

/// Power fails `rounds` times, at operations that `seed` chooses, each time on what the time before left. The first round's faults, if any.
fn power_fails(rounds: u64, seed: u64, sabotage: Option<&str>) -> Vec<String> {
    let mut disk = Disk::new();
    let told = disk.beside("told");
    let mut chance = seed;
    let (mut crashed, mut told_before) = (0, 0);
    for round in 0..rounds {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Early operations make and open files; later ones store, fold logs and start segments.
        let crash_at = if round % 3 == 0 { 1 + (chance >> 33) % 150 } else { 1 + (chance >> 33) % 6000 };
        let mut command = child("load", &disk.path(), &told, round, 150);
        disk.under(&mut command, crash_at, chance | 1);
        if let Some(sabotage) = sabotage {
            command.env("KILN_SABOTAGE", sabotage);
        }
        let status = command.status().unwrap();
        crashed += u64::from(!status.success());
        disk.power_on();
        let faults = check(&disk.path().join("journal"), &told);
        if !faults.is_empty() {
            return faults.into_iter().map(|fault| format!("round {round}, crash at {crash_at}, seed {chance}: {fault}")).collect();
        }
        let now = std::fs::read_to_string(&told).unwrap_or_default().lines().count();
        println!("round {round}: crash at operation {crash_at}, {status}, {} more lines told", now - told_before);
        told_before = now;
    }
    assert!(crashed * 2 > rounds, "power failed in {crashed} of {rounds} rounds only: the test has lost its teeth");
    assert!(told_before > 100, "too little was told to mean anything");
    Vec::new()
}

fn rounds(default: u64) -> u64 {
    std::env::var("KILN_POWERLOSS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn after_a_power_failure_every_acknowledged_message_is_there() {
    let seed = std::env::var("KILN_POWERLOSS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_101);
    let faults = power_fails(rounds(30), seed, None);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The two experiments that must fail: `cargo test --features sabotage --test journal_powerloss must`.
#[cfg(feature = "sabotage")]
#[test]
fn commits_without_fsync_must_be_noticed() {
    let faults = power_fails(20, 1, Some("sync-off"));
    assert!(!faults.is_empty(), "synchronous=OFF was not noticed: this test proves nothing");
    println!("noticed: {}", faults[0]);
}

#[cfg(feature = "sabotage")]
#[test]
fn an_acknowledgement_before_the_commit_must_be_noticed() {
    let faults = power_fails(20, 1, Some("early-ack"));
    assert!(!faults.is_empty(), "an acknowledgement before the commit was not noticed: this test proves nothing");
    println!("noticed: {}", faults[0]);
}

/// Under the shim, with the disk failing in the way that the role says. Exits as the daemon would.
async fn faults(journal: Journal, told: Told, fault: &str) {
    let trigger = std::path::PathBuf::from(std::env::var_os("KILN_SHIM_FAULT").unwrap());
    let send = async |control: &str| {
        let result = journal.append(append(envelope(control, 1), &["main"])).await;
        if let Ok(stored) = &result {
            told.line(&format!("ack {control} {}", stored.id().0));
        }
        result.map(|stored| stored.id())
    };
    let mut first = None;
    for n in 0..50 {
        first = Some(send(&format!("BEFORE{n}")).await.unwrap());
    }
    std::fs::write(&trigger, fault).unwrap();
    let results = futures_util::future::join_all((0..20).map(async |n| send(&format!("DURING{n}")).await)).await;
    if fault == "enospc" {
        assert!(results.iter().all(|result| *result == Err(AppendFault::Full)), "{results:?}");
        assert!(!journal.has_failed());
        let settle = journal.settle(delivered(DeliveryId { message: first.unwrap(), number: 0 })).await;
        assert_eq!(settle, Err(SettleFault::Full));
        std::fs::remove_file(&trigger).unwrap();
        // It goes on by itself, and what was refused can come again.
        for n in 0..20 {
            send(&format!("DURING{n}")).await.unwrap();
        }
        journal.settle(delivered(DeliveryId { message: first.unwrap(), number: 0 })).await.unwrap();
        told.line(&format!("settled {} 0", first.unwrap().0));
        journal.close().await;
        return;
    }
    assert!(results.contains(&Err(AppendFault::Failing)), "{results:?}");
    tokio::time::timeout(Duration::from_secs(5), journal.failed()).await.expect("the daemon is told");
    let _ = std::fs::remove_file(&trigger);
    // Final: the disk works again, and still nothing is accepted.
    assert_eq!(send("AFTER").await, Err(AppendFault::Failing));
    assert!(!journal.has_room());
    told.line("failed as it must");
    std::process::exit(74);
}

fn disk_fails(fault: &str) -> ExitStatus {
    let mut disk = Disk::new();
    let told = disk.beside("told");
    let mut command = child(fault, &disk.path(), &told, 0, 0);
    disk.under(&mut command, 0, 7);
    let status = command.status().unwrap();
    // The folder as it is (the next start of the process) and as power loss would leave it: both must be whole.
    assert_eq!(check(&disk.path().join("journal"), &told), Vec::<String>::new(), "after {fault}, started again");
    disk.power_on();
    assert_eq!(check(&disk.path().join("journal"), &told), Vec::<String>::new(), "after {fault} and power loss");
    status
}

#[test]
fn a_full_disk_refuses_and_goes_on_by_itself() {
    assert!(disk_fails("enospc").success());
}

#[test]
fn an_io_error_is_final() {
    assert_eq!(disk_fails("eio").code(), Some(74));
}

#[test]
fn a_failed_fsync_is_final() {
    assert_eq!(disk_fails("fsync").code(), Some(74));
}

/// `KILN_KILLS` makes it thousands.
#[test]
fn after_kill_9_every_acknowledged_message_is_there() {
    let kills: u64 = std::env::var("KILN_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let home = tempfile::tempdir().unwrap();
    let told = home.path().join("told");
    let mut chance = 42_u64;
    let began = Instant::now();
    for round in 0..kills {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut running = child("load", home.path(), &told, round, 100_000).spawn().unwrap();
        // The one place where time passes on purpose: the kill must come at any moment.
        std::thread::sleep(Duration::from_millis(2 + (chance >> 33) % 80));
        running.kill().unwrap();
        running.wait().unwrap();
        if round % 10 == 9 || round + 1 == kills {
            let faults = check(&home.path().join("journal"), &told);
            assert!(faults.is_empty(), "after {} kills: {}", round + 1, faults.join("\n"));
        }
    }
    let acknowledged = std::fs::read_to_string(&told).unwrap().lines().filter(|line| line.starts_with("ack")).count();
    println!("{kills} kills in {:?}, {acknowledged} acknowledged", began.elapsed());
    assert!(acknowledged > 100);
    assert!(Reader::open(&home.path().join("journal")).unwrap().verify().unwrap().faults.is_empty());
}
