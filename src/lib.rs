//! Kiln: raw HL7 v2 goes in, fired FHIR comes out.
//!
//! The modules stand in levels; each names only lower ones (see ARCHITECTURE.md and tests/architecture.rs).

pub mod cli;
pub mod console;
pub mod credential;
pub mod diagnostic;
pub mod engine;
pub mod exchange;
pub mod fhir;
pub mod hl7v2;
pub mod journal;
pub mod listener;
pub mod metrics;
pub mod route;
pub mod site;
pub mod target;
pub mod wire;
