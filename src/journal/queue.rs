//! What waits for the writer, and what all parts of the journal know about its health.

use crate::exchange::{DeliveryId, MessageId, OrderKey, Phi, Timestamp};
use crate::journal::query::{Counts, Gone, JournalError, Program, Pruned};
use crate::journal::replay::{Edit, Replay};
use crate::journal::unknown::{Unknown, UnknownList};
use crate::journal::{AcknowledgementAttempt, Append, AppendFault, Kept, NewDelivery, Sender, Settle, SettleFault, Stored};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use tokio::sync::{Notify, oneshot, watch};

/// Where an answer goes.
pub(in crate::journal) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer is asked to do.
pub(in crate::journal) enum Command {
    /// Store a message.
    Append(Box<Append>, Reply<Stored, AppendFault>),
    /// Store an outcome.
    Settle(Box<Settle>, Reply<(), SettleFault>),
    /// Store what became of telling a sender.
    Tell(Box<AcknowledgementAttempt>, Reply<(), SettleFault>),
    /// Keep what a route's questions found, or the answer to a question.
    Keep(Box<Kept>, Reply<(), SettleFault>),
    /// Make parked deliveries pending.
    Resume(Arc<str>, Vec<OrderKey>, Timestamp, Reply<u64, JournalError>),
    /// Make deliveries pending that were given up.
    Replay(Vec<DeliveryId>, Replay, Reply<u64, JournalError>),
    /// Keep what an operator made of a message.
    Edit(MessageId, Box<Edit>, Reply<(), JournalError>),
    /// Count codes and authorities that are not known.
    Unknown(Vec<Unknown>, Reply<(), JournalError>),
    /// Forget them: of a list, all or one code.
    Known(UnknownList, Option<Phi<String>>, Reply<u64, JournalError>),
    /// Keep the site file that is in force, and those of targets that are gone.
    Site(String, Gone, Reply<(), JournalError>),
    /// Give a message further deliveries.
    Add(MessageId, Vec<NewDelivery>, Reply<Vec<DeliveryId>, JournalError>),
    /// Keep a route set, and with which set each route that is gone was there last.
    Program(Box<Program>, Vec<(Arc<str>, String)>, Reply<(), JournalError>),
    /// Delete what is old and settled.
    Prune(Timestamp, Reply<Pruned, JournalError>),
    /// Copy what is left of a write-ahead log, so that it starts over; with true it is cut off, too. Answers whether the file is open for writing.
    Fold(File, bool, oneshot::Sender<bool>),
    /// Finish.
    Close,
}

/// One of the files that the writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::journal) enum File {
    /// Route sets and identities.
    State,
    /// The segment with this first message.
    Segment(u64),
}

/// Commands in the order of their arrival. Callers hold a permit each, so that it cannot grow without bound.
#[derive(Default)]
pub(in crate::journal) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    closed: bool,
}

impl Queue {
    /// Adds a command. After `close` nobody would answer it, so it comes back.
    pub(in crate::journal) fn push(&self, command: Command) -> Result<(), Command> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(command);
        }
        waiting.commands.push(command);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for commands and takes all of them.
    pub(in crate::journal) fn take(&self, into: &mut Vec<Command>) {
        let mut waiting = self.lock();
        while waiting.commands.is_empty() {
            waiting = self.arrived.wait(waiting).expect("no holder panics");
        }
        std::mem::swap(&mut waiting.commands, into);
    }

    /// Takes what is there and lets nothing more in.
    pub(in crate::journal) fn close(&self) -> Vec<Command> {
        let mut waiting = self.lock();
        waiting.closed = true;
        std::mem::take(&mut waiting.commands)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder panics")
    }
}

/// Numbers that anyone may look at without asking the disk.
pub(in crate::journal) struct Board {
    /// False below low water.
    pub(in crate::journal) room: AtomicBool,
    failed: watch::Sender<bool>,
    /// Commits since the start.
    pub(in crate::journal) commits: AtomicU64,
    /// Bytes of all files.
    pub(in crate::journal) bytes: AtomicU64,
    /// Bytes of write-ahead logs.
    pub(in crate::journal) wal_bytes: AtomicU64,
    /// The newest message on the disk.
    pub(in crate::journal) last: AtomicU64,
    /// Messages stored since the start; tells the search's thread whether the writer is busy.
    pub(in crate::journal) stored: AtomicU64,
    /// Pending deliveries of all targets.
    pub(in crate::journal) backlog: AtomicU64,
    targets: RwLock<HashMap<Arc<str>, Counts>>,
    arrivals: Mutex<HashMap<Arc<str>, Arc<Notify>>>,
    /// Whom something may be to be told, until somebody takes the list: at most everyone who is owed something.
    due: Mutex<BTreeSet<Sender>>,
    /// Is told when that grows.
    pub(in crate::journal) due_arrived: Notify,
}

impl Board {
    /// A healthy journal with these targets.
    pub(in crate::journal) fn new(targets: HashMap<Arc<str>, Counts>, last: u64) -> Self {
        Self {
            room: AtomicBool::new(true),
            failed: watch::Sender::new(false),
            commits: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wal_bytes: AtomicU64::new(0),
            last: AtomicU64::new(last),
            stored: AtomicU64::new(0),
            backlog: AtomicU64::new(targets.values().map(|counts| counts.backlog).sum()),
            targets: RwLock::new(targets),
            arrivals: Mutex::default(),
            due: Mutex::default(),
            due_arrived: Notify::new(),
        }
    }

    /// From here on nothing is stored.
    pub(in crate::journal) fn fail(&self) {
        self.failed.send_replace(true);
    }

    /// Whether the disk has failed.
    pub(in crate::journal) fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Tells when the disk fails.
    pub(in crate::journal) fn failure(&self) -> watch::Receiver<bool> {
        self.failed.subscribe()
    }

    /// What waits for a target.
    pub(in crate::journal) fn counts(&self, target: &str) -> Counts {
        self.targets.read().expect("no holder panics").get(target).cloned().unwrap_or_default()
    }

    /// Targets that something waits for, or is parked or given up at.
    pub(in crate::journal) fn targets(&self) -> Vec<(Arc<str>, Counts)> {
        let targets = self.targets.read().expect("no holder panics");
        let mut all: Vec<_> = targets.iter().map(|(target, counts)| (target.clone(), counts.clone())).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Changes the counts of targets after a commit.
    pub(in crate::journal) fn change(&self, change: impl FnOnce(&mut HashMap<Arc<str>, Counts>)) {
        let mut targets = self.targets.write().expect("no holder panics");
        change(&mut targets);
        self.backlog.store(targets.values().map(|counts| counts.backlog).sum(), Ordering::Relaxed);
    }

    /// There may be something to tell to these.
    pub(in crate::journal) fn note_due(&self, whom: &BTreeSet<Sender>) {
        if !whom.is_empty() {
            self.due.lock().expect("no holder panics").extend(whom.iter().cloned());
            self.due_arrived.notify_one();
        }
    }

    /// Takes the list of those to whom there may be something to tell.
    pub(in crate::journal) fn take_due(&self) -> BTreeSet<Sender> {
        std::mem::take(&mut *self.due.lock().expect("no holder panics"))
    }

    /// What is notified when something newly waits for a target.
    pub(in crate::journal) fn arrivals(&self, target: &str) -> Arc<Notify> {
        self.arrivals.lock().expect("no holder panics").entry(target.into()).or_default().clone()
    }
}
