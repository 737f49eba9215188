//! A resource under construction: a small tree with borrowed element names, written to JSON in one pass.

use crate::fhir::{Json, Kind, SharedText, Type};
use serde_json::{Map, Number, Value};
use std::str::FromStr;

/// A JSON value of a FHIR resource. Element names are borrowed from the packed definitions.
/// Numbers keep the text that the sender wrote, so that `1.50` stays `1.50`.
// The kind takes a whole word, so that a node is copied in whole words: nodes are moved just after they were written.
#[derive(Clone)]
#[repr(u64)]
pub enum Node {
    /// Elements in FHIR's order.
    Object(Vec<(&'static str, Node)>),
    /// Entries of a repeating element.
    List(Vec<Node>),
    /// Any primitive that JSON writes as a string.
    Text(String),
    /// The same, where the text is large and stands in the message: it is not copied.
    Shared(SharedText),
    /// A decimal or integer, as written. Make it with [`Node::number`], which refuses what JSON cannot hold.
    Number(String),
    /// A boolean.
    Bool(bool),
    /// A gap in a list of primitives: what belongs there stands in the companion list, `_given` (<https://hl7.org/fhir/R4/json.html#primitive>).
    Null,
    /// The `reference` string of a Reference to another entry of the same [`crate::fhir::Saves`], by its index.
    /// Each way of sending writes it differently: `urn:uuid:` in a transaction, `Type/id` where the id is known.
    Link(usize),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(a), Self::Object(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Text(a), Self::Text(b)) | (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Shared(a), Self::Shared(b)) => a == b,
            (Self::Text(a), Self::Shared(b)) | (Self::Shared(b), Self::Text(a)) => a.as_bytes() == b.bytes(),
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Link(a), Self::Link(b)) => a == b,
            (Self::Null, Self::Null) => true,
            _ => false,
        }
    }
}

/// A resource is patient data: it prints as a placeholder.
impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<resource>")
    }
}

impl Node {
    /// A number, if the text is one in JSON's grammar (RFC 8259, section 6): `1.50`, `-3`, `1.0e+2`; not `+1`, `.5`, `01`.
    pub fn number(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
        (plain && Number::from_str(text).is_ok()).then(|| Self::Number(text.to_owned()))
    }

    /// The element of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(elements) => elements.iter().find(|(n, _)| *n == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Shared(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// True if it holds no value at all: FHIR has no empty strings, objects or arrays (<https://hl7.org/fhir/R4/json.html>).
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Object(elements) => elements.iter().all(|(_, node)| node.is_empty()),
            Self::List(entries) => entries.iter().all(Self::is_empty),
            Self::Text(text) => text.is_empty(),
            Self::Null => true,
            Self::Shared(_) | Self::Number(_) | Self::Bool(_) | Self::Link(_) => false,
        }
    }

    /// Calls `visit` for each link in the tree.
    pub fn links(&self, visit: &mut dyn FnMut(usize)) {
        match self {
            Self::Object(elements) => elements.iter().for_each(|(_, node)| node.links(visit)),
            Self::List(entries) => entries.iter().for_each(|node| node.links(visit)),
            Self::Link(entry) => visit(*entry),
            Self::Text(_) | Self::Shared(_) | Self::Number(_) | Self::Bool(_) | Self::Null => {}
        }
    }

    /// The same tree without the References whose links `keep` refuses. What cannot be without such a Reference (`Patient.link` without its
    /// `other`), and what becomes empty, is left out, too. `t` is the tree's own type.
    pub fn without_links(&self, keep: &dyn Fn(usize) -> bool, t: Option<Type>) -> Option<Self> {
        match self {
            Self::Object(elements) => {
                // A Reference without its `reference` is nothing but a display text: it goes as a whole.
                if elements.iter().any(|(_, node)| matches!(node, Self::Link(n) if !keep(*n))) {
                    return None;
                }
                let mut left = Vec::new();
                for (name, node) in elements {
                    let property = t.and_then(|t| t.property(name));
                    match node.without_links(keep, property.map(|(_, t)| t)) {
                        Some(node) => left.push((*name, node)),
                        None if property.is_some_and(|(e, _)| e.min() > 0) && t.is_some_and(|t| t.kind() != Kind::Resource) => return None,
                        None => {}
                    }
                }
                (elements.is_empty() || !left.is_empty()).then_some(Self::Object(left))
            }
            Self::List(entries) => {
                let left: Vec<_> = entries.iter().filter_map(|node| node.without_links(keep, t)).collect();
                (entries.is_empty() || !left.is_empty()).then_some(Self::List(left))
            }
            Self::Link(n) => keep(*n).then_some(Self::Link(*n)),
            Self::Text(_) | Self::Shared(_) | Self::Number(_) | Self::Bool(_) | Self::Null => Some(self.clone()),
        }
    }

    /// Appends the JSON text. `link` gives the reference string for an entry.
    pub fn write(&self, json: &mut Json, link: &dyn Fn(usize) -> String) {
        let out = json.text();
        match self {
            Self::Object(elements) => {
                if elements.is_empty() {
                    out.push(b'{');
                }
                for (n, (name, node)) in elements.iter().enumerate() {
                    let out = json.text();
                    // Element names are letters, and `[x]` never gets here: nothing to escape.
                    out.extend_from_slice(if n == 0 { b"{\"" } else { b",\"" });
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(b"\":");
                    node.write(json, link);
                }
                json.text().push(b'}');
            }
            Self::List(entries) => {
                for (n, node) in entries.iter().enumerate() {
                    json.text().push(if n == 0 { b'[' } else { b',' });
                    node.write(json, link);
                }
                let out = json.text();
                if entries.is_empty() {
                    out.push(b'[');
                }
                out.push(b']');
            }
            Self::Text(text) => write_text(text, out),
            Self::Shared(text) => {
                out.push(b'"');
                json.share(text.bytes());
                json.text().push(b'"');
            }
            Self::Number(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Null => out.extend_from_slice(b"null"),
            Self::Link(entry) => write_text(&link(*entry), out),
        }
    }

    /// The same as a `serde_json` value; numbers keep their text.
    pub fn to_value(&self, link: &dyn Fn(usize) -> String) -> Value {
        match self {
            Self::Object(elements) => Value::Object(elements.iter().map(|(name, node)| ((*name).to_owned(), node.to_value(link))).collect::<Map<_, _>>()),
            Self::List(entries) => Value::Array(entries.iter().map(|node| node.to_value(link)).collect()),
            Self::Text(text) => Value::String(text.clone()),
            Self::Shared(text) => Value::String(text.as_str().to_owned()),
            Self::Number(text) => Number::from_str(text).map_or_else(|_| Value::String(text.clone()), Value::Number),
            Self::Bool(b) => Value::Bool(*b),
            Self::Null => Value::Null,
            Self::Link(entry) => Value::String(link(*entry)),
        }
    }
}

/// True if the text certainly has no control characters, no quotes and no backslashes: nothing that JSON escapes or FHIR forbids. Looks at eight
/// or sixteen bytes at a time. (It may say no to a text that has none, since the C1 controls begin with the byte with which `§` begins.)
pub fn is_plain(text: &str) -> bool {
    // Compilers make a few instructions of this, for all sixteen at once.
    let special_in = |chunk: &[u8; 16]| chunk.iter().fold(false, |found, b| found | (*b < 0x20) | (*b == b'"') | (*b == b'\\') | (*b == 0x7F) | (*b == 0xC2));
    if let Some(last) = text.as_bytes().last_chunk::<16>() {
        // The last sixteen may overlap with those before.
        return !text.as_bytes().as_chunks::<16>().0.iter().chain(std::iter::once(last)).any(special_in);
    }
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let is = |word: u64, byte: u8| {
        let x = word ^ (ONES * u64::from(byte));
        x.wrapping_sub(ONES) & !x & HIGH
    };
    let special = |word: u64| (word.wrapping_sub(ONES * 0x20) & !word & HIGH) | is(word, b'"') | is(word, b'\\') | is(word, 0x7F) | is(word, 0xC2);
    let bytes = text.as_bytes();
    match bytes.last_chunk::<8>() {
        // The last eight may overlap with those before.
        Some(last) => bytes.as_chunks::<8>().0.iter().chain(std::iter::once(last)).all(|word| special(u64::from_le_bytes(*word)) == 0),
        None => bytes.iter().all(|b| *b >= 0x20 && !matches!(b, b'"' | b'\\' | 0x7F | 0xC2)),
    }
}

/// Appends a JSON string with its quotes.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    if is_plain(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Node::Text),
            any::<bool>().prop_map(Node::Bool),
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,12})?".prop_map(|n| Node::number(&n).expect("a JSON number")),
            (0usize..4).prop_map(Node::Link),
            Just(Node::Null),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let names = prop_oneof![Just("name"), Just("value"), Just("family"), Just("_given")];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Node::List),
                prop::collection::vec((names, inner), 0..4).prop_map(|mut fields| {
                    fields.sort_by_key(|(n, _)| *n);
                    fields.dedup_by_key(|(n, _)| *n);
                    Node::Object(fields)
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn text_and_value_are_the_same_json(node in any_node()) {
            let link = |n: usize| format!("Patient/{n}");
            let mut text = Json::default();
            node.write(&mut text, &link);
            let read: Value = serde_json::from_slice(&text.into_vec()).expect("what is written is JSON");
            prop_assert_eq!(read, node.to_value(&link));
        }
    }

    #[test]
    fn plain_text_needs_no_escapes() {
        for text in ["", "a", "Straße", "12345678", "a long text without anything special, Nordhafen"] {
            assert!(is_plain(text), "{text}");
        }
        for special in ["\u{0}", "\u{1f}", "\t", "\"", "\\", "\u{7f}", "\u{80}", "\u{9f}"] {
            for before in 0..17 {
                assert!(!is_plain(&format!("{}{special}{}", "x".repeat(before), "y".repeat(before % 3))), "{special:?} behind {before}");
            }
        }
    }

    #[test]
    fn numbers_stay_as_written() {
        for text in ["1.50", "0.10", "-3", "12345678901234567890.1234567890", "1.0e+2"] {
            let mut out = Json::default();
            Node::number(text).expect(text).write(&mut out, &|_| String::new());
            assert_eq!(String::from_utf8_lossy(&out.into_vec()), text);
            assert_eq!(Node::number(text).expect(text).to_value(&|_| String::new()).to_string(), text);
        }
        assert!(Node::number("1E5").is_some());
        for text in ["+1", ".5", "01", "1.", "", " 1", "1 ", "NaN", "0x1", "1,5"] {
            assert!(Node::number(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_reference_goes_as_a_whole() {
        let reference = |n| Node::Object(vec![("reference", Node::Link(n)), ("display", Node::Text("x".to_owned()))]);
        let node = Node::Object(vec![("subject", reference(0)), ("basedOn", Node::List(vec![reference(1), reference(2)])), ("encounter", reference(1))]);
        let left = node.without_links(&|n| n != 1, None).expect("something is left");
        assert!(left == Node::Object(vec![("subject", reference(0)), ("basedOn", Node::List(vec![reference(2)]))]));
        let link = Node::List(vec![Node::Object(vec![("other", reference(1)), ("type", Node::Text("refer".to_owned()))])]);
        let patient = Node::Object(vec![("active", Node::Bool(true)), ("link", link)]);
        let left = patient.without_links(&|n| n != 1, crate::fhir::type_named("Patient")).expect("something is left");
        assert!(left == Node::Object(vec![("active", Node::Bool(true))]), "link.other is required");
    }
}
