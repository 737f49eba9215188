//! A FHIR server behind its REST interface (<https://hl7.org/fhir/R4/http.html>): transaction, batch, or one request per resource.
//!
//! Patient data travels in bodies and headers; a URL holds types and logical ids only.

pub(crate) mod access;
pub(crate) mod answer;
mod ask;
mod browse;
pub(crate) mod connection;
mod der;
pub(crate) mod failure;
pub(crate) mod http;
pub(crate) mod judge;
mod key;
mod locks;
pub(crate) mod pace;
mod pieces;
mod read;
mod stepwise;
mod token;
mod transaction;

pub use browse::{PageFault, Search};
pub use key::SigningKey;

use crate::exchange::{Phi, Secret};
use crate::fhir::{Capabilities, PatchFormat, SaveMode, Saves, Step, plan};
use crate::target::{Fault, FhirConfig, Job, Receipt, Retry, Saved, Sending, Setback, TargetError};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// A FHIR server.
pub struct FhirTarget {
    client: connection::Connection,
    access: access::Access,
    pace: Option<pace::Pace>,
    /// Without a slash at its end.
    base: String,
    secret: Secret<[u8; 32]>,
    locks: locks::IdentityLocks,
    /// How the server takes patches.
    patch: Option<PatchFormat>,
    /// Becomes false when the server turns out not to take them.
    takes_patches: AtomicBool,
    /// Becomes false when the server turns out not to take `POST _search`.
    post_search: AtomicBool,
    /// It has answered something as only a FHIR server's base does.
    proven: AtomicBool,
    /// Told whenever the server has answered.
    reached: Notify,
}

impl FhirTarget {
    /// Checks the settings and prepares the connection pool; asks the server nothing.
    pub fn open(config: FhirConfig) -> Result<Self, TargetError> {
        let base = config.base.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base).map_err(|e| TargetError::Setting(format!("the FHIR base URL cannot be read: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Setting("a FHIR base URL is http(s)://host/path, without user, password and query".to_owned()));
        }
        let client = connection::Connection::open(&config.http())?;
        let access = access::Access::open(&config.http(), &base)?;
        let pace = config.rate.map(pace::Pace::new);
        Ok(Self {
            client,
            access,
            pace,
            base,
            secret: config.secret,
            locks: locks::IdentityLocks::new(),
            patch: config.patch,
            takes_patches: AtomicBool::new(true),
            post_search: AtomicBool::new(true),
            proven: AtomicBool::new(false),
            reached: Notify::new(),
        })
    }

    /// One attempt at a delivery.
    pub async fn deliver(&self, job: Job<'_>, send: Sending) -> Result<Receipt, Setback> {
        let _guard = self.locks.hold(&job).await;
        let mut work = Work::new(&job, self.secret.expose())?;
        let result = match send {
            Sending::Transaction => self.transaction(&mut work).await,
            Sending::Batch | Sending::Single => self.stepwise(&mut work, send).await,
        };
        match result {
            Ok(()) => Ok(work.receipt()),
            Err(mut setback) => {
                if let Some(elsewhere) = self.is_no_base(&setback).await {
                    setback = elsewhere;
                }
                setback.stale.append(&mut work.stale);
                setback.stale.sort_unstable();
                setback.stale.dedup();
                // What was only read before a transaction that failed is read anew next time.
                if send != Sending::Transaction || work.committed {
                    setback.saved.append(&mut work.saved);
                }
                Err(setback)
            }
        }
    }

    /// As long as it has never done what was asked, a refusal may come from something that is no FHIR server's base, with an OperationOutcome or
    /// not: an address with a word too many. Then it is the target's fault, and no message's.
    async fn is_no_base(&self, setback: &Setback) -> Option<Setback> {
        let refused = setback.fault == Fault::Message && matches!(setback.status, Some(400 | 404 | 405 | 410 | 422));
        if !refused || self.proven.load(Ordering::Relaxed) {
            return None;
        }
        match self.capabilities().await {
            Ok(_) => None,
            Err(unlike) if unlike.status.is_some_and(|status| status == 200 || (400..500).contains(&status)) => {
                let status = setback.status.unwrap_or_default();
                let summary =
                    format!("the server answered {status}, and its base URL has no CapabilityStatement: the address of the target is no FHIR server's base");
                Some(Setback { retry: Retry::Transient, fault: Fault::Target, code: "no-fhir-base", summary, ..unlike })
            }
            Err(_) => None,
        }
    }

    /// Asks whether the server is there.
    pub async fn probe(&self) -> Result<(), Setback> {
        self.capabilities().await.map(|_| ())
    }

    /// Waits until the server has answered something, whatever it was, since the last time that somebody waited.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Reads the CapabilityStatement.
    pub async fn capabilities(&self) -> Result<Capabilities, Setback> {
        let answer = self.send(self.client.get(format!("{}/metadata", self.base)), http::Effect::Reads).await?;
        match answer.body.as_ref().and_then(Capabilities::read) {
            Some(capabilities) if answer.status == 200 => Ok(capabilities),
            _ if answer.status == 200 => {
                Err(answer.setback(Retry::Transient, Fault::Target, "not-fhir", "the base URL answers, but has no CapabilityStatement"))
            }
            _ => Err(judge::setback(&answer, judge::Asked::Endpoint, "the request for the CapabilityStatement").reading()),
        }
    }

    /// The server answered, whatever it said.
    fn was_reached(&self) {
        self.reached.notify_one();
    }

    /// It did what was asked, and said so in FHIR: its base is the right one.
    fn was_proven(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    fn takes_post_search(&self) -> bool {
        self.post_search.load(Ordering::Relaxed)
    }

    fn never_patch_again(&self) {
        if self.takes_patches.swap(false, Ordering::Relaxed) {
            tracing::warn!("the server refuses patches and takes whole resources: `patch by` is written as `merge by` until kiln starts again");
        }
    }

    fn never_post_search_again(&self) {
        self.post_search.store(false, Ordering::Relaxed);
    }
}

/// One attempt under way: the steps as they become known, and what is done already.
pub(crate) struct Work<'a> {
    job: &'a Job<'a>,
    saves: &'a Saves,
    secret: &'a [u8; 32],
    steps: Vec<Step>,
    /// Entries whose step came from a known id.
    known: Vec<bool>,
    saved: Vec<Saved>,
    stale: Vec<usize>,
    /// A transaction was accepted: what `saved` says is on the server, whatever else went wrong.
    committed: bool,
}

impl<'a> Work<'a> {
    fn new(job: &'a Job<'a>, secret: &'a [u8; 32]) -> Result<Self, Setback> {
        let mut steps = plan(job.saves, secret, job.known);
        let known = (0..steps.len()).map(|n| job.known.get(n).is_some_and(Option::is_some)).collect();
        for done in job.done {
            if let Some(step) = steps.get_mut(done.entry) {
                *step = Step::Refer(format!("{}/{}", done.resource_type, done.id));
            }
        }
        let doubtful = |(save, step): (&crate::fhir::Save, &Step)| save.mode == SaveMode::Create && step.writes();
        if let Some(n) = job.saves.entries.iter().zip(&steps).position(doubtful).filter(|_| job.after_ambiguous) {
            let name = &job.saves.entries[n].name;
            return Err(Setback {
                retry: Retry::Permanent,
                fault: Fault::Message,
                retry_after: None,
                status: None,
                code: "doubtful-create",
                summary: format!(
                    "an earlier attempt had no answer, and '{name}' is created without an identity: it may exist already, and nothing tells it from a second one"
                ),
                detail: None,
                stale: Vec::new(),
                saved: Vec::new(),
                sent: Vec::new(),
                about: Vec::new(),
            });
        }
        Ok(Self { job, saves: job.saves, secret, steps, known, saved: Vec::new(), stale: Vec::new(), committed: false })
    }

    /// Remembers an entry that is on the server as we want it.
    fn note(&mut self, entry: usize, id: &str, etag: Option<String>, status: u16) {
        let Some(save) = self.saves.entries.get(entry) else { return };
        self.saved.retain(|s| s.entry != entry);
        self.saved.push(Saved { entry, resource_type: save.resource_type, id: id.to_owned(), etag, status });
    }

    fn forget(&mut self, entry: usize) {
        if self.job.known.get(entry).is_some_and(Option::is_some) {
            self.stale.push(entry);
        }
    }

    fn receipt(mut self) -> Receipt {
        for done in self.job.done {
            if !self.saved.iter().any(|s| s.entry == done.entry) {
                self.saved.push(done.clone());
            }
        }
        for (n, (save, step)) in self.saves.entries.iter().zip(&self.steps).enumerate() {
            // Not written, but referred to by a known id: said again, so that the engine learns the identity's other values.
            if let (Step::Refer(_), Some(id), false) = (step, step.id(), self.saved.iter().any(|s| s.entry == n)) {
                let etag = self.job.known.get(n).and_then(|k| k.as_ref()).filter(|k| k.id == id).and_then(|k| k.etag.clone());
                self.saved.push(Saved { entry: n, resource_type: save.resource_type, id: id.to_owned(), etag, status: 200 });
            }
        }
        self.saved.retain(|s| !self.stale.contains(&s.entry) || self.job.known.get(s.entry).and_then(|k| k.as_ref()).is_none_or(|k| k.id != s.id));
        self.saved.sort_by_key(|s| s.entry);
        self.stale.sort_unstable();
        self.stale.dedup();
        Receipt { saved: self.saved, stale: self.stale, ..Receipt::default() }
    }
}

impl Setback {
    /// A read never changes anything: whatever went wrong, nothing was done.
    fn reading(mut self) -> Self {
        if self.retry == Retry::Ambiguous {
            self.retry = Retry::Transient;
        }
        self
    }

    /// The same, and which entries the request held.
    fn about(mut self, entries: &[usize]) -> Self {
        self.about = entries.to_vec();
        self
    }

    fn with_detail(mut self, detail: String) -> Self {
        self.detail = Some(Phi::new(detail));
        self
    }
}
