//! An engine's life: start, new routes, replay, and the order in which it stops.

use crate::engine::{EngineConfig, ListenerSetup, Routes, TargetSetup};
use crate::exchange::{DeliveryId, OrderKey};
use crate::journal::{Journal, JournalError};
use crate::metrics::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
    /// Deliveries wait that belong to a route which the new set does not have.
    #[error("route {route} is gone, but {waiting} of its deliveries to {target} wait")]
    RouteWithPending {
        /// The route.
        route: Arc<str>,
        /// One of its targets.
        target: Arc<str>,
        /// How many wait there.
        waiting: u64,
    },
    /// The journal could not keep it.
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
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
pub struct Engine {}

#[allow(clippy::todo, unused_variables, clippy::unused_async, reason = "signatures first; the bodies follow within the hour")]
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
        todo!()
    }

    /// Each listener's name and the address that it is bound to.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        todo!()
    }

    /// Puts a route set in the place of the current one, whole. Deliveries that were tried already keep theirs.
    pub async fn apply(&self, routes: Routes) -> Result<(), ApplyFault> {
        todo!()
    }

    /// The route set that new messages meet.
    pub fn routes(&self) -> Arc<Routes> {
        todo!()
    }

    /// Makes parked deliveries of these keys pending again. Returns how many.
    pub async fn resume_parked(&self, target: &str, keys: &[OrderKey]) -> Result<u64, JournalError> {
        todo!()
    }

    /// Makes dead letters, skipped and superseded deliveries pending again. Returns how many.
    pub async fn replay(&self, deliveries: &[DeliveryId]) -> Result<u64, JournalError> {
        todo!()
    }

    /// Stops in order: accept nothing more, answer what was read, finish the deliveries that run, close the journal.
    /// What is not done at the deadline is dropped where that is safe: unanswered messages were not acknowledged, deliveries resume.
    pub async fn shutdown(self, deadline: Duration) -> Shutdown {
        todo!()
    }
}
