//! The compiled form of questions (`ask`), and of paths through FHIR values (sections 4 and 10 of the language).

use crate::fhir::Type;
use crate::route::code::{Line, X};
use crate::route::tree::Index;
use std::sync::Arc;

/// One question of a route.
pub(crate) struct AskX {
    pub(crate) name: Arc<str>,
    pub(crate) resource: Type,
    /// The target that is asked.
    pub(crate) target: Arc<str>,
    pub(crate) when: Option<X>,
    pub(crate) parameters: Vec<ParameterX>,
    /// `_count`: at most so many.
    pub(crate) count: Option<X>,
    pub(crate) continues: Option<X>,
    /// `$none: refuse`.
    pub(crate) refuses_none: bool,
    pub(crate) several: Several,
    pub(crate) cache_seconds: Option<u64>,
    pub(crate) timeout_seconds: Option<u64>,
    /// The v2 places that its parameters read.
    pub(crate) places: Vec<String>,
    pub(crate) line: Line,
}

/// What several matches mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Several {
    All,
    First,
    Refuse,
}

/// A search parameter.
pub(crate) struct ParameterX {
    /// As written, with modifiers and chains.
    pub(crate) name: String,
    /// `token`, `date`, ... at its end.
    pub(crate) kind: &'static str,
    pub(crate) value: SearchedX,
}

/// What a parameter is to be.
pub(crate) enum SearchedX {
    /// As written in the route.
    Constant(String),
    /// Several values mean any of them. `made`: text that an expression makes may hold system and code.
    X { x: X, made: bool },
}

/// One step of a path through a FHIR value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ElementStep {
    /// An element: its JSON names, and the type of each.
    Element(Vec<(&'static str, Type)>),
    Index(Index),
    /// Those of that type.
    Of(Type),
    /// The resources of that type that references lead to.
    Follow(Type),
}
