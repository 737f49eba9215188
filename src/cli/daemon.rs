//! A running daemon: what `kiln serve` and `kiln try` start, and the order in which it stops.

use crate::cli::control::{self, Ask, ControlContext};
use crate::cli::import::Turns;
use crate::cli::patient_index;
use crate::cli::route_set;
use crate::cli::server_watch;
use crate::cli::site_change;
use crate::cli::site_memory::Origin;
use crate::console::{self, ListenerFacts, Pages, RouteState, TargetFacts, Watch};
use crate::diagnostic::{Diagnostic, Severity, Sources, Style, render};
use crate::engine::{Change, Engine, EngineConfig, ListenerSetup, Routes, Shutdown, TargetSetup};
use crate::exchange::Timestamp;
use crate::journal::{Journal, Options};
use crate::listener::{Listener, Opened, Place, Socket};
use crate::metrics::Metrics;
use crate::route::LoadOptions;
use crate::site::{LowWater, OnRemoval, Site, TargetKind, TargetSite, words};
use crate::target::Target;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A daemon that accepts messages.
pub(crate) struct Daemon {
    engine: Arc<Engine>,
    /// The site in force, and the site file as it stood when it was applied.
    site: Mutex<Site>,
    /// Where the site came from at the start; its text is that of the start.
    origin: Option<Origin>,
    /// Reloads that somebody asks for.
    asks: Mutex<Option<mpsc::Receiver<Ask>>>,
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
    /// The targets in force, for whoever asks their servers what they can do.
    servers: tokio::sync::watch::Sender<Vec<Arc<TargetSetup>>>,
}

/// How long deliveries and answers get when the daemon stops. Containers usually give 30 s before they kill.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// What the routes are checked against.
pub(crate) fn load_options(site: &Site) -> LoadOptions {
    LoadOptions {
        listeners: site.listener_names(),
        targets: site.target_names(),
        resources_only: site.resource_target_names(),
        messages_only: site.message_target_names(),
        no_patches: site.unpatched_target_names(),
        not_searchable: site.unsearchable_target_names(),
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

/// However little is to be kept, a file of messages is not smaller.
const SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// Opens the journal as the site says.
pub(crate) fn open_journal(site: &Site, metrics: &Arc<Metrics>) -> Result<Journal, String> {
    let mut options = Options::at(&site.journal.path);
    options.keep = site.journal.keep;
    options.low_water = free_bytes(site.journal.low_water, &site.journal.path);
    options.high_water = site.journal.high_water.and_then(|mark| free_bytes(mark, &site.journal.path));
    (options.backlog_max, options.backlog_resume) = (site.journal.backlog_max, site.journal.backlog_resume);
    options.keep_bytes = site.journal.keep_bytes;
    if let Some(most) = site.journal.keep_bytes {
        // Whole segments go, so they must be much smaller than what may stay.
        options.segment_bytes = options.segment_bytes.min((most / 8).max(SEGMENT_BYTES_MIN));
        options.wal_bytes_max = options.wal_bytes_max.min((most / 8).max(SEGMENT_BYTES_MIN));
    }
    let observed = Arc::clone(metrics);
    options.observer = Some(Arc::new(move |report| observed.commit(report.took)));
    options.indexer = Some(patient_index::indexer(patient_index::manners(site)));
    Journal::open(options).map_err(|e| e.to_string())
}

/// A mark of free space in bytes; `None` for the journal's own default.
fn free_bytes(mark: LowWater, folder: &Path) -> Option<u64> {
    match mark {
        LowWater::Default => None,
        LowWater::Bytes(bytes) => Some(bytes),
        LowWater::Percent(percent) => Some(share_of_disk(folder, percent)),
    }
}

/// So many percent of the disk that the folder, or the nearest folder above that exists, is on.
fn share_of_disk(folder: &Path, percent: u8) -> u64 {
    let stat = folder.ancestors().find_map(|f| rustix::fs::statvfs(if f.as_os_str().is_empty() { Path::new(".") } else { f }).ok());
    stat.map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize) / 100 * u64::from(percent))
}

impl Daemon {
    /// Binds everything, then starts; what fails is told in a sentence, and nothing runs then.
    /// `origin` is the file that the site was read from, if from any.
    pub(crate) async fn start(
        site: &Site,
        origin: Option<Origin>,
        journal: Journal,
        routes: Routes,
        reload_error: Option<String>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let mut targets = Vec::new();
        for t in &site.targets {
            let target = Target::open(t.config(journal.secret())).map_err(|e| format!("target {}: {e}", t.name))?;
            targets.push(setup(t, Arc::new(target)));
        }
        let mut listeners = Vec::new();
        for l in &site.listeners {
            let settings = Opened::read(l.socket.clone()).map_err(|what| format!("listener {}: {what}", l.socket.name))?;
            let socket = match l.socket.place() {
                Place::Socket(address) => {
                    Some(Socket::bind(address).map_err(|e| format!("listener {}: {address} cannot be used: {}", l.socket.name, words(&e)))?)
                }
                Place::Folder(_) => None,
            };
            listeners.push(ListenerSetup { listener: Listener::over(socket, settings, Arc::clone(&metrics)), site: l.clone() });
        }
        let bind = async |address: Option<SocketAddr>, pages, key: &str| match address {
            None => Ok(None),
            Some(a) => console::bind(a, pages).await.map(Some).map_err(|e| format!("{key}: {a} cannot be used: {}", words(&e))),
        };
        let pages = bind(site.console.listen, Pages::All, "console.listen").await?;
        let probes = bind(site.metrics, Pages::Probes, "metrics.listen").await?;
        let control = control::bind(&site.journal.path).map_err(|e| format!("the control socket in {}: {}", site.journal.path.display(), words(&e)))?;

        let bad = reload_error.is_some();
        let config = EngineConfig { on_removal: site.on_removal, ..EngineConfig::default() };
        let count = routes.set.routes().count();
        let engine = Engine::start(config, journal.clone(), targets, listeners, routes, Arc::clone(&metrics)).await.map_err(|e| e.to_string())?;
        let engine = Arc::new(engine);
        if let Some(origin) = &origin {
            origin.remember(&journal, site).await;
        }
        tell_or_drain(&engine, origin.as_ref(), site).await;
        let state = RouteState { last_reload_error: reload_error, ..route_state(&engine, count) };
        metrics.reloaded((!bad).then(|| now().0 as f64 / 1_000.0));
        let watch = Arc::new(Watch::new(metrics, journal.clone(), listener_facts(&engine), target_facts(site), state, now()));

        let (closing, stop_control, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let mut bound = Vec::new();
        for server in [pages, probes] {
            bound.push(server.as_ref().and_then(|s| s.local_address().ok()));
            if let Some(server) = server {
                tasks.spawn(server.run(Arc::clone(&watch), closing.clone()));
            }
        }
        let (servers, open) = tokio::sync::watch::channel(setups(&engine, site));
        tasks.spawn(server_watch::watch(open, Arc::downgrade(&engine), Arc::clone(&watch), closing.clone()));
        let mut commands = JoinSet::new();
        let (reloads, asks) = mpsc::channel(1);
        let context = ControlContext { engine: Arc::clone(&engine), reloads, watch: Arc::clone(&watch), imports: Turns::default() };
        commands.spawn(control::serve(control, context, stop_control.clone()));
        let control = (commands, stop_control);
        let (console, probes) = (bound.first().copied().flatten(), bound.get(1).copied().flatten());
        let (site, folder) = (Mutex::new(site.clone()), site.journal.path.clone());
        Ok(Self { engine, site, origin, asks: Mutex::new(Some(asks)), journal, watch, console, probes, closing, tasks, control, folder, servers })
    }

    /// Each listener's name and address.
    pub(crate) fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.engine.addresses()
    }

    /// Each listener's name and where its messages come in.
    pub(crate) fn places(&self) -> Vec<(Arc<str>, Place)> {
        self.engine.places()
    }

    /// The site in force.
    pub(crate) fn site(&self) -> Site {
        self.site.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where reloads are asked for; once.
    pub(crate) fn asks(&self) -> Option<mpsc::Receiver<Ask>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts a site with its routes in the place of the one in force, whole, and says what changed; or says why not, and nothing has changed.
    /// `text` is the site file's.
    pub(crate) async fn reload(&self, new: Site, text: String) -> Result<Vec<String>, String> {
        let began = std::time::Instant::now();
        let loaded = {
            let new = new.clone();
            tokio::task::spawn_blocking(move || load_routes(&new))
                .await
                .map_err(|_| self.refuse("a defect in kiln: the routes could not be read".to_owned()))?
        };
        let (routes, sources, warnings) = match loaded {
            Ok(loaded) => loaded,
            Err(NoRoutes::Unreadable(what)) => return Err(self.refuse(what)),
            Err(NoRoutes::Faults(sources, diagnostics)) => return Err(self.refuse(first_faults(&sources, &diagnostics))),
        };
        if new.listeners.is_empty() {
            return Err(self.refuse("the site file names no listener, so nothing could ever come in".to_owned()));
        }
        let old = self.site();
        let restart = site_change::after_restart(&old, &new);
        let in_force = self.engine.routes();
        let changed = site_change::differences(&old, &new, &in_force, &routes);
        let count = routes.set.routes().count();
        let same_set = routes.set.hash() == in_force.set.hash();
        if !(changed.is_empty() && same_set) {
            let targets = self.open_targets(&old, &new).await.map_err(|what| self.refuse(what))?;
            let change = Change { routes, targets, listeners: new.listeners.clone(), on_removal: new.on_removal };
            self.engine.reload(change).await.map_err(|e| self.tell_refusal(e.to_string()))?;
            if !warnings.is_empty() {
                tracing::warn!("the site is applied, with warnings:\n{}", first(&sources, &warnings));
            }
            let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(hash = self.engine.routes().hash(), milliseconds, "applied a changed site: {}", list(&changed));
            self.tell_what_waits(&old, &new);
        }
        if !restart.is_empty() {
            tracing::warn!("these keys of the site file count after a restart only: {}", restart.join(", "));
        }
        if let Some(origin) = &self.origin {
            Origin { text, ..origin.clone() }.remember(&self.journal, &new).await;
        }
        // What did not become live is compared with again.
        let site = Site { journal: old.journal, console: old.console, metrics: old.metrics, log: old.log, ..new };
        let state = RouteState { needs_restart: restart.clone(), ..route_state(&self.engine, count) };
        self.watch.applied(listener_facts(&self.engine), target_facts(&site), state);
        self.watch.metrics.reloaded(Some(now().0 as f64 / 1_000.0));
        self.servers.send_replace(setups(&self.engine, &site));
        *self.site.lock().unwrap_or_else(PoisonError::into_inner) = site;
        Ok(changed.into_iter().chain(restart.into_iter().map(|key| format!("! {key} takes a restart"))).collect())
    }

    /// Opens what is new or has changed; what has not stays open. A folder that another name takes over is the same folder.
    async fn open_targets(&self, old: &Site, new: &Site) -> Result<Vec<TargetSetup>, String> {
        let mut targets = Vec::new();
        for t in &new.targets {
            let named = old.targets.iter().find(|o| o.name == t.name && o.kind == t.kind);
            let same = named.or_else(|| old.targets.iter().find(|o| o.kind == t.kind && matches!(t.kind, TargetKind::Folder { .. })));
            if let Some(open) = same.and_then(|o| self.engine.target(&o.name)) {
                targets.push(setup(t, Arc::clone(&open.target)));
                continue;
            }
            let config = t.config(self.journal.secret());
            let opened = tokio::task::spawn_blocking(move || Target::open(config)).await.map_err(|_| "a defect in kiln: it could not be opened".to_owned());
            let target = opened.and_then(|opened| opened.map_err(|e| e.to_string())).map_err(|what| format!("target {}: {what}", t.name))?;
            targets.push(setup(t, Arc::new(target)));
        }
        Ok(targets)
    }

    /// What becomes of deliveries to targets that were just taken away.
    fn tell_what_waits(&self, old: &Site, new: &Site) {
        for gone in old.targets.iter().filter(|t| !new.targets.iter().any(|n| n.name == t.name)) {
            let counts = self.journal.counts(&gone.name);
            if counts.backlog + counts.parked + counts.dead_letters > 0 {
                tracing::warn!(
                    target_name = gone.name,
                    pending = counts.backlog,
                    parked = counts.parked,
                    dead_letters = counts.dead_letters,
                    "a target was taken away that something waits for"
                );
            }
        }
    }

    /// Files that cannot be applied: counted, said aloud, and the last good site goes on.
    pub(crate) fn refuse(&self, what: String) -> String {
        self.watch.metrics.reload(false);
        self.tell_refusal(what)
    }

    /// The engine counts what it refuses itself.
    fn tell_refusal(&self, what: String) -> String {
        tracing::error!("nothing was changed; the last good site goes on:\n{what}");
        self.watch.metrics.reloaded(None);
        self.watch.refused(what.clone());
        what
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

/// Deliveries that wait for targets which the site no longer has: they are told of, or made as if the targets were still there.
async fn tell_or_drain(engine: &Engine, origin: Option<&Origin>, site: &Site) {
    let journal = engine.journal();
    for name in journal.targets_with_pending().into_iter().filter(|name| !site.targets.iter().any(|t| *t.name == **name)) {
        let waiting = journal.counts(&name);
        let last = match origin {
            Some(origin) if site.on_removal == OnRemoval::Drain && waiting.backlog > 0 => origin.gone(journal, &name).await,
            _ => None,
        };
        if let Some(last) = last {
            let opened = Target::open(last.config(journal.secret())).map_err(|e| e.to_string());
            let drained = match opened {
                Ok(target) => engine.drain(setup(&last, Arc::new(target))).await.map_err(|e| e.to_string()),
                Err(what) => Err(what),
            };
            match drained {
                Ok(()) => {
                    tracing::info!(target_name = %name, pending = waiting.backlog, "the site no longer has a target: what waits for it is still delivered")
                }
                Err(error) => tracing::warn!(target_name = %name, error, "what waits for a target that the site no longer has cannot be delivered"),
            }
            continue;
        }
        tracing::warn!(target_name = %name, pending = waiting.backlog, parked = waiting.parked, "deliveries wait for a target that the site no longer has: they stay in the journal until it is back, or become dead letters with `on-removal: dead-letter`");
    }
}

fn setup(site: &TargetSite, target: Arc<Target>) -> TargetSetup {
    TargetSetup { name: site.name.as_str().into(), target, parallel: site.parallel, settle: site.settle(), send: site.send(), replies: site.replies() }
}

fn setups(engine: &Engine, site: &Site) -> Vec<Arc<TargetSetup>> {
    site.targets.iter().filter_map(|t| engine.target(&t.name)).collect()
}

fn list(changed: &[String]) -> String {
    if changed.is_empty() { "a shipped file".to_owned() } else { changed.join(", ") }
}

fn listener_facts(engine: &Engine) -> Vec<ListenerFacts> {
    engine.places().iter().map(|(name, place)| ListenerFacts { name: name.to_string(), address: place.to_string() }).collect()
}

fn target_facts(site: &Site) -> Vec<TargetFacts> {
    site.targets.iter().map(|t| TargetFacts { name: t.name.clone(), place: t.place() }).collect()
}

fn route_state(engine: &Engine, routes: usize) -> RouteState {
    RouteState { hash: engine.routes().hash().to_owned(), routes, applied: jiff::Timestamp::now().to_string(), ..RouteState::default() }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
