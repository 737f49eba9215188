//! FHIR R4: definitions, resources as trees, Bundles, identities and merge. Pure: no I/O, no clock.

mod node;
mod saves;

pub use node::Node;
pub use saves::{Identity, ListMerge, Save, SaveMode, Saves};
