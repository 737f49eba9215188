//! What makes a message durable: append with group commit, deliveries, attempts, outcomes, search.
//!
//! No SQL outside this folder. Only this module makes a `Stored`, and only after the commit's fsync.
//! It never reads the wall clock: times come in with the messages and the settlements.

mod alone;
mod answer;
mod append;
mod filter;
mod finder;
mod folder;
mod gate;
mod handle;
mod keeper;
mod kept;
mod later;
mod options;
mod origin;
mod owed;
mod own_log;
mod prune;
mod query;
mod queue;
mod read;
mod reader;
mod replay;
mod rows;
#[cfg(feature = "sabotage")]
mod sabotage;
mod schema;
mod search;
mod settle;
mod sheet;
mod shelf;
mod unknown;
mod verify;
mod writer;

pub use append::{Append, AppendFault, Disposition, NewDelivery, Stored};
pub use handle::Journal;
pub use kept::{Kept, ReplyRecord};
pub use later::{Later, Reopening};
pub use options::{CommitReport, Indexer, Observer, OpenError, Options};
pub use owed::{AcknowledgementAttempt, Depends, Owed, OwedRecord, OwedState, Place, Sender, Told, Wanted};
pub use query::{
    AttemptRecord, Counts, DeliveryRecord, DeliveryState, EditRecord, Found, FoundDelivery, Gone, JournalError, MessageRecord, Pending, Program, Pruned, Query,
    SegmentRecord, Statistics, TypeCount, Unsettled, Verification,
};
pub use reader::Reader;
pub use replay::{Edit, Replay, draft_file};
pub use settle::{IdentityKey, Learned, ServerId, Settle, SettleFault, Settlement};
pub use unknown::{Unknown, UnknownCount, UnknownList};
