//! What an engine is made of: listeners that are bound, targets that are open, and its own limits.

use crate::listener::{Listener, ListenerConfig};
use crate::metrics::Metrics;
use crate::site::{ListenerSite, OnRemoval};
use crate::target::{Sending, Target};
use std::sync::Arc;
use std::time::Duration;

/// Settings of the engine as a whole. The defaults are the limits of docs/limits.md.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How many deliveries of a target are in memory at once; the rest of the backlog is on the disk.
    pub window: usize,
    /// How often what is older than the journal keeps is deleted; also at the start.
    pub prune_every: Duration,
    /// MSH-3 of acknowledgements for frames whose own header cannot be read.
    pub application: String,
    /// MSH-4 of the same.
    pub facility: String,
    /// What becomes of deliveries that wait for what the site has no more.
    pub on_removal: OnRemoval,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { window: 10_000, prune_every: Duration::from_secs(3_600), application: "KILN".to_owned(), facility: String::new(), on_removal: OnRemoval::Refuse }
    }
}

/// A listener that is bound, and what the site says about its messages.
pub struct ListenerSetup {
    /// The socket.
    pub listener: Listener,
    /// How its messages are taken in.
    pub site: ListenerSite,
}

impl ListenerSetup {
    /// Binds the socket that the site names.
    pub fn bind(site: ListenerSite, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let config: ListenerConfig = site.socket.clone();
        Ok(Self { listener: Listener::bind(config, Arc::clone(metrics))?, site })
    }
}

/// A target that is open, and how it is used.
#[derive(Clone)]
pub struct TargetSetup {
    /// Its name in the site file.
    pub name: Arc<str>,
    /// The target itself. The engine tells it what the journal remembers ([`Target::resume`]).
    pub target: Arc<Target>,
    /// How many deliveries may run at once.
    pub parallel: usize,
    /// How long a delivery waits after an attempt that may have happened, before it reads what is there.
    pub settle: Duration,
    /// How resources are sent, whatever the route says.
    pub send: Option<Sending>,
    /// The listener to which the target's application acknowledgements come.
    pub replies: Option<Arc<str>>,
}

impl TargetSetup {
    /// True if it is the same open target, used in the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.target, &other.target)
            && (self.parallel, self.settle, self.send, &self.replies) == (other.parallel, other.settle, other.send, &other.replies)
    }
}
