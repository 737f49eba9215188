//! FHIR R4: definitions, resources as trees, Bundles, identities and merge. Pure: no I/O, no clock.

mod definitions;
mod extension;
mod node;
mod saves;
mod table;
mod value_set;

pub use definitions::{Binding, Element, Kind, Strength, Type, type_named, types};
pub use extension::{ExtensionDef, ExtensionPart, extension, extension_names};
pub use node::Node;
pub use saves::{Identity, ListMerge, Save, SaveMode, Saves};
pub use value_set::{ValueSet, value_set, value_set_names};
