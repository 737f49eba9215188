//! An engine's life: start, replay, and the order in which it stops. How it changes in between is in `reload`.

use crate::engine::acknowledgement::Own;
use crate::engine::application_acknowledgements::ApplicationAcknowledgements;
use crate::engine::dispatch::{Dispatcher, Fate, Killed, Lane};
use crate::engine::doors::Door;
use crate::engine::intake::Gate;
use crate::engine::lines;
use crate::engine::shared::{Current, Shared, exit_because_disk_failed, now};
use crate::engine::{EngineConfig, ListenerSetup, Routes, TargetSetup};
use crate::exchange::{DeliveryId, MessageId, OrderKey};
use crate::hl7v2::ParseOptions;
use crate::journal::{DeliveryState, Journal, JournalError, NewDelivery, Replay};
use crate::listener::Place;
use crate::metrics::{Metrics, Queue};
use crate::target::MllpPeer;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why an engine did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The journal could not be read or written.
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
    /// A target does not fit what the journal remembers of it.
    #[error("target {target}: {source}")]
    Target {
        /// Its name.
        target: Arc<str>,
        /// What is wrong.
        source: crate::target::TargetError,
    },
    /// A listener's settings cannot work, such as a certificate that cannot be read.
    #[error("listener {listener}: {what}")]
    Setting {
        /// Its name.
        listener: Arc<str>,
        /// What is wrong, and where.
        what: String,
    },
    /// A listener's socket has no address any more.
    #[error("listener {listener}: {source}")]
    Listener {
        /// Its name.
        listener: Arc<str>,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What an engine had finished when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// True if every message that was read has been answered.
    pub answered: bool,
    /// True if every delivery that was under way came to its end. One that did not is resumed at the next start.
    pub delivered: bool,
}

/// A running engine.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    /// The listeners that run.
    pub(super) doors: Mutex<Vec<Door>>,
    /// One set at a time is applied.
    pub(super) applying: tokio::sync::Mutex<()>,
    /// What the process before this one left, if it did not stop in order.
    killed: Option<Killed>,
    config: EngineConfig,
    room: watch::Receiver<bool>,
    stop_intake: CancellationToken,
    stop_dispatch: CancellationToken,
    stop_watch: CancellationToken,
    intake: Mutex<JoinSet<()>>,
    dispatch: Mutex<JoinSet<()>>,
    watch: JoinSet<()>,
}

/// How often gauges are read from the journal and its room is asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Engine {
    /// Starts it: keeps the route set, resumes what the journal holds for each target, then serves the listeners.
    pub async fn start(
        config: EngineConfig,
        journal: Journal,
        targets: Vec<TargetSetup>,
        listeners: Vec<ListenerSetup>,
        routes: Routes,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartFault> {
        let peer = |setup: &ListenerSetup| {
            lines::way_back(&setup.site.enhanced).map_err(|what| StartFault::Setting { listener: Arc::clone(&setup.site.socket.name), what })
        };
        let peers = listeners.iter().map(peer).collect::<Result<Vec<_>, _>>()?;
        let last = journal.last_program().await?;
        let former = last.as_ref().map(Routes::manners_of).unwrap_or_default();
        let routes = Arc::new(routes.for_listeners(listeners.iter().map(|setup| &setup.site)).with_former(&former));
        let current = Current::after(&journal, last, routes, config.on_removal).await?;
        metrics.reload(true);
        for setup in &targets {
            if let Some(state) = journal.target_state(&setup.name).await? {
                setup.target.resume(&state).map_err(|source| StartFault::Target { target: Arc::clone(&setup.name), source })?;
            }
        }
        for setup in listeners.iter().filter(|setup| matches!(setup.site.socket.place(), Place::Socket(_))) {
            setup.listener.local_address().map_err(|source| StartFault::Listener { listener: Arc::clone(&setup.site.socket.name), source })?;
        }
        let (say_room, room) = watch::channel(journal.has_room());
        let killed = journal.begin_deliveries().await?.then(|| Killed { found: now(), newest: journal.newest() });
        if killed.is_some() {
            tracing::warn!("the process before this one was killed: what it may have sent to a FHIR server is looked for there before it is sent again");
        }
        let shared = Arc::new(Shared::new(journal, metrics, current));
        let mut engine = Self {
            shared,
            doors: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            room,
            stop_intake: CancellationToken::new(),
            stop_dispatch: CancellationToken::new(),
            stop_watch: CancellationToken::new(),
            intake: Mutex::default(),
            dispatch: Mutex::default(),
            watch: JoinSet::new(),
            killed,
            config,
        };
        engine.watch.spawn(look(Arc::clone(&engine.shared), say_room, engine.stop_watch.clone()));
        engine.watch.spawn(ApplicationAcknowledgements::new(Arc::clone(&engine.shared)).run(engine.stop_watch.clone()));
        engine.watch.spawn(retain(Arc::clone(&engine.shared), engine.config.prune_every, engine.stop_watch.clone()));
        let shared = Arc::clone(&engine.shared);
        engine.watch.spawn(async move {
            shared.journal.failed().await;
            exit_because_disk_failed();
        });
        let lanes: Vec<_> = targets.into_iter().map(Lane::new).chain(engine.condemned()).map(Arc::new).collect();
        engine.shared.lanes.store(Arc::new(lanes.clone()));
        lanes.iter().for_each(|lane| engine.dispatch(lane));
        listeners.into_iter().zip(peers).for_each(|(setup, peer)| engine.open(setup, peer));
        Ok(engine)
    }

    /// Goes on with what waits for a target that the site has no more, as it was last; then forgets it.
    pub async fn drain(&self, setup: TargetSetup) -> Result<(), StartFault> {
        if let Some(state) = self.shared.journal.target_state(&setup.name).await? {
            setup.target.resume(&state).map_err(|source| StartFault::Target { target: Arc::clone(&setup.name), source })?;
        }
        let _one_at_a_time = self.applying.lock().await;
        if self.lane(&setup.name).is_none() {
            let lane = Arc::new(Lane::new(setup));
            lane.decide(Fate::Drains);
            let lanes = self.shared.lanes.load().iter().cloned().chain([Arc::clone(&lane)]).collect();
            self.shared.lanes.store(Arc::new(lanes));
            self.dispatch(&lane);
        }
        Ok(())
    }

    /// Starts to deliver to a target.
    pub(super) fn dispatch(&self, lane: &Arc<Lane>) {
        let dispatcher = Dispatcher::new(Arc::clone(&self.shared), Arc::clone(lane), self.config.window, self.killed);
        let mut tasks = self.dispatch.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(dispatcher.run(self.stop_dispatch.child_token()));
    }

    /// Starts to take in what a listener receives. `peer`: where its senders are told what came of their messages, if that is an address.
    pub(super) fn open(&self, ListenerSetup { listener, site }: ListenerSetup, peer: Option<MllpPeer>) {
        self.shared.lines.set(&site.socket.name, &site.enhanced, peer);
        let own = Own { application: self.config.application.clone(), facility: self.config.facility.clone() };
        let (reins, closing) = (listener.reins(), self.stop_intake.child_token());
        let gate = Arc::new(Gate::new(Arc::clone(&self.shared), site.clone(), own, self.room.clone(), closing.clone()));
        let mut tasks = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(listener.run(Arc::clone(&gate), closing.clone()));
        drop(tasks);
        self.doors().push(Door { site, reins, gate, closing });
    }

    /// The listeners that run.
    pub(super) fn doors(&self) -> MutexGuard<'_, Vec<Door>> {
        // A list of finished values: whole even if a holder panicked.
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each listener's name and the address that it is bound to.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.doors().iter().filter_map(|door| Some((door.name(), door.address()?))).collect()
    }

    /// Each listener's name and where its messages come in.
    pub fn places(&self) -> Vec<(Arc<str>, Place)> {
        let place = |door: &Door| door.address().map_or_else(|| door.site.socket.place(), Place::Socket);
        self.doors().iter().map(|door| (door.name(), place(door))).collect()
    }

    /// The target of that name, as it is used now; also one that the site has no more, as long as something waits for it.
    pub fn target(&self, name: &str) -> Option<Arc<TargetSetup>> {
        self.lane(name).map(|lane| lane.setup())
    }

    pub(super) fn lane(&self, name: &str) -> Option<Arc<Lane>> {
        self.shared.lanes.load().iter().find(|lane| &*lane.name == name).cloned()
    }

    /// The journal, for reading.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The route set that new messages meet.
    pub fn routes(&self) -> Arc<Routes> {
        self.shared.routes()
    }

    /// How messages of a listener are to be read.
    pub fn parse_options(&self, listener: &str) -> ParseOptions {
        self.shared.routes().manner(listener).parse_options()
    }

    /// Makes parked deliveries of these keys pending again. Returns how many.
    pub async fn resume_parked(&self, target: &str, keys: &[OrderKey]) -> Result<u64, JournalError> {
        let lane = self.lane(target).ok_or(JournalError::Missing)?;
        lane.change_queue(self.shared.journal.resume_parked(target, keys, now())).await
    }

    /// Makes dead letters, skipped and superseded deliveries pending again, and with a dead letter what is parked behind it.
    /// Returns how many deliveries were replayed, without the parked ones.
    pub async fn replay(&self, deliveries: &[DeliveryId], how: &Replay) -> Result<u64, JournalError> {
        // A set that is being applied counts what is not settled; it must find this before or after.
        let _no_new_set = self.applying.lock().await;
        // What waits behind a dead letter goes on behind it when it is tried again; should it fail once more, they wait once more.
        let mut behind = Vec::new();
        for id in deliveries {
            let record = self.shared.journal.show(id.message).await?;
            let dead = record.deliveries.iter().find(|d| d.id == *id && d.state == DeliveryState::DeadLetter);
            behind.extend(dead.map(|d| (Arc::clone(&d.target), d.keys.clone())));
        }
        let again = async move {
            let replayed = self.shared.journal.replay(deliveries, how).await?;
            for (target, keys) in behind {
                self.shared.journal.resume_parked(&target, &keys, now()).await?;
            }
            Ok(replayed)
        };
        self.change_queues(again).await
    }

    /// The deliveries may belong to several targets: all of them hold still meanwhile.
    async fn change_queues(&self, change: impl Future<Output = Result<u64, JournalError>> + Send) -> Result<u64, JournalError> {
        let lanes = self.shared.lanes.load_full();
        let mut change: BoxFuture<'_, Result<u64, JournalError>> = Box::pin(change);
        for lane in lanes.iter() {
            change = Box::pin(lane.change_queue(change));
        }
        change.await
    }

    /// Gives a stored message further ways (an unrouted one whose route now exists). Returns how many; those of a route that has gone
    /// meanwhile are left out.
    pub async fn add_deliveries(&self, message: MessageId, mut deliveries: Vec<NewDelivery>) -> Result<u64, JournalError> {
        let _no_new_set = self.applying.lock().await;
        let routes = self.routes();
        deliveries.retain(|delivery| routes.set.named(&delivery.route).is_some());
        let added = self.shared.journal.add_deliveries(message, deliveries);
        self.change_queues(async { added.await.map(|ids| ids.len() as u64) }).await
    }

    /// Stops in order: accept nothing more, answer what was read, finish the deliveries that run, close the journal.
    /// What is not done at the deadline is dropped where that is safe: unanswered messages were not acknowledged, deliveries resume.
    pub async fn shutdown(mut self, deadline: Duration) -> Shutdown {
        let deadline = tokio::time::Instant::now() + deadline;
        self.stop_intake.cancel();
        let answered = finish(self.intake.get_mut().unwrap_or_else(PoisonError::into_inner), deadline).await;
        self.stop_dispatch.cancel();
        let delivered = finish(self.dispatch.get_mut().unwrap_or_else(PoisonError::into_inner), deadline).await;
        self.stop_watch.cancel();
        self.watch.shutdown().await;
        self.shared.unknown.store(&self.shared.journal).await;
        if delivered {
            self.shared.journal.end_deliveries().await;
        }
        self.shared.journal.close().await;
        Shutdown { answered, delivered }
    }
}

/// Waits for all tasks; at the deadline drops what is left. True if nothing was.
async fn finish(tasks: &mut JoinSet<()>, deadline: tokio::time::Instant) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    let in_time = tokio::time::timeout_at(deadline, all).await.is_ok();
    tasks.shutdown().await;
    in_time
}

/// Deletes what has been kept for long enough, at the start and then from time to time; and what is too much, as soon as it is.
async fn retain(shared: Arc<Shared>, every: Duration, closing: CancellationToken) {
    /// How often it is looked whether the journal is too large.
    const LOOK_EVERY: Duration = Duration::from_secs(2);
    /// When nothing could be deleted, since all of it waits.
    const REST: Duration = Duration::from_secs(20);
    let (mut pruned_at, mut in_vain): (Option<Instant>, Option<Instant>) = (None, None);
    let mut ticks = tokio::time::interval(every.min(LOOK_EVERY));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        let due = pruned_at.is_none_or(|last| last.elapsed() >= every);
        let too_large = shared.journal.is_too_large();
        if !due && (!too_large || in_vain.is_some_and(|last| last.elapsed() < REST)) {
            continue;
        }
        let pruned = closing.run_until_cancelled(shared.journal.prune(now())).await;
        let nothing = matches!(pruned, Some(Ok(pruned)) if pruned.segments == 0);
        match pruned {
            Some(Ok(pruned)) if pruned.segments > 0 => {
                let (segments, messages, carried) = (pruned.segments, pruned.messages, pruned.carried);
                tracing::info!(segments, messages, carried, "deleted what has been kept for long enough, or was too much");
            }
            Some(Err(error)) => tracing::warn!(%error, "what is old could not be deleted; it is tried again later"),
            Some(Ok(_)) if too_large && in_vain.is_none() => {
                tracing::warn!(bytes = shared.journal.bytes(), "the journal is larger than `keep-bytes`, but what is left in it waits or is of this moment");
            }
            Some(Ok(_)) | None => {}
        }
        in_vain = (too_large && nothing).then(Instant::now);
        pruned_at = Some(Instant::now());
    }
}

/// Keeps the gauges, and tells the listeners whether there is room.
async fn look(shared: Arc<Shared>, say_room: watch::Sender<bool>, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        for lane in shared.lanes.load_full().iter() {
            let counts = shared.journal.counts(&lane.name);
            let waited_ms = counts.oldest_waiting.map_or(0, |at| now().0.saturating_sub(at.0));
            let queue = Queue {
                backlog: counts.backlog,
                parked: counts.parked,
                dead_letters: counts.dead_letters,
                oldest_waiting: Duration::from_millis(u64::try_from(waited_ms).unwrap_or(0)),
            };
            shared.metrics.queue(&lane.name, queue);
        }
        shared.unknown.store(&shared.journal).await;
        shared.metrics.journal_size(shared.journal.bytes(), shared.journal.wal_bytes());
        let room = shared.journal.has_room();
        let changed = say_room.send_if_modified(|was| std::mem::replace(was, room) != room);
        if changed && room {
            tracing::info!("the journal has room again: messages are read");
        } else if changed && shared.journal.has_too_much_backlog(0) {
            tracing::error!("too many deliveries wait (`backlog-max`): nothing is accepted or read until fewer do");
        } else if changed {
            tracing::error!("the journal's disk is below its low-water mark: nothing is accepted or read until there is room");
        }
    }
}
