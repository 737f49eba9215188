//! How a delivery attempt ended, in the words that the journal keeps.

use crate::exchange::{DeliveryId, Phi, Timestamp};

/// One outcome to be stored.
#[derive(Clone, Debug)]
pub struct Settle {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// When the attempt ended.
    pub at: Timestamp,
    /// The hash of the route set that it used, where one was used. The first one given stays with the delivery.
    pub program: Option<String>,
    /// What happened.
    pub outcome: Settlement,
}

/// What happened to a delivery.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// An attempt is about to be made whose repetition after a crash must know that it may have happened (`Pending::ambiguous` after a restart).
    /// Only needed where a target cannot find out by itself.
    Begun,
    /// Done. It is never tried again.
    Delivered {
        /// What the target said, as JSON.
        receipt: Phi<String>,
        /// Identities whose place on the server is now known.
        learned: Vec<Learned>,
        /// Identities whose known place turned out to be stale.
        forget: Vec<IdentityKey>,
        /// What the target must know after a crash; stored in the same commit as the outcome.
        target_state: Option<String>,
    },
    /// To be tried again.
    Retry {
        /// Not before this time.
        not_before: Timestamp,
        /// True if it may have happened.
        ambiguous: bool,
        /// A short, fixed word without patient data: `connect`, `http-503`.
        code: String,
        /// A sentence without patient data.
        summary: String,
        /// What the server said.
        detail: Option<Phi<String>>,
        /// Identities whose known place turned out to be stale.
        forget: Vec<IdentityKey>,
    },
    /// Repeating it cannot help.
    DeadLetter {
        /// A short, fixed word without patient data: `http-422`, `mapping`.
        code: String,
        /// A sentence without patient data.
        summary: String,
        /// What the server said.
        detail: Option<Phi<String>>,
        /// True if later deliveries of a common key wait for an operator (`after-dead-letter: wait`).
        blocks: bool,
        /// What the sender is told, if it is still owed an application acknowledgement; in the engine's words.
        told: Option<String>,
    },
    /// It cannot be done, and its sender, who has no answer yet, is told so: the message becomes a refused one, and all of its deliveries are
    /// withdrawn. Only as long as none of them has been done or may have been; else [`SettleFault::TooLate`], and nothing is stored.
    Refused {
        /// A short, fixed word without patient data: `http-422`.
        code: String,
        /// A sentence without patient data.
        summary: String,
        /// What the server said.
        detail: Option<Phi<String>>,
        /// The code of HL7 table 0357 that the sender is told.
        told: u16,
    },
    /// Waits behind a dead letter of a common key; leaves `pending` until `resume_parked`.
    Parked {
        /// A sentence without patient data.
        reason: String,
    },
    /// An operator gave it up.
    Skipped {
        /// Who and why, without patient data.
        reason: String,
    },
    /// A later message of a common key has been delivered already.
    Superseded,
}

/// The name under which the journal knows an identity of a target: a hash keyed with the journal's secret. Made by `Journal::identity_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityKey(pub(in crate::journal) [u8; 16]);

/// Where a resource is on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerId {
    /// The logical id.
    pub id: String,
    /// The last ETag, as sent.
    pub etag: Option<String>,
}

/// A receipt's news: this identity is that resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The identity.
    pub identity: IdentityKey,
    /// Its place.
    pub server: ServerId,
}

/// Why an outcome was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleFault {
    /// The disk is full; try again later.
    #[error("the journal's disk is full")]
    Full,
    /// The disk failed: final, as in `AppendFault::Failing`.
    #[error("the journal's disk failed")]
    Failing,
    /// There is no such delivery.
    #[error("no such delivery")]
    Unknown,
    /// A message cannot be refused any more: one of its deliveries was done, or may have been.
    #[error("a delivery of the message was done or may have been")]
    TooLate,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
