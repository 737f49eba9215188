//! What intake, dispatch and delivery share: the journal, the current routes, the clock.

use crate::engine::dispatch::Lane;
use crate::engine::lines::Lines;
use crate::engine::pacts::Pacts;
use crate::engine::unknown::UnknownCodes;
use crate::engine::{Routes, RoutesFault};
use crate::exchange::Timestamp;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::site::OnRemoval;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Exit code when the journal's disk has failed (EX_IOERR of sysexits.h). The next start recovers.
pub(super) const EXIT_DISK_FAILED: i32 = 74;

/// How many route sets are kept ready besides the current one, for deliveries that began with them.
const SETS_KEPT: usize = 8;

/// What is in force: routes and what the site says about listeners, which change together.
pub(super) struct Current {
    pub(super) routes: Arc<Routes>,
    pub(super) on_removal: OnRemoval,
    /// Routes that this set has no more, each with the last set that had it: what waits for one of them is made by that.
    pub(super) retired: HashMap<Arc<str>, String>,
}

pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) metrics: Arc<Metrics>,
    pub(super) current: ArcSwap<Current>,
    /// Held for reading from the look at the routes until what came of it is stored, for writing while others take their place: no
    /// delivery is stored for a route that has just gone, and no message is read by the old settings and mapped by the new.
    pub(super) swap: tokio::sync::RwLock<()>,
    /// Messages whose sender waits for their deliveries.
    pub(super) pacts: Arc<Pacts>,
    /// How senders are told what came of their messages.
    pub(super) lines: Lines,
    /// Codes and authorities that nobody knew.
    pub(super) unknown: UnknownCodes,
    /// Targets in use.
    pub(super) lanes: ArcSwap<Vec<Arc<Lane>>>,
    /// Sets that pending deliveries began with, by hash.
    earlier: Mutex<HashMap<String, Arc<Routes>>>,
}

impl Shared {
    pub(super) fn new(journal: Journal, metrics: Arc<Metrics>, current: Current) -> Self {
        let lanes = ArcSwap::from_pointee(Vec::new());
        Self {
            journal,
            metrics,
            current: ArcSwap::from_pointee(current),
            swap: tokio::sync::RwLock::default(),
            pacts: Arc::default(),
            lines: Lines::default(),
            unknown: UnknownCodes::default(),
            lanes,
            earlier: Mutex::default(),
        }
    }

    /// The set that new messages meet.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.current.load().routes)
    }

    /// The set that a delivery began with; the current one for a delivery that begins now.
    pub(super) async fn routes_for(&self, hash: Option<&str>) -> Result<Arc<Routes>, RoutesFault> {
        let current = self.routes();
        let Some(hash) = hash.filter(|hash| *hash != current.hash()) else { return Ok(current) };
        if let Some(found) = self.earlier().get(hash) {
            return Ok(Arc::clone(found));
        }
        let routes = Arc::new(Routes::stored(&self.journal, hash).await?.completed_by(&current));
        let mut earlier = self.earlier();
        if earlier.len() >= SETS_KEPT {
            earlier.clear();
        }
        earlier.insert(hash.to_owned(), Arc::clone(&routes));
        Ok(routes)
    }

    fn earlier(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Routes>>> {
        // A map of finished values: whole even if a holder panicked.
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's clock.
pub(super) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// So long after `at`.
pub(super) fn later(at: Timestamp, by: std::time::Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// A failed disk is final: no retry in this process, since nobody knows what of the last writes is there.
pub(super) fn exit_because_disk_failed() -> ! {
    tracing::error!("the journal's disk failed; nothing more can be promised, so kiln stops with exit code {EXIT_DISK_FAILED} and recovers at its next start");
    std::process::exit(EXIT_DISK_FAILED)
}
