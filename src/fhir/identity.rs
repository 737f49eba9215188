//! What makes a resource the same one next time: searches by identifier, and ids that are made from an identity.

use crate::exchange::DeliveryId;
use crate::fhir::{Identity, Save, type_named};
use serde_json::Value;
use uuid::Uuid;

/// Fixed for all time: ids of Bundle entries and of plainly created resources derive from it.
const DELIVERIES: Uuid = Uuid::from_u128(0x8d0f_5c3e_7a41_5b6e_9c02_4b1f_66d9_a271);

/// The criterion of an identity: `identifier=s1|v1,s2|v2`, one OR search over all of its values, percent-encoded.
/// It holds patient data: it belongs into a Bundle, a header or a form, never into a URL or a log line.
pub fn search(identity: &[Identity]) -> String {
    let mut out = String::from("identifier=");
    for (n, one) in identity.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        encode(&one.system, &mut out);
        out.push_str("%7C");
        encode(&one.value, &mut out);
    }
    out
}

/// Escapes what a search value must (<https://hl7.org/fhir/R4/search.html#escaping>), then percent-encodes all but unreserved characters.
fn encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                if matches!(byte, b',' | b'|' | b'$' | b'\\') {
                    out.push_str("%5C");
                }
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

/// The id of `put by`, and the file name in a folder: a UUID (version 5) of the most preferred identity, keyed with the site's secret, so that
/// nobody without the secret can tell or guess the patient from it. Empty `identity` gives the id of "no identity": callers have one.
pub fn put_id(secret: &[u8; 32], resource_type: &str, identity: &[Identity]) -> String {
    let first = identity.first().map_or(("", ""), |i| (i.system.as_str(), i.value.as_str()));
    keyed_id(secret, &format!("{resource_type}|{}|{}", first.0, first.1))
}

/// The id of a resource that is created plainly where the target wants an id from us: the same on every attempt of the delivery.
pub fn delivery_id(secret: &[u8; 32], delivery: DeliveryId, entry: usize) -> String {
    keyed_id(secret, &format!("delivery|{}|{}|{entry}", delivery.message.0, delivery.number))
}

fn keyed_id(secret: &[u8; 32], name: &str) -> String {
    let key = blake3::keyed_hash(secret, b"kiln ids");
    let mut namespace = [0; 16];
    namespace.copy_from_slice(key.as_bytes().split_at(16).0);
    Uuid::new_v5(&Uuid::from_bytes(namespace), name.as_bytes()).hyphenated().to_string()
}

/// `urn:uuid:...` of a Bundle entry, in lower case, the same on every attempt of the delivery.
pub(crate) fn entry_url(delivery: DeliveryId, entry: usize) -> String {
    let mut name = [0u8; 18];
    name[..8].copy_from_slice(&delivery.message.0.to_be_bytes());
    name[8..10].copy_from_slice(&delivery.number.to_be_bytes());
    name[10..].copy_from_slice(&(entry as u64).to_be_bytes());
    Uuid::new_v5(&DELIVERIES, &name).urn().to_string()
}

/// True if servers can search the type by identifier. 28 types of R4 (Provenance, AuditEvent, ...) have no such element: their id is made from the identity.
pub fn has_identifier(resource_type: &str) -> bool {
    type_named(resource_type).is_some_and(|t| t.element("identifier").is_some())
}

/// True if the resource carries one of the identities. Letter case is ignored, as some servers' searches do.
pub fn carries(resource: &Value, identity: &[Identity]) -> bool {
    let identifiers = match resource.get("identifier") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let same = |identifier: &Value, key: &str, text: &str| identifier.get(key).and_then(Value::as_str).is_some_and(|v| v.to_lowercase() == text.to_lowercase());
    identifiers.iter().any(|i| identity.iter().any(|one| same(i, "system", &one.system) && same(i, "value", &one.value)))
}

impl Save {
    /// True if both name one resource by an identity that they share.
    pub fn same_resource(&self, other: &Self) -> bool {
        self.resource_type == other.resource_type && self.identity.iter().any(|i| other.identity.contains(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::MessageId;

    fn identity(system: &str, value: &str) -> Identity {
        Identity { system: system.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_search_is_one_or_over_all_values() {
        let both = [identity("urn:oid:1.2.3", "A 17/4"), identity("http://h.example/ids", "x,y|z$ü\\")];
        assert_eq!(search(&both), "identifier=urn%3Aoid%3A1.2.3%7CA%2017%2F4,http%3A%2F%2Fh.example%2Fids%7Cx%5C%2Cy%5C%7Cz%5C%24%C3%BC%5C%5C");
    }

    #[test]
    fn ids_are_keyed_and_stable() {
        let one = put_id(&[7; 32], "Patient", &[identity("urn:a", "1")]);
        assert_eq!(one, put_id(&[7; 32], "Patient", &[identity("urn:a", "1"), identity("urn:b", "2")]));
        for other in [
            put_id(&[8; 32], "Patient", &[identity("urn:a", "1")]),
            put_id(&[7; 32], "Encounter", &[identity("urn:a", "1")]),
            put_id(&[7; 32], "Patient", &[identity("urn:a", "2")]),
        ] {
            assert_ne!(one, other);
        }
        assert!(Uuid::parse_str(&one).is_ok_and(|u| u.get_version_num() == 5));
        let delivery = DeliveryId { message: MessageId(5), number: 0 };
        let url = entry_url(delivery, 1);
        assert!(url.starts_with("urn:uuid:") && url == url.to_lowercase() && url != entry_url(delivery, 2));
        assert_ne!(delivery_id(&[7; 32], delivery, 0), delivery_id(&[7; 32], delivery, 1));
    }

    #[test]
    fn types_without_identifier_are_known() {
        assert!(has_identifier("Patient") && has_identifier("QuestionnaireResponse"));
        assert!(!has_identifier("Provenance") && !has_identifier("AuditEvent") && !has_identifier("Nonsense"));
        let count = crate::fhir::types().filter(|t| t.kind() == crate::fhir::Kind::Resource && !t.is_abstract() && !has_identifier(t.name())).count();
        assert_eq!(count, 28);
    }
}
