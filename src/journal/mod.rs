//! What makes a message durable: append with group commit, deliveries, attempts, outcomes, search.
//!
//! No SQL outside this folder. Only this module makes a `Stored`, and only after the commit's fsync.
//! It never reads the wall clock: times come in with the messages and the settlements.

mod append;
mod handle;
mod options;
mod query;
mod settle;

pub use append::{Append, AppendFault, Disposition, NewDelivery, Stored};
pub use handle::{Journal, Reader};
pub use options::{CommitReport, Indexer, Observer, OpenError, Options};
pub use query::{
    AttemptRecord, Counts, DeliveryRecord, DeliveryState, Found, JournalError, MessageRecord, Pending, Program, Pruned, Query, SegmentRecord, Statistics,
    TypeCount, Verification,
};
pub use settle::{IdentityKey, Learned, ServerId, Settle, SettleFault, Settlement};
