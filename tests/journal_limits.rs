//! Where a journal stops: low water, the backlog, and the length of its logs.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod journal_support;

use journal_support::{append, delivered, envelope, fill, first, options, until};
use kiln::exchange::Phi;
use kiln::journal::{AppendFault, Journal, Options, Query};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn intake_stops_below_low_water_and_at_the_backlog_limit_but_outcomes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { backlog_max: Some(1), ..options(folder.path()) }).unwrap();
    let id = journal.append(append(envelope("1", 1), &["main"])).await.unwrap().id();
    assert_eq!(journal.append(append(envelope("2", 1), &["main"])).await.unwrap_err(), AppendFault::TooMuchBacklog);
    journal.close().await;
    let journal = Journal::open(Options { low_water: Some(u64::MAX), ..options(folder.path()) }).unwrap();
    assert!(!journal.has_room());
    assert_eq!(journal.append(append(envelope("2", 1), &["main"])).await.unwrap_err(), AppendFault::Full);
    journal.settle(delivered(first(id))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_log_stays_under_its_limit_while_messages_come_and_are_read_and_settled() {
    const LIMIT: u64 = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let indexer: kiln::journal::Indexer = Arc::new(|envelope: &kiln::exchange::Envelope| (0..8).map(|n| format!("{}-{n}", envelope.control_id.0)).collect());
    let journal = Journal::open(Options { wal_bytes_max: LIMIT, segment_bytes: 100 << 20, indexer: Some(indexer), ..options(folder.path()) }).unwrap();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let path = folder.path().to_owned();
    let is_done = done.clone();
    let watch = std::thread::spawn(move || {
        let mut longest = (0, String::new());
        while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
            for entry in std::fs::read_dir(&path).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // A file may go away in between.
                let length = entry.metadata().map_or(0, |meta| meta.len());
                if name.ends_with("-wal") && length > longest.0 {
                    longest = (length, name);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        longest
    });
    // What dispatch does: read a page and its messages, settle, go on. Some of it is long in an older segment.
    let settle = async {
        let mut left = 60_000;
        while left > 0 {
            let page = journal.pending("main", None, 1000).await.unwrap();
            let ids: Vec<_> = page.iter().map(|pending| pending.id.message).collect();
            assert_eq!(journal.payloads(&ids).await.unwrap().len(), ids.len());
            futures_util::future::join_all(page.iter().map(|pending| journal.settle(delivered(pending.id)))).await;
            left -= ids.len();
        }
    };
    let look = async {
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            journal.search(Query { limit: 200, ..Query::default() }).await.unwrap();
        }
    };
    let work = async {
        let padding = "x".repeat(1500);
        let store = async {
            for group in 0..200 {
                let group = (group * 300..(group + 1) * 300).map(|n| {
                    let mut message = envelope(&format!("C{n}"), n);
                    message.bytes = Phi::new(format!("{}ZZZ|{padding}\r", String::from_utf8_lossy(message.bytes.expose())).into());
                    journal.append(append(message, &["main"]))
                });
                assert!(futures_util::future::join_all(group).await.iter().all(Result::is_ok));
            }
        };
        tokio::join!(store, settle);
        until("all is findable", async || journal.stats().await.unwrap().indexed_to.is_some_and(|to| to.0 >= 60_000)).await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(work, look);
    let (longest, name) = watch.join().unwrap();
    assert!(longest < LIMIT, "{name} grew to {longest} bytes");
    let found = journal.search(Query { term: Some(Phi::new("c59999-2".into())), ..Query::default() }).await.unwrap();
    assert_eq!(found.len(), 1, "words are found in the last and the first segment");
    assert_eq!(journal.search(Query { term: Some(Phi::new("C7-0".into())), ..Query::default() }).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_log_that_a_reader_keeps_from_shrinking_does_not_stop_intake() {
    let folder = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let journal = Journal::open(Options { wal_bytes_max: limit, ..options(folder.path()) }).unwrap();
    fill(&journal, 0, 10, "main", |n| n).await;
    let segment = folder.path().join(format!("segment-{:020}.db", 1));
    let log = || std::fs::metadata(folder.path().join(format!("segment-{:020}.db-wal", 1))).unwrap().len();
    // Another process that reads for long.
    let reader = rusqlite::Connection::open(segment).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(reader.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)).unwrap(), 10);
    fill(&journal, 10, 10_000, "main", |n| n).await;
    assert!(log() > limit, "the reader must hold the log for this test to mean something");
    drop(reader);
    let mut next = 10_000;
    until("the log has shrunk", async || {
        fill(&journal, next, next + 10, "main", |n| n).await;
        next += 10;
        log() < limit
    })
    .await;
    until("the metric says so", async || journal.wal_bytes() < 2 * limit && journal.bytes() > 0).await;
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn a_backlog_that_was_too_long_must_shrink_to_the_lower_mark_before_messages_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { backlog_max: Some(10), backlog_resume: Some(4), ..options(folder.path()) }).unwrap();
    let stored = fill(&journal, 0, 10, "main", |n| n).await;
    assert!(journal.has_room());
    assert_eq!(journal.append(append(envelope("MORE", 1), &["main"])).await.unwrap_err(), AppendFault::TooMuchBacklog);
    for (n, one) in stored.iter().enumerate().take(6) {
        assert!(!journal.has_room(), "{} are left", 10 - n);
        journal.settle(delivered(first(one.id()))).await.unwrap();
    }
    assert!(journal.has_room(), "four are left");
    journal.append(append(envelope("MORE", 1), &["main"])).await.unwrap();
}
