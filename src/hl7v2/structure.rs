//! The abstract syntax of a message: a tree of groups and segments, read in place.

use crate::hl7v2::Version;
use crate::hl7v2::dictionary::{string, structure_entries, structure_entry, word};

/// A node of a [`Structure`], in the order of the abstract syntax; 0 is the message itself, the outermost group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u16);

/// What the abstract syntax says of one group or segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The segment's id, or the group's name without the message prefix (`PATIENT`); the structure's id for the outermost group.
    pub name: &'static str,
    /// Group or segment?
    pub is_group: bool,
    /// A group of which exactly one child is used.
    pub is_choice: bool,
    /// At least how often.
    pub min: u32,
    /// At most how often; nothing means without limit.
    pub max: Option<u32>,
    /// The group around it; nothing for the outermost.
    pub parent: Option<NodeId>,
}

/// A message structure of a release, such as `ADT_A01` in 2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Structure {
    version: Version,
    at: u32,
    count: u32,
}

impl Structure {
    /// The outermost group: the message.
    pub const ROOT: NodeId = NodeId(0);

    /// `ADT_A01`.
    pub fn id(self) -> &'static str {
        string(word(self.at))
    }

    /// The release whose syntax this is.
    pub fn version(self) -> Version {
        self.version
    }

    /// How many nodes, the outermost group included.
    pub fn node_count(self) -> usize {
        self.count as usize
    }

    /// All nodes in the order of the abstract syntax.
    pub fn nodes(self) -> impl Iterator<Item = NodeId> {
        (0..self.count).map(|n| NodeId(u16::try_from(n).unwrap_or(u16::MAX)))
    }

    /// A node. An id from another structure gives the outermost group or a node of this one, never a panic.
    pub fn node(self, id: NodeId) -> Node {
        let at = self.word_of(id);
        let bounds = word(at + 1);
        Node {
            name: string(word(at)),
            is_group: bounds & 0x100 != 0,
            is_choice: bounds & 0x200 != 0,
            min: bounds & 0xFF,
            max: if bounds >> 16 == 0xFFFF { None } else { Some(bounds >> 16) },
            parent: u16::try_from(word(at + 2)).ok().map(NodeId),
        }
    }

    /// The children of a group in order; none for a segment.
    pub fn children(self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let end = self.end(id);
        let mut next = NodeId(id.0.saturating_add(1));
        std::iter::from_fn(move || {
            let child = next;
            (child.0 < end.0).then(|| {
                next = self.end(child);
                child
            })
        })
    }

    /// The node after the whole subtree of `id`.
    pub fn end(self, id: NodeId) -> NodeId {
        NodeId(u16::try_from(word(self.word_of(id) + 3)).unwrap_or(u16::MAX))
    }

    pub(in crate::hl7v2) fn name(self, id: NodeId) -> &'static str {
        string(word(self.word_of(id)))
    }

    pub(in crate::hl7v2) fn is_group(self, id: NodeId) -> bool {
        word(self.word_of(id) + 1) & 0x100 != 0
    }

    pub(in crate::hl7v2) fn is_choice(self, id: NodeId) -> bool {
        word(self.word_of(id) + 1) & 0x200 != 0
    }

    pub(in crate::hl7v2) fn is_required(self, id: NodeId) -> bool {
        word(self.word_of(id) + 1) & 0xFF != 0
    }

    pub(in crate::hl7v2) fn repeats(self, id: NodeId) -> bool {
        word(self.word_of(id) + 1) >> 16 > 1
    }

    fn word_of(self, id: NodeId) -> u32 {
        self.at + u32::from(id.0).min(self.count.saturating_sub(1)) * 4
    }
}

/// A structure of a release.
pub fn structure(version: Version, id: &str) -> Option<Structure> {
    structure_entry(version, id).map(|(at, count)| Structure { version, at, count })
}

/// All structures of a release, sorted by id.
pub fn structures(version: Version) -> impl Iterator<Item = Structure> {
    structure_entries(version).map(move |(at, count)| Structure { version, at, count })
}
