//! The open connections by which senders in enhanced mode can be told something, and how each listener wants that to be done.
//!
//! Holds nothing that must survive: what is to be told is the journal's word.

use crate::engine::peer::CONNECT_WAIT;
use crate::journal::Correspondent;
use crate::listener::Line;
use crate::site::{Enhanced, ReturnTo};
use crate::target::MllpPeer;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Senders (MSH-3 and MSH-4) that one connection is remembered for; of more, the last ones.
const SENDERS_MAX: usize = 64;

#[derive(Default)]
struct State {
    lines: HashMap<u64, Known>,
    settings: HashMap<Arc<str>, Arc<Enhanced>>,
    /// The senders' own addresses, by listener.
    peers: HashMap<Arc<str>, Arc<MllpPeer>>,
}

struct Known {
    line: Line,
    senders: VecDeque<Correspondent>,
}

/// Connections by number, settings by listener.
#[derive(Default)]
pub(super) struct Lines {
    state: Mutex<State>,
}

impl Lines {
    fn state(&self) -> MutexGuard<'_, State> {
        // Finished values: whole whatever happened to a holder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How senders of this listener are told from now on. Those of a listener that is gone are told as before.
    pub(super) fn set(&self, listener: &Arc<str>, settings: &Enhanced) {
        let mut state = self.state();
        if state.settings.get(listener).is_none_or(|known| **known != *settings) {
            state.peers.remove(listener);
        }
        if let ReturnTo::Address(address) = &settings.to
            && !state.peers.contains_key(listener)
        {
            let tls = settings.tls.as_ref().map(|(tls, name)| (tls, name.as_deref()));
            match MllpPeer::open(address, tls, CONNECT_WAIT) {
                Ok(peer) => drop(state.peers.insert(Arc::clone(listener), Arc::new(peer))),
                Err(reason) => tracing::error!(%listener, reason, "senders of this listener cannot be told what came of their messages"),
            }
        }
        state.settings.insert(Arc::clone(listener), Arc::new(settings.clone()));
    }

    /// How senders of a listener are told.
    pub(super) fn settings(&self, listener: &str) -> Arc<Enhanced> {
        self.state().settings.get(listener).cloned().unwrap_or_default()
    }

    /// The senders' own address, if the listener names one.
    pub(super) fn peer(&self, listener: &str) -> Option<Arc<MllpPeer>> {
        self.state().peers.get(listener).cloned()
    }

    /// Messages of this sender come by this connection. True if that is new.
    pub(super) fn keep(&self, whom: &Correspondent, line: &Line) -> bool {
        let mut state = self.state();
        if !state.lines.contains_key(&line.number()) {
            state.lines.retain(|_, known| known.line.is_open());
        }
        let known = state.lines.entry(line.number()).or_insert_with(|| Known { line: line.clone(), senders: VecDeque::new() });
        if known.senders.contains(whom) {
            return false;
        }
        if known.senders.len() >= SENDERS_MAX {
            known.senders.pop_front();
        }
        known.senders.push_back(whom.clone());
        true
    }

    /// The connection of that number if it is open; else the newest one of that sender.
    pub(super) fn find(&self, number: Option<u64>, whom: &Correspondent) -> Option<Line> {
        let state = self.state();
        let own = number.and_then(|number| state.lines.get(&number)).filter(|known| known.line.is_open());
        let newest = || state.lines.values().filter(|known| known.line.is_open() && known.senders.contains(whom)).max_by_key(|known| known.line.number());
        own.or_else(newest).map(|known| known.line.clone())
    }
}
