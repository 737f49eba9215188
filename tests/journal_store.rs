//! The journal from its front door: what is stored is there again, once, and is found.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod journal_support;

use journal_support::{NEW_YEAR, append, dead, delivered, envelope, fill, first, open, options, outcome, until};
use kiln::exchange::{ControlId, MessageId, OrderKey, Phi, Timestamp};
use kiln::journal::{
    AppendFault, DeliveryState, Disposition, Journal, JournalError, Learned, OpenError, Options, Program, Query, Reader, ServerId, SettleFault, Settlement,
};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

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
