//! The handle that the engine holds: cheap to clone, every method is safe to call from any task.

use crate::exchange::{DeliveryId, Envelope, MessageId, OrderKey, Timestamp};
use crate::journal::append::{Append, AppendFault, NewDelivery, Stored};
use crate::journal::options::{OpenError, Options};
use crate::journal::query::Found;
use crate::journal::query::{Counts, JournalError, MessageRecord, Pending, Program, Pruned, Query, Statistics, Verification};
use crate::journal::settle::{IdentityKey, ServerId, Settle, SettleFault};
use std::sync::Arc;
use tokio::sync::Notify;

/// An open journal.
#[derive(Clone)]
pub struct Journal {}

#[allow(clippy::todo, unused_variables, clippy::unused_async, reason = "signatures first; the bodies follow within the hour")]
impl Journal {
    /// Opens the journal for writing; makes it if there is none. One process at a time.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        todo!()
    }

    /// Stores a message and waits for the fsync of its commit: the one running on arrival, then its own.
    pub async fn append(&self, append: Append) -> Result<Stored, AppendFault> {
        todo!()
    }

    /// Stores an outcome, many in a commit, and waits for the fsync.
    pub async fn settle(&self, settle: Settle) -> Result<(), SettleFault> {
        todo!()
    }

    /// Deliveries to `target` that wait, in the order of storing, after `after`, at most `limit`. Retries that wait for their time are among them.
    pub async fn pending(&self, target: &str, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Pending>, JournalError> {
        todo!()
    }

    /// Targets that have something pending or parked, whether the site still has them or not.
    pub fn targets_with_pending(&self) -> Vec<Arc<str>> {
        todo!()
    }

    /// What waits for a target. Kept in memory: free.
    pub fn counts(&self, target: &str) -> Counts {
        todo!()
    }

    /// Is notified (`notify_one`) after each commit that stored or resumed deliveries to `target`. One per target, the same each time.
    pub fn arrivals(&self, target: &str) -> Arc<Notify> {
        todo!()
    }

    /// A message as it was received.
    pub async fn payload(&self, id: MessageId) -> Result<Envelope, JournalError> {
        todo!()
    }

    /// Many at once, in the order asked; cheaper than one by one.
    pub async fn payloads(&self, ids: &[MessageId]) -> Result<Vec<Envelope>, JournalError> {
        todo!()
    }

    /// Makes every parked delivery to `target` that shares one of `keys` pending again, and lifts what blocked it. Returns how many.
    pub async fn resume_parked(&self, target: &str, keys: &[OrderKey], at: Timestamp) -> Result<u64, JournalError> {
        todo!()
    }

    /// Makes dead letters, skipped and superseded deliveries pending again (an operator's replay). Returns how many there were.
    pub async fn replay(&self, deliveries: &[DeliveryId], at: Timestamp) -> Result<u64, JournalError> {
        todo!()
    }

    /// Gives a stored message further ways (an unrouted one whose route now exists). Returns their ids.
    pub async fn add_deliveries(&self, id: MessageId, deliveries: Vec<NewDelivery>) -> Result<Vec<DeliveryId>, JournalError> {
        todo!()
    }

    /// The name under which an identity of a target is remembered: keyed, so that the file tells nothing about a patient.
    pub fn identity_key(&self, target: &str, resource_type: &str, system: &str, value: &str) -> IdentityKey {
        todo!()
    }

    /// Where these identities are on their server, as far as receipts told.
    pub async fn known(&self, identities: &[IdentityKey]) -> Result<Vec<Option<ServerId>>, JournalError> {
        todo!()
    }

    /// Keeps a route set, once per hash, and makes it the last one applied. Durable on return.
    pub async fn put_program(&self, program: Program) -> Result<(), JournalError> {
        todo!()
    }

    /// A stored route set.
    pub async fn program(&self, hash: &str) -> Result<Option<Program>, JournalError> {
        todo!()
    }

    /// The route set that was applied last.
    pub async fn last_program(&self) -> Result<Option<Program>, JournalError> {
        todo!()
    }

    /// What the last delivered outcome of `target` asked to remember.
    pub async fn target_state(&self, target: &str) -> Result<Option<String>, JournalError> {
        todo!()
    }

    /// Finds messages, newest first.
    pub async fn search(&self, query: Query) -> Result<Vec<Found>, JournalError> {
        todo!()
    }

    /// Everything about one message.
    pub async fn show(&self, id: MessageId) -> Result<MessageRecord, JournalError> {
        todo!()
    }

    /// Counts; cheap enough for each scrape.
    pub async fn stats(&self) -> Result<Statistics, JournalError> {
        todo!()
    }

    /// Reads everything and says what is wrong. Slow.
    pub async fn verify(&self) -> Result<Verification, JournalError> {
        todo!()
    }

    /// Deletes whole segments whose last message is older than `Options::keep`; what is unsettled in them is carried over first.
    pub async fn prune(&self, now: Timestamp) -> Result<Pruned, JournalError> {
        todo!()
    }

    /// 32 random bytes that were made with the journal: the key for order keys, derived ids and file names.
    pub fn secret(&self) -> &[u8; 32] {
        todo!()
    }

    /// False below the low-water mark or after a failure: stop reading, and say so in /readyz.
    pub fn has_room(&self) -> bool {
        todo!()
    }

    /// True after an I/O error or a failed fsync. The process must exit with code 74.
    pub fn has_failed(&self) -> bool {
        todo!()
    }

    /// Returns when the disk has failed; else never.
    pub async fn failed(&self) {
        todo!()
    }

    /// Bytes in write-ahead logs, for the metric.
    pub fn wal_bytes(&self) -> u64 {
        todo!()
    }

    /// Bytes of the whole journal as of the last look, for the metric.
    pub fn bytes(&self) -> u64 {
        todo!()
    }

    /// Commits what waits, folds the log back, closes the files and gives up the lock. Later calls say `Closed`.
    pub async fn close(&self) {
        todo!()
    }
}

/// A journal opened for reading, also while a daemon has it. The same words, without changing anything.
pub struct Reader {}

#[allow(clippy::todo, unused_variables, reason = "signatures first; the bodies follow within the hour")]
impl Reader {
    /// Opens the journal in this folder for reading.
    pub fn open(path: &std::path::Path) -> Result<Self, OpenError> {
        todo!()
    }

    /// Finds messages, newest first.
    pub fn search(&self, query: &Query) -> Result<Vec<Found>, JournalError> {
        todo!()
    }

    /// Everything about one message.
    pub fn show(&self, id: MessageId) -> Result<MessageRecord, JournalError> {
        todo!()
    }

    /// Counts.
    pub fn stats(&self) -> Result<Statistics, JournalError> {
        todo!()
    }

    /// Reads everything and says what is wrong.
    pub fn verify(&self) -> Result<Verification, JournalError> {
        todo!()
    }

    /// A stored route set.
    pub fn program(&self, hash: &str) -> Result<Option<Program>, JournalError> {
        todo!()
    }
}
