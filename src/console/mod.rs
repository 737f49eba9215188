//! HTTP for people and machines: health, metrics, figures, and one page that shows them.
//!
//! Never shows patient data, and never changes anything: every answer is to a GET.

mod page;
mod server;
mod status;

pub use server::{Pages, Server, bind};
pub use status::{ListenerFacts, RouteState, ServerFacts, TargetFacts, Watch};
