//! What the journal tells: what waits, what was found, what is counted. Plain data.

use crate::exchange::{ControlId, DeliveryId, Envelope, MessageId, OrderKey, Phi, Timestamp};
use crate::journal::{Disposition, OwedRecord};
use bytes::Bytes;
use std::sync::Arc;

/// A delivery that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which one.
    pub id: DeliveryId,
    /// The route that makes its content.
    pub route: Arc<str>,
    /// The message's ordering keys.
    pub keys: Vec<OrderKey>,
    /// Attempts so far.
    pub attempts: u32,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// True if an earlier attempt may have happened.
    pub ambiguous: bool,
    /// The hash of the route set that it began with.
    pub program: Option<String>,
    /// When the message was received.
    pub received: Timestamp,
    /// When it was first tried.
    pub first_attempt: Option<Timestamp>,
    /// True if an earlier delivery to this target of a common key is parked, or is a dead letter that blocks: settle this one as `Parked`.
    pub blocked: bool,
    /// `None`: the sender was answered. Else the sender waits for deliveries of this message; true if this is one of them.
    pub awaited: Option<bool>,
    /// True if the sender, who has an accept acknowledgement, is still owed an application acknowledgement for the message.
    pub owed: bool,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeliveryState {
    /// Waits for its turn or for its next attempt.
    Pending,
    /// Done.
    Delivered,
    /// Given up until somebody acts.
    DeadLetter,
    /// Waits behind a dead letter.
    Parked,
    /// Given up by an operator.
    Skipped,
    /// A later message was delivered before it.
    Superseded,
}

/// What waits for one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pending deliveries.
    pub backlog: u64,
    /// Parked ones.
    pub parked: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Delivered, as far as still kept.
    pub delivered: u64,
    /// When the oldest pending one's message was received.
    pub oldest_waiting: Option<Timestamp>,
}

/// What to look for. Every part that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// A word that the indexer gave for the message: a patient identifier.
    pub term: Option<Phi<String>>,
    /// MSH-10.
    pub control_id: Option<ControlId>,
    /// `ADT^A01`, or `ADT` for all of them.
    pub message_type: Option<String>,
    /// The listener.
    pub listener: Option<String>,
    /// Received at or after.
    pub from: Option<Timestamp>,
    /// Received before.
    pub to: Option<Timestamp>,
    /// Has a delivery in this state.
    pub state: Option<DeliveryState>,
    /// Has a delivery to this target.
    pub target: Option<String>,
    /// Has a delivery by this route.
    pub route: Option<String>,
    /// Has a delivery whose last attempt ended with this code, such as `http-422`.
    pub code: Option<String>,
    /// Has a delivery whose last attempt says this in its summary, in capitals or not.
    pub reason: Option<String>,
    /// `accepted`, `filtered`, `unrouted` or `refused`.
    pub disposition: Option<String>,
    /// Only messages before this one: the last of the page before.
    pub before: Option<MessageId>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

/// A message in a list, newest first. No payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub id: MessageId,
    /// When it was received.
    pub received: Timestamp,
    /// The listener.
    pub listener: Arc<str>,
    /// `ADT^A01`.
    pub message_type: String,
    /// MSH-3.
    pub sending_application: String,
    /// MSH-4.
    pub sending_facility: String,
    /// MSH-10.
    pub control_id: ControlId,
    /// What intake decided.
    pub disposition: Disposition,
    /// Bytes as received.
    pub bytes: u64,
    /// Each delivery, in order.
    pub deliveries: Vec<FoundDelivery>,
}

/// A delivery of a message in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDelivery {
    /// Which of the message's.
    pub number: u16,
    /// The route.
    pub route: Arc<str>,
    /// The target.
    pub target: Arc<str>,
    /// Where it stands.
    pub state: DeliveryState,
    /// True if it is one that the query asked for: of this state, target, route, code and reason, as far as given.
    pub wanted: bool,
    /// How its last attempt ended, unless it was delivered: a short, fixed word.
    pub code: String,
    /// The same as a sentence without patient data.
    pub summary: String,
}

/// Everything about one message.
#[derive(Clone, Debug)]
pub struct MessageRecord {
    /// Its number.
    pub id: MessageId,
    /// The message.
    pub envelope: Envelope,
    /// What intake decided.
    pub disposition: Disposition,
    /// Its deliveries in order.
    pub deliveries: Vec<DeliveryRecord>,
    /// How often it came again as a duplicate.
    pub duplicates: u64,
    /// The numbers of the deliveries that the sender's answer still waits for.
    pub awaited: Vec<u16>,
    /// What the sender was and is told in enhanced mode.
    pub owed: Option<OwedRecord>,
    /// What operators made of it, oldest first.
    pub edits: Vec<EditRecord>,
}

impl MessageRecord {
    /// The message as it is mapped and delivered: the last edit, else what was received.
    pub fn content(&self) -> &Phi<Bytes> {
        self.edits.last().map_or(&self.envelope.bytes, |edit| &edit.bytes)
    }
}

/// What an operator made of a message.
#[derive(Clone, Debug)]
pub struct EditRecord {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// The whole message.
    pub bytes: Phi<Bytes>,
}

/// Targets that a change of the site takes away or brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Those that leave, each with the site file that had it last.
    pub left: Vec<(String, String)>,
    /// Those that are there again.
    pub back: Vec<String>,
}

/// One delivery and its attempts.
#[derive(Clone, Debug)]
pub struct DeliveryRecord {
    /// Which one.
    pub id: DeliveryId,
    /// The route.
    pub route: Arc<str>,
    /// The target.
    pub target: Arc<str>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// What keeps it in order.
    pub keys: Vec<OrderKey>,
    /// The hash of its route set.
    pub program: Option<String>,
    /// What was tried, oldest first.
    pub attempts: Vec<AttemptRecord>,
}

/// One attempt, or another event of a delivery.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// When it ended.
    pub at: Timestamp,
    /// `delivered`, `retry`, `dead-letter`, `parked`, `resumed`, `skipped`, `superseded`, `replayed`, `refused`, `withdrawn`.
    pub outcome: &'static str,
    /// A short, fixed word: `connect`, `http-422`.
    pub code: String,
    /// A sentence without patient data.
    pub summary: String,
    /// The receipt (JSON) or what the server said.
    pub detail: Option<Phi<String>>,
}

/// How many deliveries of one route are not settled for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Pending ones that were never tried: they take the route set of the day. What was tried keeps its own.
    pub untried: u64,
    /// Parked ones.
    pub parked: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// A stored route set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its hash.
    pub hash: String,
    /// When it was first applied.
    pub applied: Timestamp,
    /// Its sources, as the engine packed them.
    pub bytes: Vec<u8>,
}

/// What the whole journal holds.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Messages by listener, type and disposition.
    pub messages: Vec<TypeCount>,
    /// Deliveries by target.
    pub targets: Vec<(String, Counts)>,
    /// Duplicates that came.
    pub duplicates: u64,
    /// Messages whose control ID had been used for other content.
    pub reused_control_ids: u64,
    /// The segments, oldest first.
    pub segments: Vec<SegmentRecord>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of write-ahead logs among them.
    pub wal_bytes: u64,
    /// The last message that can be found by patient.
    pub indexed_to: Option<MessageId>,
}

/// How many messages of one kind there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCount {
    /// The listener.
    pub listener: String,
    /// `ADT^A01`.
    pub message_type: String,
    /// `accepted`, `filtered`, `unrouted` or `refused`.
    pub disposition: &'static str,
    /// How many.
    pub count: u64,
}

/// One file of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Its file name.
    pub file: String,
    /// Messages in it.
    pub messages: u64,
    /// Deliveries in it that are not settled for good (pending, parked, dead letters).
    pub unsettled: u64,
    /// Bytes, its log included.
    pub bytes: u64,
}

/// What `verify` found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Messages read.
    pub messages: u64,
    /// Deliveries read.
    pub deliveries: u64,
    /// What is wrong, each a sentence that names the file and no patient data. Empty means sound.
    pub faults: Vec<String>,
}

/// What `prune` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Segments deleted.
    pub segments: u64,
    /// Messages deleted with them.
    pub messages: u64,
    /// Messages carried over because something of them is unsettled.
    pub carried: u64,
}

/// Why the journal could not be read or changed. No patient data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no such message, delivery or program.
    #[error("not in the journal")]
    Missing,
    /// The disk is full; try again later.
    #[error("the journal's disk is full")]
    Full,
    /// The database said no, at this moment.
    #[error("the journal cannot be read ({0})")]
    Database(String),
    /// What is stored there makes no sense, and will not at another try.
    #[error("what is stored is damaged ({0})")]
    Damaged(String),
    /// The disk failed: final.
    #[error("the journal's disk failed")]
    Failing,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
