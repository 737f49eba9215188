//! A route set together with the sources that it was made from, so that the journal can keep it and a later start can make it again.

use crate::diagnostic::Sources;
use crate::exchange::Timestamp;
use crate::journal::{Journal, JournalError, Program};
use crate::route::{AfterDeadLetter, LoadOptions, Loaded, RouteSet};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A route set that may be applied.
#[derive(Clone)]
pub struct Routes {
    /// The compiled set.
    pub set: Arc<RouteSet>,
    /// Every file of it, shipped ones included.
    pub sources: Sources,
    /// What the checker knew about the site.
    pub options: LoadOptions,
}

/// Why a stored route set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoutesFault {
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal has no such set.
    #[error("the journal does not have route set {0}")]
    Missing(String),
    /// It was stored in a way that this version does not know.
    #[error("route set {0} was stored by another version of kiln and cannot be read")]
    Unreadable(String),
    /// It was good once; this version finds faults in it.
    #[error("route set {hash}, applied by kiln {version}, has errors for this version")]
    Faulty {
        /// Its hash.
        hash: String,
        /// The version of Kiln that applied it.
        version: String,
    },
}

/// How a route set is kept.
#[derive(Serialize, Deserialize)]
struct Packed {
    kiln: String,
    listeners: Vec<String>,
    targets: Vec<String>,
    #[serde(default)]
    resources_only: Vec<String>,
    overlays: Vec<String>,
    files: Vec<PackedFile>,
}

#[derive(Serialize, Deserialize)]
struct PackedFile {
    path: String,
    text: String,
    shipped: bool,
}

impl Routes {
    /// What loading made, if it is free of errors.
    pub fn from_loaded(loaded: Loaded, options: LoadOptions) -> Option<Self> {
        Some(Self { set: loaded.set?, sources: loaded.sources, options })
    }

    /// The set that was applied last, also when the files have changed since; `None` for a new journal.
    pub async fn last_applied(journal: &Journal) -> Result<Option<Self>, RoutesFault> {
        journal.last_program().await?.map(|program| Self::unpack(&program)).transpose()
    }

    /// The set of that hash.
    pub async fn stored(journal: &Journal, hash: &str) -> Result<Self, RoutesFault> {
        let program = journal.program(hash).await?.ok_or_else(|| RoutesFault::Missing(hash.to_owned()))?;
        Self::unpack(&program)
    }

    /// Whether later deliveries of a common key wait behind a dead letter of this route. A route that is not known may be any.
    pub(super) fn waits_after_dead_letter(&self, route: &str) -> bool {
        self.set.named(route).is_none_or(|route| self.set.info(route).after_dead_letter == AfterDeadLetter::Wait)
    }

    /// The form that the journal keeps.
    pub fn pack(&self, applied: Timestamp) -> Program {
        let files = self
            .sources
            .ids()
            .map(|id| PackedFile { path: self.sources.path(id).to_owned(), text: self.sources.text(id).to_owned(), shipped: self.sources.shipped(id) })
            .collect();
        let packed = Packed {
            kiln: env!("CARGO_PKG_VERSION").to_owned(),
            listeners: self.options.listeners.clone(),
            targets: self.options.targets.clone(),
            resources_only: self.options.resources_only.clone(),
            overlays: self.options.overlays.clone(),
            files,
        };
        let bytes = serde_json::to_vec(&packed).expect("strings and lists always become JSON");
        Program { hash: self.set.hash().to_owned(), applied, bytes }
    }

    /// Makes a stored set again, with this version's checker.
    pub fn unpack(program: &Program) -> Result<Self, RoutesFault> {
        let packed: Packed = serde_json::from_slice(&program.bytes).map_err(|_| RoutesFault::Unreadable(program.hash.clone()))?;
        let mut sources = Sources::default();
        for file in packed.files {
            if file.shipped {
                sources.add_shipped(file.path, file.text);
            } else {
                sources.add(file.path, file.text);
            }
        }
        let options = LoadOptions { listeners: packed.listeners, targets: packed.targets, resources_only: packed.resources_only, overlays: packed.overlays };
        let loaded = crate::route::load(sources, &options);
        Self::from_loaded(loaded, options).ok_or(RoutesFault::Faulty { hash: program.hash.clone(), version: packed.kiln })
    }
}
