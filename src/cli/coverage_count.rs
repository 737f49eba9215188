//! What `kiln coverage` counts. It grows with senders, types and fields, never with messages.

use crate::hl7v2::Address;
use crate::route::{Use, ValueUse};
use std::collections::{BTreeMap, BTreeSet};

/// Sending application, sending facility, message type.
pub(crate) type Key = (String, String, String);

/// All counts.
#[derive(Default)]
pub(crate) struct Counts {
    groups: BTreeMap<Key, Group>,
    /// Messages counted.
    pub messages: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
}

/// One sender's messages of one type.
#[derive(Default)]
pub(crate) struct Group {
    /// How many.
    pub messages: u64,
    /// Of these: taken by no route.
    pub unrouted: u64,
    /// Of these: stopped.
    pub stopped: u64,
    places: BTreeMap<Address, Place>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    valued: u64,
    by: [u64; 5],
}

/// A place that did not reach FHIR, with its counts in messages.
pub(crate) struct Row<'a> {
    /// The field; a component where the rest of the field arrived.
    pub place: &'a Address,
    /// Messages that value it.
    pub valued: u64,
    /// Messages in which it reached no element, and no message that a route makes.
    pub lost: u64,
    /// The same by cause: unread, in conditions only, in an identity only, read in vain, taken away by a line.
    pub by: [u64; 5],
}

impl Row<'_> {
    /// The most frequent cause, in words.
    pub(crate) fn why(&self) -> &'static str {
        let words = ["no route reads it", "only conditions read it", "only an identity has it", "read, not taken", "a line takes it away"];
        let most = self.by.iter().enumerate().max_by_key(|(n, count)| (**count, usize::MAX - n)).map_or(0, |(n, _)| n);
        words.get(most).copied().unwrap_or("")
    }
}

impl Counts {
    /// Counts a message.
    pub(crate) fn add(&mut self, key: Key, values: &[ValueUse], unrouted: bool, stopped: bool) {
        self.messages += 1;
        let group = self.groups.entry(key).or_default();
        group.messages += 1;
        group.unrouted += u64::from(unrouted);
        group.stopped += u64::from(stopped);
        let mut fields: BTreeMap<Address, Use> = BTreeMap::new();
        let mut parts: BTreeMap<Address, Use> = BTreeMap::new();
        for value in values {
            let field = fields.entry(value.place.of_field()).or_insert(value.used);
            *field = (*field).max(value.used);
            let part = parts.entry(value.place.anywhere()).or_insert(value.used);
            *part = (*part).max(value.used);
        }
        // A field that did not arrive at all is one row; of one that arrived in part, each part that did not.
        let mut seen: BTreeSet<Address> = BTreeSet::new();
        for (place, used) in fields.iter().chain(parts.iter().filter(|(place, _)| fields.get(&place.of_field()).is_none_or(|u| arrived(*u)))) {
            if !seen.insert(place.clone()) {
                continue;
            }
            let counted = group.places.entry(place.clone()).or_default();
            counted.valued += 1;
            let cause = match used {
                Use::Unread => 0,
                Use::Condition => 1,
                Use::Identity => 2,
                Use::Lost => 3,
                Use::Dropped => 4,
                Use::Deletes | Use::Carried => continue,
            };
            if let Some(n) = counted.by.get_mut(cause) {
                *n += 1;
            }
        }
    }

    /// The groups, the largest first.
    pub(crate) fn sorted(&self) -> Vec<(&Key, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, g)| std::cmp::Reverse(g.messages));
        groups
    }

    /// How many senders.
    pub(crate) fn senders(&self) -> u64 {
        self.groups.keys().map(|(a, f, _)| (a, f)).collect::<BTreeSet<_>>().len() as u64
    }
}

impl Group {
    /// The places that did not reach FHIR, the most frequent first.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<_> =
            self.places.iter().map(|(place, p)| Row { place, valued: p.valued, lost: p.by.iter().sum(), by: p.by }).filter(|r| r.lost > 0).collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.lost));
        rows
    }
}

fn arrived(used: Use) -> bool {
    matches!(used, Use::Deletes | Use::Carried)
}
