//! Assigning authorities and coding systems to URIs, by `systems:` documents and HL7's own rules.

use crate::hl7v2::{Level, Part, Piece};
use crate::route::code::table_system;
use crate::route::run::text::trimmed;
use crate::route::run::value::Value;
use crate::route::run::{KnownUri, Run};
use std::borrow::Cow;
use std::hash::BuildHasher;

impl<'m> Run<'m> {
    /// An HD, an entity identifier's namespace, or a coding system's name as a URI. `types` is what CX.5 says of the identifier.
    pub(crate) fn system_uri(&mut self, value: &Value<'m>, kind: &str, entity: bool) -> Option<String> {
        let Value::Part(part) = value else { return self.find_system(value, kind, entity) };
        let sent = self.message.raw(*part);
        // With notes, it is looked up anew: what was read is noted then.
        let hash = rustc_hash::FxBuildHasher.hash_one((sent, kind, entity));
        if self.trace.is_none()
            && let Some(known) = self.uris.iter().find(|k| k.hash == hash && k.sent == sent && k.entity == entity && same(&k.kind, kind))
        {
            return known.uri.clone();
        }
        let uri = self.find_system(value, kind, entity);
        self.uris.push(KnownUri { hash, sent, kind: kind.to_owned(), entity, uri: uri.clone() });
        uri
    }

    fn find_system(&self, value: &Value<'m>, kind: &str, entity: bool) -> Option<String> {
        let (namespace, universal, universal_type) = match value {
            Value::Part(part) if entity => (self.piece(*part, 2), self.piece(*part, 3), self.piece(*part, 4)),
            Value::Part(part) if part.level != Level::Subcomponent && self.has_pieces(*part) => {
                (self.piece(*part, 1), self.piece(*part, 2), self.piece(*part, 3))
            }
            other => (trimmed(self.text_of(other)), Cow::Borrowed(""), Cow::Borrowed("")),
        };
        self.resolve_system(&namespace, &universal, &universal_type, kind)
    }

    fn has_pieces(&self, part: Part) -> bool {
        match part.level {
            Level::Field | Level::Repetition => self.message.component_count(part) > 1,
            Level::Component => self.message.subcomponent_count(part) > 1,
            Level::Subcomponent => false,
        }
    }

    fn piece(&self, part: Part, n: u16) -> Cow<'m, str> {
        let below = self.down(part, n);
        if self.is_valued(below) { trimmed(self.leaf_text(below)) } else { Cow::Borrowed("") }
    }

    fn resolve_system(&self, namespace: &str, universal: &str, universal_type: &str, kind: &str) -> Option<String> {
        if let Some(uri) = self.ruled(namespace, universal, kind) {
            return Some(uri);
        }
        if let Some(uri) = by_rule(universal, universal_type) {
            return Some(uri);
        }
        if universal.is_empty()
            && let Some(uri) = by_rule(namespace, "").or_else(|| table_uri(namespace))
        {
            return Some(uri);
        }
        let name = if namespace.is_empty() { universal } else { namespace };
        if name.is_empty() {
            return None;
        }
        self.not_known(None, name, "");
        self.template(self.code.systems.unknown.as_deref()?, name)
    }

    /// A row of a `systems:` document; of several that fit, the first in the files' order.
    fn ruled(&self, namespace: &str, universal: &str, kind: &str) -> Option<String> {
        let systems = &self.code.systems;
        let universal = if universal.is_empty() { namespace } else { universal };
        let by_universal = systems.by_universal.get(universal).map_or(&[][..], Vec::as_slice);
        let capitals = namespace.to_ascii_uppercase();
        let by_namespace = systems.by_namespace.get(&capitals).map_or(&[][..], Vec::as_slice);
        let fits = |n: &usize| {
            systems.rules.get(*n).is_some_and(|rule| {
                // A row with both names means both.
                let name = rule.universal.is_none() || rule.namespace.as_ref().is_none_or(|n| n.eq_ignore_ascii_case(namespace));
                name && (rule.types.is_empty() || rule.types.iter().any(|t| t == kind))
            })
        };
        let first = by_universal.iter().filter(|n| fits(n)).chain(by_namespace.iter().filter(|n| fits(n))).min()?;
        systems.rules.get(*first).map(|rule| rule.system.clone())
    }

    /// Is the authority or coding system in a `systems:` document, or clear by itself?
    pub(crate) fn is_known_system(&self, value: &Value<'m>) -> bool {
        let (namespace, universal, kind) = match value {
            Value::Part(part) if self.has_pieces(*part) => (self.piece(*part, 1), self.piece(*part, 2), self.piece(*part, 3)),
            other => (trimmed(self.text_of(other)), Cow::Borrowed(""), Cow::Borrowed("")),
        };
        let systems = &self.code.systems;
        systems.by_universal.contains_key(&**if universal.is_empty() { &namespace } else { &universal })
            || systems.by_namespace.contains_key(&namespace.to_ascii_uppercase())
            || by_rule(&universal, &kind).is_some()
            || by_rule(&namespace, "").is_some()
            || table_uri(&namespace).is_some()
    }

    /// Has a `systems:` document a row for the authority or coding system?
    pub(crate) fn is_listed_system(&self, value: &Value<'m>) -> bool {
        let (namespace, universal) = match value {
            Value::Part(part) if self.has_pieces(*part) => (self.piece(*part, 1), self.piece(*part, 2)),
            other => (trimmed(self.text_of(other)), Cow::Borrowed("")),
        };
        let systems = &self.code.systems;
        let universal = if universal.is_empty() { &namespace } else { &universal };
        systems.by_universal.contains_key(&**universal) || systems.by_namespace.contains_key(&namespace.to_ascii_uppercase())
    }

    /// A URI as the authority that it is made of (HD): by a row of `systems:`, by HL7's own forms, by the `unknown:` template, else the URI itself.
    pub(crate) fn authority(&self, uri: &str) -> Piece {
        let (namespace, universal, kind) = self.authority_of(uri);
        let mut parts = vec![namespace, universal, kind];
        while parts.last().is_some_and(String::is_empty) {
            parts.pop();
        }
        Piece::Parts(parts.into_iter().map(Piece::Text).collect())
    }

    fn authority_of(&self, uri: &str) -> (String, String, String) {
        let by_form = |uri: &str| {
            let known = [("urn:oid:", "ISO"), ("urn:uuid:", "UUID"), ("urn:dns:", "DNS")];
            known.iter().find_map(|(prefix, kind)| uri.strip_prefix(prefix).map(|id| (id.to_owned(), (*kind).to_owned())))
        };
        if let Some(rule) = self.code.systems.rules.iter().find(|rule| rule.system == uri) {
            let namespace = rule.namespace.clone().unwrap_or_default();
            let (universal, kind) = match (&rule.universal, by_form(uri)) {
                (Some(id), _) => (id.clone(), universal_kind(id).to_owned()),
                (None, Some(form)) => form,
                (None, None) => (String::new(), String::new()),
            };
            return (namespace, universal, kind);
        }
        if let Some((universal, kind)) = by_form(uri) {
            return (String::new(), universal, kind);
        }
        if let Some(namespace) = table_name(uri).or_else(|| self.code.systems.unknown.as_deref().and_then(|template| namespace_in(template, uri))) {
            return (namespace, String::new(), String::new());
        }
        (String::new(), uri.to_owned(), "URI".to_owned())
    }

    /// A code system's name in v2 (table 0396): `LN`, `HL70203`; without one, its URI.
    pub(crate) fn coding_system(&self, uri: &str) -> String {
        let (namespace, universal, _) = self.authority_of(uri);
        match (namespace.is_empty(), uri.starts_with("urn:oid:")) {
            (false, _) => namespace,
            (true, true) => universal,
            (true, false) => uri.to_owned(),
        }
    }

    /// The authority of an identifier that names none: the listener's, else the `missing:` template.
    pub(crate) fn missing_system(&self, kind: &str) -> Option<String> {
        if let Some(authority) = self.context.authority {
            let mut pieces = authority.split(['&', '^']);
            let namespace = pieces.next().unwrap_or("");
            let universal = pieces.next().unwrap_or("");
            let universal_type = pieces.next().unwrap_or("");
            return self.resolve_system(namespace, universal, universal_type, kind);
        }
        match self.code.systems.missing.as_deref() {
            None | Some("refuse") => None,
            Some(template) => self.template(template, ""),
        }
    }

    fn template(&self, template: &str, namespace: &str) -> Option<String> {
        if template == "refuse" {
            return None;
        }
        let mut uri = String::with_capacity(template.len() + 16);
        let mut rest = template;
        while let Some((before, name, after)) =
            rest.split_once('{').and_then(|(before, inner)| inner.split_once('}').map(|(name, after)| (before, name, after)))
        {
            uri.push_str(before);
            match name {
                "sender" => {
                    let sender = self.sender().map(|v| self.text_of(&v));
                    let sender = sender.as_deref().map_or("", str::trim);
                    escape(if sender.is_empty() { "unknown" } else { sender }, &mut uri);
                }
                "namespace" => escape(namespace, &mut uri),
                "listener" => escape(self.context.listener, &mut uri),
                other => uri.extend(["{", other, "}"]),
            }
            rest = after;
        }
        uri.push_str(rest);
        Some(uri)
    }
}

/// Are they equal? Of two empty ones no byte is asked for: some processors take long to see that there is nothing to compare.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// ISO, UUID and URI authorities need no table (HD.3, table 0301); without a type, the form tells.
fn by_rule(id: &str, kind: &str) -> Option<String> {
    if id.is_empty() {
        return None;
    }
    let oid = |t: &str| {
        t.contains('.')
            && t.starts_with(['0', '1', '2'])
            && t.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0')))
    };
    let bare = id.strip_prefix("urn:oid:").unwrap_or(id);
    let known = ["", "ISO", "UUID", "GUID", "URI", "URL", "DNS"].into_iter().find(|known| known.eq_ignore_ascii_case(kind))?;
    match known {
        "ISO" if oid(bare) => Some(format!("urn:oid:{bare}")),
        "UUID" | "GUID" => uuid::Uuid::parse_str(id).ok().map(|u| format!("urn:uuid:{u}")),
        "URI" | "URL" if id.contains(':') && !id.contains(char::is_whitespace) => Some(id.to_owned()),
        "DNS" if !id.contains(char::is_whitespace) => {
            let mut uri = "urn:dns:".to_owned();
            escape(&id.to_ascii_lowercase(), &mut uri);
            Some(uri)
        }
        "" | "ISO" if oid(bare) && bare.matches('.').count() >= 3 => Some(format!("urn:oid:{bare}")),
        "" if id.contains(':') && (id.contains("://") || id.starts_with("urn:")) => (!id.contains(char::is_whitespace)).then(|| id.to_owned()),
        "" if id.len() == 36 => uuid::Uuid::parse_str(id).ok().map(|u| format!("urn:uuid:{u}")),
        _ => None,
    }
}

/// `HL70002` is HL7's own table 0002 (table 0396).
fn table_uri(name: &str) -> Option<String> {
    let number = name.strip_prefix("HL7").or_else(|| name.strip_prefix("hl7"))?;
    (number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit())).then(|| table_system(number))
}

/// What may stand in a URI's path segment stays, the rest is percent-encoded.
fn escape(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.extend(['%', char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]);
        }
    }
}

/// `HL70203` for HL7's own table 0203 (table 0396).
fn table_name(uri: &str) -> Option<String> {
    let number = uri.strip_prefix("http://terminology.hl7.org/CodeSystem/v2-")?;
    (number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit())).then(|| format!("HL7{number}"))
}

/// A name of the Internet: labels of letters, digits and hyphens, with points between.
fn is_domain(id: &str) -> bool {
    let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    id.contains('.') && id.bytes().any(|b| b.is_ascii_alphabetic()) && id.split('.').all(label)
}

/// What kind of universal id it is (HD.3, table 0301), by its form; L is a name that is agreed on at one place.
fn universal_kind(id: &str) -> &'static str {
    match by_rule(id, "") {
        Some(uri) if uri.starts_with("urn:oid:") => "ISO",
        Some(uri) if uri.starts_with("urn:uuid:") => "UUID",
        _ if by_rule(id, "ISO").is_some() => "ISO",
        _ if id.contains(':') => "URI",
        _ if is_domain(id) => "DNS",
        _ => "L",
    }
}

/// The namespace that an `unknown:` template was filled with, if the URI is made by it.
fn namespace_in(template: &str, uri: &str) -> Option<String> {
    let (mut template, mut uri, mut namespace) = (template, uri, None);
    while let Some((before, name, after)) =
        template.split_once('{').and_then(|(before, inner)| inner.split_once('}').map(|(name, after)| (before, name, after)))
    {
        uri = uri.strip_prefix(before)?;
        // What was filled in is escaped: it holds no character that begins the template's own text, as long as that is no letter or digit.
        let end = uri.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%'))).unwrap_or(uri.len());
        let (filled, rest) = uri.split_at(end);
        if name == "namespace" {
            namespace = unescape(filled);
        }
        (template, uri) = (after, rest);
    }
    (uri == template).then_some(namespace).flatten().filter(|namespace| !namespace.is_empty())
}

/// Percent-encoded text as it was.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(high)? << 4 | digit(low)?);
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{namespace_in, table_name, universal_kind};

    #[test]
    fn the_template_of_unknown_authorities_is_read_backwards() {
        let template = "https://hosp.example/authority/{sender}/{namespace}";
        assert_eq!(namespace_in(template, "https://hosp.example/authority/ADT1/HOSP").as_deref(), Some("HOSP"));
        assert_eq!(namespace_in(template, "https://hosp.example/authority/A%20B/Stra%C3%9Fe%2F1").as_deref(), Some("Straße/1"));
        assert_eq!(namespace_in(template, "https://hosp.example/authority/ADT1/HOSP/more"), None);
        assert_eq!(namespace_in(template, "https://other.example/authority/ADT1/HOSP"), None);
        assert_eq!(namespace_in(template, "https://hosp.example/authority/ADT1/"), None);
        assert_eq!(namespace_in("urn:x:{namespace}:{sender}", "urn:x:LAB:A").as_deref(), Some("LAB"));
    }

    #[test]
    fn a_universal_id_is_named_by_its_form() {
        for (id, kind) in [
            ("1.2.276.0.76.4.1", "ISO"),
            ("2.16", "ISO"),
            ("7b0f9a4e-5f0d-4c63-9d39-1f6a2f7f5a52", "UUID"),
            ("http://hosp.example/mrn", "URI"),
            ("hosp.example", "DNS"),
            ("1.2.x", "DNS"),
            ("HOSP", "L"),
            ("Felsenhof Nord", "L"),
            ("1..2", "L"),
        ] {
            assert_eq!(universal_kind(id), kind, "{id}");
        }
    }

    #[test]
    fn hl7s_own_tables_have_their_names_back() {
        assert_eq!(table_name("http://terminology.hl7.org/CodeSystem/v2-0203").as_deref(), Some("HL70203"));
        assert_eq!(table_name("http://terminology.hl7.org/CodeSystem/v2-203"), None);
    }
}
