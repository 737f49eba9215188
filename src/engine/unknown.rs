//! Codes and authorities that nobody knows, counted in memory and stored a few times a second: counting must cost a delivery nothing.

use crate::engine::shared::now;
use crate::exchange::{Envelope, MessageId};
use crate::journal::{Journal, Unknown, UnknownList};
use crate::route::UnknownCode;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many different ones between two stores; more are left out, since the journal keeps no more either.
const WAITING_MAX: usize = 10_000;

type Key = (String, String, String, UnknownList, String);

/// What was counted since the last store.
#[derive(Default)]
pub(super) struct UnknownCodes {
    waiting: Mutex<HashMap<Key, Unknown>>,
}

impl UnknownCodes {
    /// Counts what a run did not know, once its outcome is stored: a delivery that is tried often counts once.
    pub(super) fn count(&self, envelope: &Envelope, message: MessageId, unknown: &[UnknownCode]) {
        if unknown.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for one in unknown {
            let list = one.table.as_ref().map_or(UnknownList::Systems, |name| UnknownList::Table(name.to_string()));
            let sender = (envelope.sending_application.clone(), envelope.sending_facility.clone());
            let key = (envelope.listener.to_string(), sender.0, sender.1, list, one.code.expose().clone());
            if waiting.len() >= WAITING_MAX && !waiting.contains_key(&key) {
                continue;
            }
            let (listener, application, facility, list, _) = key.clone();
            let counted = waiting.entry(key).or_insert_with(|| Unknown {
                listener,
                application,
                facility,
                list,
                code: one.code.clone(),
                place: one.place.clone(),
                count: 0,
                at: now(),
                example: message,
            });
            counted.count += 1;
            counted.at = now();
            counted.example = counted.example.max(message);
        }
    }

    /// Stores what was counted. What cannot be stored is counted again later.
    pub(super) async fn store(&self, journal: &Journal) {
        let counted: Vec<Unknown> = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect();
        if counted.is_empty() {
            return;
        }
        if let Err(error) = journal.keep_unknown(counted.clone()).await {
            tracing::warn!(%error, "unknown codes could not be counted; it is tried again");
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            for one in counted {
                let key = (one.listener.clone(), one.application.clone(), one.facility.clone(), one.list.clone(), one.code.expose().clone());
                waiting.entry(key).and_modify(|newer| newer.count += one.count).or_insert(one);
            }
        }
    }
}
