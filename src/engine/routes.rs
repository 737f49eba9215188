//! A route set together with the sources that it was made from, so that the journal can keep it and a later start can make it again.

use crate::diagnostic::Sources;
use crate::exchange::Timestamp;
use crate::hl7v2::{Charset, ParseOptions};
use crate::journal::{Journal, JournalError, Program};
use crate::route::{AfterDeadLetter, LoadOptions, Loaded, RouteSet};
use crate::site::ListenerSite;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// How messages of each listener are read, as far as it is not the usual way. A delivery keeps this together with its routes.
    manners: BTreeMap<String, Manner>,
    /// True of a set that an earlier version stored, which did not keep them.
    without_manners: bool,
    hash: String,
}

/// What a listener's settings add to its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manner {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    charset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    force_charset: Option<String>,
    /// `tolerate: { header: on }`.
    #[serde(default, skip_serializing_if = "is_off")]
    header: bool,
    /// `tolerate: { unescaped: on }`.
    #[serde(default, skip_serializing_if = "is_off")]
    unescaped: bool,
}

fn is_off(switch: &bool) -> bool {
    !switch
}

impl Manner {
    fn of(site: &ListenerSite) -> Self {
        Self {
            charset: site.charset.clone(),
            zone: site.zone.clone(),
            authority: site.authority.clone(),
            force_charset: site.force_charset.clone(),
            header: site.tolerate.header,
            unescaped: site.tolerate.unescaped,
        }
    }

    /// How its frames are to be read.
    pub(super) fn parse_options(&self) -> ParseOptions {
        let named = |name: &Option<String>| name.as_deref().and_then(Charset::named);
        ParseOptions { charset: named(&self.force_charset), charset_otherwise: named(&self.charset), header: self.header, unescaped: self.unescaped }
    }

    pub(super) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    pub(super) fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }
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
    #[serde(default)]
    messages_only: Vec<String>,
    #[serde(default)]
    no_patches: Vec<String>,
    #[serde(default)]
    not_searchable: Vec<String>,
    overlays: Vec<String>,
    /// Absent in sets that an earlier version stored.
    manners: Option<BTreeMap<String, Manner>>,
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
        let set = loaded.set?;
        let hash = set.hash().to_owned();
        Some(Self { set, sources: loaded.sources, options, manners: BTreeMap::new(), without_manners: false, hash })
    }

    /// The same routes for messages of these listeners.
    #[must_use]
    pub fn for_listeners<'s>(self, listeners: impl IntoIterator<Item = &'s ListenerSite>) -> Self {
        let manners = listeners.into_iter().map(|site| (site.socket.name.to_string(), Manner::of(site))).filter(|(_, m)| *m != Manner::default()).collect();
        self.with_manners(manners)
    }

    fn with_manners(self, manners: BTreeMap<String, Manner>) -> Self {
        let hash = match serde_json::to_vec(&manners) {
            Ok(bytes) if !manners.is_empty() => {
                let mut hash = blake3::Hasher::new();
                hash.update(self.set.hash().as_bytes()).update(&bytes);
                let hex = hash.finalize().to_hex();
                hex.get(..self.set.hash().len()).unwrap_or(&hex).to_owned()
            }
            _ => self.set.hash().to_owned(),
        };
        Self { manners, hash, ..self }
    }

    /// How the messages of these listeners were read when `program` was applied.
    pub(super) fn manners_of(program: &Program) -> BTreeMap<String, Manner> {
        #[derive(Deserialize)]
        struct Head {
            manners: Option<BTreeMap<String, Manner>>,
        }
        serde_json::from_slice::<Head>(&program.bytes).ok().and_then(|head| head.manners).unwrap_or_default()
    }

    /// The names of a stored set's routes, also of one that this version cannot compile.
    pub(super) fn names_of(program: &Program) -> Vec<String> {
        let Ok(packed) = serde_json::from_slice::<Packed>(&program.bytes) else { return Vec::new() };
        let lines = packed.files.iter().flat_map(|file| file.text.lines());
        lines
            .filter_map(|line| line.strip_prefix("route:"))
            .filter_map(|rest| rest.split('#').next())
            .map(|name| name.trim().trim_matches(['"', '\'']).to_owned())
            .collect()
    }

    /// Reads messages of listeners that are gone as they were read before.
    #[must_use]
    pub(super) fn with_former(self, former: &BTreeMap<String, Manner>) -> Self {
        let mut manners = self.manners.clone();
        let gone = former.iter().filter(|(name, _)| !self.options.listeners.iter().any(|known| known == *name));
        manners.extend(gone.map(|(name, manner)| (name.clone(), manner.clone())));
        self.with_manners(manners)
    }

    /// A set that an earlier version stored reads messages as they are read now.
    #[must_use]
    pub(super) fn completed_by(mut self, current: &Self) -> Self {
        if self.without_manners {
            self.manners.clone_from(&current.manners);
        }
        self
    }

    pub(super) fn manners(&self) -> &BTreeMap<String, Manner> {
        &self.manners
    }

    /// What this set is known by: the routes' hash, together with how the listeners' messages are read.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How messages of a listener are read.
    pub(super) fn manner(&self, listener: &str) -> Manner {
        self.manners.get(listener).cloned().unwrap_or_default()
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
            messages_only: self.options.messages_only.clone(),
            no_patches: self.options.no_patches.clone(),
            not_searchable: self.options.not_searchable.clone(),
            overlays: self.options.overlays.clone(),
            manners: Some(self.manners.clone()),
            files,
        };
        let bytes = serde_json::to_vec(&packed).expect("strings and lists always become JSON");
        Program { hash: self.hash.clone(), applied, bytes }
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
        let Packed { listeners, targets, resources_only, messages_only, no_patches, not_searchable, overlays, .. } = packed;
        let options = LoadOptions { listeners, targets, resources_only, messages_only, no_patches, not_searchable, overlays };
        let loaded = crate::route::load(sources, &options);
        let routes = Self::from_loaded(loaded, options).ok_or(RoutesFault::Faulty { hash: program.hash.clone(), version: packed.kiln })?;
        let without = packed.manners.is_none();
        let mut routes = routes.with_manners(packed.manners.unwrap_or_default());
        routes.without_manners = without;
        // What was stored is known by the name that it was stored under, also where this version would give it another.
        routes.hash.clone_from(&program.hash);
        Ok(routes)
    }
}
