//! Where messages go: FHIR servers, folders, and a target that forgets, behind one enum.
//!
//! Never decides when to try again; it reports a `Receipt` or a `Setback` and the engine decides.

mod outcome;

pub use outcome::{Fault, Job, KnownId, Receipt, Retry, Saved, Setback};
