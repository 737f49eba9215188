//! Loads the shipped routes and the site's, for every command that maps.

use crate::diagnostic::Sources;
use crate::route::{LoadOptions, Loaded, load};
use crate::site::route_sources;
use std::io;
use std::path::PathBuf;

/// How many documents of each kind there are, shipped ones included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// `route:` documents that run: those of overlays only where they are used.
    pub routes: u64,
    /// `map:` documents.
    pub maps: u64,
    /// `table:` documents.
    pub tables: u64,
}

impl Counted {
    /// Adds another set.
    pub(crate) fn add(&mut self, other: Self) {
        self.routes += other.routes;
        self.maps += other.maps;
        self.tables += other.tables;
    }

    /// By the text alone, so that a set with faults is counted too. A document that replaces one with the same head counts once, a route of an
    /// overlay not at all.
    fn of(sources: &Sources) -> Self {
        let mut heads = std::collections::BTreeSet::new();
        for document in sources.ids().flat_map(|id| sources.text(id).split("\n---")) {
            let overlay = document.lines().any(|line| line.starts_with("$in:"));
            for line in document.lines() {
                let Some((kind @ ("route" | "map" | "table"), head)) = line.split_once(':') else { continue };
                if kind == "route" && overlay {
                    continue;
                }
                let head = head.split(" #").next().unwrap_or(head).trim().trim_matches(['"', '\'']);
                heads.insert((kind, head.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
        let of = |kind: &str| heads.iter().filter(|(k, _)| *k == kind).count() as u64;
        Self { routes: of("route"), maps: of("map"), tables: of("table") }
    }
}

/// Reads the folders and checks them together with what ships.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn load_folders(folders: &[PathBuf], options: &LoadOptions) -> io::Result<(Loaded, Counted)> {
    let sources = route_sources(folders)?;
    let mut counted = Counted::of(&sources);
    let loaded = load(sources, options);
    if let Some(set) = &loaded.set {
        counted.routes = set.routes().count() as u64;
    }
    Ok((loaded, counted))
}
