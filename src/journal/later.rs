//! What came after a message and was delivered before it: what a replay of the message would override.

use crate::exchange::{DeliveryId, MessageId, OrderKey};
use crate::journal::query::JournalError;
use crate::journal::read::{Library, unread};
use crate::journal::rows;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::sync::Arc;

/// Deliveries that are looked at in one transaction.
const STEP: i64 = 20_000;

/// Of one delivery, what is named of those that came later.
const NAMED_MAX: usize = 10_000;

/// Those later deliveries to the same target that share an order key with a delivery and were delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// How many there are.
    pub count: u64,
    /// The first 10,000 of them, oldest first.
    pub deliveries: Vec<DeliveryId>,
}

/// A delivery that is asked about.
struct Asked {
    id: DeliveryId,
    target: Arc<str>,
}

impl Library {
    /// For each delivery, what was delivered of later messages on a common key.
    pub(in crate::journal) fn later_delivered(&self, deliveries: &[DeliveryId]) -> Result<Vec<Later>, JournalError> {
        let mut by_key: HashMap<OrderKey, Vec<usize>> = HashMap::new();
        let mut asked = Vec::with_capacity(deliveries.len());
        for (n, id) in deliveries.iter().enumerate() {
            let segment = self.shelf.home(id.message).ok_or(JournalError::Missing)?;
            let (target, keys) = self.with(|connections| of(connections.get(&segment.path)?, *id).map_err(unread))?.ok_or(JournalError::Missing)?;
            keys.into_iter().for_each(|key| by_key.entry(key).or_default().push(n));
            asked.push(Asked { id: *id, target });
        }
        let mut found = vec![Later::default(); deliveries.len()];
        let Some(oldest) = deliveries.iter().map(|id| id.message).min() else { return Ok(found) };
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
                    let mut counted = Vec::new();
                    for n in keys.iter().filter_map(|key| by_key.get(key)).flatten() {
                        let Some(Asked { id: asked, target: to }) = asked.get(*n) else { continue };
                        if to == target && asked.message < id.message && !counted.contains(n) {
                            counted.push(*n);
                        }
                    }
                    for n in counted {
                        let Some(later) = found.get_mut(n) else { continue };
                        later.count += 1;
                        if later.deliveries.len() < NAMED_MAX {
                            later.deliveries.push(*id);
                        }
                    }
                }
                match page.last() {
                    Some((last, ..)) if page.len() == STEP as usize => after = (last.message.0.cast_signed(), i64::from(last.number)),
                    _ => break,
                }
            }
        }
        Ok(found)
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
