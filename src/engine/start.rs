//! An engine's life: start, new routes, replay, and the order in which it stops.

use crate::engine::acknowledgement::Own;
use crate::engine::dispatch::{Dispatcher, Lane};
use crate::engine::intake::Gate;
use crate::engine::mapping;
use crate::engine::shared::{Shared, exit_because_disk_failed, now};
use crate::engine::{EngineConfig, ListenerSetup, Routes, TargetSetup};
use crate::exchange::{DeliveryId, MessageId, OrderKey};
use crate::hl7v2::ParseOptions;
use crate::journal::{DeliveryState, Journal, JournalError, NewDelivery, Unsettled};
use crate::metrics::{Metrics, Queue};
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
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
    /// A listener's socket has no address any more.
    #[error("listener {listener}: {source}")]
    Listener {
        /// Its name.
        listener: Arc<str>,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a route set was not applied. The last one goes on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    /// Deliveries are not settled that belong to a route which the new set does not have.
    #[error("route {route} is gone, but of its deliveries to {target} {}", unsettled_words(unsettled))]
    RouteWithUnsettled {
        /// The route.
        route: Arc<str>,
        /// One of its targets.
        target: Arc<str>,
        /// How many there are.
        unsettled: Unsettled,
    },
    /// The journal could not keep it.
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
}

/// How many there are of each kind, and what can be done about them.
fn unsettled_words(unsettled: &Unsettled) -> String {
    let kinds = [
        (unsettled.untried, "wait: keep the route until they are delivered"),
        (unsettled.parked, "are parked behind a dead letter: replay or skip that one"),
        (unsettled.dead_letters, "are dead letters: replay or skip them"),
    ];
    let said: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
    said.join("; ")
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
    shared: Arc<Shared>,
    lanes: Vec<Arc<Lane>>,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    /// One set at a time is applied.
    applying: tokio::sync::Mutex<()>,
    stop_intake: CancellationToken,
    stop_dispatch: CancellationToken,
    stop_watch: CancellationToken,
    intake: JoinSet<()>,
    dispatch: JoinSet<()>,
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
        journal.put_program(routes.pack(now())).await?;
        metrics.reload(true);
        for setup in &targets {
            if let Some(state) = journal.target_state(&setup.name).await? {
                setup.target.resume(&state).map_err(|source| StartFault::Target { target: Arc::clone(&setup.name), source })?;
            }
        }
        let mut addresses = Vec::new();
        for setup in &listeners {
            let name = Arc::clone(&setup.site.socket.name);
            let address = setup.listener.local_address().map_err(|source| StartFault::Listener { listener: Arc::clone(&name), source })?;
            addresses.push((name, address));
        }
        let sites = listeners.iter().map(|setup| (Arc::clone(&setup.site.socket.name), setup.site.clone())).collect();
        let shared = Arc::new(Shared::new(journal, metrics, routes, sites));
        let mut engine = Self {
            lanes: targets.into_iter().map(|setup| Arc::new(Lane::new(setup))).collect(),
            shared,
            addresses,
            applying: tokio::sync::Mutex::default(),
            stop_intake: CancellationToken::new(),
            stop_dispatch: CancellationToken::new(),
            stop_watch: CancellationToken::new(),
            intake: JoinSet::new(),
            dispatch: JoinSet::new(),
            watch: JoinSet::new(),
        };
        let (say_room, room) = watch::channel(engine.shared.journal.has_room());
        engine.watch.spawn(look(Arc::clone(&engine.shared), engine.lanes.clone(), say_room, engine.stop_watch.clone()));
        engine.watch.spawn(retain(Arc::clone(&engine.shared), config.prune_every, engine.stop_watch.clone()));
        let shared = Arc::clone(&engine.shared);
        engine.watch.spawn(async move {
            shared.journal.failed().await;
            exit_because_disk_failed();
        });
        for lane in &engine.lanes {
            let dispatcher = Dispatcher::new(Arc::clone(&engine.shared), Arc::clone(lane), config.window);
            engine.dispatch.spawn(dispatcher.run(engine.stop_dispatch.clone()));
        }
        let own = Own { application: config.application, facility: config.facility };
        for ListenerSetup { listener, site } in listeners {
            let gate = Gate::new(Arc::clone(&engine.shared), site, own.clone(), room.clone());
            engine.intake.spawn(listener.run(Arc::new(gate), engine.stop_intake.clone()));
        }
        Ok(engine)
    }

    /// Each listener's name and the address that it is bound to.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.addresses.clone()
    }

    /// The journal, for reading.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The route set that new messages meet.
    pub fn routes(&self) -> Arc<Routes> {
        self.shared.routes.load_full()
    }

    /// How messages of a listener are to be read.
    pub fn parse_options(&self, listener: &str) -> ParseOptions {
        mapping::parse_options(self.shared.listeners.get(listener))
    }

    /// Puts a route set in the place of the current one, whole. Deliveries that were tried already keep theirs.
    pub async fn apply(&self, routes: Routes) -> Result<(), ApplyFault> {
        let _one_at_a_time = self.applying.lock().await;
        let applied = self.try_apply(routes).await;
        self.shared.metrics.reload(applied.is_ok());
        applied
    }

    async fn try_apply(&self, routes: Routes) -> Result<(), ApplyFault> {
        let current = self.routes();
        let gone: Vec<Arc<str>> = current.set.routes().map(|(_, info)| &info.name).filter(|name| routes.set.named(name).is_none()).cloned().collect();
        // A million may wait: all that is there is looked at while messages go on, and only what came meanwhile while they are held.
        let seen = self.shared.journal.newest();
        self.refuse_to_orphan(&gone, None).await?;
        let _nobody_judges = self.shared.swap.write().await;
        self.refuse_to_orphan(&gone, Some(seen)).await?;
        self.shared.journal.put_program(routes.pack(now())).await?;
        tracing::info!(hash = routes.set.hash(), "applied a route set");
        self.shared.routes.store(Arc::new(routes));
        Ok(())
    }

    /// A route that goes away must not leave deliveries behind that nobody can make, of messages after `after`.
    async fn refuse_to_orphan(&self, gone: &[Arc<str>], after: Option<MessageId>) -> Result<(), ApplyFault> {
        if gone.is_empty() {
            return Ok(());
        }
        for lane in &self.lanes {
            let unsettled = self.shared.journal.unsettled(&lane.setup.name, after).await?;
            if let Some((route, unsettled)) = unsettled.into_iter().find(|(route, _)| gone.contains(route)) {
                return Err(ApplyFault::RouteWithUnsettled { route, target: Arc::clone(&lane.setup.name), unsettled });
            }
        }
        Ok(())
    }

    /// Makes parked deliveries of these keys pending again. Returns how many.
    pub async fn resume_parked(&self, target: &str, keys: &[OrderKey]) -> Result<u64, JournalError> {
        let lane = self.lanes.iter().find(|lane| &*lane.setup.name == target).ok_or(JournalError::Missing)?;
        lane.change_queue(self.shared.journal.resume_parked(target, keys, now())).await
    }

    /// Makes dead letters, skipped and superseded deliveries pending again, and with a dead letter what is parked behind it.
    /// Returns how many deliveries were replayed, without the parked ones.
    pub async fn replay(&self, deliveries: &[DeliveryId]) -> Result<u64, JournalError> {
        // A set that is being applied counts what is not settled; it must find this before or after.
        let _no_new_set = self.applying.lock().await;
        // What waits behind a dead letter goes on behind it when it is tried again; should it fail once more, they wait once more.
        let mut behind = Vec::new();
        for id in deliveries {
            let record = self.shared.journal.show(id.message).await?;
            let dead = record.deliveries.iter().find(|d| d.id == *id && d.state == DeliveryState::DeadLetter);
            behind.extend(dead.map(|d| (Arc::clone(&d.target), record.envelope.order_keys.clone())));
        }
        let again = async move {
            let replayed = self.shared.journal.replay(deliveries, now()).await?;
            for (target, keys) in behind {
                self.shared.journal.resume_parked(&target, &keys, now()).await?;
            }
            Ok(replayed)
        };
        // The deliveries may belong to several targets: all of them hold still.
        let mut change: BoxFuture<'_, Result<u64, JournalError>> = Box::pin(again);
        for lane in &self.lanes {
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
        let mut change: BoxFuture<'_, Result<u64, JournalError>> = Box::pin(async { added.await.map(|ids| ids.len() as u64) });
        for lane in &self.lanes {
            change = Box::pin(lane.change_queue(change));
        }
        change.await
    }

    /// Stops in order: accept nothing more, answer what was read, finish the deliveries that run, close the journal.
    /// What is not done at the deadline is dropped where that is safe: unanswered messages were not acknowledged, deliveries resume.
    pub async fn shutdown(mut self, deadline: Duration) -> Shutdown {
        let deadline = tokio::time::Instant::now() + deadline;
        self.stop_intake.cancel();
        let answered = finish(&mut self.intake, deadline).await;
        self.stop_dispatch.cancel();
        let delivered = finish(&mut self.dispatch, deadline).await;
        self.stop_watch.cancel();
        self.watch.shutdown().await;
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

/// Deletes what has been kept for long enough, at the start and then from time to time.
async fn retain(shared: Arc<Shared>, every: Duration, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        match closing.run_until_cancelled(shared.journal.prune(now())).await {
            Some(Ok(pruned)) if pruned.segments > 0 => {
                tracing::info!(segments = pruned.segments, messages = pruned.messages, carried = pruned.carried, "deleted what has been kept for long enough");
            }
            Some(Err(error)) => tracing::warn!(%error, "what is old could not be deleted; it is tried again later"),
            Some(Ok(_)) | None => {}
        }
    }
}

/// Keeps the gauges, and tells the listeners whether there is room.
async fn look(shared: Arc<Shared>, lanes: Vec<Arc<Lane>>, say_room: watch::Sender<bool>, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        for lane in &lanes {
            let counts = shared.journal.counts(&lane.setup.name);
            let waited_ms = counts.oldest_waiting.map_or(0, |at| now().0.saturating_sub(at.0));
            let queue = Queue {
                backlog: counts.backlog,
                parked: counts.parked,
                dead_letters: counts.dead_letters,
                oldest_waiting: Duration::from_millis(u64::try_from(waited_ms).unwrap_or(0)),
            };
            shared.metrics.queue(&lane.setup.name, queue);
        }
        shared.metrics.journal_size(shared.journal.bytes(), shared.journal.wal_bytes());
        let room = shared.journal.has_room();
        let changed = say_room.send_if_modified(|was| std::mem::replace(was, room) != room);
        if changed && room {
            tracing::info!("the journal has room again: messages are read");
        } else if changed {
            tracing::error!("the journal's disk is below its low-water mark: nothing is accepted or read until there is room");
        }
    }
}
