//! The order that a journal keeps: what waits, what blocks it, and what lets it go.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod journal_support;

use journal_support::{NEW_YEAR, append, dead, delivered, envelope, fill, first, open, options, outcome};
use kiln::exchange::{DeliveryId, MessageId, OrderKey, Phi, Timestamp};
use kiln::journal::{Edit, Journal, JournalError, Later, Options, Reopening, Replay, Settlement};
use std::time::Duration;

#[tokio::test]
async fn a_hundred_thousand_wait_in_order_and_a_restart_goes_on_exactly_there() {
    let folder = tempfile::tempdir().unwrap();
    let small = || Journal::open(Options { segment_bytes: 8 << 20, ..options(folder.path()) }).unwrap();
    let journal = small();
    let stored = fill(&journal, 0, 100_000, "main", |n| n % 1000).await;
    let mut order: Vec<_> = stored.iter().map(|stored| first(stored.id())).collect();
    order.sort();
    assert!(journal.stats().await.unwrap().segments.len() > 3);
    assert_eq!(journal.counts("main").backlog, 100_000);
    let mut seen = Vec::new();
    while let page = journal.pending("main", seen.last().copied(), 10_000).await.unwrap()
        && !page.is_empty()
    {
        assert!(page.len() <= 10_000);
        seen.extend(page.into_iter().map(|pending| pending.id));
    }
    assert!(seen == order, "pending is not in the order of storing");
    let settled = futures_util::future::join_all(order.iter().step_by(2).map(|id| journal.settle(delivered(*id)))).await;
    assert!(settled.iter().all(Result::is_ok));
    drop(journal);
    let journal = small();
    assert_eq!((journal.counts("main").backlog, journal.counts("main").delivered), (50_000, 50_000));
    assert_eq!(journal.counts("main").oldest_waiting, Some(Timestamp(NEW_YEAR)));
    let rest: Vec<_> = journal.pending("main", None, 200_000).await.unwrap().into_iter().map(|pending| pending.id).collect();
    assert!(rest == order.into_iter().skip(1).step_by(2).collect::<Vec<_>>());
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

/// Stores a message with these order keys, and gives its delivery.
async fn stored_under(journal: &Journal, control: &str, keys: &[u64]) -> DeliveryId {
    let mut message = envelope(control, 0);
    message.order_keys = keys.iter().copied().map(OrderKey).collect();
    first(journal.append(append(message, &["main"])).await.unwrap().id())
}

#[tokio::test]
async fn what_waits_behind_a_dead_letter_is_parked_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let send = async |control: &str, keys: &[u64]| stored_under(&journal, control, keys).await;
    let (poison, behind, other) = (send("1", &[1]).await, send("2", &[1, 2]).await, send("3", &[3]).await);
    let merged = send("4", &[2]).await;
    assert!(journal.pending("main", None, 10).await.unwrap().iter().all(|pending| !pending.blocked));
    journal.settle(dead(poison, true)).await.unwrap();
    let blocked = async || journal.pending("main", None, 10).await.unwrap().iter().map(|pending| (pending.id, pending.blocked)).collect::<Vec<_>>();
    assert_eq!(blocked().await, [(behind, true), (other, false), (merged, false)]);
    journal.settle(outcome(behind, Settlement::Parked { reason: "waits".into() })).await.unwrap();
    assert_eq!(blocked().await, [(other, false), (merged, true)], "a parked one blocks what shares its other key");
    journal.settle(outcome(merged, Settlement::Parked { reason: "waits".into() })).await.unwrap();
    assert!(journal.is_blocked("main", DeliveryId { message: MessageId(99), number: 0 }, &[OrderKey(2)]).await.unwrap());
    assert!(!journal.is_blocked("main", poison, &[OrderKey(1)]).await.unwrap(), "what is earlier is not blocked");
    let counts = journal.counts("main");
    assert_eq!((counts.backlog, counts.parked, counts.dead_letters), (1, 2, 1));
    let arrivals = journal.arrivals("main");
    let _ = tokio::time::timeout(Duration::ZERO, arrivals.notified()).await;
    assert_eq!(journal.resume_parked("main", &[OrderKey(1)], Timestamp(NEW_YEAR)).await.unwrap(), 2);
    tokio::time::timeout(Duration::from_secs(5), arrivals.notified()).await.expect("dispatch is told");
    assert_eq!(blocked().await, [(behind, true), (other, false), (merged, false)], "the dead letter goes on blocking");
    assert_eq!(journal.replay(&[poison], &Replay::at(Timestamp(NEW_YEAR))).await.unwrap(), 1);
    assert_eq!(blocked().await.first(), Some(&(poison, false)), "a replayed one is back in its old place");
    assert!(blocked().await.iter().all(|(_, blocked)| !blocked), "and blocks no more");
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn of_two_dead_letters_each_blocks_until_it_is_replayed_itself() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let send = async |control: &str, keys: &[u64]| stored_under(&journal, control, keys).await;
    let (one, other, behind) = (send("1", &[1]).await, send("2", &[1, 2]).await, send("3", &[1, 3]).await);
    journal.settle(dead(one, true)).await.unwrap();
    journal.settle(dead(other, true)).await.unwrap();
    journal.settle(outcome(behind, Settlement::Parked { reason: "waits".into() })).await.unwrap();
    for (replayed, still_blocked) in [(one, true), (other, false)] {
        assert_eq!(journal.replay(&[replayed], &Replay::at(Timestamp(NEW_YEAR))).await.unwrap(), 1);
        journal.resume_parked("main", &[OrderKey(1)], Timestamp(NEW_YEAR)).await.unwrap();
        assert_eq!(journal.is_blocked("main", behind, &[OrderKey(1), OrderKey(3)]).await.unwrap(), still_blocked);
        if still_blocked {
            journal.settle(outcome(behind, Settlement::Parked { reason: "waits".into() })).await.unwrap();
        }
        journal.settle(delivered(replayed)).await.unwrap();
    }
    let pending: Vec<_> = journal.pending("main", None, 10).await.unwrap().iter().map(|pending| (pending.id, pending.blocked)).collect();
    assert_eq!(pending, [(behind, false)]);
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn a_dead_letter_that_does_not_block_lets_the_others_go() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let one = journal.append(append(envelope("1", 1), &["main"])).await.unwrap();
    journal.append(append(envelope("2", 1), &["main"])).await.unwrap();
    journal.settle(dead(first(one.id()), false)).await.unwrap();
    assert!(!journal.pending("main", None, 10).await.unwrap()[0].blocked);
    journal.settle(outcome(first(one.id()), Settlement::Skipped { reason: "by hand".into() })).await.unwrap();
    assert_eq!(journal.counts("main").dead_letters, 0);
}

#[tokio::test]
async fn arrivals_tell_dispatch_only_of_its_own_target() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let (main, disk) = (journal.arrivals("main"), journal.arrivals("disk"));
    journal.append(append(envelope("1", 1), &["main"])).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), main.notified()).await.expect("main is told");
    assert!(tokio::time::timeout(Duration::ZERO, disk.notified()).await.is_err());
}

#[tokio::test]
async fn an_edit_is_what_is_delivered_and_waits_until_nothing_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = journal.append(append(envelope("C1", 7), &["main"])).await.unwrap().id();
    let edit = |text: &'static str, key: u64| Edit {
        at: Timestamp(NEW_YEAR),
        by: "ann".into(),
        bytes: Phi::new(bytes::Bytes::from_static(text.as_bytes())),
        keys: vec![(0, vec![OrderKey(key)])],
    };
    assert_eq!(journal.edit(id, edit("MSH|", 8)).await, Err(JournalError::Missing), "it waits for its turn");
    assert_eq!(journal.edit(MessageId(99), edit("MSH|", 8)).await, Err(JournalError::Missing));
    journal.settle(dead(first(id), true)).await.unwrap();
    journal.edit(id, edit("MSH|1", 8)).await.unwrap();
    journal.edit(id, edit("MSH|2", 9)).await.unwrap();
    let record = journal.show(id).await.unwrap();
    assert_eq!((record.edits.len(), record.deliveries[0].keys.clone()), (2, vec![OrderKey(7), OrderKey(8), OrderKey(9)]));
    assert_eq!(journal.payload(id).await.unwrap().bytes.expose(), "MSH|2");
    assert_ne!(record.envelope.bytes.expose(), "MSH|2", "what was received stays");
    // The dead letter blocks those of its new keys, too.
    let other = journal.append(append(envelope("C2", 9), &["main"])).await.unwrap().id();
    assert!(journal.is_blocked("main", first(other), &[OrderKey(9)]).await.unwrap());
    journal.replay(&[first(id)], &Replay::at(Timestamp(NEW_YEAR))).await.unwrap();
    assert!(!journal.is_blocked("main", first(other), &[OrderKey(9)]).await.unwrap());
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_later_is_counted_for_thousands_on_one_key() {
    const MESSAGES: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut ids: Vec<DeliveryId> = fill(&journal, 0, MESSAGES, "main", |_| 7).await.iter().map(|stored| first(stored.id())).collect();
    ids.sort_unstable();
    // One in two was given up, and all others were delivered.
    let outcomes = ids.iter().enumerate().map(|(n, id)| journal.settle(if n % 2 == 0 { dead(*id, false) } else { delivered(*id) }));
    futures_util::future::join_all(outcomes).await.into_iter().for_each(|settled| settled.unwrap());
    let asked: Vec<Reopening> = ids.iter().step_by(2).map(|id| (*id).into()).collect();
    let newest = ids.last().copied();
    let later = journal.later_delivered(asked.clone()).await.unwrap();
    let wanted: Vec<Later> = (1..=MESSAGES / 2).rev().map(|count| Later { count, newest }).collect();
    assert!(later == wanted, "{:?} {:?}", later.first(), later.last());
    let all = journal.all_later_delivered(asked.clone(), 10_000).await.unwrap().expect("they are not more than that");
    assert_eq!((all.len() as u64, all.last().copied()), (MESSAGES / 2, newest));
    assert_eq!(journal.all_later_delivered(asked, 9_999).await.unwrap(), None);
}

#[tokio::test]
async fn what_came_later_counts_once_however_many_keys_it_shares() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut ids = Vec::new();
    for (n, keys) in [&[1, 2][..], &[2, 3], &[1, 2, 3], &[4]].into_iter().enumerate() {
        let mut one = envelope(&format!("C{n}"), 0);
        one.order_keys = keys.iter().map(|key| OrderKey(*key)).collect();
        let id = first(journal.append(append(one, &["main"])).await.unwrap().id());
        journal.settle(if n < 2 { dead(id, false) } else { delivered(id) }).await.unwrap();
        ids.push(id);
    }
    let one = Later { count: 1, newest: Some(ids[2]) };
    assert_eq!(journal.later_delivered(vec![ids[1].into(), ids[0].into()]).await.unwrap(), [one, one]);
    // An edit widens what the second is about.
    let widened = Reopening { id: ids[1], keys: vec![OrderKey(4)] };
    assert_eq!(journal.later_delivered(vec![widened]).await.unwrap(), [Later { count: 2, newest: Some(ids[3]) }]);
}
