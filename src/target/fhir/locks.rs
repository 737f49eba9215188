//! Two saves of one identity are never in flight together: parallel conditional creates would make two resources.
//!
//! The dispatcher keeps patients apart; this keeps apart what patients share (a practitioner, a location).

use crate::fhir::SaveMode;
use crate::target::Job;
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::sync::{Mutex, MutexGuard};

/// A fixed number of locks; identities that fall on the same one only wait for each other.
const LOCKS: usize = 1024;

pub(crate) struct IdentityLocks(Vec<Mutex<()>>);

impl IdentityLocks {
    pub(crate) fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    /// Waits until nobody else saves any of these identities. Locks are taken in ascending order, so that no two jobs wait for each other.
    pub(crate) async fn hold(&self, job: &Job<'_>) -> Vec<MutexGuard<'_, ()>> {
        let mut wanted: Vec<usize> = Vec::new();
        for (n, save) in job.saves.entries.iter().enumerate() {
            let known = job.known.get(n).is_some_and(Option::is_some);
            // What is only referred to needs no lock: else a hospital's one Organization would make all its messages wait.
            if save.mode == SaveMode::Find || (save.mode == SaveMode::CreateIfNone && known) {
                continue;
            }
            for identity in &save.identity {
                let mut hasher = DefaultHasher::new();
                (save.resource_type, &identity.system, &identity.value).hash(&mut hasher);
                wanted.push((hasher.finish() % LOCKS as u64) as usize);
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut held = Vec::with_capacity(wanted.len());
        for n in wanted {
            if let Some(lock) = self.0.get(n) {
                held.push(lock.lock().await);
            }
        }
        held
    }
}
