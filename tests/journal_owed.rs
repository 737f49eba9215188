//! What a sender in enhanced mode is owed: decided with the delivery, told, and kept until it was.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod journal_support;

use journal_support::{NEW_YEAR, append, delivered, envelope, options, outcome};
use kiln::exchange::{DeliveryId, Phi, Timestamp};
use kiln::journal::{AcknowledgementAttempt, Append, Depends, Journal, Options, Owed, OwedState, Place, Sender, SettleFault, Settlement, Told, Wanted};
use std::time::Duration;

/// Later than everything that waits for a time.
const NOW: Timestamp = Timestamp(NEW_YEAR + 1_000);

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
    let whom = Sender::of(&envelope("A", 1));
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
    let due: Vec<_> = journal.due(&whom, None, NOW, 10).await.unwrap().into_iter().map(|owed| owed.message).collect();
    assert_eq!(due, [ids[2], ids[3]]);
    assert_eq!(journal.due(&whom, Some(ids[2]), NOW, 1).await.unwrap().len(), 1);
    let stranger = Sender { number: whom.number + 1, ..whom.clone() };
    assert!(journal.due(&stranger, None, NOW, 10).await.unwrap().is_empty());

    // What is told: sent, not accepted by somebody else's word, accepted, and asked for again.
    let tell = |n: usize, outcome| journal.tell(AcknowledgementAttempt { message: ids[n], at: Timestamp(NEW_YEAR + 2), note: "note".into(), outcome });
    assert_eq!(tell(3, Told::Accepted { listener: "adt".into(), sent: None }).await, Err(SettleFault::Unknown), "it was not sent");
    let sent = Some(("AA", Phi::new(b"MSH".to_vec())));
    tell(3, Told::Later { not_before: Timestamp(NEW_YEAR + 5), sent }).await.unwrap();
    // It waits for its time, and whoever is told something now does not read it.
    let now = |ms: i64| Timestamp(NEW_YEAR + ms);
    assert_eq!(journal.due(&whom, None, now(4), 10).await.unwrap().len(), 1);
    assert_eq!((journal.next_due(&whom, now(4)).await.unwrap(), journal.next_due(&whom, now(5)).await.unwrap()), (Some(now(5)), None));
    assert_eq!(journal.due(&whom, None, now(5), 10).await.unwrap().len(), 2);
    assert_eq!(tell(3, Told::Accepted { listener: "other".into(), sent: None }).await, Err(SettleFault::Unknown));
    assert_eq!(tell(3, Told::Declined { listener: "other".into(), not_before: now(9) }).await, Err(SettleFault::Unknown));
    tell(3, Told::Declined { listener: "adt".into(), not_before: now(9) }).await.unwrap();
    assert_eq!(journal.owed(ids[3]).await.unwrap().map(|owed| (owed.attempts, owed.not_before)), Some((2, Some(now(9)))));
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
    assert_eq!(journal.due(&whom, None, NOW, 10).await.unwrap().len(), 2);
    journal.close().await;
    let journal = Journal::open(options(folder.path())).unwrap();
    assert_eq!(journal.senders_owed().await.unwrap().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&whom));
    journal.settle(delivered(delivery(0, 1))).await.unwrap();
    let due: Vec<_> = journal.due(&whom, None, NOW, 10).await.unwrap().into_iter().map(|owed| (owed.message, owed.positive)).collect();
    assert_eq!(due, [(ids[0], Some(true)), (ids[2], Some(false)), (ids[3], Some(true))]);
}
