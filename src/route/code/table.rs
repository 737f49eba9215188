//! Code tables and `systems:` documents, ready to use.

use crate::fhir;
use crate::route::code::{Line, X};
use std::collections::HashMap;
use std::sync::Arc;

/// Keyed by what stands in route files. Messages only ask, so nobody can make it slow by choosing names, and a quick hash will do.
pub(crate) type Names<T> = HashMap<String, T, rustc_hash::FxBuildHasher>;

/// A code table, ready to use.
pub(crate) struct Table {
    pub(crate) name: Arc<str>,
    pub(crate) from: Vec<&'static str>,
    pub(crate) to: Option<fhir::ValueSet>,
    pub(crate) rows: Names<Row>,
    pub(crate) senders: Vec<(X, Names<Row>)>,
    pub(crate) unmapped: UnmappedX,
    pub(crate) columns: Vec<String>,
    /// By column: does it hold numbers?
    pub(crate) numbers: Vec<bool>,
    /// Where it stands.
    pub(crate) line: Line,
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) code: String,
    pub(crate) system: Option<String>,
    pub(crate) display: Option<String>,
    pub(crate) columns: Vec<Option<String>>,
}

#[derive(Clone)]
pub(crate) enum UnmappedX {
    Keep,
    Text,
    Drop,
    Absent,
    Refuse,
    Code(Row),
}

/// All `systems:` documents.
#[derive(Default)]
pub(crate) struct Systems {
    pub(crate) rules: Vec<SystemRule>,
    /// Rules by namespace in capitals, and by universal id, each in the order of `rules`.
    pub(crate) by_namespace: Names<Vec<usize>>,
    pub(crate) by_universal: Names<Vec<usize>>,
    pub(crate) unknown: Option<String>,
    pub(crate) missing: Option<String>,
    pub(crate) ignore: Vec<String>,
}

pub(crate) struct SystemRule {
    pub(crate) namespace: Option<String>,
    pub(crate) universal: Option<String>,
    pub(crate) types: Vec<String>,
    pub(crate) system: String,
}
