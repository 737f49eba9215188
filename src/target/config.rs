//! What a target must be told, as plain data. The site files are read elsewhere; secrets arrive here already read.

use crate::exchange::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// Which target, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetConfig {
    /// A FHIR R4 server.
    Fhir(FhirConfig),
    /// A folder of files.
    Folder(FolderConfig),
    /// Takes everything and keeps nothing: for measuring.
    Null,
}

/// A FHIR server.
#[derive(Clone, Debug, PartialEq)]
pub struct FhirConfig {
    /// The service base URL, `https://fhir.example/r4`; a slash at its end is ignored.
    pub base: String,
    /// How Kiln says who it is.
    pub auth: Auth,
    /// Headers for every request, such as an API key.
    pub headers: Vec<(String, Secret<String>)>,
    /// How long one request may take, the answer's body included. Connecting gets a third of it, at most 10 s.
    pub timeout: Duration,
    /// Site secret: ids made by `put by` are keyed with it, so that they tell nothing about the patient.
    pub secret: Secret<[u8; 32]>,
}

/// Credentials for a FHIR server.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// None.
    None,
    /// HTTP Basic.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// A fixed bearer token.
    Bearer(Secret<String>),
}

/// A folder of files.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderConfig {
    /// The folder; it is made if it does not exist.
    pub path: PathBuf,
    /// How the files are laid out.
    pub layout: Layout,
    /// Site secret: file names are keyed with it, so that they tell nothing about the patient.
    pub secret: Secret<[u8; 32]>,
    /// NDJSON: a file that has reached this size is set aside and a new one begun.
    pub max_file_bytes: u64,
}

/// How a folder is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `Patient/<id>.json`: each resource in its current state.
    Json,
    /// `Patient.ndjson`: each save appended as a line, as FHIR's bulk data has it.
    Ndjson,
}

/// How the entries of one message reach a FHIR server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sending {
    /// All in one transaction Bundle: all or nothing.
    #[default]
    Transaction,
    /// In batch Bundles, judged by entry; entries that refer to others follow in a Bundle of their own.
    Batch,
    /// One request per resource, in reference order.
    Single,
}

/// Why a target could not be opened. No patient data.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A setting that cannot work.
    #[error("{0}")]
    Setting(String),
    /// The folder cannot be used.
    #[error("the folder {path} cannot be used: {source}")]
    Folder {
        /// The folder as configured.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds less than the journal remembers: files were taken away or came from a backup.
    #[error("the folder holds commit {folder}, but the journal remembers commit {journal}; it was emptied or restored from a backup")]
    Behind {
        /// The folder's last commit.
        folder: u64,
        /// The journal's.
        journal: u64,
    },
}
