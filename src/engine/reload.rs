//! A changed site takes the place of the one in force, whole: routes, listeners and targets. What can fail is done before anything changes.

use crate::engine::dispatch::{Fate, Lane};
use crate::engine::doors::{self, Changed, Plan};
use crate::engine::shared::{Current, now};
use crate::engine::{Engine, Routes, TargetSetup};
use crate::exchange::MessageId;
use crate::journal::{Journal, JournalError, Program};
use crate::site::{ListenerSite, OnRemoval};
use crate::target::{Target, TargetError};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A site that is to take the place of the one in force. It names everything, also what stays as it is.
pub struct Change {
    /// The routes.
    pub routes: Routes,
    /// The targets. What did not change is the same as [`Engine::target`] gave, and stays open.
    pub targets: Vec<TargetSetup>,
    /// The listeners.
    pub listeners: Vec<ListenerSite>,
    /// What becomes of deliveries that wait for what is gone.
    pub on_removal: OnRemoval,
}

/// Why a change was not applied. Everything goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    /// Deliveries wait for a route that the new set does not have.
    #[error(
        "route {route} is gone, but {waiting} of its deliveries to {target} wait: keep it until they are delivered, or say `on-removal: drain` or `on-removal: dead-letter` in the site file"
    )]
    RouteWithWaiting {
        /// The route.
        route: Arc<str>,
        /// One of its targets.
        target: Arc<str>,
        /// How many there are.
        waiting: u64,
    },
    /// Deliveries wait for a target that the new site does not have.
    #[error(
        "target {target} is gone, but {waiting} deliveries wait for it: keep it until they are delivered, or say `on-removal: drain` or `on-removal: dead-letter` in the site file"
    )]
    TargetWithWaiting {
        /// The target.
        target: Arc<str>,
        /// How many there are.
        waiting: u64,
    },
    /// A socket cannot be bound.
    #[error("listener {listener}: {address} cannot be used: {}{}", crate::site::words(source), if *ours { "; a listener that this change moves away still has the port: take another, or restart" } else { "" })]
    Listener {
        /// The listener.
        listener: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
        /// True if a listener that goes or moves has the port until then.
        ours: bool,
    },
    /// A listener's settings cannot work, such as a certificate that cannot be read.
    #[error("listener {listener}: {what}")]
    Setting {
        /// The listener.
        listener: Arc<str>,
        /// What is wrong, and where.
        what: String,
    },
    /// A target does not fit what the journal remembers of it.
    #[error("target {target}: {source}")]
    Target {
        /// Its name.
        target: Arc<str>,
        /// What is wrong.
        source: TargetError,
    },
    /// The journal could not keep it.
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
}

/// How long a change waits for deliveries of what it takes away, before it is refused: what is under way just now is no backlog.
const PATIENCE: Duration = Duration::from_millis(300);
/// With more than so many there is no point in waiting.
const HOPELESS: u64 = 1_000;

/// What a change takes away.
struct Gone {
    routes: Vec<Arc<str>>,
    targets: Vec<Arc<str>>,
}

impl Current {
    /// The state after `last` was in force: routes that it had and `routes` has no more are noted, and the journal keeps the new set.
    pub(super) async fn after(journal: &Journal, last: Option<Program>, routes: Arc<Routes>, on_removal: OnRemoval) -> Result<Self, JournalError> {
        let mut retired = journal.retired().await?;
        let mut news = Vec::new();
        if let Some(last) = last.filter(|last| last.hash != routes.hash()) {
            // Names are enough: a set that this version cannot compile any more had routes, too.
            news =
                Routes::names_of(&last).into_iter().filter(|name| routes.set.named(name).is_none()).map(|name| (Arc::from(name), last.hash.clone())).collect();
        }
        retired.extend(news.iter().cloned());
        journal.apply_program(routes.pack(now()), news).await?;
        Ok(Self { routes, on_removal, retired })
    }
}

impl Engine {
    /// Puts a route set in the place of the current one, whole. Deliveries that were tried already keep theirs.
    pub async fn apply(&self, routes: Routes) -> Result<(), ApplyFault> {
        let targets = self.shared.lanes.load().iter().filter(|lane| lane.fate() == Fate::Stays).map(|lane| (*lane.setup()).clone()).collect();
        let listeners = self.doors().iter().map(|door| door.site.clone()).collect();
        let on_removal = self.shared.current.load().on_removal;
        self.reload(Change { routes, targets, listeners, on_removal }).await
    }

    /// Puts a site in the place of the current one, whole: what comes after it meets the new one, what is under way keeps the old.
    pub async fn reload(&self, change: Change) -> Result<(), ApplyFault> {
        let _one_at_a_time = self.applying.lock().await;
        let applied = self.try_reload(change).await;
        self.shared.metrics.reload(applied.is_ok());
        applied
    }

    async fn try_reload(&self, change: Change) -> Result<(), ApplyFault> {
        let Change { routes, targets, listeners, on_removal } = change;
        let current = self.shared.current.load_full();
        let routes = Arc::new(routes.for_listeners(&listeners).with_former(current.routes.manners()));
        for setup in &targets {
            self.resume(setup).await?;
        }
        let plan = doors::plan(&self.doors(), listeners, &self.shared.metrics)?;
        let gone = Gone {
            routes: current.routes.set.routes().map(|(_, info)| &info.name).filter(|name| routes.set.named(name).is_none()).cloned().collect(),
            targets: self
                .lanes(|lane| lane.fate() == Fate::Stays && !targets.iter().any(|t| t.name == lane.name))
                .iter()
                .map(|l| Arc::clone(&l.name))
                .collect(),
        };
        // A million may wait: all that is there is looked at while messages go on, and only what came meanwhile while they are held.
        let seen = self.shared.journal.newest();
        if on_removal == OnRemoval::Refuse {
            self.refuse_to_orphan(&gone, None, seen).await?;
        }
        let nobody_judges = self.shared.swap.write().await;
        if on_removal == OnRemoval::Refuse {
            self.refuse_to_orphan(&gone, Some(seen), self.shared.journal.newest()).await?;
        }
        let news: Vec<_> = gone.routes.iter().map(|name| (Arc::clone(name), current.routes.hash().to_owned())).collect();
        self.shared.journal.apply_program(routes.pack(now()), news.clone()).await?;
        let mut retired: HashMap<_, _> = current.retired.clone();
        retired.extend(news);
        // From here on nothing can fail.
        self.shared.current.store(Arc::new(Current { routes, on_removal, retired }));
        self.change_targets(targets, on_removal);
        self.change_doors(plan);
        drop(nobody_judges);
        Ok(())
    }

    /// A target that was not in use until now is told what the journal remembers of it.
    async fn resume(&self, setup: &TargetSetup) -> Result<(), ApplyFault> {
        let known = self.lane(&setup.name).is_some_and(|lane| Arc::ptr_eq(&lane.setup().target, &setup.target));
        if !known && let Some(state) = self.shared.journal.target_state(&setup.name).await? {
            setup.target.resume(&state).map_err(|source| ApplyFault::Target { target: Arc::clone(&setup.name), source })?;
        }
        Ok(())
    }

    fn lanes(&self, which: impl Fn(&Lane) -> bool) -> Vec<Arc<Lane>> {
        self.shared.lanes.load().iter().filter(|lane| which(lane)).cloned().collect()
    }

    /// What goes away must not leave deliveries behind that nobody makes, of messages after `after` and up to `to`. What is under way
    /// gets a moment to come to its end.
    async fn refuse_to_orphan(&self, gone: &Gone, after: Option<MessageId>, to: MessageId) -> Result<(), ApplyFault> {
        const LOOK_EVERY: Duration = Duration::from_millis(15);
        let deadline = Instant::now() + PATIENCE;
        while let Some((fault, waiting)) = self.orphans(gone, after, to).await? {
            if waiting > HOPELESS || Instant::now() >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn orphans(&self, gone: &Gone, after: Option<MessageId>, to: MessageId) -> Result<Option<(ApplyFault, u64)>, ApplyFault> {
        for target in &gone.targets {
            let waiting = self.shared.journal.counts(target).backlog;
            // What came meanwhile is counted with the rest once messages are held.
            if waiting > 0 {
                return Ok(Some((ApplyFault::TargetWithWaiting { target: Arc::clone(target), waiting }, waiting)));
            }
        }
        if gone.routes.is_empty() {
            return Ok(None);
        }
        for target in self.shared.journal.targets() {
            let waiting: BTreeMap<_, _> = self.shared.journal.untried(&target, after, to).await?;
            if let Some((route, waiting)) = waiting.into_iter().find(|(route, _)| gone.routes.contains(route)) {
                return Ok(Some((ApplyFault::RouteWithWaiting { route, target, waiting }, waiting)));
            }
        }
        Ok(None)
    }

    fn change_targets(&self, targets: Vec<TargetSetup>, on_removal: OnRemoval) {
        let fate = if on_removal == OnRemoval::DeadLetter { Fate::Condemned } else { Fate::Drains };
        // Those that had gone and have come to their end are forgotten.
        let mut lanes = self.lanes(|lane| lane.fate() != Fate::Ended);
        for lane in lanes.iter().filter(|lane| !targets.iter().any(|t| t.name == lane.name)) {
            lane.decide(fate);
        }
        for setup in targets {
            match lanes.iter().find(|lane| lane.name == setup.name) {
                Some(lane) if lane.fate() == Fate::Stays && lane.setup().is(&setup) => {}
                Some(lane) if lane.change(setup.clone()) => {}
                _ => {
                    lanes.retain(|lane| lane.name != setup.name);
                    let lane = Arc::new(Lane::new(setup));
                    self.dispatch(&lane);
                    lanes.push(lane);
                }
            }
        }
        self.shared.lanes.store(Arc::new(lanes));
    }

    fn change_doors(&self, plan: Plan) {
        let mut doors = self.doors();
        for Changed { at, site, settings, socket, peer } in plan.changed {
            let Some(door) = doors.get_mut(at) else { continue };
            door.gate.change(site.clone(), peer);
            if let Some(socket) = socket {
                door.reins.accept_from(&socket);
            }
            door.reins.change(settings);
            door.site = site;
        }
        for n in plan.closed.iter().rev() {
            doors.remove(*n).closing.cancel();
        }
        drop(doors);
        plan.opened.into_iter().for_each(|(setup, peer)| self.open(setup, peer));
    }

    /// Targets that are not in the site while something waits for them, if the site wants that to become dead letters.
    pub(super) fn condemned(&self) -> Vec<Lane> {
        if self.shared.current.load().on_removal != OnRemoval::DeadLetter {
            return Vec::new();
        }
        let lanes = self.shared.lanes.load();
        let gone = self.shared.journal.targets_with_pending().into_iter().filter(|name| !lanes.iter().any(|lane| lane.name == *name));
        let condemn = |name: Arc<str>| {
            let lane = Lane::new(TargetSetup { name, target: Arc::new(Target::Null), parallel: 8, settle: Duration::ZERO, send: None, replies: None });
            lane.decide(Fate::Condemned);
            lane
        };
        gone.map(condemn).collect()
    }
}
