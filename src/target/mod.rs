//! Where messages go: FHIR servers, receivers of HL7 v2, folders, and a target that forgets, behind one enum.
//!
//! Never decides when to try again; it reports a `Receipt` or a `Setback` and the engine decides.

#![allow(clippy::result_large_err, reason = "a setback is rare, and made once per attempt")]

mod config;
mod fhir;
mod folder;
mod outcome;
mod tls;
mod v2;

pub use crate::credential::{SecretSource, TlsVersion};
use crate::fhir::{Found, Question, Resume};
pub use crate::fhir::{KnownId, PatchFormat};
pub use config::{
    Auth, ClientProof, Expect, FhirConfig, FolderConfig, HttpConfig, Layout, MllpConfig, Proxy, RETRY_ON, Rate, Sending, TargetConfig, TargetError, Tls,
    TokenConfig, V2Config, V2Way,
};
pub use fhir::{FhirTarget, PageFault, Search, SigningKey};
pub use folder::FolderTarget;
pub use outcome::{Fault, Job, Receipt, Retry, Saved, Sent, Setback, Stage};
pub use v2::{Heard, HttpSender, MllpConnection, MllpPeer, NoConnection, Silence, V2Target, is_host_and_port};

/// An open target. Cheap to share behind an `Arc`; all methods may run at the same time.
pub enum Target {
    /// A FHIR server.
    Fhir(FhirTarget),
    /// A receiver of HL7 v2.
    V2(V2Target),
    /// A folder.
    Folder(FolderTarget),
    /// Takes everything and keeps nothing.
    Null,
}

impl Target {
    /// Opens a target: checks settings and makes folders, but asks no server, so that a server that is down stops no start.
    pub fn open(config: TargetConfig) -> Result<Self, TargetError> {
        match config {
            TargetConfig::Fhir(config) => FhirTarget::open(config).map(Self::Fhir),
            TargetConfig::V2(config) => V2Target::open(config).map(Self::V2),
            TargetConfig::Folder(config) => FolderTarget::open(config).map(Self::Folder),
            TargetConfig::Null => Ok(Self::Null),
        }
    }

    /// Tells the target what the journal remembers of it (the last [`Receipt::state`]), once, before the first delivery.
    pub fn resume(&self, state: &str) -> Result<(), TargetError> {
        match self {
            Self::Folder(folder) => folder.resume(state),
            Self::Fhir(_) | Self::V2(_) | Self::Null => Ok(()),
        }
    }

    /// One attempt at a delivery. A folder takes `send` as it comes: all of a message is written together.
    ///
    /// The future must be driven to its end once polled: dropped half-way, an attempt is ambiguous.
    pub async fn deliver(&self, job: Job<'_>, send: Sending) -> Result<Receipt, Setback> {
        match self {
            Self::Fhir(_) if !job.drafts.is_empty() => Err(outcome::takes_no_messages("a FHIR server")),
            Self::Fhir(server) => server.deliver(job, send).await,
            Self::V2(_) if !job.saves.entries.is_empty() => Err(outcome::takes_no_resources()),
            Self::V2(receiver) => receiver.deliver(&job).await,
            Self::Folder(folder) => folder.deliver(job).await,
            Self::Null => Ok(Receipt::default()),
        }
    }

    /// Asks a route's question, from its beginning or from where an earlier answer ended. Only FHIR servers can be searched.
    ///
    /// # Errors
    /// A [`Setback`], as of a delivery.
    pub async fn ask(&self, question: &Question, resume: Option<&Resume>) -> Result<Found, Setback> {
        match self {
            Self::Fhir(server) => server.ask(question, resume).await,
            Self::Folder(_) | Self::V2(_) | Self::Null => Err(outcome::cannot_be_searched()),
        }
    }

    /// Asks whether the target is there, without writing: for a breaker's probe.
    pub async fn probe(&self) -> Result<(), Setback> {
        match self {
            Self::Fhir(server) => server.probe().await,
            Self::V2(receiver) => receiver.probe().await,
            Self::Folder(folder) => folder.probe(),
            Self::Null => Ok(()),
        }
    }
}
