//! Where messages come in: listeners for MLLP, HTTP and folders that hand over a `Received` and carry its reply back.
//!
//! Never decides what a reply says, and never reads ahead of what the intake can take.

mod allow;
mod claim;
mod client_name;
mod connection;
mod folder;
mod greet;
mod guard;
mod http;
mod line;
mod mllp;
mod tls;

pub use crate::wire::{Framing, Tolerance};
pub use allow::{AllowList, Network, NetworkError};
pub use client_name::ClientName;
pub use connection::SMALL_BYTES;
pub use folder::Folder;
pub use guard::{HttpAuth, Password, User};
pub use line::{Line, LineClosed, WayBack};
pub use mllp::{Ack, Http, HttpStatus, Intake, Kind, Listener, ListenerConfig, Opened, Peer, Place, Received, Reins, Reply, Socket, Taken};
pub use tls::{Clients, ServerTls};
