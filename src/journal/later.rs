//! What came after a message and was delivered before it: what a replay of the message would override.

use crate::exchange::{DeliveryId, MessageId, OrderKey};
use crate::journal::query::JournalError;
use crate::journal::read::{Library, unread};
use crate::journal::rows;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Deliveries that are looked at in one transaction.
const STEP: i64 = 20_000;

/// Those later deliveries to the same target that share an order key with a delivery and were delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// How many there are.
    pub count: u64,
    /// The newest of them.
    pub newest: Option<DeliveryId>,
}

/// A delivery that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reopening {
    /// Which.
    pub id: DeliveryId,
    /// Order keys that it is to get, besides those that it has.
    pub keys: Vec<OrderKey>,
}

impl From<DeliveryId> for Reopening {
    fn from(id: DeliveryId) -> Self {
        Self { id, keys: Vec::new() }
    }
}

/// Deliveries to one target with the same order keys, such as all of one patient's admission: what came later is the same for them but for the
/// messages in between, so that many of them are looked at as one.
struct Group {
    target: Arc<str>,
    /// By message, ascending, and the delivery's place in the question.
    members: Vec<(MessageId, usize)>,
    /// By how many members a later delivery comes after: how many there are of these, and the newest.
    after: Vec<Later>,
    /// The row that was counted last: one that shares several keys counts once.
    row: u64,
}

/// The groups of a question.
struct Groups {
    all: Vec<Group>,
    by_key: HashMap<OrderKey, Vec<usize>>,
    oldest: Option<MessageId>,
    rows: u64,
}

impl Groups {
    fn of(deliveries: Vec<(MessageId, Arc<str>, Vec<OrderKey>)>) -> Self {
        let oldest = deliveries.iter().map(|(message, ..)| *message).min();
        let mut by_keys: BTreeMap<(Arc<str>, Vec<OrderKey>), Vec<(MessageId, usize)>> = BTreeMap::new();
        for (place, (message, target, mut keys)) in deliveries.into_iter().enumerate() {
            keys.sort_unstable();
            keys.dedup();
            by_keys.entry((target, keys)).or_default().push((message, place));
        }
        let mut groups = Self { all: Vec::with_capacity(by_keys.len()), by_key: HashMap::new(), oldest, rows: 0 };
        for ((target, keys), mut members) in by_keys {
            keys.into_iter().for_each(|key| groups.by_key.entry(key).or_default().push(groups.all.len()));
            members.sort_unstable();
            let after = vec![Later::default(); members.len() + 1];
            groups.all.push(Group { target, members, after, row: 0 });
        }
        groups
    }

    /// Counts a delivery that was delivered. True if it is later than one of those that are asked about.
    fn count(&mut self, id: DeliveryId, target: &str, keys: &[OrderKey]) -> bool {
        self.rows += 1;
        let mut later = false;
        for place in keys.iter().filter_map(|key| self.by_key.get(key)).flatten() {
            let Some(group) = self.all.get_mut(*place).filter(|group| group.row != self.rows && &*group.target == target) else { continue };
            group.row = self.rows;
            let earlier = group.members.partition_point(|(message, _)| *message < id.message);
            if earlier > 0
                && let Some(after) = group.after.get_mut(earlier)
            {
                after.count += 1;
                after.newest = after.newest.max(Some(id));
                later = true;
            }
        }
        later
    }

    /// For each delivery of the question, in its order.
    fn sums(self, asked: usize) -> Vec<Later> {
        let mut sums = vec![Later::default(); asked];
        for group in self.all {
            let mut sum = Later::default();
            // What comes after more members comes after each of these.
            for ((_, place), after) in group.members.iter().zip(group.after.iter().skip(1)).rev() {
                sum = Later { count: sum.count + after.count, newest: sum.newest.max(after.newest) };
                if let Some(of_one) = sums.get_mut(*place) {
                    *of_one = sum;
                }
            }
        }
        sums
    }
}

impl Library {
    /// For each delivery, what was delivered of later messages on a common key.
    pub(in crate::journal) fn later_delivered(&self, deliveries: &[Reopening]) -> Result<Vec<Later>, JournalError> {
        let mut groups = self.groups(deliveries)?;
        self.each_delivered(groups.oldest, |id, target, keys| {
            groups.count(id, target, keys);
            true
        })?;
        Ok(groups.sums(deliveries.len()))
    }

    /// All that was delivered of later messages on a key in common with one of these deliveries, in order; `None` if that is more than `limit`.
    pub(in crate::journal) fn all_later_delivered(&self, deliveries: &[Reopening], limit: usize) -> Result<Option<BTreeSet<DeliveryId>>, JournalError> {
        let mut groups = self.groups(deliveries)?;
        let mut all = BTreeSet::new();
        self.each_delivered(groups.oldest, |id, target, keys| {
            if groups.count(id, target, keys) {
                all.insert(id);
            }
            all.len() <= limit
        })?;
        Ok((all.len() <= limit).then_some(all))
    }

    fn groups(&self, deliveries: &[Reopening]) -> Result<Groups, JournalError> {
        let read = |reopening: &Reopening| {
            let segment = self.shelf.home(reopening.id.message).ok_or(JournalError::Missing)?;
            let row = self.with(|connections| of(connections.get(&segment.path)?, reopening.id).map_err(unread))?;
            let (target, mut keys) = row.ok_or(JournalError::Missing)?;
            keys.extend_from_slice(&reopening.keys);
            Ok((reopening.id.message, target, keys))
        };
        Ok(Groups::of(deliveries.iter().map(read).collect::<Result<_, JournalError>>()?))
    }

    /// What was delivered of messages after `oldest`, a page at a time, as long as `go_on` says so.
    fn each_delivered(&self, oldest: Option<MessageId>, mut go_on: impl FnMut(DeliveryId, &str, &[OrderKey]) -> bool) -> Result<(), JournalError> {
        let Some(oldest) = oldest else { return Ok(()) };
        for (place, segment) in self.shelf.all().iter().enumerate() {
            let next = self.shelf.all().get(place + 1).map(|next| next.first);
            // What was carried over may be of any age; the rest ascends.
            if place > 0 && next.is_some_and(|next| next <= oldest.0) {
                continue;
            }
            let mut after = (oldest.0.cast_signed(), i64::from(u16::MAX));
            loop {
                let page = self.with(|connections| delivered_after(connections.get(&segment.path)?, after).map_err(unread))?;
                for (id, target, keys) in &page {
                    if !go_on(*id, target, keys) {
                        return Ok(());
                    }
                }
                match page.last() {
                    Some((last, ..)) if page.len() == STEP as usize => after = (last.message.0.cast_signed(), i64::from(last.number)),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

fn of(connection: &Connection, id: DeliveryId) -> rusqlite::Result<Option<(Arc<str>, Vec<OrderKey>)>> {
    connection
        .prepare_cached("SELECT t.text, d.order_keys FROM delivery AS d CROSS JOIN name AS t ON t.id = d.target WHERE d.message = ?1 AND d.number = ?2")?
        .query_row(params![id.message.0.cast_signed(), id.number], |row| Ok((row.get(0)?, rows::keys(row.get_ref(1)?.as_blob()?))))
        .optional()
}

type Delivered = (DeliveryId, Arc<str>, Vec<OrderKey>);

fn delivered_after(connection: &Connection, after: (i64, i64)) -> rusqlite::Result<Vec<Delivered>> {
    connection
        .prepare_cached(
            "SELECT d.message, d.number, t.text, d.order_keys FROM delivery AS d CROSS JOIN name AS t ON t.id = d.target \
             WHERE (d.message, d.number) > (?1, ?2) AND d.state = 1 ORDER BY d.message, d.number LIMIT ?3",
        )?
        .query_map(params![after.0, after.1, STEP], |row| {
            let id = DeliveryId { message: MessageId(row.get::<_, i64>(0)?.cast_unsigned()), number: row.get(1)? };
            Ok((id, row.get(2)?, rows::keys(row.get_ref(3)?.as_blob()?)))
        })?
        .collect()
}
