//! What a route asks a FHIR target to do: the resources of one message, and how each is to be saved.

use crate::fhir::Node;

/// Everything that one message asks of one target, in the order of the route's `resources`.
#[derive(Clone, PartialEq, Default)]
pub struct Saves {
    /// The resources; a [`Node::Link`] is an index into this list.
    pub entries: Vec<Save>,
}

/// One resource and how to save it.
#[derive(Clone, PartialEq)]
pub struct Save {
    /// The resource's name in the route, with its place when it repeats: `patient`, `observation[2]`.
    pub name: String,
    /// `Patient`.
    pub resource_type: &'static str,
    /// What the route's `$save` says.
    pub mode: SaveMode,
    /// The values that make this resource the same one next time, in order of preference. Empty only for [`SaveMode::Create`].
    pub identity: Vec<Identity>,
    /// The resource as JSON will have it, `resourceType` first, without `id`.
    pub body: Node,
    /// For merge and patch: paths of element names that the sender deleted with `""`, such as `["maritalStatus"]`.
    pub deletes: Vec<Vec<&'static str>>,
    /// For merge and patch: how lists meet. An element that is not named here is replaced.
    pub merge: Vec<(&'static str, ListMerge)>,
    /// For merge and patch: elements (an Object) that count only when the resource is created.
    pub initial: Option<Node>,
}

/// A business identifier in FHIR's token form, `system|value`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The URI of the naming system; never empty.
    pub system: String,
    /// The value within it; never empty.
    pub value: String,
}

/// The verbs of `$save`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveMode {
    /// Created each time; the journal's receipt is what keeps it from being made twice.
    Create,
    /// `create by`: created only if none has the identity; otherwise the existing one is referred to and left alone.
    CreateIfNone,
    /// `update by`: conditional update with the whole resource.
    Update,
    /// `merge by`: read, change only what the route maps, write with If-Match.
    Merge,
    /// `patch by`: as merge, but only what changes is sent, guarded by If-Match or by `test` operations.
    Patch,
    /// `put by`: PUT to an id made from the identity and the site's secret.
    Put,
    /// `find by`: never written, only referred to.
    Find,
    /// `delete by`: deleted, if there is one.
    Delete,
}

impl SaveMode {
    /// True if the stored resource is read first, and only what the route maps changes in it.
    pub fn keeps_the_rest(self) -> bool {
        matches!(self, Self::Merge | Self::Patch)
    }
}

/// How a list of the stored resource meets the list that the route made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListMerge {
    /// The new list takes the old one's place.
    Replace,
    /// Entries that are new are added; an entry with the same identity (for Identifier: system and value) takes the old one's place.
    Union,
    /// `by ELEMENT`: entries with an equal value of that element are the same entry.
    By(&'static str),
}
