//! Where messages come in: listeners for MLLP and HTTP that hand over a `Received` and carry its reply back.
//!
//! Never decides what a reply says, and never reads ahead of what the intake can take.

mod allow;
mod client_name;
mod connection;
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
pub use guard::{HttpAuth, Password, User};
pub use line::{Line, LineClosed, WayBack};
pub use mllp::{Http, HttpStatus, Intake, Kind, Listener, ListenerConfig, Opened, Received, Reins, Reply, Socket};
pub use tls::{Clients, ServerTls};
