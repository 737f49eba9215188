//! Intake, dispatch, delivery, reload and the order of shutdown.
//!
//! Never says AA without a `Stored`, and holds nothing that must survive: what is pending is the journal's word.

mod acknowledgement;
mod answering;
mod application_acknowledgements;
mod asking;
mod attempt_asks;
mod backoff;
mod batch;
mod breaker;
mod config;
mod delivery;
mod dispatch;
mod doors;
mod files;
mod guard;
mod intake;
mod judge;
mod keys;
mod lines;
mod mapping;
mod pacts;
mod peer;
mod receipt;
mod refusal;
mod reload;
mod replies;
mod routes;
mod shared;
mod start;
mod terms;
mod told;
mod unknown;
mod window;

pub use config::{EngineConfig, ListenerSetup, TargetSetup};
pub use files::FromFile;
pub use judge::{Door, Verdict, judge};
pub use keys::{deliveries, keys_by};
pub use mapping::remake;
pub use receipt::answered;
pub use refusal::{Complaint, complaints};
pub use reload::{ApplyFault, Change};
pub use routes::{Routes, RoutesFault};
pub use start::{Engine, Shutdown, StartFault};
