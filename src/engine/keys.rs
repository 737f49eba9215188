//! What orders the deliveries of a message, as keyed hashes.
//!
//! The identities of the whole message, whatever a route maps: a merge names two patients, a result several orders; or the values of a route's `order-by`.

use crate::engine::Routes;
use crate::exchange::OrderKey;
use crate::hl7v2::{Message, Part};
use crate::journal::NewDelivery;
use crate::route::{OrderValue, RouteId};
use std::collections::HashSet;
use std::sync::Arc;

/// What kind of thing an identifier names. Equal values of different kinds are different identities.
#[derive(Clone, Copy)]
enum Kind {
    /// PID-2, PID-3, PID-4, MRG-1, MRG-2, MRG-4.
    Patient = 1,
    /// PID-18, PV1-19, MRG-3, MRG-5, MRG-6: an account number stands in for a visit number where that is missing.
    Visit = 2,
    /// ORC-2, ORC-3, OBR-2, OBR-3.
    Order = 3,
    /// SCH-1, SCH-2.
    Appointment = 4,
    /// MSH-3 and MSH-4, when there is nothing else.
    Sender = 5,
    /// Another value of a route's `order-by`.
    Said = 6,
}

/// How an identifier is written (HL7 chapter 2A).
#[derive(Clone, Copy)]
enum Shape {
    /// CX: the value, and the assigning authority in the fourth component.
    Cx,
    /// EI: the value, and the authority in components two to four.
    Ei,
}

/// A field that holds identifiers.
type Place = (usize, Kind, Shape);

/// Where identities stand, by segment.
const PLACES: &[(&str, &[Place])] = &[
    ("PID", &[(2, Kind::Patient, Shape::Cx), (3, Kind::Patient, Shape::Cx), (4, Kind::Patient, Shape::Cx), (18, Kind::Visit, Shape::Cx)]),
    (
        "MRG",
        &[
            (1, Kind::Patient, Shape::Cx),
            (2, Kind::Patient, Shape::Cx),
            (3, Kind::Visit, Shape::Cx),
            (4, Kind::Patient, Shape::Cx),
            (5, Kind::Visit, Shape::Cx),
            (6, Kind::Visit, Shape::Cx),
        ],
    ),
    ("PV1", &[(19, Kind::Visit, Shape::Cx)]),
    ("ORC", &[(2, Kind::Order, Shape::Ei), (3, Kind::Order, Shape::Ei)]),
    ("OBR", &[(2, Kind::Order, Shape::Ei), (3, Kind::Order, Shape::Ei)]),
    ("SCH", &[(1, Kind::Appointment, Shape::Ei), (2, Kind::Appointment, Shape::Ei)]),
];

/// The most order keys of a message.
pub(super) const ORDER_KEYS_MAX: usize = 1_000;

/// All order keys of a message, sorted and without repeats, never empty. `authority` is the listener's, for identifiers that name none.
///
/// Of a message with more than [`ORDER_KEYS_MAX`], orders and appointments are left out: whoever else names them names the patient too. If there
/// are too many patients and visits, or nothing else, there is one key more than the limit, by which a delivery knows that it must not be made.
pub(super) fn order_keys(message: &Message, authority: Option<&str>, listener: &str, secret: &[u8; 32]) -> Vec<OrderKey> {
    /// So many are compared when all are there; beyond, repeats must not fill the memory.
    const FEW: usize = 64;
    let mut keys = Vec::with_capacity(4);
    let mut scratch = Vec::with_capacity(64);
    let mut take = |wanted: &dyn Fn(Kind) -> bool, keys: &mut Vec<OrderKey>| {
        let mut seen = HashSet::new();
        each_identifier(message, |kind, value, assigner| {
            if wanted(kind) {
                let assigner = if assigner.is_empty() { namespace(authority.unwrap_or_default()) } else { assigner };
                let key = key(secret, &mut scratch, kind, &[value, assigner]);
                if keys.len() >= FEW && seen.is_empty() {
                    seen.extend(keys.iter().copied());
                }
                if keys.len() < FEW || seen.insert(key) {
                    keys.push(key);
                }
            }
            keys.len() <= ORDER_KEYS_MAX + FEW
        });
        keys.sort_unstable();
        keys.dedup();
    };
    take(&|_| true, &mut keys);
    if keys.len() > ORDER_KEYS_MAX {
        let mut people = Vec::new();
        take(&|kind| matches!(kind, Kind::Patient | Kind::Visit), &mut people);
        if !people.is_empty() {
            keys = people;
        }
        keys.truncate(ORDER_KEYS_MAX + 1);
    }
    if keys.is_empty() {
        let sent = |n| message.raw_text(message.field(0, n));
        keys.push(key(secret, &mut scratch, Kind::Sender, &[listener, &sent(3), &sent(4)]));
    }
    keys
}

/// The deliveries of a message by the routes that take it, each with the keys of its route where that says `order-by`.
pub fn deliveries(routes: &Routes, taken: &[RouteId], message: &Message, listener: &str, secret: &[u8; 32]) -> Vec<NewDelivery> {
    let (set, manner) = (&routes.set, routes.manner(listener));
    let mut all = Vec::new();
    for route in taken {
        let info = set.info(*route);
        let keys = set.order_values(*route, listener, message).map(|values| route_keys(&values, manner.authority(), secret));
        all.extend(info.targets.iter().map(|target| NewDelivery { route: Arc::clone(&info.name), target: Arc::clone(target), keys: keys.clone() }));
    }
    all
}

/// What keeps a message in order by one route, also when it is not the one that was received: the route's `order-by`, else its identities.
pub fn keys_by(routes: &Routes, route: &str, message: &Message, listener: &str, secret: &[u8; 32]) -> Vec<OrderKey> {
    let manner = routes.manner(listener);
    let said = routes.set.named(route).and_then(|route| routes.set.order_values(route, listener, message));
    said.map_or_else(|| order_keys(message, manner.authority(), listener, secret), |values| route_keys(&values, manner.authority(), secret))
}

/// The keys of `order-by` values. An identifier has the key that it has where no route says `order-by`, so that such a route waits for others, and they for it.
fn route_keys(values: &[OrderValue], authority: Option<&str>, secret: &[u8; 32]) -> Vec<OrderKey> {
    let mut scratch = Vec::with_capacity(64);
    let mut keys: Vec<OrderKey> = values
        .iter()
        .map(|value| {
            let (segment, field) = value.place.as_ref().map_or(("", 0), |(segment, field)| (segment.as_str(), usize::from(*field)));
            let known = PLACES.iter().find(|(name, _)| *name == segment).and_then(|(_, places)| places.iter().find(|(n, ..)| *n == field));
            let kind = known.map_or(Kind::Said, |(_, kind, _)| *kind);
            let assigner = match value.assigner.as_deref() {
                Some("") => namespace(authority.unwrap_or_default()),
                assigner => assigner.unwrap_or_default(),
            };
            key(secret, &mut scratch, kind, &[&value.value, assigner])
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys.truncate(ORDER_KEYS_MAX + 1);
    keys
}

/// Calls `take` with kind, value and authority of each identifier that is valued, until it says that it has enough.
fn each_identifier(message: &Message, mut take: impl FnMut(Kind, &str, &str) -> bool) {
    for segment in 0..message.segment_count() {
        let Some((_, places)) = PLACES.iter().find(|(name, _)| message.is_segment(segment, name)) else { continue };
        for (field, kind, shape) in *places {
            for repetition in message.repetitions(message.field(segment, *field)) {
                let value = message.component(repetition, 1);
                if !message.is_valued(value) {
                    continue;
                }
                let value = message.text(message.subcomponent(value, 1));
                let value = value.trim();
                if value.is_empty() {
                    continue;
                }
                let valued = |part: Part| message.is_valued(part).then(|| message.text(part));
                let assigner = match shape {
                    Shape::Cx => {
                        let hd = message.component(repetition, 4);
                        valued(message.subcomponent(hd, 1)).or_else(|| valued(message.subcomponent(hd, 2)))
                    }
                    Shape::Ei => valued(message.component(repetition, 2)).or_else(|| valued(message.component(repetition, 3))),
                };
                if !take(*kind, value, assigner.as_deref().unwrap_or_default().trim()) {
                    return;
                }
            }
        }
    }
}

/// The part of an HD in v2 form that [`each_identifier`] takes too.
fn namespace(hd: &str) -> &str {
    hd.split('&').find(|part| !part.is_empty()).unwrap_or_default()
}

fn key(secret: &[u8; 32], scratch: &mut Vec<u8>, kind: Kind, parts: &[&str]) -> OrderKey {
    scratch.clear();
    scratch.push(kind as u8);
    for part in parts {
        scratch.extend_from_slice(part.as_bytes());
        // No text holds this byte, so that `ab` + `c` is not `a` + `bc`.
        scratch.push(0xFF);
    }
    let hash = blake3::keyed_hash(secret, scratch);
    let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a BLAKE3 hash has 32 bytes");
    OrderKey(u64::from_le_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7v2::ParseOptions;
    use bytes::Bytes;

    fn keys(text: &str) -> Vec<OrderKey> {
        let message = Message::parse(Bytes::from(text.replace('\n', "\r")), &ParseOptions::default()).expect("the header is readable");
        order_keys(&message, Some("HOSP&1.2.3&ISO"), "adt", &[7; 32])
    }

    const MSH: &str = "MSH|^~\\&|APP|FAC|||20260101||ADT^A01|1|P|2.5\n";

    #[test]
    fn the_same_patient_has_the_same_keys_however_he_is_written() {
        let plain = keys(&format!("{MSH}PID|||123^^^HOSP^MR"));
        assert_eq!(plain.len(), 1);
        for same in ["PID|1||123^^^HOSP&1.2.3&ISO^PI||DOE^JOHN", "PID|1||123", "PID|1|123", "PID|||| 123 ^^^HOSP", "PID|1||\"\"^^^X~123"] {
            assert_eq!(keys(&format!("{MSH}{same}")), plain, "{same}");
        }
        assert_ne!(keys(&format!("{MSH}PID|||124^^^HOSP")), plain);
        assert_ne!(keys(&format!("{MSH}PID|||123^^^OTHER")), plain);
        assert_ne!(keys(&format!("{MSH}PV1|||||||||||||||||||123^^^HOSP")), plain, "a visit is not a patient");
    }

    #[test]
    fn a_merge_names_two_patients_and_a_result_its_orders() {
        let (one, two) = (keys(&format!("{MSH}PID|||1^^^HOSP")), keys(&format!("{MSH}PID|||2^^^HOSP")));
        let mut both = [one, two].concat();
        both.sort();
        assert_eq!(keys(&format!("{MSH}PID|||1^^^HOSP\nMRG|2^^^HOSP")), both);
        assert_eq!(keys(&format!("{MSH}PID|||1^^^HOSP\nORC|RE|A^X|B^Y\nOBR|1|A^X|B^Y\nOBR|2|C^X")).len(), 4);
    }

    #[test]
    fn a_message_with_too_many_orders_is_ordered_by_its_patient_and_one_with_too_many_patients_is_marked() {
        let orders: String = (0..5_000).map(|n| format!("OBR|{n}|P{n}^X|F{n}^X\n")).collect();
        let one = keys(&format!("{MSH}PID|||1^^^HOSP"));
        assert_eq!(keys(&format!("{MSH}PID|||1^^^HOSP\n{orders}")), one);
        assert_eq!(keys(&format!("{MSH}{orders}PID|||1^^^HOSP")), one, "wherever the patient stands");
        let repeated = "OBR|1|A^X|B^Y\n".repeat(50_000);
        assert_eq!(keys(&format!("{MSH}PID|||1^^^HOSP\n{repeated}")).len(), 3, "a repeat is no further key");
        let patients: String = (0..5_000).map(|n| format!("PID|||{n}^^^HOSP\n")).collect();
        assert_eq!(keys(&format!("{MSH}{patients}")).len(), ORDER_KEYS_MAX + 1);
        assert_eq!(keys(&format!("{MSH}{orders}")).len(), ORDER_KEYS_MAX + 1);
    }

    #[test]
    fn without_any_identity_the_sender_is_the_key() {
        assert_eq!(keys(MSH), keys(&format!("{MSH}EVN|A01\nPID|||\"\"")));
        assert_ne!(keys(MSH), keys(&MSH.replace("APP", "LAB")));
    }
}
