//! One task per target that decides which delivery starts when.
//!
//! Never holds more than its window of the backlog, and never asks on a timer what the journal tells it by itself.

use crate::engine::TargetSetup;
use crate::engine::asking::{ASKED_AT_ONCE_MAX, Cache};
use crate::engine::breaker::{Breaker, Permission};
use crate::engine::delivery::{self, Ended};
use crate::engine::guard::IdentityGuard;
use crate::engine::replies::Replies;
use crate::engine::shared::{Shared, later, now};
use crate::engine::window::Window;
use crate::exchange::{DeliveryId, MessageId, Timestamp};
use crate::journal::{JournalError, Pending, Settle, SettleFault, Settlement};
use crate::target::Target;
use arc_swap::ArcSwap;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, RwLock, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many deliveries are read from the journal at once.
const PAGE: usize = 1_000;
/// With so many order keys in memory no further page is read: messages that name hundreds of orders must not fill the memory.
const WINDOW_KEYS_MAX: usize = 200_000;
/// How many deliveries may wait for the commit of their outcome besides those that are with the target; they share commits.
const SETTLING_MAX: usize = 1_024;
/// How many deliveries are parked at once; they share commits.
const PARKING_MAX: usize = 256;
/// How long to wait after the journal could not be read or written, other than for good.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    /// It is in the site.
    Stays,
    /// The site has it no more; what waits for it is still delivered.
    Drains,
    /// The site has it no more; what waits for it becomes dead letters.
    Condemned,
    /// The site has it no more, and nothing waits for it: its dispatcher has ended.
    Ended,
}

/// A target in use: what its deliveries share.
pub(super) struct Lane {
    pub(super) name: Arc<str>,
    setup: ArcSwap<TargetSetup>,
    fate: AtomicU8,
    /// Set when what stood in the way of deliveries may have changed.
    renewed: AtomicBool,
    pub(super) guard: Arc<IdentityGuard>,
    /// Application acknowledgements that come to a listener.
    pub(super) replies: Replies,
    /// Answers that routes said may be used again.
    pub(super) answers: Cache,
    /// Turns for questions that are none of its own deliveries'.
    pub(super) asking: Semaphore,
    breaker: Mutex<Breaker>,
    /// Set when something older than what the dispatcher has read may have become pending; it then reads the queue from its beginning.
    stale: AtomicBool,
    stale_now: Notify,
    /// Held for reading while the dispatcher reads the queue, for writing while an operator changes it, so that nothing newer
    /// is read between the change and the news of it.
    queue: RwLock<()>,
    /// How often an operator changed the queue.
    changes: AtomicU64,
    /// Deliveries that are on their way to the target or with it; at most as many as it takes at once.
    busy: AtomicUsize,
    freed: Notify,
}

/// A delivery's place with the target, from its start until the target has answered.
pub(super) struct Slot(Arc<Lane>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl Lane {
    pub(super) fn new(setup: TargetSetup) -> Self {
        Self {
            name: Arc::clone(&setup.name),
            setup: ArcSwap::from_pointee(setup),
            fate: AtomicU8::new(Fate::Stays as u8),
            renewed: AtomicBool::new(false),
            guard: Arc::default(),
            replies: Replies::default(),
            answers: Cache::default(),
            asking: Semaphore::new(ASKED_AT_ONCE_MAX),
            breaker: Mutex::new(Breaker::new()),
            stale: AtomicBool::new(false),
            stale_now: Notify::new(),
            queue: RwLock::new(()),
            changes: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// The target as it is used now. An attempt keeps what it began with.
    pub(super) fn setup(&self) -> Arc<TargetSetup> {
        self.setup.load_full()
    }

    /// What becomes of it.
    pub(super) fn fate(&self) -> Fate {
        const ALL: [Fate; 4] = [Fate::Stays, Fate::Drains, Fate::Condemned, Fate::Ended];
        ALL.get(usize::from(self.fate.load(Ordering::Acquire))).copied().unwrap_or(Fate::Ended)
    }

    /// Uses the target in another way from the next attempt on. What was wrong with it may be right now: nothing waits longer.
    /// False if its dispatcher has ended.
    pub(super) fn change(&self, setup: TargetSetup) -> bool {
        self.setup.store(Arc::new(setup));
        self.answers.clear();
        self.decide(Fate::Stays)
    }

    /// Says what becomes of it. False if its dispatcher has ended.
    pub(super) fn decide(&self, fate: Fate) -> bool {
        let decided = self.fate.fetch_update(Ordering::AcqRel, Ordering::Acquire, |was| (was != Fate::Ended as u8).then_some(fate as u8)).is_ok();
        *self.breaker() = Breaker::new();
        self.renewed.store(true, Ordering::Release);
        self.stale_now.notify_one();
        decided
    }

    /// It is back after a time of faults: what waited for that goes on.
    pub(super) fn is_back(&self) {
        self.renewed.store(true, Ordering::Release);
        self.stale_now.notify_one();
    }

    /// Ends it, unless the site has it again in this moment.
    fn end(&self) -> bool {
        let leaves = |was| (was == Fate::Drains as u8 || was == Fate::Condemned as u8).then_some(Fate::Ended as u8);
        self.fate.fetch_update(Ordering::AcqRel, Ordering::Acquire, leaves).is_ok()
    }

    /// Takes a place. Only the dispatcher asks, after it has looked whether there is one.
    fn slot(self: &Arc<Self>) -> Slot {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Slot(Arc::clone(self))
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // A few numbers, whole whatever happened to a holder.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the dispatcher from reading the queue while `change` makes older deliveries pending again, then has it read all anew.
    pub(super) async fn change_queue<T>(&self, change: impl Future<Output = T>) -> T {
        let _no_reading = self.queue.write().await;
        let changed = change.await;
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.stale.store(true, Ordering::Release);
        self.stale_now.notify_one();
        changed
    }
}

/// What a task of the dispatcher reports.
struct Report {
    pending: Pending,
    ended: Ended,
}

/// That the process before this one was killed: requests of its may still run on a server.
#[derive(Clone, Copy)]
pub(super) struct Killed {
    /// When this one found out.
    pub(super) found: Timestamp,
    /// The newest message that was there.
    pub(super) newest: MessageId,
}

/// Deliveries that may have been under way then. They were in a window of the same size, which holds what is first in the queue; so the first
/// ones of the queue are doubted, and no others. Nothing that begins with a plain create is among them: the journal knows of those by itself.
struct Doubt {
    killed: Killed,
    /// So many more are doubted.
    left: usize,
    ids: HashSet<DeliveryId>,
}

pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    capacity: usize,
    window: Window,
    /// The last delivery that was read from the journal.
    cursor: Option<DeliveryId>,
    /// True if the journal may have more after the cursor.
    more: bool,
    /// When the queue was last read from its beginning.
    rescanned: Instant,
    /// The operator's changes of the queue that the window knows of.
    changes: u64,
    doubt: Option<Doubt>,
    delivering: JoinSet<Report>,
    parking: JoinSet<Report>,
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<Shared>, lane: Arc<Lane>, capacity: usize, killed: Option<Killed>) -> Self {
        // A folder finds out by itself what it had written.
        let asks_first = matches!(*lane.setup().target, Target::Fhir(_));
        let doubt = killed.filter(|_| asks_first).map(|killed| Doubt { killed, left: capacity.max(1), ids: HashSet::new() });
        Self {
            shared,
            lane,
            capacity: capacity.max(1),
            window: Window::default(),
            cursor: None,
            more: true,
            rescanned: Instant::now(),
            changes: 0,
            doubt,
            delivering: JoinSet::new(),
            parking: JoinSet::new(),
        }
    }

    /// Dispatches until `closing`, then lets the deliveries that run come to their end.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        let arrivals = self.shared.journal.arrivals(&self.lane.name);
        let lane = Arc::clone(&self.lane);
        while !closing.is_cancelled() {
            if self.fill().await.is_err() {
                break;
            }
            if self.has_left() && lane.end() {
                tracing::info!(target_name = %lane.name, "nothing waits any more for a target that the site no longer has");
                break;
            }
            for id in lane.replies.take_answered() {
                self.window.wake_one(id);
            }
            if lane.renewed.swap(false, Ordering::AcqRel) {
                self.window.wake_all_of_target();
            }
            let next_start = self.start_what_may();
            let next = [next_start, self.window.next_wake()].into_iter().flatten().min();
            let look_again_at = self.look_again_at();
            let look_again = async {
                match look_again_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                Some(report) = self.delivering.join_next(), if !self.delivering.is_empty() => self.take(report),
                Some(report) = self.parking.join_next(), if !self.parking.is_empty() => self.take(report),
                () = lane.stale_now.notified() => {}
                () = lane.replies.news() => {}
                () = lane.freed.notified() => {}
                () = arrivals.notified(), if !self.more => self.more = true,
                () = sleep_until(next) => {}
                () = look_again => {}
            }
        }
        while self.delivering.join_next().await.is_some() || self.parking.join_next().await.is_some() {}
    }

    /// True when the target has gone from the site and nothing waits for it any more.
    fn has_left(&self) -> bool {
        let done = !self.more && self.window.len() == 0 && self.delivering.is_empty() && self.parking.is_empty();
        self.lane.fate() != Fate::Stays && done && self.shared.journal.counts(&self.lane.name).backlog == 0
    }

    /// Reads from the journal what the window has room for. `Err` when the journal is closed.
    async fn fill(&mut self) -> Result<(), JournalError> {
        let page = PAGE.min(self.capacity);
        let lane = Arc::clone(&self.lane);
        let _unchanged = lane.queue.read().await;
        self.changes = lane.changes.load(Ordering::Acquire);
        if lane.stale.swap(false, Ordering::Acquire) {
            self.read_anew();
        }
        loop {
            if self.look_again_at().is_some_and(|at| at <= Instant::now()) {
                self.read_anew();
            }
            if !self.more || self.window.len() + page > self.capacity || self.window.keys() >= WINDOW_KEYS_MAX {
                return Ok(());
            }
            match self.shared.journal.pending(&self.lane.name, self.cursor, page).await {
                Ok(found) => {
                    self.more = found.len() == page;
                    self.cursor = found.last().map_or(self.cursor, |last| Some(last.id));
                    for pending in found {
                        let mut pending = self.doubted(pending);
                        if self.expect_reply(&pending).await {
                            pending.not_before = None;
                        }
                        self.window.add(pending);
                    }
                }
                Err(error @ (JournalError::Closed | JournalError::Failing)) => return Err(error),
                Err(error) => {
                    tracing::warn!(target_name = %self.lane.name, %error, "could not read what is pending");
                    tokio::time::sleep(JOURNAL_PAUSE).await;
                }
            }
        }
    }

    /// After a restart: a message that its receiver has, and whose application acknowledgement is awaited.
    /// True if it has come already.
    async fn expect_reply(&self, pending: &Pending) -> bool {
        if pending.attempts == 0 || pending.not_before.is_none() || self.lane.setup().replies.is_none() {
            return false;
        }
        // One that cannot be read now finds its answer at its next attempt, or runs out of time.
        let Ok(record) = self.shared.journal.show(pending.id.message).await else { return false };
        let attempts = record.deliveries.iter().filter(|d| d.id == pending.id).flat_map(|d| &d.attempts);
        self.lane.replies.expect(pending.id, &delivery::sent_before(attempts, None))
    }

    /// A delivery that may have been under way when the process before this one was killed waits until the target has settled.
    fn doubted(&mut self, pending: Pending) -> Pending {
        let Some(doubt) = &mut self.doubt else { return pending };
        if pending.id.message > doubt.killed.newest || pending.blocked {
            return pending;
        }
        if doubt.left > 0 && doubt.ids.insert(pending.id) {
            doubt.left -= 1;
        }
        if !doubt.ids.contains(&pending.id) {
            return pending;
        }
        let settled = later(doubt.killed.found, self.lane.setup().settle);
        Pending { not_before: pending.not_before.max(Some(settled)), ..pending }
    }

    fn read_anew(&mut self) {
        self.window.forget_blocked();
        (self.cursor, self.more, self.rescanned) = (None, true, Instant::now());
    }

    /// When to read the queue anew because, although all of it was read, the journal counts more than the window holds: somebody
    /// changed it behind the engine's back. Not more than once a second, since what was stored just now is counted before it is announced.
    fn look_again_at(&self) -> Option<Instant> {
        const AT_MOST_EVERY: Duration = Duration::from_secs(1);
        let missed = !self.more && self.shared.journal.counts(&self.lane.name).backlog > self.window.len() as u64;
        missed.then(|| self.rescanned + AT_MOST_EVERY)
    }

    /// Starts everything that may start. Returns when the breaker wants to be asked again.
    fn start_what_may(&mut self) -> Option<Timestamp> {
        let at = now();
        self.window.wake(at);
        while self.parking.len() < PARKING_MAX
            && let Some(pending) = self.window.start_blocked()
        {
            let (shared, lane, changes) = (Arc::clone(&self.shared), Arc::clone(&self.lane), self.changes);
            self.parking.spawn(async move {
                // While it is written down, no operator replays what it waits for: it would be parked behind nothing, for ever.
                let _unchanged = lane.queue.read().await;
                let ended = if lane.changes.load(Ordering::Acquire) == changes { park(&shared, pending.id).await } else { Ended::Changed };
                Report { pending, ended }
            });
        }
        let mut batch = Vec::new();
        let mut wait = None;
        let parallel = self.lane.setup().parallel.max(1);
        while self.window.ready() > 0
            && self.lane.busy.load(Ordering::Acquire) + batch.len() < parallel
            && self.delivering.len() + batch.len() < parallel + SETTLING_MAX
        {
            let permission = if self.lane.fate() == Fate::Condemned { Permission::Yes } else { self.lane.breaker().permission(at) };
            match permission {
                Permission::Yes => batch.extend(self.window.start()),
                Permission::Probe => batch.extend(self.window.start_probe()),
                Permission::NotBefore(until) => {
                    wait = Some(until);
                    break;
                }
                Permission::AwaitProbe => break,
            }
        }
        for pending in batch {
            let (shared, lane, slot) = (Arc::clone(&self.shared), Arc::clone(&self.lane), self.lane.slot());
            // Once it was looked for on the server, what the journal says of it is all there is to know.
            let doubted = self.doubt.as_mut().is_some_and(|doubt| doubt.ids.contains(&pending.id));
            self.delivering.spawn(async move {
                let ended = delivery::attempt(&shared, &lane, &pending, slot, doubted).await;
                Report { pending, ended }
            });
        }
        wait
    }

    /// Takes note of how a task ended.
    fn take(&mut self, report: Result<Report, tokio::task::JoinError>) {
        // Attempts catch panics and nobody aborts them, so that a report always comes; without one the place stays taken, in order.
        let Ok(Report { pending, ended }) = report else {
            tracing::error!(target_name = %self.lane.name, "a delivery's task was lost");
            return;
        };
        if let Some(doubt) = &mut self.doubt
            && !matches!(ended, Ended::Again(_) | Ended::Changed | Ended::Unknown)
        {
            doubt.ids.remove(&pending.id);
        }
        match ended {
            Ended::Settled => self.window.finish(pending.id),
            // The queue was changed meanwhile: whether it is still to be parked is read anew.
            Ended::Changed => {
                self.window.finish(pending.id);
                self.lane.stale.store(true, Ordering::Release);
            }
            Ended::Recovered => {
                self.window.finish(pending.id);
                self.window.wake_all_of_target();
            }
            Ended::Blocks => {
                self.window.block_behind(pending.id, &pending.keys);
                self.window.finish(pending.id);
            }
            Ended::Again(again) => {
                self.window.put_back(pending.id, again, now());
                // It may have come while the news that it is awaited was under way.
                if !self.lane.replies.answers(pending.id).is_empty() {
                    self.window.wake_one(pending.id);
                }
            }
            // The outcome is not stored, so the delivery is still pending in the journal; it is left where it is.
            Ended::Unknown => {}
        }
    }
}

/// Stores that a delivery waits behind a dead letter.
async fn park(shared: &Shared, id: DeliveryId) -> Ended {
    let reason = "waits behind an earlier delivery of the same patient, visit, order or appointment that was given up; replay or skip that one".to_owned();
    let settle = Settle { delivery: id, at: now(), program: None, outcome: Settlement::Parked { reason } };
    if store(shared, settle).await { Ended::Settled } else { Ended::Unknown }
}

/// Stores an outcome, and waits for room if the disk is full.
pub(super) async fn try_store(shared: &Shared, settle: Settle) -> Result<(), SettleFault> {
    loop {
        match shared.journal.settle(settle.clone()).await {
            Err(SettleFault::Full) => tokio::time::sleep(JOURNAL_PAUSE).await,
            ended => return ended,
        }
    }
}

/// The same, for an outcome that is known and must not be lost. False if the journal is gone.
pub(super) async fn store(shared: &Shared, settle: Settle) -> bool {
    let (message, number) = (settle.delivery.message.0, settle.delivery.number);
    match try_store(shared, settle).await {
        Ok(()) => true,
        Err(SettleFault::Full | SettleFault::Failing | SettleFault::Closed | SettleFault::TooLate) => false,
        Err(SettleFault::Unknown) => {
            tracing::error!(message_id = message, number, "the journal does not know a delivery that it handed out");
            true
        }
    }
}

/// Sleeps until the wall clock says `at`; for ever without a time. A clock that jumps makes it look again, at most a minute late.
async fn sleep_until(at: Option<Timestamp>) {
    const LONGEST: Duration = Duration::from_secs(60);
    let Some(at) = at else { return std::future::pending().await };
    let wait = Duration::from_millis(u64::try_from(at.0.saturating_sub(now().0)).unwrap_or(0).saturating_add(1));
    tokio::time::sleep(wait.min(LONGEST)).await;
}
