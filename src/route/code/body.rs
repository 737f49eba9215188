//! The lines of maps, resources and elements, compiled.

use crate::fhir::{self, Node};
use crate::route::code::{Line, Needs, X};
use std::sync::Arc;

/// The lines of a map, resource or element.
#[derive(Default)]
pub(crate) struct Body {
    /// The slot of `$each`; that of `$from` follows it.
    pub(crate) slot: usize,
    pub(crate) each: Option<(X, Option<X>)>,
    /// `$from`: its values before conversion, and the conversion of the current one.
    pub(crate) from_values: Option<X>,
    pub(crate) from: Option<X>,
    /// `$from` makes a resource that the lines then change: its map and type.
    pub(crate) from_resource: Option<usize>,
    pub(crate) when: Option<X>,
    pub(crate) first: Vec<Item>,
    pub(crate) value: Option<Box<Item>>,
    pub(crate) lines: Vec<BodyLine>,
    /// Elements that FHIR requires, with the v2 fields that feed them and the line.
    pub(crate) required: Vec<Required>,
    /// No line holds an expression: a body of constants is always made.
    pub(crate) constant: bool,
    /// The URL of the extension that it makes.
    pub(crate) url: Option<&'static str>,
    /// May it make more than one?
    pub(crate) many: bool,
    /// What it hangs on: if none of it was sent, the body makes nothing.
    pub(crate) needs: Needs,
    /// The v2 fields that it reads.
    pub(crate) places: Vec<String>,
    /// The FHIR type whose elements the lines are, for their order.
    pub(crate) ty: Option<fhir::Type>,
    /// What the body makes, for messages.
    pub(crate) path: Arc<str>,
}

pub(crate) struct Required {
    pub(crate) element: &'static str,
    /// For a choice: any of these.
    pub(crate) names: Vec<&'static str>,
    pub(crate) places: Vec<String>,
    pub(crate) line: Line,
}

impl Required {
    /// Is it among these elements, if only as a primitive's extensions?
    pub(crate) fn met_by(&self, elements: &[(&'static str, Node)]) -> bool {
        elements.iter().any(|(n, _)| self.names.contains(n) || n.strip_prefix('_').is_some_and(|p| self.names.contains(&p)))
    }
}

/// `element: item`.
pub(crate) struct BodyLine {
    /// Order within the type.
    pub(crate) position: u16,
    /// JSON name for items that don't bring their own (choice branches do).
    pub(crate) name: &'static str,
    pub(crate) list: bool,
    pub(crate) append: bool,
    /// All JSON names of a choice: a new branch takes the old one's place.
    pub(crate) branches: Vec<&'static str>,
    pub(crate) item: Item,
    pub(crate) needs: Needs,
    pub(crate) line: Line,
    /// Where in the line the element's name begins, from 1.
    pub(crate) column: u32,
    /// The v2 places that the right side reads, as written, for lineage.
    pub(crate) places: Vec<String>,
}

pub(crate) enum Item {
    /// Yields converted nodes.
    X(X),
    /// A constant under a JSON name.
    Constant(&'static str, Node),
    /// A nested body under a JSON name.
    Body(&'static str, Box<Body>),
    /// Each appends.
    List(Vec<Item>),
    /// Each value becomes an Extension of that URL.
    Extension(&'static str, Box<Item>),
    /// `nothing`: removes what a map made.
    Nothing,
}
