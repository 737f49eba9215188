//! What goes into the journal before an acknowledgement may leave, and the token that says it has.

use crate::exchange::{Envelope, InRow, MessageId, OrderKey, Timestamp};
use crate::journal::owed::Owed;
use std::sync::Arc;
use std::time::Duration;

/// One message to be stored.
#[derive(Clone, Debug)]
pub struct Append {
    /// The message.
    pub envelope: Envelope,
    /// What intake decided about it.
    pub disposition: Disposition,
    /// Where it is to go. Empty unless it was accepted.
    pub deliveries: Vec<NewDelivery>,
    /// How far back an equal message makes this one a duplicate; `None` means that nothing is a duplicate (an operator's replay, `duplicates: 0`).
    pub duplicate_window: Option<Duration>,
    /// The places in `deliveries` of those that decide what the sender is answered (`acknowledge: delivered`).
    pub awaited: Vec<u16>,
    /// What its sender is told in enhanced mode, where it is told twice; `None` in original mode. Not kept of a duplicate.
    pub owed: Option<Owed>,
    /// The hash of the route set that its deliveries keep from the start; `None` for the one of the day of their first attempt.
    pub program: Option<String>,
    /// Its place among messages that must not overtake each other: once one of them was not stored, none behind it is.
    pub row: Option<InRow>,
}

impl Append {
    pub(in crate::journal) fn is_behind(&self) -> bool {
        self.row.as_ref().is_some_and(InRow::is_behind)
    }

    pub(in crate::journal) fn break_row(&self) {
        if let Some(row) = &self.row {
            row.break_off();
        }
    }
}

/// What intake decided about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Some route takes it.
    Accepted,
    /// A route names its type, and its `when` was false.
    Filtered,
    /// No route names its type.
    Unrouted,
    /// It got a negative acknowledgement. It is never the original of a duplicate.
    Refused {
        /// The code of HL7 table 0357, such as 207.
        code: u16,
        /// A sentence without patient data.
        text: String,
    },
}

/// A way that a message is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// The route that makes the content.
    pub route: Arc<str>,
    /// The target that takes it.
    pub target: Arc<str>,
    /// What keeps it in order; `None` for the message's own order keys.
    pub keys: Option<Vec<OrderKey>>,
}

/// Proof that a message is on the disk. Its fields are private and only the journal fills them, after the commit's fsync;
/// whoever asks for a `Stored` before saying AA cannot say it too early.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(in crate::journal) id: MessageId,
    pub(in crate::journal) received: Timestamp,
    pub(in crate::journal) duplicate: bool,
    pub(in crate::journal) other_content: bool,
}

impl Stored {
    /// The message's number; for a duplicate, the original's.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// When it was received; for a duplicate, when the original was. The acknowledgement is made from this and the id, so that a
    /// duplicate gets the same acknowledgement again.
    pub fn received(&self) -> Timestamp {
        self.received
    }

    /// True if an equal message was accepted before within the window: nothing was stored and nothing will be delivered again.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// True if the same sender used this control ID within the window for other content. The message is stored like any other; it is worth a report.
    pub fn same_control_id_other_content(&self) -> bool {
        self.other_content
    }
}

/// Why a message was not stored. Nothing of it is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFault {
    /// The disk is below its low-water mark, or full. Goes away by itself when there is room.
    #[error("the journal's disk is full")]
    Full,
    /// The disk failed (an I/O error, a failed fsync, a damaged file). Final: the process must exit with code 74 and recover at its next start.
    #[error("the journal's disk failed")]
    Failing,
    /// More deliveries wait than `Options::backlog_max` allows.
    #[error("too many deliveries are waiting")]
    TooMuchBacklog,
    /// A message before it, of the same row, was not stored.
    #[error("a message before it could not be stored")]
    Behind,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
