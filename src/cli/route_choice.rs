//! Which routes, and as which listener: the options of commands that look at how messages are mapped.

use crate::cli::paint::{err, plain};
use crate::cli::site_file::{self, NoSite};
use crate::cli::{daemon, route_set};
use crate::diagnostic::{Severity, Sources, render};
use crate::exchange::{MessageId, Timestamp};
use crate::fhir::Answers;
use crate::hl7v2::{Message, ParseOptions};
use crate::route::{Context, LoadOptions, RouteId, RouteSet};
use crate::site::{ListenerSite, Site};
use std::path::PathBuf;
use std::sync::Arc;

/// What was given on the command line.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// Only this route, whether it matches or not
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// A folder or file of routes that stand above the shipped ones; may be repeated
    #[arg(long, value_name = "FOLDER")]
    routes: Vec<PathBuf>,
    /// A site file or its folder: its routes, overlays, listeners and journal count [default: kiln.yaml, if it is here]
    #[arg(long, visible_alias = "site", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The listener that messages are taken to come by: its zone, authority and character set count
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

/// Routes ready to be asked.
pub(crate) struct Chosen {
    /// The compiled set.
    pub set: Arc<RouteSet>,
    /// Its files, to quote from.
    pub sources: Arc<Sources>,
    /// The site, if there is one.
    pub site: Option<Site>,
    /// The listener that was named, or the site's first.
    pub listener: Option<ListenerSite>,
    /// The route that was named.
    pub only: Option<RouteId>,
}

impl Choice {
    /// The site file that was named, or the one in the folder that was named.
    pub(crate) fn site_file(&self) -> Option<PathBuf> {
        self.config.as_ref().map(|path| if path.is_dir() { path.join(site_file::DEFAULT) } else { path.clone() })
    }

    /// Where the site file is, or would be.
    pub(crate) fn site_path(&self) -> PathBuf {
        self.site_file().unwrap_or_else(|| PathBuf::from(site_file::DEFAULT))
    }

    /// Loads what was chosen; `None` after the fault has been printed.
    pub(crate) fn load(&self) -> Option<Chosen> {
        self.load_with(&[])
    }

    /// The same; without a site these overlays count, which a site would choose.
    pub(crate) fn load_with(&self, overlays: &[&str]) -> Option<Chosen> {
        let site = match site_file::open_if_any(self.site_file().as_deref(), false) {
            Ok(site) => site,
            Err(NoSite::Missing | NoSite::Told) => return None,
        };
        let mut folders = site.as_ref().map(|s| s.folders.clone()).unwrap_or_default();
        if let Some(missing) = self.routes.iter().find(|p| !p.exists()) {
            err!("kiln: there is no file or folder {}", missing.display());
            return None;
        }
        folders.extend(self.routes.iter().cloned());
        // Without a site nobody can say which listeners and targets there are.
        let options = site
            .as_ref()
            .map_or_else(|| LoadOptions { overlays: overlays.iter().map(|o| (*o).to_owned()).collect(), ..LoadOptions::default() }, daemon::load_options);
        let loaded = match route_set::load_folders(&folders, &options) {
            Ok((loaded, _)) => loaded,
            Err(e) => {
                err!("kiln: {}", plain(&e.to_string()));
                return None;
            }
        };
        let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).cloned().collect();
        if !errors.is_empty() {
            err!("{}", render(&loaded.sources, &errors, site_file::style()).trim_end());
        }
        let set = loaded.set?;
        let listeners = site.as_ref().map(|s| s.listeners.as_slice()).unwrap_or_default();
        let listener = match &self.listener {
            None => listeners.first().cloned(),
            Some(name) => match listeners.iter().find(|l| *l.socket.name == **name) {
                Some(listener) => Some(listener.clone()),
                None => {
                    err!("kiln: the site file has no listener {}", plain(name));
                    return None;
                }
            },
        };
        let only = match &self.route {
            None => None,
            Some(name) => match set.named(name) {
                Some(route) => Some(route),
                None => {
                    let names: Vec<_> = set.routes().map(|(_, r)| r.name.to_string()).collect();
                    err!("kiln: there is no route {}; there are {}", plain(name), names.join(", "));
                    return None;
                }
            },
        };
        Some(Chosen { set, sources: Arc::new(loaded.sources), site, listener, only })
    }
}

/// How bytes that come by this listener are read.
pub(crate) fn parse_options(listener: Option<&ListenerSite>) -> ParseOptions {
    listener.map(ListenerSite::parse_options).unwrap_or_default()
}

/// What a run may know, as if the message came by this listener.
pub(crate) fn context<'c>(listener: Option<&'c ListenerSite>, received: Timestamp, message: MessageId, answers: &'c Answers) -> Context<'c> {
    Context {
        received,
        zone: listener.and_then(|l| l.zone.as_deref()),
        authority: listener.and_then(|l| l.authority.as_deref()),
        message,
        listener: listener.map_or("", |l| &l.socket.name),
        answers,
    }
}

/// MSH-4, else MSH-3, as an authority's namespace: what a preview without a listener may suppose.
pub(crate) fn sender(message: &Message) -> Option<String> {
    let text = |n| message.text(message.component(message.field(0, n), 1)).trim().to_owned();
    [4, 3].into_iter().map(text).find(|t| !t.is_empty())
}
