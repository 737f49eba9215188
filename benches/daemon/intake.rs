//! How fast messages come in, beside what SQLite alone takes for the same rows.

use crate::harness::{Asked, Daemon, load, rows, segments};
use kiln::journal::{Journal, Options};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::path::Path;
use std::time::{Duration, Instant};

/// Kiln's intake with its target paused, and the bare loop with the very rows that Kiln stored, at the batch size that Kiln had, in turn.
pub(super) fn intake(asked: &Asked) {
    let (messages, rounds, connections) = (asked.number("--messages", 300_000), asked.number("--rounds", 3), asked.number("--connections", 64));
    println!("{messages} messages over {connections} connections, target paused; {rounds} rounds; load {}", load());
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let folder = asked.folder();
        let daemon = Daemon::start(&folder, "paused");
        let busy = daemon.processor();
        let sent = daemon.send(&asked.message(), &["--repeat", &messages.to_string(), "--connections", &connections.to_string()]);
        let (busy, commits, resident) = (daemon.processor() - busy, daemon.metric("kiln_commit_seconds_count"), daemon.resident());
        daemon.stop();
        let (accepted, stored) = (sent["accepted"].as_u64().unwrap(), rows(&folder.join("journal")));
        assert_eq!((accepted, stored), (messages, messages), "accepted and stored");
        let (kiln, batch) = (sent["perSecond"].as_f64().unwrap(), messages as f64 / commits);
        let us = |seconds: f64| seconds * 1e6 / messages as f64;
        println!(
            "round {round}: kiln       {kiln:>7.0} AA/s, {batch:.1} a commit; ACK p50 {} p99 {} us; processor a message: server {:.1}, sender {:.1} us; {resident} MB resident",
            sent["micros"]["p50"],
            sent["micros"]["p99"],
            us(busy),
            us(sent["senderCpuSeconds"].as_f64().unwrap()),
        );
        let batch = (batch.round() as usize).max(1);
        let (raw, busy, mut times) = raw(&folder, messages, batch);
        times.sort();
        println!(
            "         raw SQLite {raw:>7.0} rows/s, {batch} a commit; commit p50 {} p99 {} us; processor a message: {:.1} us",
            times[times.len() / 2].as_micros(),
            times[times.len() * 99 / 100].as_micros(),
            us(busy)
        );
        println!("         kiln / raw {:>7.0} %", 100.0 * kiln / raw);
        ratios.push(kiln / raw);
        let _ = std::fs::remove_dir_all(&folder);
    }
    ratios.sort_by(f64::total_cmp);
    println!("kiln / raw SQLite at the same batch size: {:.0} % (median of {rounds}); goal 80 %; load now {}", 100.0 * ratios[ratios.len() / 2], load());
}

/// Rows of a table, whole.
fn read(from: &Connection, table: &str, after: i64, to: i64) -> Vec<Vec<Value>> {
    let key = if table == "message" { "id" } else { "message" };
    let mut statement = from.prepare_cached(&format!("SELECT * FROM {table} WHERE {key} > ?1 AND {key} <= ?2 ORDER BY {key}")).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([after, to], |row| (0..columns).map(|n| row.get(n)).collect()).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// What a journal's tables take without Kiln: one thread, everything in memory before the clock runs, the look for the control ID, a row for
/// the message and one for each delivery, `batch` messages a commit with an fsync each, checkpoints as SQLite makes them. Gives rows a
/// second, seconds of processor time, and the time of each transaction.
fn raw(folder: &Path, messages: u64, batch: usize) -> (f64, f64, Vec<Duration>) {
    const CHUNK: i64 = 20_000;
    let from: Vec<Connection> =
        segments(&folder.join("journal")).into_iter().map(|path| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()).collect();
    let place = folder.join("raw");
    drop(Journal::open(Options { low_water: Some(0), ..Options::at(&place) }).unwrap());
    let to = Connection::open(place.join(format!("segment-{:020}.db", 1))).unwrap();
    // The page cache is the one that the journal's writer has; the log starts over at 40 MB.
    to.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -8192; INSERT INTO name VALUES (1, 'adt'), (2, 'main');",
    )
    .unwrap();
    to.set_prepared_statement_cache_capacity(64);
    let marks = |n: usize| vec!["?"; n].join(", ");
    let (into_message, into_delivery) = (format!("INSERT INTO message VALUES ({})", marks(15)), format!("INSERT INTO delivery VALUES ({})", marks(12)));
    let (mut took, mut busy, mut times) = (Duration::ZERO, 0.0, Vec::new());
    let newest = |connection: &Connection| connection.query_row("SELECT coalesce(max(id), 0) FROM message", [], |row| row.get::<_, i64>(0)).unwrap();
    for from in &from {
        let (mut at, end) = (0, newest(from));
        while at < end {
            let found = read(from, "message", at, at + CHUNK);
            let mut deliveries = read(from, "delivery", at, at + CHUNK).into_iter().peekable();
            // Outcomes and attempts are not what an AA waits for: each delivery as it was stored with its message.
            let deliveries: Vec<Vec<Vec<Value>>> = found
                .iter()
                .map(|row| {
                    let mine = std::iter::from_fn(|| deliveries.next_if(|delivery| delivery[0] == row[0]));
                    mine.map(|mut d| {
                        (d[4], d[5], d[6], d[7], d[8], d[9]) = (0.into(), 0.into(), Value::Null, Value::Null, 0.into(), Value::Null);
                        d
                    })
                    .collect()
                })
                .collect();
            let work: Vec<_> = found.into_iter().zip(deliveries).collect();
            at += CHUNK;
            let (began, busy_before) = (Instant::now(), own_processor());
            for group in work.chunks(batch) {
                let commit = Instant::now();
                to.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
                for (message, deliveries) in group {
                    let seen = "SELECT 1 FROM message WHERE control_id = ?1 AND control_id <> '' LIMIT 1";
                    assert!(!to.prepare_cached(seen).unwrap().exists([&message[11]]).unwrap());
                    to.prepare_cached(&into_message).unwrap().execute(params_from_iter(message)).unwrap();
                    for delivery in deliveries {
                        to.prepare_cached(&into_delivery).unwrap().execute(params_from_iter(delivery)).unwrap();
                    }
                }
                let tally = "INSERT INTO tally VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT DO UPDATE SET n = n + excluded.n";
                for (kind, a, b) in [(1, "adt", "ADT^A01"), (2, "main", "")] {
                    to.prepare_cached(tally).unwrap().execute(rusqlite::params![kind, a, b, group.len() as i64]).unwrap();
                }
                to.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
                times.push(commit.elapsed());
            }
            took += began.elapsed();
            busy += own_processor() - busy_before;
        }
    }
    drop(to);
    assert_eq!(rows(&place), messages, "the bare loop stored as many");
    (messages as f64 / took.as_secs_f64(), busy, times)
}

/// User and system time of this process in seconds; only one thread of it works.
fn own_processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / rustix::param::clock_ticks_per_second() as f64
}
