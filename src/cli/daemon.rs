//! A running daemon: what `kiln serve` and `kiln try` start, and the order in which it stops.

use crate::cli::control;
use crate::cli::patient_index;
use crate::cli::route_set;
use crate::console::{self, ListenerFacts, Pages, RouteState, TargetFacts, Watch};
use crate::diagnostic::{Diagnostic, Severity, Sources, Style, render};
use crate::engine::{Engine, EngineConfig, ListenerSetup, Routes, Shutdown, TargetSetup};
use crate::exchange::Timestamp;
use crate::journal::{Journal, Options};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::route::LoadOptions;
use crate::site::{LowWater, Site, words};
use crate::target::Target;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A daemon that accepts messages.
pub(crate) struct Daemon {
    engine: Arc<Engine>,
    /// The journal, open.
    pub journal: Journal,
    watch: Arc<Watch>,
    /// Where the console listens.
    pub console: Option<SocketAddr>,
    /// Where the probes listen, if elsewhere.
    pub probes: Option<SocketAddr>,
    closing: CancellationToken,
    tasks: TaskTracker,
    /// The task that takes an operator's commands, and what ends it.
    control: (JoinSet<()>, CancellationToken),
    folder: PathBuf,
}

/// How long deliveries and answers get when the daemon stops. Containers usually give 30 s before they kill.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// What the routes are checked against.
pub(crate) fn load_options(site: &Site) -> LoadOptions {
    LoadOptions {
        listeners: site.listener_names(),
        targets: site.target_names(),
        resources_only: site.resource_target_names(),
        overlays: site.overlays.clone(),
    }
}

/// Why there are no routes.
pub(crate) enum NoRoutes {
    /// A file cannot be read.
    Unreadable(String),
    /// They have faults.
    Faults(Sources, Vec<Diagnostic>),
}

/// Loads the shipped and the site's routes.
pub(crate) fn load_routes(site: &Site) -> Result<(Routes, Sources, Vec<Diagnostic>), NoRoutes> {
    let options = load_options(site);
    let (loaded, _) = route_set::load_folders(&site.folders, &options).map_err(|e| NoRoutes::Unreadable(e.to_string()))?;
    let (sources, diagnostics) = (loaded.sources.clone(), loaded.diagnostics.clone());
    match Routes::from_loaded(loaded, options) {
        Some(routes) => Ok((routes, sources, diagnostics)),
        None => Err(NoRoutes::Faults(sources, diagnostics)),
    }
}

/// The first faults, a line each, for a log and for /readyz.
pub(crate) fn first_faults(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    let errors: Vec<_> = diagnostics.iter().filter(|d| d.severity == Severity::Error).cloned().collect();
    first(sources, &errors)
}

fn first(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    const SHOWN: usize = 5;
    let mut text = render(sources, diagnostics.get(..SHOWN).unwrap_or(diagnostics), Style::Short).trim_end().to_owned();
    if diagnostics.len() > SHOWN {
        text += &format!("\nand {} more", diagnostics.len() - SHOWN);
    }
    text
}

/// Opens the journal as the site says.
pub(crate) fn open_journal(site: &Site, metrics: &Arc<Metrics>) -> Result<Journal, String> {
    let mut options = Options::at(&site.journal.path);
    options.keep = site.journal.keep;
    options.low_water = match site.journal.low_water {
        LowWater::Default => None,
        LowWater::Bytes(bytes) => Some(bytes),
        LowWater::Percent(percent) => Some(share_of_disk(&site.journal.path, percent)),
    };
    let observed = Arc::clone(metrics);
    options.observer = Some(Arc::new(move |report| observed.commit(report.took)));
    options.indexer = Some(patient_index::indexer(patient_index::charsets(site)));
    Journal::open(options).map_err(|e| e.to_string())
}

/// So many percent of the disk that the folder, or the nearest folder above that exists, is on.
fn share_of_disk(folder: &Path, percent: u8) -> u64 {
    let stat = folder.ancestors().find_map(|f| rustix::fs::statvfs(if f.as_os_str().is_empty() { Path::new(".") } else { f }).ok());
    stat.map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize) / 100 * u64::from(percent))
}

impl Daemon {
    /// Binds everything, then starts; what fails is told in a sentence, and nothing runs then.
    pub(crate) async fn start(site: &Site, journal: Journal, routes: Routes, reload_error: Option<String>, metrics: Arc<Metrics>) -> Result<Self, String> {
        let mut targets = Vec::new();
        for t in &site.targets {
            let target = Target::open(t.config(journal.secret())).map_err(|e| format!("target {}: {e}", t.name))?;
            let name: Arc<str> = t.name.as_str().into();
            targets.push(TargetSetup { name, target: Arc::new(target), parallel: t.parallel, settle: t.settle(), send: t.send() });
        }
        for name in journal.targets_with_pending().into_iter().filter(|name| !site.targets.iter().any(|t| *t.name == **name)) {
            let waiting = journal.counts(&name);
            tracing::warn!(target_name = %name, pending = waiting.backlog, parked = waiting.parked, "deliveries wait for a target that the site no longer has: they stay in the journal until it is back");
        }
        let mut listeners = Vec::new();
        for l in &site.listeners {
            let listener = Listener::bind(l.socket.clone(), Arc::clone(&metrics))
                .map_err(|e| format!("listener {}: {} cannot be used: {}", l.socket.name, l.socket.address, words(&e)))?;
            listeners.push(ListenerSetup { listener, site: l.clone() });
        }
        let bind = async |address: Option<SocketAddr>, pages, key: &str| match address {
            None => Ok(None),
            Some(a) => console::bind(a, pages).await.map(Some).map_err(|e| format!("{key}: {a} cannot be used: {}", words(&e))),
        };
        let pages = bind(site.console.listen, Pages::All, "console.listen").await?;
        let probes = bind(site.metrics, Pages::Probes, "metrics.listen").await?;
        let control = control::bind(&site.journal.path).map_err(|e| format!("the control socket in {}: {}", site.journal.path.display(), words(&e)))?;

        let state = route_state(&routes, reload_error);
        let engine =
            Engine::start(EngineConfig::default(), journal.clone(), targets, listeners, routes, Arc::clone(&metrics)).await.map_err(|e| e.to_string())?;
        let engine = Arc::new(engine);
        let facts = engine.addresses().iter().map(|(name, address)| ListenerFacts { name: name.to_string(), address: address.to_string() }).collect();
        let places = site.targets.iter().map(|t| TargetFacts { name: t.name.clone(), place: t.place() }).collect();
        let watch = Arc::new(Watch::new(metrics, journal.clone(), facts, places, state, now()));

        let (closing, stop_control, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let mut bound = Vec::new();
        for server in [pages, probes] {
            bound.push(server.as_ref().and_then(|s| s.local_address().ok()));
            if let Some(server) = server {
                tasks.spawn(server.run(Arc::clone(&watch), closing.clone()));
            }
        }
        let mut commands = JoinSet::new();
        commands.spawn(control::serve(control, Arc::clone(&engine), stop_control.clone()));
        let control = (commands, stop_control);
        let (console, probes) = (bound.first().copied().flatten(), bound.get(1).copied().flatten());
        Ok(Self { engine, journal, watch, console, probes, closing, tasks, control, folder: site.journal.path.clone() })
    }

    /// Each listener's name and address.
    pub(crate) fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.engine.addresses()
    }

    /// Puts new routes in the place of the old ones, or says why not.
    pub(crate) async fn reload(&self, site: &Site) {
        let loaded = match load_routes(site) {
            Ok((routes, ..)) if routes.set.hash() == self.engine.routes().set.hash() => {
                // The files are again what is in force: an earlier refusal is history.
                self.watch.applied(route_state(&routes, None));
                return;
            }
            Ok((routes, sources, warnings)) => {
                if !warnings.is_empty() {
                    tracing::warn!("the routes are applied, with warnings:\n{}", first(&sources, &warnings));
                }
                Ok(routes)
            }
            Err(NoRoutes::Unreadable(what)) => Err(what),
            Err(NoRoutes::Faults(sources, diagnostics)) => Err(first_faults(&sources, &diagnostics)),
        };
        let applied = match loaded {
            Ok(routes) => {
                let state = route_state(&routes, None);
                self.engine.apply(routes).await.map(|()| state).map_err(|e| e.to_string())
            }
            Err(what) => return self.refuse(what),
        };
        match applied {
            Ok(state) => self.watch.applied(state),
            Err(what) => self.tell_refusal(what),
        }
    }

    /// Files that cannot be applied: counted, said aloud, and the last good set goes on.
    pub(crate) fn refuse(&self, what: String) {
        self.watch.metrics.reload(false);
        self.tell_refusal(what);
    }

    /// The engine counts what it refuses itself.
    fn tell_refusal(&self, what: String) {
        tracing::error!("the routes were not changed; the last good ones go on:\n{what}");
        self.watch.refused(what);
    }

    /// Stops in order: intake, deliveries, journal, then the console. True if all was done in time.
    pub(crate) async fn stop(self) -> bool {
        let (mut commands, stop_control) = self.control;
        stop_control.cancel();
        let ended = commands.join_next().await.is_none_or(|end| end.is_ok());
        // Nobody else has it now.
        let stopped = match Arc::into_inner(self.engine) {
            Some(engine) if ended => engine.shutdown(SHUTDOWN_DEADLINE).await,
            _ => Shutdown { answered: false, delivered: false },
        };
        self.closing.cancel();
        self.tasks.close();
        // A browser that holds its connection open must not hold up the end.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await;
        let _ = std::fs::remove_file(control::socket(&self.folder));
        stopped.answered && stopped.delivered
    }
}

fn route_state(routes: &Routes, last_reload_error: Option<String>) -> RouteState {
    let applied = jiff::Timestamp::now().to_string();
    RouteState { hash: routes.set.hash().to_owned(), routes: routes.set.routes().count(), applied, last_reload_error }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
