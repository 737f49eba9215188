//! Where messages come in: MLLP listeners that hand over a `Received` and carry its reply back.
//!
//! Never decides what a reply says, and never reads ahead of what the intake can take.

mod allow;
mod connection;
mod line;
mod mllp;

pub use allow::{AllowList, Network, NetworkError};
pub use line::{Line, LineClosed, WayBack};
pub use mllp::{Intake, Listener, ListenerConfig, Received, Reins, Reply, Socket};
