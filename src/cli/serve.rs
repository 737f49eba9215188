//! `kiln serve`: the daemon.

use crate::cli::control::Ask;
use crate::cli::daemon::{Daemon, NoRoutes, first_faults, load_routes, open_journal};
use crate::cli::paint::{err, out, plain};
use crate::cli::site_file;
use crate::cli::site_memory::{self, Origin};
use crate::cli::watch_files::Watched;
use crate::cli::{Exit, process};
use crate::diagnostic::render;
use crate::engine::Routes;
use crate::listener::Place;
use crate::metrics::Metrics;
use crate::site::{Override, Reload, Site, words};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Run the daemon: listen, store, map, deliver
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln serve
  kiln serve --config /etc/kiln/kiln.yaml
  KILN__LISTENERS__ADT__MLLP=0.0.0.0:2575 kiln serve

A site file to begin with:
  listeners: { adt: { mllp: 127.0.0.1:2575 } }
  targets: { main: { folder: out } }

Every key can be set from the environment (KILN__JOURNAL__PATH=/data for journal.path).
A saved change of the site file, of routes or of secrets is live within a second, or refused as a whole; SIGHUP and `kiln reload` do the same
(with `reload: signal` in the site file only they do).
SIGTERM and SIGINT stop in order. Exits 2 when it cannot start, 74 when the journal's disk failed.")]
pub(crate) struct Args {
    /// The site file
    #[arg(long, value_name = "FILE", default_value = site_file::DEFAULT)]
    config: PathBuf,
    /// The journal's folder, instead of the site file's
    #[arg(long, value_name = "FOLDER")]
    journal: Option<PathBuf>,
    /// The console's address, instead of the site file's
    #[arg(long, value_name = "ADDRESS")]
    console: Option<SocketAddr>,
}

impl Args {
    fn flags(&self) -> Vec<Override> {
        // A path on the command line begins where the user stands, not at the site file.
        let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.to_path_buf()).display().to_string();
        let journal = self.journal.as_deref().map(|p| Override::flag("--journal", "journal.path", absolute(p)));
        let console = self.console.map(|a| Override::flag("--console", "console.listen", a.to_string()));
        journal.into_iter().chain(console).collect()
    }
}

/// What a start begins with.
struct Begin {
    site: Site,
    origin: Origin,
    /// Why the site file as it is now cannot be applied; then the one that was applied last is in its place.
    refused: Option<String>,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Some(begin) = begin(args) else { return Exit::CouldNot };
    process::start_log(&begin.site.log);
    process::harden();
    if begin.refused.is_some() {
        tracing::error!("the site file has faults; starting with the one that was applied last");
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("kiln").build() {
        Ok(runtime) => runtime.block_on(serve(args, begin)),
        Err(e) => {
            err!("kiln: {}", words(&e));
            Exit::CouldNot
        }
    }
}

/// The site file, or the one that was applied last where it has faults. `None` after the reason was printed.
fn begin(args: &Args) -> Option<Begin> {
    let config = &args.config;
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            err!("kiln: there is no file {}. `kiln serve --help` shows one to begin with; `kiln try` needs none.", config.display());
            return None;
        }
        Err(e) => {
            err!("kiln: {}: {}", config.display(), words(&e));
            return None;
        }
    };
    let mut loaded = site_file::of_text(config, &text, args.flags(), true);
    let told = render(&loaded.sources, &loaded.diagnostics, site_file::style());
    if !told.is_empty() {
        err!("{}", told.trim_end());
    }
    let origin = |text: String| Origin { config: config.clone(), flags: args.flags(), text };
    let what = match loaded.site.take() {
        Some(site) if !site.listeners.is_empty() => return Some(Begin { site, origin: origin(text), refused: None }),
        Some(_) => {
            let what = format!("{} names no listener, so nothing could ever come in", config.display());
            err!("kiln: {what}");
            what
        }
        None => first_faults(&loaded.sources, &loaded.diagnostics),
    };
    let (site, last) = site_memory::last_applied(config, &text, &loaded, &args.flags())?;
    let live = match site.reload {
        Reload::Watch => "and it is live at once",
        Reload::Signal => "then put it in force with `kiln reload` or SIGHUP",
    };
    err!("kiln: starting with the site file that was applied last; mend {}, {live}", config.display());
    Some(Begin { site, origin: origin(last), refused: Some(what) })
}

async fn serve(args: &Args, begin: Begin) -> Exit {
    let Begin { site, origin, refused } = begin;
    let metrics = Arc::new(Metrics::new());
    let journal = match open_journal(&site, &metrics) {
        Ok(journal) => journal,
        Err(what) => {
            err!("kiln: {}", plain(&what));
            return Exit::CouldNot;
        }
    };
    // Before they are read: what changes from here on is not missed.
    let mut watched = Watched::new(watched_paths(&args.config, [&site]));
    let (routes, reload_error) = match load_routes(&site) {
        Ok((routes, sources, warnings)) => {
            if !warnings.is_empty() {
                err!("{}", render(&sources, &warnings, site_file::style()).trim_end());
            }
            (routes, None)
        }
        Err(fault) => {
            let what = match fault {
                NoRoutes::Unreadable(what) => {
                    err!("kiln: {}", plain(&what));
                    what
                }
                NoRoutes::Faults(sources, diagnostics) => {
                    err!("{}", render(&sources, &diagnostics, site_file::style()).trim_end());
                    first_faults(&sources, &diagnostics)
                }
            };
            match Routes::last_applied(&journal).await {
                Ok(Some(routes)) => {
                    tracing::error!("the route files have faults; starting with the set that was applied last");
                    (routes, Some(what))
                }
                Ok(None) => {
                    journal.close().await;
                    return Exit::CouldNot;
                }
                Err(e) => {
                    err!("kiln: the route files have faults, and the set that was applied last cannot be used: {e}");
                    journal.close().await;
                    return Exit::CouldNot;
                }
            }
        }
    };
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = signals else {
        err!("kiln: signals cannot be handled here");
        return Exit::CouldNot;
    };
    let reload_error = match (refused, reload_error) {
        (Some(site), Some(routes)) => Some(format!("{site}\n{routes}")),
        (site, routes) => site.or(routes),
    };
    let daemon = match Daemon::start(&site, Some(origin), journal.clone(), routes, reload_error, metrics).await {
        Ok(daemon) => daemon,
        Err(what) => {
            err!("kiln: {}", plain(&what));
            journal.close().await;
            return Exit::CouldNot;
        }
    };
    announce(&daemon, &site);
    let mut asks = daemon.asks();
    loop {
        let watches = daemon.site().reload == Reload::Watch;
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = daemon.journal.failed() => {
                tracing::error!("the journal's disk failed; nothing more can be promised, so the daemon stops");
                return Exit::DiskFailed;
            }
            Some(()) = hup.recv() => drop(reload(args, &daemon, &mut watched).await),
            Some(ask) = asked(asks.as_mut()) => drop(ask.send(reload(args, &daemon, &mut watched).await)),
            () = watched.changed(), if watches => drop(reload(args, &daemon, &mut watched).await),
        }
    }
    tracing::info!("stopping: answering what was read, finishing what is under way");
    let finished = tokio::select! {
        finished = daemon.stop() => finished,
        () = second_signal(&mut term, &mut int) => false,
    };
    if journal.has_failed() {
        return Exit::DiskFailed;
    }
    if finished {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped before everything was finished; the next start goes on where this one ended");
    }
    Exit::Done
}

/// Somebody who asks twice means at once.
async fn second_signal(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// The next reload that somebody asks for; never without somebody who could.
async fn asked(asks: Option<&mut mpsc::Receiver<Ask>>) -> Option<Ask> {
    match asks {
        Some(asks) => asks.recv().await,
        None => std::future::pending().await,
    }
}

/// The site file, the folders that it names, and the files that it was read with.
fn watched_paths<'s>(config: &Path, sites: impl IntoIterator<Item = &'s Site>) -> Vec<PathBuf> {
    let mut paths = vec![config.to_path_buf()];
    for path in sites.into_iter().flat_map(|site| site.folders.iter().chain(&site.files)) {
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    paths
}

/// Reads everything again and puts it in force, or says why not. What is looked at from now on is what is named now; after a refusal
/// also what the files name that were refused, so that mending any of them is noticed.
async fn reload(args: &Args, daemon: &Daemon, watched: &mut Watched) -> Result<Vec<String>, String> {
    let read = match std::fs::read_to_string(&args.config) {
        Ok(text) => {
            let loaded = site_file::of_text(&args.config, &text, args.flags(), true);
            loaded.site.map(|site| (site, text)).ok_or_else(|| first_faults(&loaded.sources, &loaded.diagnostics))
        }
        Err(e) => Err(format!("{}: {}", args.config.display(), words(&e))),
    };
    let (site, text) = read.map_err(|what| daemon.refuse(what))?;
    let before = Watched::new(watched_paths(&args.config, [&site]));
    let result = daemon.reload(site.clone(), text).await;
    let running = daemon.site();
    watched.watch(watched_paths(&args.config, if result.is_ok() { vec![&running] } else { vec![&running, &site] }), &before);
    result
}

/// One line, when messages can come.
fn announce(daemon: &Daemon, site: &Site) {
    let said = |(name, place): &(Arc<str>, Place)| match place {
        Place::Socket(address) => format!("{name} on {address}"),
        Place::Folder(path) => format!("{name} from {}", path.display()),
    };
    let listeners: Vec<_> = daemon.places().iter().map(said).collect();
    let console = daemon.console.map_or(String::new(), |a| format!("; console http://{a}"));
    let probes = daemon.probes.map_or(String::new(), |a| format!("; metrics http://{a}/metrics"));
    out!("kiln {} accepts {}; journal {}{console}{probes}", env!("CARGO_PKG_VERSION"), listeners.join(", "), site.journal.path.display());
}
