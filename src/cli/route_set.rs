//! Loads the shipped routes and the site's, for every command that maps.

use crate::diagnostic::Sources;
use crate::route::{LoadOptions, Loaded, load};
use crate::site::route_sources;
use std::io;
use std::path::PathBuf;

/// How many documents of each kind there are, shipped ones included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// `route:` documents.
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

    fn of(sources: &Sources) -> Self {
        let mut counted = Self::default();
        for line in sources.ids().flat_map(|id| sources.text(id).lines()) {
            match line.split_once(':').map(|(head, _)| head) {
                Some("route") => counted.routes += 1,
                Some("map") => counted.maps += 1,
                Some("table") => counted.tables += 1,
                _ => {}
            }
        }
        counted
    }
}

/// Reads the folders and checks them together with what ships.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn load_folders(folders: &[PathBuf], options: &LoadOptions) -> io::Result<(Loaded, Counted)> {
    let sources = route_sources(folders)?;
    let counted = Counted::of(&sources);
    Ok((load(sources, options), counted))
}
