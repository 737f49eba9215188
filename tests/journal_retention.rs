//! What retention takes, and what it carries over.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod journal_support;

use journal_support::{NEW_YEAR, append, dead, delivered, envelope, fill, first, options, outcome, until};
use kiln::exchange::{ControlId, MessageId, OrderKey, Phi, Timestamp};
use kiln::journal::{Journal, JournalError, Options, Query, Reader, Settlement, Unknown, UnknownList};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn retention_deletes_segments_and_carries_over_what_is_unsettled() {
    let folder = tempfile::tempdir().unwrap();
    let keep = Duration::from_secs(3600);
    let indexer: kiln::journal::Indexer = Arc::new(|envelope: &kiln::exchange::Envelope| vec![format!("MRN{}", envelope.order_keys[0].0)]);
    let small = || Journal::open(Options { segment_bytes: 100_000, keep, indexer: Some(indexer.clone()), ..options(folder.path()) }).unwrap();
    let journal = small();
    let stored = fill(&journal, 0, 2000, "main", |n| n).await;
    let (poison, waiting) = (first(stored[3].id()), first(stored[5].id()));
    for stored in &stored {
        let id = first(stored.id());
        if id == poison {
            journal.settle(dead(id, true)).await.unwrap();
        } else if id != waiting {
            journal.settle(delivered(id)).await.unwrap();
        }
    }
    let before = journal.stats().await.unwrap();
    assert!(before.segments.len() > 4);
    assert_eq!(journal.prune(Timestamp(NEW_YEAR)).await.unwrap().segments, 0, "nothing is old enough");
    let mut late = envelope("LATE", 1);
    late.received = Timestamp(NEW_YEAR + 2 * 3600 * 1000);
    let late = journal.append(append(late, &["main"])).await.unwrap();
    let pruned = journal.prune(Timestamp(NEW_YEAR + 2 * 3600 * 1000)).await.unwrap();
    assert_eq!((pruned.carried, pruned.segments >= 3), (2, true), "{pruned:?}");
    let check = async |journal: &Journal| {
        assert_eq!(journal.payload(stored[0].id()).await.unwrap_err(), JournalError::Missing);
        assert_eq!(journal.show(poison.message).await.unwrap().deliveries[0].attempts.len(), 1);
        let pending: Vec<_> = journal.pending("main", None, 10).await.unwrap().iter().map(|pending| pending.id).collect();
        assert_eq!(pending, [waiting, first(late.id())]);
        assert!(journal.is_blocked("main", first(late.id()), &[OrderKey(3)]).await.unwrap(), "it goes on blocking");
        assert_eq!((journal.counts("main").backlog, journal.counts("main").dead_letters), (2, 1));
        let found = journal.search(Query { control_id: Some(ControlId("C5".into())), ..Query::default() }).await.unwrap();
        assert_eq!(found[0].id, waiting.message);
        until("what was carried can be found by patient", async || {
            journal.search(Query { term: Some(Phi::new("MRN5".into())), ..Query::default() }).await.unwrap().len() == 1
        })
        .await;
        assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
    };
    check(&journal).await;
    assert!(journal.stats().await.unwrap().bytes < before.bytes, "the space is free at once");
    drop(journal);
    let journal = small();
    check(&journal).await;
    journal.settle(delivered(waiting)).await.unwrap();
    assert_eq!(journal.counts("main").backlog, 1);
    let next = journal.append(append(envelope("NEXT", 1), &["main"])).await.unwrap();
    assert_eq!(next.id().0, late.id().0 + 1, "numbers are never used again");
}

#[tokio::test]
async fn retention_does_not_wait_for_long_readers() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { segment_bytes: 100_000, keep: Duration::from_secs(1), ..options(folder.path()) }).unwrap();
    fill(&journal, 0, 3000, "main", |n| n).await;
    // Many checks of the whole journal at once, and retention and intake in between: nothing hangs, nothing is reported that is not so.
    let checks = (0..6).map(|_| journal.verify());
    let work = async {
        fill(&journal, 3000, 4000, "main", |n| n).await;
        journal.prune(Timestamp(NEW_YEAR + 10_000)).await.unwrap()
    };
    let (checks, _) = tokio::join!(futures_util::future::join_all(checks), work);
    for check in checks {
        assert_eq!(check.unwrap().faults, Vec::<String>::new());
    }
    let pruned = journal.prune(Timestamp(NEW_YEAR + 10_000)).await.unwrap();
    let left = journal.stats().await.unwrap().segments;
    assert_eq!(left.len(), 2, "{pruned:?} {left:?}");
    assert_eq!(journal.counts("main").backlog, 4000, "everything was carried over");
}

#[tokio::test]
async fn a_journal_that_is_too_large_gives_its_oldest_settled_messages_up_and_keeps_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let most = 4 << 20;
    let journal = Journal::open(Options { keep_bytes: Some(most), segment_bytes: 256 << 10, wal_bytes_max: 1 << 20, ..options(folder.path()) }).unwrap();
    let waits = journal.append(append(envelope("WAITS", 1), &["slow"])).await.unwrap().id();
    let mut settled = 0;
    for round in 0..8 {
        let stored = fill(&journal, round * 2000, (round + 1) * 2000, "main", |n| n).await;
        futures_util::future::join_all(stored.iter().map(|s| journal.settle(delivered(first(s.id()))))).await.into_iter().for_each(|r| r.unwrap());
        settled += stored.len();
        let pruned = journal.prune(Timestamp(NEW_YEAR + 1000)).await.unwrap();
        assert!(round < 3 || pruned.segments > 0, "round {round}: nothing went");
    }
    let left = journal.search(Query { limit: 100_000, ..Query::default() }).await.unwrap();
    assert!(left.len() < settled / 2, "{} of {settled} are there", left.len());
    assert_eq!(left.first().unwrap().id, journal.newest(), "the newest stay");
    assert_eq!(journal.payload(waits).await.unwrap().control_id.0, "WAITS");
    assert_eq!(journal.counts("slow").backlog, 1);
    assert!(journal.verify().await.unwrap().faults.is_empty());
    let bytes: u64 = std::fs::read_dir(folder.path()).unwrap().flatten().map(|f| f.metadata().unwrap().len()).sum();
    assert!(bytes < 2 * most, "{bytes} bytes are on the disk");
}

#[tokio::test]
async fn what_was_carried_over_goes_once_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { keep: Duration::from_secs(60), segment_bytes: 64 << 10, ..options(folder.path()) }).unwrap();
    let stored = fill(&journal, 0, 300, "main", |n| n).await;
    for (n, one) in stored.iter().enumerate() {
        journal.settle(if n < 100 { dead(first(one.id()), false) } else { delivered(first(one.id())) }).await.unwrap();
    }
    let later = Timestamp(NEW_YEAR + 3_600_000);
    journal.prune(later).await.unwrap();
    assert_eq!((journal.search(Query { limit: 1000, ..Query::default() }).await.unwrap().len(), journal.counts("main").dead_letters), (100, 100));
    for one in &stored[..99] {
        journal.settle(outcome(first(one.id()), Settlement::Skipped { reason: "given up".into() })).await.unwrap();
    }
    journal.prune(later).await.unwrap();
    let left = journal.search(Query::default()).await.unwrap();
    assert_eq!(left.iter().map(|found| found.control_id.0.as_str()).collect::<Vec<_>>(), ["C99"]);
    assert_eq!(journal.counts("main").dead_letters, 1);
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn an_unknown_code_is_forgotten_when_nobody_has_sent_it_for_as_long_as_messages_are_kept() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { keep: Duration::from_secs(24 * 3_600), ..options(folder.path()) }).unwrap();
    let unknown = |code: &str, at: i64| Unknown {
        listener: "adt".into(),
        application: "ADT".into(),
        facility: "HOSP".into(),
        list: UnknownList::Table("administrative-sex".into()),
        code: Phi::new(code.into()),
        place: "PID-8".into(),
        count: 1,
        at: Timestamp(NEW_YEAR + at),
        example: MessageId(1),
    };
    journal.keep_unknown(vec![unknown("OLD", 0), unknown("STILL", 0), unknown("NEW", DAY_MS)]).await.unwrap();
    journal.keep_unknown(vec![unknown("STILL", DAY_MS)]).await.unwrap();
    journal.prune(Timestamp(NEW_YEAR + DAY_MS)).await.unwrap();
    let codes = || Reader::open(folder.path()).unwrap().unknown().unwrap().into_iter().map(|row| row.what.code.into_exposed()).collect::<Vec<_>>();
    assert_eq!(codes(), ["STILL", "NEW", "OLD"], "a day has not passed");
    journal.prune(Timestamp(NEW_YEAR + DAY_MS + 1)).await.unwrap();
    assert_eq!(codes(), ["STILL", "NEW"]);
}
