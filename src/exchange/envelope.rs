//! A message as the engine sees it: what is known without mapping it.

use crate::exchange::Phi;
use bytes::Bytes;
use std::sync::Arc;

/// Milliseconds since 1970-01-01T00:00:00Z. The engine passes it in; modules without I/O never read a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// The language that a message is written in. A transport never depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// HL7 v2, ER7 encoding (chapter 2).
    V2,
    /// HL7 v3, XML.
    V3,
    /// FHIR, JSON.
    Fhir,
}

/// The number that the journal gives a message. Ascending in the order of storing, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// One message's way to one target: the message and the delivery's place among that message's deliveries, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The message that is delivered.
    pub message: MessageId,
    /// Which of its deliveries.
    pub number: u16,
}

/// MSH-10 as sent, escapes and all; empty when the sender left it empty (HL7 chapter 2, section 2.14.9.10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ControlId(pub String);

/// A keyed hash of an identity that orders deliveries (a patient identifier, a visit number, an appointment, or the sender).
/// Equal identities have equal keys; unequal ones that collide only wait for each other. It tells nothing about the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(pub u64);

/// A received message before it is stored: its bytes, and what intake reads from its header.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The listener's name from the site file.
    pub listener: Arc<str>,
    /// The peer's address, `10.0.0.7:51123`.
    pub peer: String,
    /// When the last byte of the frame was read.
    pub received: Timestamp,
    /// How the bytes are to be read.
    pub format: Format,
    /// `ADT^A01`; `ACK` without an event; empty when MSH-9 is unreadable.
    pub message_type: String,
    /// MSH-3 as sent.
    pub sending_application: String,
    /// MSH-4 as sent.
    pub sending_facility: String,
    /// MSH-7 as sent.
    pub message_time: String,
    /// MSH-10 as sent.
    pub control_id: ControlId,
    /// All identities that the message names, sorted and without repeats; never empty (the sender is the last resort).
    pub order_keys: Vec<OrderKey>,
    /// The frame's payload exactly as received.
    pub bytes: Phi<Bytes>,
}
