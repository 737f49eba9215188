//! The listeners that run, and how a change of the site becomes a change of theirs: sockets are bound before anything changes.

use crate::engine::intake::Gate;
use crate::engine::lines;
use crate::engine::{ApplyFault, ListenerSetup};
use crate::listener::{Listener, Opened, Place, Reins, Socket};
use crate::metrics::Metrics;
use crate::site::ListenerSite;
use crate::target::MllpPeer;
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
    /// Where its senders are told what came of their messages, if that is an address.
    pub(super) peer: Option<MllpPeer>,
}

/// What becomes of the listeners; everything that can fail has been done.
pub(super) struct Plan {
    /// Those that go on.
    pub(super) changed: Vec<Changed>,
    /// Those that begin, each with the address at which its senders are told, if that is one.
    pub(super) opened: Vec<(ListenerSetup, Option<MllpPeer>)>,
    /// Places of those that end.
    pub(super) closed: Vec<usize>,
}

/// Compares what runs with what is wanted. A listener is known by its name; one that got another name, by its place: then its connections
/// stay. A socket whose listener goes or moves is there for whoever wants its address. A folder's listener does not move: another begins.
pub(super) fn plan(doors: &[Door], wanted: Vec<ListenerSite>, metrics: &Arc<Metrics>) -> Result<Plan, ApplyFault> {
    let named =
        |site: &ListenerSite| doors.iter().position(|d| d.site.socket.name == site.socket.name && can_become(&d.site.socket.place(), &site.socket.place()));
    let mut homes: Vec<Option<usize>> = wanted.iter().map(named).collect();
    let by_name = homes.clone();
    for (home, site) in homes.iter_mut().zip(&wanted).filter(|(home, site)| home.is_none() && !is_any_port(&site.socket.place())) {
        // One that somebody found by its name is taken.
        *home = doors.iter().position(|d| d.site.socket.place() == site.socket.place()).filter(|found| !by_name.contains(&Some(*found)));
    }
    let moves = |at: usize, door: &Door| !homes.iter().zip(&wanted).any(|(home, w)| *home == Some(at) && w.socket.place() == door.site.socket.place());
    let free: Vec<(SocketAddr, Socket)> =
        doors.iter().enumerate().filter(|(at, d)| moves(*at, d)).filter_map(|(_, d)| Some((d.site.socket.address, d.reins.socket()?))).collect();
    let socket = |site: &ListenerSite| {
        let Place::Socket(address) = site.socket.place() else { return Ok(None) };
        match free.iter().find(|(free, socket)| address.port() != 0 && (*free == address || socket.local_address().is_ok_and(|bound| bound == address))) {
            Some((_, socket)) => Ok(Some(socket.clone())),
            None => Socket::bind(address).map(Some).map_err(|source| ApplyFault::Listener {
                listener: Arc::clone(&site.socket.name),
                address,
                source,
                ours: free.iter().any(|(free, _)| free.port() == address.port() && address.port() != 0),
            }),
        }
    };
    let mut plan = Plan { changed: Vec::new(), opened: Vec::new(), closed: (0..doors.len()).filter(|at| !homes.contains(&Some(*at))).collect() };
    for (home, site) in homes.iter().zip(&wanted) {
        let fault = |what| ApplyFault::Setting { listener: Arc::clone(&site.socket.name), what };
        let settings = Opened::read(site.socket.clone()).map_err(fault)?;
        let peer = lines::way_back(&site.enhanced).map_err(fault)?;
        match home.and_then(|at| doors.get(at).map(|door| (at, door))) {
            Some((at, door)) => {
                let moved = door.site.socket.place() != site.socket.place();
                let socket = if moved { socket(site)? } else { None };
                plan.changed.push(Changed { at, site: site.clone(), settings, socket, peer });
            }
            None => {
                let listener = Listener::over(socket(site)?, settings, Arc::clone(metrics));
                plan.opened.push((ListenerSetup { listener, site: site.clone() }, peer));
            }
        }
    }
    Ok(plan)
}

/// A port takes the place of a port, and a folder only its own.
fn can_become(was: &Place, is: &Place) -> bool {
    was == is || matches!((was, is), (Place::Socket(_), Place::Socket(_)))
}

fn is_any_port(place: &Place) -> bool {
    matches!(place, Place::Socket(address) if address.port() == 0)
}
