//! Intake, dispatch, delivery, reload and the order of shutdown.
//!
//! Never says AA without a `Stored`, and holds nothing that must survive: what is pending is the journal's word.

mod backoff;
mod breaker;
mod guard;
mod window;
