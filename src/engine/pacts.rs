//! Messages whose sender waits for their deliveries: a refusal takes back all deliveries of a message, so it must know of each that is
//! under way, and whoever waits must hear how each ended.
//!
//! Holds nothing that must survive: what is awaited, delivered or refused is the journal's word.

use crate::exchange::MessageId;
use crate::hl7v2::{AckCode, Fault};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a sender is told whose message is refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: AckCode,
    /// At least one; the first is the reason.
    pub(super) faults: Vec<Fault>,
}

#[derive(Default)]
struct State {
    /// Attempts that have begun and not ended.
    under_way: usize,
    /// True while a refusal is being stored: nothing begins.
    refusing: bool,
    /// The last refusal, for those who wait just now.
    refusal: Option<Refusal>,
    /// Who holds this: attempts and those who wait.
    holders: usize,
}

#[derive(Default)]
struct Pact {
    state: Mutex<State>,
    changed: Notify,
}

impl Pact {
    fn state(&self) -> MutexGuard<'_, State> {
        // A few numbers, whole whatever happened to a holder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages that somebody waits for or delivers at the moment.
#[derive(Default)]
pub(super) struct Pacts {
    open: Mutex<HashMap<MessageId, Arc<Pact>>>,
}

impl Pacts {
    fn open(&self) -> MutexGuard<'_, HashMap<MessageId, Arc<Pact>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part in what happens to a message.
    pub(super) fn join(self: &Arc<Self>, message: MessageId) -> Part {
        let pact = Arc::clone(self.open().entry(message).or_default());
        pact.state().holders += 1;
        Part { pacts: Arc::clone(self), message, pact, begun: false }
    }
}

/// One who waits for a message, or makes one of its deliveries.
pub(super) struct Part {
    pacts: Arc<Pacts>,
    message: MessageId,
    pact: Arc<Pact>,
    begun: bool,
}

impl Part {
    /// Begins an attempt; waits while a refusal is being stored. Whether the message was refused meanwhile, the journal knows.
    pub(super) async fn begin(&mut self) {
        loop {
            let changed = self.pact.changed.notified();
            {
                let mut state = self.pact.state();
                if !state.refusing {
                    state.under_way += 1;
                    self.begun = true;
                    return;
                }
            }
            changed.await;
        }
    }

    /// Ends the attempt, without an outcome of its own yet, and waits until no other is under way; then nothing begins until [`Part::refused`].
    pub(super) async fn alone(&mut self) {
        self.end();
        loop {
            let changed = self.pact.changed.notified();
            {
                let mut state = self.pact.state();
                if state.under_way == 0 && !state.refusing {
                    state.refusing = true;
                    return;
                }
            }
            changed.await;
        }
    }

    /// After [`Part::alone`]: the message was refused with these words, or could not be.
    pub(super) fn refused(&mut self, refusal: Option<Refusal>) {
        let mut state = self.pact.state();
        state.refusing = false;
        if refusal.is_some() {
            state.refusal = refusal;
        }
        drop(state);
        self.pact.changed.notify_waiters();
    }

    /// The words of the refusal, if it happened while somebody held the pact.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.pact.state().refusal.clone()
    }

    /// Is told when an attempt ends or the message is refused. Ask for it first, then look at the journal, then wait.
    pub(super) fn news(&self) -> impl Future<Output = ()> + '_ {
        self.pact.changed.notified()
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.pact.state().under_way -= 1;
            self.pact.changed.notify_waiters();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.end();
        let mut open = self.pacts.open();
        let mut state = self.pact.state();
        state.holders -= 1;
        if state.holders == 0 {
            drop(state);
            open.remove(&self.message);
        }
        drop(open);
        self.pact.changed.notify_waiters();
    }
}
