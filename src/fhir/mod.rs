//! FHIR R4: definitions, resources as trees, Bundles, identities and merge. Pure: no I/O, no clock.

mod bundle;
mod capability;
mod definitions;
mod difference;
mod extension;
mod identity;
mod json;
mod merge;
mod node;
mod patch;
mod question;
mod saves;
mod search_parameters;
mod statement;
mod table;
mod ucum;
mod value_set;

pub use bundle::{BundleKind, KnownId, Request, Step, conflict, display_bundle, links, plan, write_bundle, write_with_id};
pub use capability::{Capabilities, Shortfall, Wanted};
pub use definitions::{Binding, Element, Kind, Strength, Type, type_named, types};
pub use difference::{Change, Difference, Step as PathStep, differences};
pub use extension::{ExtensionDef, ExtensionPart, extension, extension_names};
pub use identity::{carries, delivery_id, has_identifier, put_id, search};
pub use json::{Json, SharedText};
pub use merge::merge;
pub use node::{Node, is_plain};
pub use patch::{Amendment, Patch, PatchFormat};
pub use question::{Answered, Answers, Found, Question, Resume, escape_searched};
pub use saves::{Identity, ListMerge, Save, SaveMode, Saves};
pub use search_parameters::{SEARCH_PREFIXES, SearchParameter, search_parameter, search_parameters};
pub use statement::{Aspect, Disagreement, disagreements, statements};
pub use ucum::{UCUM, is_ucum, suggest_ucum, ucum_fault};
pub use value_set::{ValueSet, value_set, value_set_names};
