//! The open connections by which senders in enhanced mode can be told something, and how each listener wants that to be done.
//!
//! Holds nothing that must survive: what is to be told is the journal's word.

use crate::engine::peer::CONNECT_WAIT;
use crate::journal::Sender;
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
    senders: VecDeque<Sender>,
}

/// The senders' own address, if the settings name one, with its certificates; nothing is connected to.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn way_back(settings: &Enhanced) -> Result<Option<MllpPeer>, String> {
    let ReturnTo::Address(address) = &settings.to else { return Ok(None) };
    let tls = settings.tls.as_ref().map(|(tls, name)| (tls, name.as_deref()));
    MllpPeer::open(address, tls, CONNECT_WAIT).map(Some).map_err(|what| format!("`enhanced: {{ to }}`: {what}"))
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

    /// How senders of this listener are told from now on, and their own address if there is one ([`way_back`]). Those of a listener that is gone
    /// are told as before.
    pub(super) fn set(&self, listener: &Arc<str>, settings: &Enhanced, peer: Option<MllpPeer>) {
        let mut state = self.state();
        match peer {
            Some(peer) => drop(state.peers.insert(Arc::clone(listener), Arc::new(peer))),
            None => drop(state.peers.remove(listener)),
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
    pub(super) fn keep(&self, whom: &Sender, line: &Line) -> bool {
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

    /// The connection of that number if it is open and this sender's; else the newest one of that sender.
    pub(super) fn find(&self, number: Option<u64>, whom: &Sender) -> Option<Line> {
        let state = self.state();
        // A clock that went back may have given the number to somebody else's connection.
        let theirs = |known: &&Known| known.line.is_open() && known.senders.contains(whom);
        let own = number.and_then(|number| state.lines.get(&number)).filter(theirs);
        let newest = || state.lines.values().filter(theirs).max_by_key(|known| known.line.number());
        own.or_else(newest).map(|known| known.line.clone())
    }
}
