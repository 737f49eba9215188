//! A resource under construction: a small tree with borrowed element names, written to JSON in one pass.

/// A JSON value of a FHIR resource. Element names are borrowed from the packed definitions.
/// Numbers keep the text that the sender wrote, so that `1.50` stays `1.50`.
#[derive(Clone, PartialEq)]
pub enum Node {
    /// Elements in FHIR's order.
    Object(Vec<(&'static str, Node)>),
    /// Entries of a repeating element.
    List(Vec<Node>),
    /// Any primitive that JSON writes as a string.
    Text(String),
    /// A decimal or integer, as written.
    Number(String),
    /// A boolean.
    Bool(bool),
    /// The `reference` string of a Reference to another entry of the same [`crate::fhir::Saves`], by its index.
    /// Each way of sending writes it differently: `urn:uuid:` in a transaction, `Type/id` where the id is known.
    Link(usize),
}
