//! The journal from its front door: what is stored is there again, in order, once, and tells where it stands.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops where it is surprised, and tells what it did")]

mod journal_support;

use journal_support::{NEW_YEAR, append, dead, delivered, envelope, fill, open, options, outcome, until};
use kiln::exchange::{ControlId, DeliveryId, MessageId, OrderKey, Phi, Timestamp};
use kiln::journal::{
    Append, AppendFault, Correspondent, DeliveryState, Depends, Disposition, Edit, Journal, JournalError, Learned, OpenError, Options, Owed, OwedState, Place,
    Program, Query, Reader, Replay, ServerId, SettleFault, Settlement, Telling, Told, Wanted,
};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn first(message: MessageId) -> DeliveryId {
    DeliveryId { message, number: 0 }
}

#[tokio::test]
async fn a_message_is_there_again_byte_for_byte_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut sent = envelope("A1", 7);
    sent.order_keys = vec![OrderKey(3), OrderKey(u64::MAX)];
    let stored = journal.append(append(sent.clone(), &["main", "disk"])).await.unwrap();
    assert!(!stored.is_duplicate());
    journal.close().await;
    assert_eq!(journal.append(append(sent.clone(), &[])).await.unwrap_err(), AppendFault::Closed);
    let journal = open(folder.path());
    let read = journal.payload(stored.id()).await.unwrap();
    assert_eq!(read.bytes, sent.bytes);
    assert_eq!((read.control_id, read.order_keys, read.received, read.peer), (sent.control_id, sent.order_keys.clone(), sent.received, sent.peer));
    let pending = journal.pending("disk", None, 10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].id.number, &pending[0].keys, pending[0].attempts), (1, &sent.order_keys, 0));
    assert_eq!(journal.targets_with_pending(), ["disk".into(), "main".into()]);
    assert_eq!(journal.payload(MessageId(99)).await.unwrap_err(), JournalError::Missing);
}

#[tokio::test]
async fn an_outcome_survives_and_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = journal.append(append(envelope("A1", 7), &["main"])).await.unwrap().id();
    let retry = Settlement::Retry {
        not_before: Timestamp(NEW_YEAR + 5000),
        ambiguous: true,
        code: "timeout".into(),
        summary: "no answer".into(),
        detail: None,
        forget: vec![],
    };
    let mut settle = outcome(first(id), retry);
    settle.program = Some("hash-1".into());
    journal.settle(settle).await.unwrap();
    journal.close().await;

    let journal = open(folder.path());
    let pending = journal.pending("main", None, 10).await.unwrap();
    assert_eq!((pending[0].attempts, pending[0].ambiguous, pending[0].not_before), (1, true, Some(Timestamp(NEW_YEAR + 5000))));
    assert_eq!((pending[0].program.as_deref(), pending[0].first_attempt), (Some("hash-1"), Some(Timestamp(NEW_YEAR + 1000))));
    let mut settle = delivered(first(id));
    settle.program = Some("hash-2".into());
    journal.settle(settle).await.unwrap();
    assert!(journal.pending("main", None, 10).await.unwrap().is_empty());
    assert_eq!(journal.settle(delivered(first(id))).await.unwrap_err(), SettleFault::Unknown, "a delivered one is not settled again");
    let shown = journal.show(id).await.unwrap();
    assert_eq!(shown.deliveries[0].state, DeliveryState::Delivered);
    assert_eq!(shown.deliveries[0].program.as_deref(), Some("hash-1"), "a delivery keeps the program that it began with");
    assert_eq!(shown.deliveries[0].attempts.iter().map(|attempt| attempt.outcome).collect::<Vec<_>>(), ["retry", "delivered"]);
    assert_eq!(journal.counts("main").delivered, 1);
}

#[tokio::test]
async fn a_begun_attempt_is_ambiguous_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = journal.append(append(envelope("A1", 7), &["main"])).await.unwrap().id();
    journal.settle(outcome(first(id), Settlement::Begun)).await.unwrap();
    drop(journal);
    let pending = open(folder.path()).pending("main", None, 10).await.unwrap();
    assert_eq!((pending[0].ambiguous, pending[0].attempts), (true, 0));
}

#[tokio::test]
async fn duplicates_are_what_the_decision_says() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let original = journal.append(append(envelope("A1", 7), &["main"])).await.unwrap();
    let mut later = envelope("A1", 7);
    later.received = Timestamp(NEW_YEAR + 60_000);
    let again = journal.append(append(later.clone(), &["main"])).await.unwrap();
    assert!(again.is_duplicate());
    assert_eq!((again.id(), again.received()), (original.id(), Timestamp(NEW_YEAR)), "the acknowledgement is made from the original");
    assert_eq!(journal.pending("main", None, 10).await.unwrap().len(), 1, "it is delivered once");

    // Two copies in one commit.
    let copy = || journal.append(append(envelope("B1", 8), &["main"]));
    let (one, two) = tokio::join!(copy(), copy());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id(), two.id());
    assert!(one.is_duplicate() != two.is_duplicate());

    type Change = (&'static str, fn(&mut kiln::journal::Append));
    let not_duplicates: [Change; 6] = [
        ("another listener", |append| append.envelope.listener = "lab".into()),
        ("another application", |append| append.envelope.sending_application = "LAB".into()),
        ("another facility", |append| append.envelope.sending_facility = "EAST".into()),
        ("another time", |append| append.envelope.message_time = "20260101000001".into()),
        ("no window", |append| append.duplicate_window = None),
        ("after the window", |append| append.envelope.received = Timestamp(NEW_YEAR + 25 * 3600 * 1000)),
    ];
    for (what, change) in not_duplicates {
        let mut other = append(envelope("A1", 7), &[]);
        change(&mut other);
        assert!(!journal.append(other).await.unwrap().is_duplicate(), "{what}");
    }
    for empty in ["time", "control id"] {
        let mut message = envelope("E1", 7);
        if empty == "time" {
            message.message_time.clear()
        } else {
            message.control_id = ControlId(String::new())
        }
        for _ in 0..2 {
            assert!(!journal.append(append(message.clone(), &[])).await.unwrap().is_duplicate(), "an empty {empty}");
        }
    }
    // What was refused is judged anew.
    let mut refused = append(envelope("R1", 7), &[]);
    refused.disposition = Disposition::Refused { code: 207, text: "full".into() };
    journal.append(refused).await.unwrap();
    let anew = journal.append(append(envelope("R1", 7), &["main"])).await.unwrap();
    assert!(!anew.is_duplicate() && !anew.same_control_id_other_content());
    // The same control ID for something else is stored, and said.
    let other = journal.append(append(envelope("A1", 9), &["main"])).await.unwrap();
    assert!(!other.is_duplicate() && other.same_control_id_other_content());
    assert!(!journal.append(append(envelope("NEW", 9), &["main"])).await.unwrap().same_control_id_other_content());

    let statistics = journal.stats().await.unwrap();
    assert_eq!((statistics.duplicates, statistics.reused_control_ids), (2, 1), "{statistics:?}");
    assert_eq!(journal.show(original.id()).await.unwrap().duplicates, 1);
    journal.close().await;
    assert!(open(folder.path()).append(append(later, &["main"])).await.unwrap().is_duplicate(), "also after a restart");
}

#[tokio::test]
async fn a_duplicate_is_found_in_an_older_segment() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { segment_bytes: 200_000, ..options(folder.path()) }).unwrap();
    fill(&journal, 0, 3000, "main", |n| n).await;
    assert!(journal.stats().await.unwrap().segments.len() > 2, "the test needs several segments");
    for n in [0, 1500, 2999] {
        assert!(journal.append(append(envelope(&format!("C{n}"), n), &["main"])).await.unwrap().is_duplicate(), "C{n}");
    }
    assert!(!journal.append(append(envelope("C3000", 1), &["main"])).await.unwrap().is_duplicate());
}

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
    let began = Instant::now();
    let journal = small();
    assert!(began.elapsed() < Duration::from_secs(2), "opening took {:?}", began.elapsed());
    assert_eq!((journal.counts("main").backlog, journal.counts("main").delivered), (50_000, 50_000));
    assert_eq!(journal.counts("main").oldest_waiting, Some(Timestamp(NEW_YEAR)));
    let rest: Vec<_> = journal.pending("main", None, 200_000).await.unwrap().into_iter().map(|pending| pending.id).collect();
    assert!(rest == order.into_iter().skip(1).step_by(2).collect::<Vec<_>>());
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_behind_a_dead_letter_is_parked_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let send = async |control: &str, keys: &[u64]| {
        let mut message = envelope(control, 0);
        message.order_keys = keys.iter().copied().map(OrderKey).collect();
        first(journal.append(append(message, &["main"])).await.unwrap().id())
    };
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
    let send = async |control: &str, keys: &[u64]| {
        let mut message = envelope(control, 0);
        message.order_keys = keys.iter().copied().map(OrderKey).collect();
        first(journal.append(append(message, &["main"])).await.unwrap().id())
    };
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
async fn identities_programs_and_target_states_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let key = journal.identity_key("main", "Patient", "urn:mrn", "7");
    assert_ne!(key, journal.identity_key("main", "Patient", "urn:mrn7", ""), "the parts are kept apart");
    let ids = fill(&journal, 0, 3, "main", |n| n).await;
    let settle = |n: usize, learned: Vec<Learned>, forget, state: &str| {
        outcome(first(ids[n].id()), Settlement::Delivered { receipt: Phi::new("{}".into()), learned, forget, target_state: Some(state.into()) })
    };
    let server = ServerId { id: "p1".into(), etag: Some("W/\"1\"".into()) };
    journal.settle(settle(1, vec![Learned { identity: key, server: server.clone() }], vec![], "one")).await.unwrap();
    journal.settle(settle(0, vec![], vec![], "two")).await.unwrap();
    assert_eq!(journal.known(&[key, journal.identity_key("main", "Patient", "urn:mrn", "8")]).await.unwrap(), [Some(server), None]);
    let program = Program { hash: "abc".into(), applied: Timestamp(1), bytes: vec![1, 2, 3] };
    assert_eq!(journal.last_program().await.unwrap(), None);
    journal.put_program(program.clone()).await.unwrap();
    journal.put_program(Program { hash: "def".into(), ..program.clone() }).await.unwrap();
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(journal.program("abc").await.unwrap(), Some(program));
    assert_eq!(journal.last_program().await.unwrap().unwrap().hash, "def");
    assert_eq!(journal.target_state("main").await.unwrap().as_deref(), Some("two"), "the newest, not the one of the latest message");
    let reopened = journal.identity_key("main", "Patient", "urn:mrn", "7");
    assert_eq!(reopened, key, "the secret stays");
    journal.settle(settle(2, vec![], vec![key], "three")).await.unwrap();
    assert_eq!(journal.known(&[key]).await.unwrap(), [None]);
}

#[tokio::test]
async fn messages_are_found_by_all_that_is_known_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let indexer = |envelope: &kiln::exchange::Envelope| vec![format!("MRN{}", envelope.order_keys[0].0)];
    let journal = Journal::open(Options { indexer: Some(Arc::new(indexer)), segment_bytes: 100_000, ..options(folder.path()) }).unwrap();
    fill(&journal, 0, 1000, "main", |n| n % 10).await;
    let mut odd = append(envelope("ODD", 5), &[]);
    odd.envelope.message_type = "SIU^S12".into();
    odd.envelope.received = Timestamp(NEW_YEAR + 10);
    odd.disposition = Disposition::Refused { code: 200, text: "not wanted".into() };
    let odd = journal.append(odd).await.unwrap();
    let dead_one = journal.search(Query { control_id: Some(ControlId("C17".into())), ..Query::default() }).await.unwrap();
    assert_eq!(dead_one.len(), 1);
    journal.settle(dead(first(dead_one[0].id), false)).await.unwrap();
    until("everything can be found", async || journal.stats().await.unwrap().indexed_to == Some(odd.id())).await;

    let count = async |query: Query| journal.search(Query { limit: 5000, ..query }).await.unwrap().len();
    assert_eq!(count(Query::default()).await, 1001);
    assert_eq!(count(Query { term: Some(Phi::new("mrn5".into())), ..Query::default() }).await, 101);
    assert_eq!(count(Query { term: Some(Phi::new("MRN5".into())), message_type: Some("ADT".into()), ..Query::default() }).await, 100);
    assert_eq!(count(Query { message_type: Some("SIU^S12".into()), ..Query::default() }).await, 1);
    assert_eq!(count(Query { message_type: Some("AD".into()), ..Query::default() }).await, 0, "not any prefix");
    assert_eq!(count(Query { from: Some(Timestamp(NEW_YEAR + 1)), ..Query::default() }).await, 1);
    assert_eq!(count(Query { disposition: Some("refused".into()), ..Query::default() }).await, 1);
    assert_eq!(count(Query { listener: Some("other".into()), ..Query::default() }).await, 0);
    assert_eq!(count(Query { state: Some(DeliveryState::DeadLetter), ..Query::default() }).await, 1);
    assert_eq!(count(Query { state: Some(DeliveryState::Pending), target: Some("main".into()), ..Query::default() }).await, 999);
    let page = journal.search(Query { limit: 10, ..Query::default() }).await.unwrap();
    let next = journal.search(Query { limit: 10, before: Some(page[9].id), ..Query::default() }).await.unwrap();
    assert_eq!((page[0].id, next[0].id.0), (odd.id(), page[9].id.0 - 1), "newest first, page by page");

    // A reader beside the open journal sees the same, and changes nothing.
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.search(&Query { term: Some(Phi::new("MRN5".into())), limit: 5000, ..Query::default() }).unwrap().len(), 101);
    assert_eq!(reader.show(odd.id()).unwrap().disposition, Disposition::Refused { code: 200, text: "not wanted".into() });
    let statistics = reader.stats().unwrap();
    let counted: Vec<_> = statistics.messages.iter().map(|count| (count.message_type.as_str(), count.disposition, count.count)).collect();
    assert_eq!(counted, [("ADT^A01", "accepted", 1000), ("SIU^S12", "refused", 1)]);
    assert_eq!((statistics.targets[0].1.backlog, statistics.targets[0].1.dead_letters), (999, 1));
    assert_eq!(reader.verify().unwrap().faults, Vec::<String>::new());
    journal.close().await;
    assert_eq!(Reader::open(folder.path()).unwrap().verify().unwrap().messages, 1001, "also without a daemon");
}

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
async fn an_unrouted_message_can_be_given_a_way_later() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut unrouted = append(envelope("1", 1), &[]);
    unrouted.disposition = Disposition::Unrouted;
    let id = journal.append(unrouted).await.unwrap().id();
    let way = kiln::journal::NewDelivery { route: "adt".into(), target: "main".into(), keys: None };
    assert_eq!(journal.add_deliveries(id, vec![way.clone()]).await.unwrap(), [first(id)]);
    assert_eq!(journal.pending("main", None, 10).await.unwrap()[0].keys, [OrderKey(1)]);
    assert_eq!(journal.add_deliveries(MessageId(77), vec![way]).await.unwrap_err(), JournalError::Missing);
}

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

#[tokio::test]
async fn one_daemon_has_a_journal_and_its_folder_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = open(&path);
    let refused = Journal::open(options(&path)).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, OpenError::Locked { process, .. } if *process == std::process::id().to_string()), "{refused}");
    journal.append(append(envelope("1", 1), &["main"])).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.file_name());
    }
    journal.close().await;
    open(&path);
    assert!(matches!(Reader::open(folder.path()).map(|_| ()), Err(OpenError::Missing { .. })));
}

#[tokio::test]
async fn foreign_and_newer_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let change = |sql: &str| rusqlite::Connection::open(folder.path().join("state.db")).unwrap().execute_batch(sql).unwrap();
    change("PRAGMA user_version = 99");
    assert!(matches!(Journal::open(options(folder.path())).map(|_| ()), Err(OpenError::TooNew { found: 99, .. })));
    change("PRAGMA user_version = 1; PRAGMA application_id = 5");
    assert!(matches!(Journal::open(options(folder.path())).map(|_| ()), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn verify_notices_what_should_never_be() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    fill(&journal, 0, 10, "main", |n| n).await;
    journal.close().await;
    let segment = folder.path().join(format!("segment-{:020}.db", 1));
    rusqlite::Connection::open(segment).unwrap().execute_batch("DELETE FROM message WHERE id = 4").unwrap();
    let faults = Reader::open(folder.path()).unwrap().verify().unwrap().faults;
    assert!(faults.iter().any(|fault| fault.contains("deliveries belong to no message")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains("counts of messages")), "{faults:?}");
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
async fn what_a_sender_is_owed_is_decided_with_the_delivery_and_outlives_its_segment() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { keep: Duration::from_secs(60), ..options(folder.path()) }).unwrap();
    let owing = |id: &str, wanted, numbers: Vec<u16>| {
        let owed = Owed { accept: Some("CA"), wanted, depends: Depends::Deliveries(numbers), line: Some(Place { line: 7, frames: 1 }) };
        Append { owed: Some(owed), ..append(envelope(id, 1), &["main", "other"]) }
    };
    let mut ids = Vec::new();
    for (id, wanted, numbers) in
        [("A", Wanted::Always, vec![0, 1]), ("B", Wanted::Success, vec![0]), ("C", Wanted::Failure, vec![0]), ("D", Wanted::Always, vec![])]
    {
        ids.push(journal.append(owing(id, wanted, numbers)).await.unwrap().id());
    }
    let whom = Correspondent::of(&envelope("A", 1));
    let state = async |n: usize| journal.owed(ids[n]).await.unwrap().map(|owed| (owed.state, owed.positive)).unwrap();
    let delivery = |n: usize, number| DeliveryId { message: ids[n], number };
    assert_eq!(journal.news_for().await.into_iter().collect::<Vec<_>>(), std::slice::from_ref(&whom), "D waits for nothing");
    assert_eq!(state(3).await, (OwedState::Due, Some(true)));

    // All that it depends on, and nothing else.
    journal.settle(delivered(delivery(0, 0))).await.unwrap();
    assert_eq!(state(0).await, (OwedState::Open, None));
    journal
        .settle(outcome(delivery(1, 1), Settlement::DeadLetter { code: "x".into(), summary: "x".into(), detail: None, blocks: false, told: None }))
        .await
        .unwrap();
    assert_eq!(state(1).await, (OwedState::Open, None));
    let why = Some("why".to_owned());
    journal
        .settle(outcome(delivery(1, 0), Settlement::DeadLetter { code: "x".into(), summary: "x".into(), detail: None, blocks: false, told: why.clone() }))
        .await
        .unwrap();
    assert_eq!(state(1).await, (OwedState::NotWanted, Some(false)));
    journal
        .settle(outcome(delivery(2, 0), Settlement::DeadLetter { code: "x".into(), summary: "x".into(), detail: None, blocks: false, told: why.clone() }))
        .await
        .unwrap();
    assert_eq!((state(2).await, journal.owed(ids[2]).await.unwrap().unwrap().told), ((OwedState::Due, Some(false)), why));
    let due: Vec<_> = journal.due(&whom, None, 10).await.unwrap().into_iter().map(|owed| owed.message).collect();
    assert_eq!(due, [ids[2], ids[3]]);
    assert_eq!(journal.due(&whom, Some(ids[2]), 1).await.unwrap().len(), 1);
    let stranger = Correspondent { sender: whom.sender + 1, ..whom.clone() };
    assert!(journal.due(&stranger, None, 10).await.unwrap().is_empty());

    // Telling: sent, not accepted by somebody else's word, accepted, and asked for again.
    let tell = |n: usize, outcome| journal.tell(Telling { message: ids[n], at: Timestamp(NEW_YEAR + 2), note: "note".into(), outcome });
    assert_eq!(tell(3, Told::Accepted { listener: "adt".into(), sent: None }).await, Err(SettleFault::Unknown), "it was not sent");
    let sent = Some(("AA", Phi::new(b"MSH".to_vec())));
    tell(3, Told::Later { not_before: Timestamp(NEW_YEAR + 5), sent }).await.unwrap();
    assert_eq!(tell(3, Told::Accepted { listener: "other".into(), sent: None }).await, Err(SettleFault::Unknown));
    tell(3, Told::Accepted { listener: "adt".into(), sent: None }).await.unwrap();
    assert_eq!(state(3).await.0, OwedState::Accepted);
    tell(3, Told::Again(Some(Place { line: 9, frames: 4 }))).await.unwrap();
    let again = journal.owed(ids[3]).await.unwrap().unwrap();
    assert_eq!((again.state, again.line, again.code.as_deref()), (OwedState::Due, Some(Place { line: 9, frames: 4 }), Some("AA")));
    assert_eq!(tell(1, Told::Again(None)).await, Err(SettleFault::Unknown), "nobody wanted it");

    // Old: what is settled goes, what is owed stays, also what only waits to be told.
    for (n, number) in [(2, 1), (3, 0), (3, 1)] {
        journal.settle(delivered(delivery(n, number))).await.unwrap();
    }
    let mut late = append(envelope("E", 2), &["main"]);
    late.envelope.received = Timestamp(NEW_YEAR + 3 * 24 * 3_600_000);
    journal.append(late).await.unwrap();
    let pruned = journal.prune(Timestamp(NEW_YEAR + 3 * 24 * 3_600_000)).await.unwrap();
    assert_eq!((pruned.segments, pruned.carried), (1, 4), "A waits for a delivery, B has a dead letter, C and D are to be told");
    assert_eq!(journal.due(&whom, None, 10).await.unwrap().len(), 2);
    journal.close().await;
    let journal = Journal::open(options(folder.path())).unwrap();
    assert_eq!(journal.correspondents().await.unwrap().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&whom));
    journal.settle(delivered(delivery(0, 1))).await.unwrap();
    let due: Vec<_> = journal.due(&whom, None, 10).await.unwrap().into_iter().map(|owed| (owed.message, owed.positive)).collect();
    assert_eq!(due, [(ids[0], Some(true)), (ids[2], Some(false)), (ids[3], Some(true))]);
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

#[tokio::test]
async fn the_next_process_knows_whether_deliveries_came_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    assert!(!journal.begin_deliveries().await.unwrap());
    journal.close().await;
    let journal = open(folder.path());
    assert!(journal.begin_deliveries().await.unwrap(), "the one before never said that it ended");
    journal.end_deliveries().await;
    assert!(!journal.begin_deliveries().await.unwrap());
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
