//! The listeners that run, and how a change of the site becomes a change of theirs: sockets are bound before anything changes.

use crate::engine::intake::Gate;
use crate::engine::{ApplyFault, ListenerSetup};
use crate::listener::{Listener, Opened, Reins, Socket};
use crate::metrics::Metrics;
use crate::site::ListenerSite;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A listener that runs.
pub(super) struct Door {
    pub(super) site: ListenerSite,
    pub(super) reins: Reins,
    pub(super) gate: Arc<Gate>,
    /// Ends it and its connections, in order.
    pub(super) closing: CancellationToken,
}

impl Door {
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.site.socket.name)
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.reins.socket()?.local_address().ok()
    }
}

/// A listener that goes on.
pub(super) struct Changed {
    /// Its place.
    pub(super) at: usize,
    pub(super) site: ListenerSite,
    /// Its new settings.
    pub(super) settings: Opened,
    /// Its new socket, if it moves.
    pub(super) socket: Option<Socket>,
}

/// What becomes of the listeners; everything that can fail has been done.
pub(super) struct Plan {
    /// Those that go on.
    pub(super) changed: Vec<Changed>,
    /// Those that begin.
    pub(super) opened: Vec<ListenerSetup>,
    /// Places of those that end.
    pub(super) closed: Vec<usize>,
}

/// Compares what runs with what is wanted. A listener is known by its name; one that got another name, by its address: then its
/// connections stay. A socket whose listener goes or moves is there for whoever wants its address.
pub(super) fn plan(doors: &[Door], wanted: Vec<ListenerSite>, metrics: &Arc<Metrics>) -> Result<Plan, ApplyFault> {
    let mut homes: Vec<Option<usize>> = wanted.iter().map(|w| doors.iter().position(|d| d.site.socket.name == w.socket.name)).collect();
    for (home, wanted) in homes.iter_mut().zip(&wanted).filter(|(home, wanted)| home.is_none() && wanted.socket.address.port() != 0).collect::<Vec<_>>() {
        *home = doors.iter().position(|d| d.site.socket.address == wanted.socket.address);
    }
    // Two may have found the same: one by its name, the other by its address. The name counts.
    for at in 0..homes.len() {
        let named = |n: usize| {
            homes.get(n).copied().flatten().and_then(|d| doors.get(d)).is_some_and(|d| Some(&d.site.socket.name) == wanted.get(n).map(|w| &w.socket.name))
        };
        let taken =
            homes.get(at).copied().flatten().is_some_and(|home| (0..homes.len()).any(|n| n != at && homes.get(n).copied().flatten() == Some(home) && named(n)));
        if taken
            && !named(at)
            && let Some(home) = homes.get_mut(at)
        {
            *home = None;
        }
    }
    let moves = |n: usize, door: &Door| !homes.iter().zip(&wanted).any(|(home, w)| *home == Some(n) && w.socket.address == door.site.socket.address);
    let free: Vec<(SocketAddr, Socket)> =
        doors.iter().enumerate().filter(|(n, d)| moves(*n, d)).filter_map(|(_, d)| Some((d.site.socket.address, d.reins.socket()?))).collect();
    let socket = |site: &ListenerSite| {
        let address = site.socket.address;
        match free.iter().find(|(free, socket)| address.port() != 0 && (*free == address || socket.local_address().is_ok_and(|bound| bound == address))) {
            Some((_, socket)) => Ok(socket.clone()),
            None => Socket::bind(address).map_err(|source| ApplyFault::Listener {
                listener: Arc::clone(&site.socket.name),
                address,
                source,
                ours: free.iter().any(|(free, _)| free.port() == address.port() && address.port() != 0),
            }),
        }
    };
    let mut plan = Plan { changed: Vec::new(), opened: Vec::new(), closed: (0..doors.len()).filter(|n| !homes.contains(&Some(*n))).collect() };
    for (home, site) in homes.iter().zip(&wanted) {
        let settings = Opened::read(site.socket.clone()).map_err(|what| ApplyFault::Setting { listener: Arc::clone(&site.socket.name), what })?;
        match home.and_then(|at| doors.get(at).map(|door| (at, door))) {
            Some((at, door)) => {
                let moved = door.site.socket.address != site.socket.address;
                let socket = moved.then(|| socket(site)).transpose()?;
                plan.changed.push(Changed { at, site: site.clone(), settings, socket });
            }
            None => {
                let listener = Listener::over(socket(site)?, settings, Arc::clone(metrics));
                plan.opened.push(ListenerSetup { listener, site: site.clone() });
            }
        }
    }
    Ok(plan)
}
