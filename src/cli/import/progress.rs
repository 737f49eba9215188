//! How far an import is, on the disk: in the journal's folder, by the archive's path, size and time.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// So many different reasons are told apart.
const REASONS_MAX: usize = 50;

/// So many flaws are kept; others are counted.
const FLAWS_MAX: usize = 50;
/// Enough that two imports of one journal hardly ever have the same.
const KEY_CHARACTERS: usize = 8;

/// An import, from its beginning over all interruptions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// Size, time of change and listener: another archive of that name begins anew.
    archive: (u64, i64, i64, String),
    /// What tells its messages in the journal from those of another archive of that name, and of another import of the same one. Empty where an
    /// older version began it.
    key: String,
    /// How many messages were answered, from the archive's first on, without a gap.
    pub(super) done: u64,
    /// The newest message that the journal had before any later one could be in it.
    pub(super) newest: Option<u64>,
    pub(super) accepted: u64,
    /// Why messages were refused, and how many each.
    pub(super) refusals: BTreeMap<String, u64>,
    /// What is wrong with the archive: the first of it, and how much more there is.
    pub(super) flaws: Vec<String>,
    pub(super) more_flaws: u64,
    /// True if all of it is done.
    pub(super) finished: bool,
    #[serde(skip)]
    path: PathBuf,
}

impl Progress {
    /// Reads what is known of an archive, or begins.
    pub(super) fn open(folder: &Path, archive: &Path, listener: &str, again: bool) -> Result<Self, String> {
        let unreadable = |e: std::io::Error| crate::site::words(&e);
        let facts = std::fs::metadata(archive).map_err(unreadable)?;
        let place = std::fs::canonicalize(archive).map_err(unreadable)?;
        let name = blake3::hash(format!("{}\n{listener}", place.display()).as_bytes()).to_hex();
        let path = folder.join("imports").join(name.get(..32).unwrap_or(&name));
        let identity = (facts.len(), facts.mtime(), facts.mtime_nsec(), listener.to_owned());
        let key = || uuid::Uuid::new_v4().simple().to_string().chars().take(KEY_CHARACTERS).collect();
        let begin = || Self { archive: identity.clone(), key: key(), path: path.clone(), ..Self::default() };
        match std::fs::read(&path) {
            _ if again => Ok(begin()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(begin()),
            Err(e) => Err(format!("how far it was imported cannot be read from {}: {}", path.display(), unreadable(e))),
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(known) if known.archive == identity => Ok(Self { path, ..known }),
                Ok(_) => Ok(begin()),
                Err(_) => Err(format!("{} does not say how far it was imported; say --again to begin anew", path.display())),
            },
        }
    }

    /// What the files of the archive begin with in the journal.
    pub(super) fn files(&self, archive: &Path) -> String {
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        if self.key.is_empty() { format!("import:{name}/") } else { format!("import:{name}@{}/", self.key) }
    }

    /// A file of the archive, as the journal is to have it. Two of one name are told apart by where they stand.
    pub(super) fn source(&self, files: &str, position: u64, member: &str) -> String {
        if self.key.is_empty() { format!("{files}{member}") } else { format!("{files}{position}/{member}") }
    }

    /// A message is settled.
    pub(super) fn settle(&mut self, refused: bool, reason: &str, newest: u64) {
        self.done += 1;
        self.newest = Some(newest);
        if !refused {
            self.accepted += 1;
            return;
        }
        let reason = if self.refusals.len() < REASONS_MAX || self.refusals.contains_key(reason) { reason } else { "other reasons" };
        *self.refusals.entry(reason.to_owned()).or_default() += 1;
    }

    /// The archive is read from its beginning, also after an interruption: what is wrong with it is found again.
    pub(super) fn begin_reading(&mut self) {
        self.flaws.clear();
        self.more_flaws = 0;
    }

    /// Something is wrong with the archive.
    pub(super) fn flaw(&mut self, what: String) {
        if self.flaws.len() < FLAWS_MAX { self.flaws.push(what) } else { self.more_flaws += 1 }
    }

    /// True if all of it was read, and nothing is wrong with it or with one of its messages.
    pub(super) fn is_well(&self) -> bool {
        self.finished && self.refused() == 0 && self.flaws.is_empty()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    /// Writes it down; durable on return.
    pub(super) fn write(&self) -> Result<(), String> {
        let write = || -> std::io::Result<()> {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let draft = self.path.with_extension("new");
            let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&serde_json::to_vec(self).map_err(std::io::Error::other)?)?;
            file.sync_all()?;
            std::fs::rename(&draft, &self.path)?;
            std::fs::File::open(folder)?.sync_all()
        };
        write().map_err(|e| format!("how far it was imported cannot be written to {}: {}", self.path.display(), crate::site::words(&e)))
    }
}
