//! Measures the journal: messages a second against the bare SQLite loop with the same tables, start times, memory.
//!
//! `cargo bench --bench journal -- [append|settle|start|pending|retention|all] [--messages N] [--path DIR]`; figures are in docs/performance.md.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use bytes::Bytes;
use kiln::exchange::{ControlId, DeliveryId, Envelope, Format, OrderKey, Phi, Timestamp};
use kiln::journal::{Append, CommitReport, Disposition, Journal, NewDelivery, Options, Settle, Settlement};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NEW_YEAR: i64 = 1_767_225_600_000;
const MESSAGE_BYTES: usize = 1200;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|place| args.get(place + 1)).cloned();
    let messages: u64 = option("--messages").map_or(200_000, |text| text.parse().unwrap());
    let base = option("--path").map_or_else(|| std::env::temp_dir().join("kiln-bench-journal"), PathBuf::from);
    let what = args.first().filter(|arg| !arg.starts_with("--")).map_or("all", String::as_str);
    if what == "fill-and-die" {
        return fill_and_die(&base, messages);
    }
    if what == "open" {
        return open_once(&base);
    }
    let all = what == "all";
    if all || what == "append" {
        for (tasks, random) in [(16, false), (64, false), (64, true)] {
            let raw = raw(&fresh(&base), messages, tasks, random);
            let through = append(&fresh(&base), messages, tasks, random);
            println!("    through the journal / raw at {tasks} a commit: {:.0} %", 100.0 * through / raw);
        }
    }
    if all || what == "settle" {
        settle(&fresh(&base), messages);
    }
    if all || what == "start" {
        start(&fresh(&base), messages.max(1_000_000));
    }
    if all || what == "pending" {
        pending(&fresh(&base));
    }
    if all || what == "retention" {
        retention(&base, messages);
    }
    let _ = std::fs::remove_dir_all(&base);
}

fn fresh(base: &Path) -> PathBuf {
    let _ = std::fs::remove_dir_all(base);
    base.to_owned()
}

fn control_id(n: u64, random: bool) -> String {
    if random { format!("{:016X}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9)) } else { format!("MSG{n:013}") }
}

fn message(n: u64, random: bool) -> Append {
    let control_id = control_id(n, random);
    let mut bytes = format!("MSH|^~\\&|ADT|HOSP|KILN|KILN|20260101000000||ADT^A01|{control_id}|P|2.5\rPID|1||{n}^^^HOSP^MR\r").into_bytes();
    bytes.resize(MESSAGE_BYTES, b'x');
    Append {
        envelope: Envelope {
            listener: "adt".into(),
            peer: "127.0.0.1:51123".into(),
            received: Timestamp(NEW_YEAR),
            format: Format::V2,
            message_type: "ADT^A01".into(),
            sending_application: "ADT".into(),
            sending_facility: "HOSP".into(),
            message_time: "20260101000000".into(),
            control_id: ControlId(control_id),
            order_keys: vec![OrderKey(n % 10_000)],
            bytes: Phi::new(Bytes::from(bytes)),
        },
        disposition: Disposition::Accepted,
        deliveries: vec![NewDelivery { route: "adt".into(), target: "main".into(), keys: None }],
        duplicate_window: Some(Duration::from_secs(24 * 3600)),
        awaited: Vec::new(),
        owed: None,
        program: None,
        row: None,
    }
}

/// The bare loop: the tables of the journal, the same rows and look-ups, one thread, `batch` messages a commit, checkpoints as SQLite does them.
fn raw(path: &Path, messages: u64, batch: u64, random: bool) -> f64 {
    drop(Journal::open(Options { low_water: Some(0), ..Options::at(path) }).unwrap());
    let connection = Connection::open(path.join(format!("segment-{:020}.db", 1))).unwrap();
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -8192; INSERT INTO name VALUES (1, 'adt'), (2, 'main');",
        )
        .unwrap();
    connection.set_prepared_statement_cache_capacity(64);
    let prepared: Vec<Append> = (0..messages).map(|n| message(n, random)).collect();
    let mut commits = Vec::new();
    let me = std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim().to_owned();
    let (began, busy) = (Instant::now(), processor_seconds(&me));
    for (chunk, group) in prepared.chunks(batch as usize).enumerate() {
        let commit = Instant::now();
        connection.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        for (place, append) in group.iter().enumerate() {
            let envelope = &append.envelope;
            let id = (chunk as u64 * batch + place as u64 + 1).cast_signed();
            let seen = "SELECT 1 FROM message WHERE control_id = ?1 AND control_id <> '' LIMIT 1";
            assert!(!connection.prepare_cached(seen).unwrap().exists([&envelope.control_id.0]).unwrap());
            let mut payload = vec![0];
            payload.extend_from_slice(envelope.bytes.expose());
            let keys = envelope.order_keys[0].0.to_le_bytes();
            connection
                .prepare_cached("INSERT INTO message VALUES (?1, ?2, 1, 0, 0, NULL, NULL, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")
                .unwrap()
                .execute(params![
                    id,
                    envelope.received.0,
                    envelope.message_type,
                    envelope.sending_application,
                    envelope.sending_facility,
                    envelope.message_time,
                    envelope.control_id.0,
                    envelope.peer,
                    keys,
                    payload
                ])
                .unwrap();
            connection
                .prepare_cached("INSERT INTO delivery VALUES (?1, 0, 2, 1, 0, 0, NULL, NULL, 0, NULL, ?2, ?3)")
                .unwrap()
                .execute(params![id, envelope.received.0, keys])
                .unwrap();
        }
        let tally = "INSERT INTO tally VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT DO UPDATE SET n = n + excluded.n";
        connection.prepare_cached(tally).unwrap().execute(params![1, "adt", "ADT^A01", group.len() as i64]).unwrap();
        connection.prepare_cached(tally).unwrap().execute(params![2, "main", "", group.len() as i64]).unwrap();
        connection.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        commits.push(commit.elapsed());
    }
    let (took, busy) = (began.elapsed(), processor_seconds(&me) - busy);
    println!("    processor {:.1} us a message", busy * 1e6 / messages as f64);
    report("raw SQLite", messages, took, batch, random, &mut commits)
}

/// Processor time of this process's threads with a name, in seconds. On a busy machine it tells more than the clock.
fn processor_seconds(thread: &str) -> f64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() == thread {
            let stat = read("stat");
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
            ticks += fields.get(11..13).unwrap_or(&[]).iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    ticks as f64 / 100.0
}

fn report(what: &str, messages: u64, took: Duration, tasks: u64, random: bool, commits: &mut [Duration]) -> f64 {
    commits.sort();
    let at = |part: f64| commits.get(((commits.len() as f64 - 1.0) * part) as usize).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let rate = messages as f64 / took.as_secs_f64();
    println!(
        "{what:<12} {tasks:>3} at once, {} control IDs: {rate:>7.0} messages/s, {:.1} a commit, commit p50 {:.2} ms p99 {:.2} ms max {:.1} ms",
        if random { "random" } else { "ascending" },
        messages as f64 / commits.len() as f64,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    rate
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The journal with `tasks` callers, each waiting for its answer before it comes again.
fn append(path: &Path, messages: u64, tasks: u64, random: bool) -> f64 {
    let commits: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let seen = commits.clone();
    let observer = move |report: CommitReport| seen.lock().unwrap().push(report.took);
    let journal = Journal::open(Options { low_water: Some(0), observer: Some(Arc::new(observer)), ..Options::at(path) }).unwrap();
    let prepared: Vec<Mutex<Option<Append>>> = (0..messages).map(|n| Mutex::new(Some(message(n, random)))).collect();
    let (prepared, next) = (Arc::new(prepared), Arc::new(AtomicU64::new(0)));
    let runtime = runtime();
    let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let began = Instant::now();
    runtime.block_on(async {
        let workers: Vec<_> = (0..tasks)
            .map(|_| {
                let (journal, prepared, next, waits) = (journal.clone(), prepared.clone(), next.clone(), waits.clone());
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    while let Some(append) = prepared.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let append = append.lock().unwrap().take().unwrap();
                        let asked = Instant::now();
                        journal.append(append).await.unwrap();
                        mine.push(asked.elapsed());
                    }
                    waits.lock().unwrap().extend(mine);
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
    });
    let rate = report("journal", messages, began.elapsed(), tasks, random, &mut commits.lock().unwrap());
    let each = |thread: &str| processor_seconds(thread) * 1e6 / messages as f64;
    println!("    processor a message: writer {:.1} us, keeper {:.1} us, callers {:.1} us", each("journal"), each("journal-keeper"), each("tokio-rt-worker"));
    let mut waits = waits.lock().unwrap();
    waits.sort();
    println!(
        "    answer p50 {:.2} ms p99 {:.2} ms; log {} MB",
        waits[waits.len() / 2].as_secs_f64() * 1e3,
        waits[waits.len() * 99 / 100].as_secs_f64() * 1e3,
        journal.wal_bytes() >> 20
    );
    rate
}

/// Settlements a second, 256 at once, after storing.
fn settle(path: &Path, messages: u64) {
    append(path, messages, 64, false);
    let journal = Journal::open(Options { low_water: Some(0), ..Options::at(path) }).unwrap();
    let began = Instant::now();
    runtime().block_on(async {
        let mut after = None;
        while let page = journal.pending("main", after, 10_000).await.unwrap()
            && !page.is_empty()
        {
            after = page.last().map(|pending| pending.id);
            for group in page.chunks(256) {
                let settle = |id: DeliveryId| Settle {
                    delivery: id,
                    at: Timestamp(NEW_YEAR),
                    program: Some("0123456789abcdef".into()),
                    outcome: Settlement::Delivered { receipt: Phi::new("{\"saved\":[]}".into()), learned: vec![], forget: vec![], target_state: None },
                };
                let settled = futures_util::future::join_all(group.iter().map(|pending| journal.settle(settle(pending.id)))).await;
                assert!(settled.iter().all(Result::is_ok));
            }
        }
    });
    println!("settle       256 at once: {:>7.0} deliveries/s", messages as f64 / began.elapsed().as_secs_f64());
}

fn child(what: &str, path: &Path, messages: u64) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([what, "--path"]).arg(path).args(["--messages", &messages.to_string()]);
    command
}

/// Start with many messages stored and waiting, after a clean stop and after a kill.
fn start(path: &Path, messages: u64) {
    let status = child("fill-and-die", path, messages).status().unwrap();
    assert!(!status.success(), "it kills itself");
    for when in ["after kill -9", "after a clean stop", "after a clean stop again"] {
        println!("start with {messages} waiting, {when}:");
        assert!(child("open", path, 0).status().unwrap().success());
    }
}

fn fill_and_die(path: &Path, messages: u64) {
    append(path, messages, 256, false);
    // `append` has dropped its journal, which is a clean stop; this one leaves a log behind.
    let journal = Journal::open(Options { low_water: Some(0), ..Options::at(path) }).unwrap();
    runtime().block_on(async {
        for from in (messages..messages + 20_000).step_by(500) {
            futures_util::future::join_all((from..from + 500).map(|n| journal.append(message(n, false)))).await;
        }
        println!("    the killed one leaves a log of {} MB", journal.stats().await.unwrap().wal_bytes >> 20);
    });
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

fn open_once(path: &Path) {
    let began = Instant::now();
    let journal = Journal::open(Options { low_water: Some(0), ..Options::at(path) }).unwrap();
    let opened = began.elapsed();
    let counts = journal.counts("main");
    let runtime = runtime();
    let began = Instant::now();
    let stored = runtime.block_on(journal.append(message(u64::MAX - u64::from(std::process::id()), false))).unwrap();
    let first = began.elapsed();
    let began = Instant::now();
    let window = runtime.block_on(journal.pending("main", None, 10_000)).unwrap();
    let read = began.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("").split_whitespace().nth(1).unwrap_or("0").parse::<u64>().unwrap_or(0);
    println!(
        "    open {:.1} ms, first message stored {:.1} ms, window of {} read {:.1} ms; {} wait, message {}, {} MB resident",
        opened.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        window.len(),
        read.as_secs_f64() * 1e3,
        counts.backlog,
        stored.id().0,
        memory / 1024
    );
    runtime.block_on(journal.close());
}

/// Time of a page of pending deliveries at the front of 1,000 and of 1,000,000, and with a large key parked.
fn pending(path: &Path) {
    let runtime = runtime();
    for messages in [1_000, 1_000_000] {
        append(&fresh(path), messages, 256, false);
        let journal = Journal::open(Options { low_water: Some(0), ..Options::at(path) }).unwrap();
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let began = Instant::now();
            assert_eq!(runtime.block_on(journal.pending("main", None, 500)).unwrap().len(), 500);
            best = best.min(began.elapsed());
        }
        println!("pending      500 of {messages}: {:.2} us each", best.as_secs_f64() * 1e6 / 500.0);
    }
}

/// The bare loop's tables in one file, with or without the page map that `auto_vacuum = INCREMENTAL` needs.
fn one_file(path: &Path, vacuum: bool) -> Connection {
    let scratch = path.join("scratch");
    std::fs::create_dir_all(path).unwrap();
    drop(Journal::open(Options { low_water: Some(0), ..Options::at(&scratch) }).unwrap());
    let tables: Vec<String> = Connection::open(scratch.join(format!("segment-{:020}.db", 1)))
        .unwrap()
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let connection = Connection::open(path.join("one.db")).unwrap();
    let mode = if vacuum { "INCREMENTAL" } else { "NONE" };
    connection
        .execute_batch(&format!(
            "PRAGMA auto_vacuum = {mode}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -8192;"
        ))
        .unwrap();
    connection.execute_batch(&format!("{}; INSERT INTO name VALUES (1, 'adt'), (2, 'main');", tables.join(";"))).unwrap();
    connection
}

/// What it costs to give half of the messages' space back: a file that shrinks by itself, or whole segments that are deleted.
fn retention(path: &Path, messages: u64) {
    let insert = |connection: &Connection, n: u64| {
        let append = message(n, false);
        let mut payload = vec![0];
        payload.extend_from_slice(append.envelope.bytes.expose());
        connection
            .prepare_cached("INSERT INTO message VALUES (?1, 0, 1, 0, 0, NULL, NULL, 'ADT^A01', 'ADT', 'HOSP', '20260101000000', ?2, '', x'', ?3)")
            .unwrap()
            .execute(params![n as i64 + 1, append.envelope.control_id.0, payload])
            .unwrap();
        connection.prepare_cached("INSERT INTO delivery VALUES (?1, 0, 2, 1, 1, 1, NULL, NULL, 0, NULL, 0, x'')").unwrap().execute([n as i64 + 1]).unwrap();
    };
    for vacuum in [false, true] {
        let connection = one_file(&fresh(path), vacuum);
        let began = Instant::now();
        for from in (0..messages).step_by(64) {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            (from..(from + 64).min(messages)).for_each(|n| insert(&connection, n));
            connection.execute_batch("COMMIT").unwrap();
        }
        println!(
            "one file, auto_vacuum {}: stores {:.0} messages/s at 64 a commit",
            if vacuum { "INCREMENTAL" } else { "NONE" },
            messages as f64 / began.elapsed().as_secs_f64()
        );
        if !vacuum {
            continue;
        }
        let size = || std::fs::metadata(path.join("one.db")).unwrap().len() >> 20;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let (before, began) = (size(), Instant::now());
        let mut longest = Duration::ZERO;
        for until in (0..messages / 2).step_by(500) {
            let step = Instant::now();
            connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; DELETE FROM message WHERE id <= {0}; DELETE FROM delivery WHERE message <= {0}; COMMIT;",
                    until + 500
                ))
                .unwrap();
            give_back(&connection, 300);
            longest = longest.max(step.elapsed());
        }
        give_back(&connection, 0);
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        println!(
            "    half of it deleted and given back in {:.2} s ({before} MB to {} MB); a step of 500 holds intake up to {:.1} ms",
            began.elapsed().as_secs_f64(),
            size(),
            longest.as_secs_f64() * 1e3
        );
    }
    let options = || Options { low_water: Some(0), segment_bytes: (messages * 1600 / 30).max(1 << 20), keep: Duration::from_secs(1), ..Options::at(path) };
    let journal = Journal::open(options_fresh(path, options())).unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        for from in (0..messages).step_by(64) {
            let group = (from..(from + 64).min(messages)).map(|n| {
                let mut append = message(n, false);
                append.deliveries.clear();
                append.envelope.received = Timestamp(NEW_YEAR + (n * 4000 / messages).cast_signed());
                journal.append(append)
            });
            assert!(futures_util::future::join_all(group).await.iter().all(Result::is_ok));
        }
        let before = journal.stats().await.unwrap();
        let began = Instant::now();
        let pruned = journal.prune(Timestamp(NEW_YEAR + 3000)).await.unwrap();
        let took = began.elapsed();
        let after = journal.stats().await.unwrap();
        println!(
            "segments: {} of {} messages ({} of {} segments) deleted in {:.1} ms ({} MB to {} MB)",
            pruned.messages,
            messages,
            pruned.segments,
            before.segments.len(),
            took.as_secs_f64() * 1e3,
            before.bytes >> 20,
            after.bytes >> 20
        );
        journal.close().await;
    });
    // And what many segments cost at the start.
    drop(journal);
    println!("start with the segments that are left:");
    assert!(child("open", path, 0).status().unwrap().success());
}

/// Gives free pages back: a page for each step of the statement; 0 means all.
fn give_back(connection: &Connection, pages: u32) {
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})")).unwrap();
    let mut rows = vacuum.query([]).unwrap();
    while rows.next().unwrap().is_some() {}
}

fn options_fresh(path: &Path, options: Options) -> Options {
    fresh(path);
    options
}
