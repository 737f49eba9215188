//! How a journal is opened, and why it may refuse.

use crate::exchange::Envelope;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Makes the words that a message is found by (patient identifiers as the operator will type them). The journal keeps keyed hashes of them only.
pub type Indexer = Arc<dyn Fn(&Envelope) -> Vec<String> + Send + Sync>;

/// Is told of every commit, on the writer's thread: it must be quick.
pub type Observer = Arc<dyn Fn(CommitReport) + Send + Sync>;

/// One group commit.
#[derive(Clone, Copy, Debug)]
pub struct CommitReport {
    /// From the begin of the transaction to the end of its fsync.
    pub took: Duration,
    /// Messages stored by it.
    pub messages: usize,
    /// Settlements stored by it.
    pub settlements: usize,
}

/// How a journal is opened.
#[derive(Clone)]
pub struct Options {
    /// The journal's folder; made (mode 0700) if it does not exist.
    pub path: PathBuf,
    /// How long settled messages are kept.
    pub keep: Duration,
    /// How many bytes the journal may have before the oldest settled messages go, although they are younger than `keep`.
    pub keep_bytes: Option<u64>,
    /// A segment that has grown past this many bytes takes no more messages.
    pub segment_bytes: u64,
    /// Free bytes below which nothing is accepted; `None` means 5 % of the disk or 1 GiB, whichever is more.
    pub low_water: Option<u64>,
    /// Free bytes from which on messages are accepted again after that; at least `low_water`. `None` means a tenth more than `low_water`.
    pub high_water: Option<u64>,
    /// The most that a write-ahead log may grow before it is folded back whatever readers do.
    pub wal_bytes_max: u64,
    /// The most deliveries that may wait, all targets together.
    pub backlog_max: Option<u64>,
    /// With so many left messages are accepted again after that. `None` means nine tenths of `backlog_max`.
    pub backlog_resume: Option<u64>,
    /// Allows a network file system, where locks and fsync often do not hold.
    pub allow_network_file_system: bool,
    /// Makes messages findable by patient.
    pub indexer: Option<Indexer>,
    /// Is told of every commit.
    pub observer: Option<Observer>,
}

impl Options {
    /// The defaults of docs/limits.md: 30 days, segments of 1 GiB, a log of at most 256 MiB, no limit to the backlog but the disk.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            keep: Duration::from_secs(30 * 24 * 3600),
            keep_bytes: None,
            segment_bytes: 1 << 30,
            low_water: None,
            high_water: None,
            wal_bytes_max: 256 << 20,
            backlog_max: None,
            backlog_resume: None,
            allow_network_file_system: false,
            indexer: None,
            observer: None,
        }
    }
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another kiln (process {process}) uses the journal in {path}")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Its process id as written in the lock file; `?` if unreadable.
        process: String,
    },
    /// The folder is on a network file system.
    #[error("{path} is on a network file system ({kind}), where a commit may not be durable; force it only if you are sure")]
    NetworkFileSystem {
        /// The folder.
        path: PathBuf,
        /// Its kind, such as `nfs`.
        kind: &'static str,
    },
    /// A file is not Kiln's.
    #[error("{path} is not a file of a Kiln journal")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file was written by a newer Kiln.
    #[error("{path} was written by a newer kiln (format {found}; this one knows {known})")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The highest that this program can read.
        known: i64,
    },
    /// There is no journal.
    #[error("there is no journal in {path}; `kiln serve` makes one")]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{path}: {source}")]
    Io {
        /// What it was about.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The database said no.
    #[error("{path}: the database cannot be opened ({code})")]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's name for the error.
        code: String,
    },
}
