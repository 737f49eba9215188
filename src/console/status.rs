//! What the console knows: facts of the site, the journal's counts, and how the last reload went.

use crate::exchange::{DeliveryId, Timestamp};
use crate::journal::Journal;
use crate::metrics::Metrics;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A listener, for people.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerFacts {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
}

/// A target, for people.
#[derive(Clone, Debug, Serialize)]
pub struct TargetFacts {
    /// Its name.
    pub name: String,
    /// A URL or a folder, without credentials.
    pub place: String,
}

/// What a FHIR server says of itself, beside what the routes want of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerFacts {
    /// The target's name.
    pub target: String,
    /// `4.0.1`.
    pub fhir_version: Option<String>,
    /// Name and version of its software.
    pub software: Option<String>,
    /// What routes want, and it says that it cannot do.
    pub cannot: Vec<String>,
    /// What routes want, and it does not say whether it can do.
    pub unsaid: Vec<String>,
}

/// The route set in force, and what became of the last attempt to change it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteState {
    /// Its hash.
    pub hash: String,
    /// How many routes it has.
    pub routes: usize,
    /// When it was applied, RFC 3339.
    pub applied: String,
    /// Why the files as they are now were not applied; `None` when they were.
    pub last_reload_error: Option<String>,
    /// Keys of the site file whose new value counts after a restart only.
    pub needs_restart: Vec<&'static str>,
}

/// What the console watches. Cheap to share.
pub struct Watch {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The journal.
    pub journal: Journal,
    /// When the daemon started.
    pub started: Timestamp,
    site: Mutex<SiteFacts>,
    servers: Mutex<Vec<ServerFacts>>,
}

/// What a reload changes.
#[derive(Clone)]
struct SiteFacts {
    /// In the order of the site file.
    listeners: Vec<ListenerFacts>,
    /// In the order of the site file.
    targets: Vec<TargetFacts>,
    routes: RouteState,
}

#[derive(Serialize)]
pub(crate) struct Readiness {
    /// True if a message that comes now can be stored.
    pub ready: bool,
    /// What stands in the way.
    pub reasons: Vec<&'static str>,
    /// The route set.
    pub routes: RouteState,
    /// The FHIR servers that have been reached. What they cannot do does not make Kiln unready.
    pub servers: Vec<ServerFacts>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    version: &'static str,
    started: String,
    ready: bool,
    reasons: Vec<&'static str>,
    routes: RouteState,
    listeners: Vec<ListenerStats>,
    targets: Vec<TargetStats>,
    servers: Vec<ServerFacts>,
    journal: JournalStats,
}

#[derive(Serialize)]
struct ListenerStats {
    #[serde(flatten)]
    facts: ListenerFacts,
    accepted: u64,
    filtered: u64,
    unrouted: u64,
    refused: u64,
    /// What was wrong with frames and connections, and how often.
    #[serde(rename = "frameFaults")]
    frame_faults: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetStats {
    #[serde(flatten)]
    facts: TargetFacts,
    delivered: u64,
    backlog: u64,
    parked: u64,
    dead_letters: u64,
    oldest_waiting: Option<String>,
    last_error: Option<LastError>,
}

#[derive(Serialize)]
struct LastError {
    at: String,
    code: String,
    summary: String,
    message: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JournalStats {
    bytes: u64,
    wal_bytes: u64,
    duplicates: u64,
}

impl Watch {
    /// A watch over a daemon that has just started.
    pub fn new(metrics: Arc<Metrics>, journal: Journal, listeners: Vec<ListenerFacts>, targets: Vec<TargetFacts>, routes: RouteState, now: Timestamp) -> Self {
        Self { metrics, journal, started: now, site: Mutex::new(SiteFacts { listeners, targets, routes }), servers: Mutex::default() }
    }

    /// A site was applied.
    pub fn applied(&self, listeners: Vec<ListenerFacts>, targets: Vec<TargetFacts>, routes: RouteState) {
        *self.site.lock().unwrap_or_else(PoisonError::into_inner) = SiteFacts { listeners, targets, routes };
    }

    /// The files as they are now were not applied; the site before them goes on.
    pub fn refused(&self, why: String) {
        self.site.lock().unwrap_or_else(PoisonError::into_inner).routes.last_reload_error = Some(why);
    }

    /// The route set in force, and what became of the last reload.
    pub fn routes(&self) -> RouteState {
        self.site().routes
    }

    fn site(&self) -> SiteFacts {
        self.site.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A FHIR server has said what it can do.
    pub fn server(&self, facts: ServerFacts) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|s| s.target != facts.target);
        servers.push(facts);
        servers.sort_by(|a, b| a.target.cmp(&b.target));
    }

    /// Only these targets are FHIR servers from now on.
    pub fn keep_servers(&self, names: &[&str]) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).retain(|s| names.contains(&s.target.as_str()));
    }

    fn servers(&self) -> Vec<ServerFacts> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ready means: can store. A target that is down is no reason.
    pub(crate) fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.journal.has_failed() {
            reasons.push("the journal's disk failed");
        } else if self.journal.has_too_much_backlog(0) {
            reasons.push("too many deliveries wait (`backlog-max` of the journal)");
        } else if !self.journal.has_room() {
            reasons.push("the journal's disk is below its low-water mark");
        }
        Readiness { ready: reasons.is_empty(), reasons, routes: self.routes(), servers: self.servers() }
    }

    /// Everything that the page shows.
    pub(crate) async fn stats(&self) -> Result<Stats, &'static str> {
        let counted = self.journal.stats().await.map_err(|_| "the journal cannot be read")?;
        let site = self.site();
        let listeners = site.listeners.iter().map(|facts| {
            let of = |word: &str| counted.messages.iter().filter(|m| m.listener == facts.name && m.disposition == word).map(|m| m.count).sum();
            ListenerStats {
                facts: facts.clone(),
                accepted: of("accepted"),
                filtered: of("filtered"),
                unrouted: of("unrouted"),
                refused: of("refused"),
                frame_faults: self.metrics.frame_faults(&facts.name).into_iter().collect(),
            }
        });
        let listeners = listeners.collect();
        let mut targets = Vec::new();
        for facts in &site.targets {
            let c = self.journal.counts(&facts.name);
            let last_error = self.last_error(&facts.name).await;
            targets.push(TargetStats {
                facts: facts.clone(),
                delivered: c.delivered,
                backlog: c.backlog,
                parked: c.parked,
                dead_letters: c.dead_letters,
                oldest_waiting: c.oldest_waiting.map(rfc3339),
                last_error,
            });
        }
        let Readiness { ready, reasons, routes, servers } = self.readiness();
        let journal = JournalStats { bytes: counted.bytes, wal_bytes: counted.wal_bytes, duplicates: counted.duplicates };
        Ok(Stats { version: env!("CARGO_PKG_VERSION"), started: rfc3339(self.started), ready, reasons, routes, listeners, targets, servers, journal })
    }

    /// What the first waiting delivery met last, else why the newest dead letter was given up.
    async fn last_error(&self, target: &str) -> Option<LastError> {
        let waiting = self.journal.pending(target, None, 1).await.ok()?.into_iter().find(|p| p.attempts > 0).map(|p| p.id);
        let dead = match waiting {
            Some(_) => None,
            None => self.journal.newest_dead_letter(target).await.ok()?,
        };
        let message = waiting.map(|d: DeliveryId| d.message).or(dead)?;
        let record = self.journal.show(message).await.ok()?;
        let mut deliveries = record.deliveries.iter().filter(|d| &*d.target == target);
        let attempt = deliveries.find_map(|d| d.attempts.iter().rev().find(|a| matches!(a.outcome, "retry" | "dead-letter")))?;
        Some(LastError { at: rfc3339(attempt.at), code: attempt.code.clone(), summary: attempt.summary.clone(), message: message.0 })
    }
}

/// A time for machines.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| String::new(), |t| t.to_string())
}
