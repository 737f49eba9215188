//! Messages of one sender that are stored in their order, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

/// What messages of one connection or file have in common while several of them are under way: once one could not be stored, none behind it is.
/// Whoever hands them over begins another row with the one that failed.
#[derive(Debug, Default)]
pub struct Row(AtomicBool);

impl Row {
    /// One of its messages could not be stored.
    pub fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True after that.
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
