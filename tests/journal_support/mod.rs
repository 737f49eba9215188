//! What the journal's tests share: messages to store, and a journal in a folder that goes away.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use bytes::Bytes;
use kiln::exchange::{ControlId, DeliveryId, Envelope, Format, MessageId, OrderKey, Phi, Timestamp};
use kiln::journal::{Append, Disposition, Journal, NewDelivery, Options, Settle, Settlement, Stored};
use std::path::Path;
use std::time::Duration;

/// 2026-01-01T00:00:00Z.
pub const NEW_YEAR: i64 = 1_767_225_600_000;

/// A message with this control ID, for this patient.
pub fn envelope(control_id: &str, patient: u64) -> Envelope {
    let bytes = format!("MSH|^~\\&|ADT|HOSP|KILN|KILN|20260101000000||ADT^A01|{control_id}|P|2.5\rPID|1||{patient}^^^HOSP^MR\r");
    Envelope {
        listener: "adt".into(),
        peer: "10.0.0.7:51123".into(),
        received: Timestamp(NEW_YEAR),
        format: Format::V2,
        message_type: "ADT^A01".into(),
        sending_application: "ADT".into(),
        sending_facility: "HOSP".into(),
        message_time: "20260101000000".into(),
        control_id: ControlId(control_id.into()),
        order_keys: vec![OrderKey(patient)],
        bytes: Phi::new(Bytes::from(bytes)),
    }
}

/// An accepted message on its way to these targets.
pub fn append(envelope: Envelope, targets: &[&str]) -> Append {
    let deliveries = targets.iter().map(|target| NewDelivery { route: "adt".into(), target: (*target).into(), keys: None }).collect();
    Append {
        envelope,
        disposition: Disposition::Accepted,
        deliveries,
        duplicate_window: Some(Duration::from_secs(24 * 3600)),
        awaited: Vec::new(),
        owed: None,
        program: None,
        row: None,
    }
}

/// Options for a test: no low-water mark, so that a nearly full disk of the builder doesn't matter.
pub fn options(path: &Path) -> Options {
    Options { low_water: Some(0), ..Options::at(path) }
}

/// Opens a journal.
pub fn open(path: &Path) -> Journal {
    Journal::open(options(path)).expect("the journal opens")
}

/// Stores messages `from..to`, all at once, in groups, each for the patient that `patient` says.
pub async fn fill(journal: &Journal, from: u64, to: u64, target: &str, patient: impl Fn(u64) -> u64) -> Vec<Stored> {
    let mut stored = Vec::new();
    let mut next = from;
    while next < to {
        let group = (next..to.min(next + 2000)).map(|n| journal.append(append(envelope(&format!("C{n}"), patient(n)), &[target])));
        stored.extend(futures_util::future::join_all(group).await.into_iter().map(|stored| stored.expect("stored")));
        next += 2000;
    }
    stored
}

/// The first delivery of a message.
pub fn first(message: MessageId) -> DeliveryId {
    DeliveryId { message, number: 0 }
}

/// An outcome at a time after the messages.
pub fn outcome(delivery: DeliveryId, outcome: Settlement) -> Settle {
    Settle { delivery, at: Timestamp(NEW_YEAR + 1000), program: None, outcome }
}

/// Delivered, with nothing to remember.
pub fn delivered(delivery: DeliveryId) -> Settle {
    outcome(delivery, Settlement::Delivered { receipt: Phi::new("{}".into()), learned: vec![], forget: vec![], target_state: None })
}

/// A dead letter.
pub fn dead(delivery: DeliveryId, blocks: bool) -> Settle {
    outcome(delivery, Settlement::DeadLetter { code: "http-422".into(), summary: "refused".into(), detail: Some(Phi::new("why".into())), blocks, told: None })
}

/// Waits until a condition holds; a test that waits in vain fails here.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
