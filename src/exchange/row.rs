//! Messages of one sender that are stored in their order, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What messages of one connection or file have in common while several of them are under way: once one could not be stored, none behind it is.
/// Whoever hands them over begins another row with the one that failed.
#[derive(Debug)]
pub struct Row {
    /// The place of the next message.
    next: AtomicU64,
    /// The first place whose message could not be stored.
    broken: AtomicU64,
}

impl Default for Row {
    fn default() -> Self {
        Self { next: AtomicU64::new(0), broken: AtomicU64::new(u64::MAX) }
    }
}

impl Row {
    /// The place of a message that comes behind all that have one.
    pub fn join(self: &Arc<Self>) -> InRow {
        InRow { place: self.next.fetch_add(1, Ordering::AcqRel), row: Arc::clone(self) }
    }
}

/// A message's place in its row.
#[derive(Clone, Debug)]
pub struct InRow {
    row: Arc<Row>,
    place: u64,
}

impl InRow {
    /// The message could not be stored.
    pub fn break_off(&self) {
        self.row.broken.fetch_min(self.place, Ordering::AcqRel);
    }

    /// True if one before it could not be stored.
    pub fn is_behind(&self) -> bool {
        self.row.broken.load(Ordering::Acquire) < self.place
    }
}
