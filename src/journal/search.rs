//! Finding messages: a page at a time, newest first, each step a short transaction.

use crate::exchange::{ControlId, MessageId, Timestamp};
use crate::journal::finder::term_hash;
use crate::journal::query::{DeliveryState, Found, FoundDelivery, JournalError, Query};
use crate::journal::read::{Library, state, unread};
use crate::journal::rows;
use crate::journal::shelf::{Segment, state_number};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Candidates that are looked at in one transaction.
const STEP: i64 = 500;

/// Messages of a page if the query does not say.
const LIMIT: usize = 100;

/// By which way candidates are found before the rest of the query is judged.
enum Way {
    Term(i64),
    ControlId,
    Open(usize),
    Scan,
}

impl Library {
    /// Finds messages.
    pub(in crate::journal) fn search(&self, query: &Query) -> Result<Vec<Found>, JournalError> {
        let limit = if query.limit == 0 { LIMIT } else { query.limit };
        let way = if let Some(term) = &query.term {
            Way::Term(term_hash(&self.secret, term.expose()))
        } else if query.control_id.as_ref().is_some_and(|id| !id.0.is_empty()) {
            Way::ControlId
        } else if let Some(state) = query.state.filter(|state| *state != DeliveryState::Delivered) {
            Way::Open(state_number(state))
        } else {
            Way::Scan
        };
        let mut below = query.before.map_or(i64::MAX, |before| before.0.cast_signed());
        let mut found = Vec::new();
        for segment in self.shelf.all().iter().rev() {
            if segment.first.cast_signed() >= below {
                continue;
            }
            while found.len() < limit {
                let ids = self.candidates(segment, &way, query, below)?;
                let Some(last) = ids.last().copied() else { break };
                for id in &ids {
                    if found.len() >= limit {
                        break;
                    }
                    found.extend(self.with(|connections| look(connections.get(&segment.path)?, *id, query).map_err(unread))?);
                }
                below = last;
            }
        }
        Ok(found)
    }

    fn candidates(&self, segment: &Arc<Segment>, way: &Way, query: &Query, below: i64) -> Result<Vec<i64>, JournalError> {
        let path = if let Way::Term(_) = way { self.folder.search(segment.first) } else { segment.path.clone() };
        let result = self.with(|connections| {
            let connection = connections.get(&path)?;
            let ids = match way {
                Way::Term(hash) => {
                    ids(connection, "SELECT message FROM term WHERE hash = ?1 AND message < ?2 ORDER BY message DESC LIMIT ?3", params![hash, below, STEP])
                }
                Way::ControlId => ids(
                    connection,
                    "SELECT id FROM message WHERE control_id = ?1 AND control_id <> '' AND id < ?2 ORDER BY id DESC LIMIT ?3",
                    params![query.control_id.as_ref().map(|id| &id.0), below, STEP],
                ),
                Way::Open(state) => open_ids(connection, *state, query.target.as_deref(), below),
                Way::Scan => ids(
                    connection,
                    "SELECT id FROM message WHERE id < ?1 AND received >= ?2 AND received < ?3 ORDER BY id DESC LIMIT ?4",
                    params![below, query.from.map_or(i64::MIN, |from| from.0), query.to.map_or(i64::MAX, |to| to.0), STEP],
                ),
            };
            ids.map_err(unread)
        });
        match result {
            // The search of a segment is made behind the acknowledgement: it may not be there yet.
            Err(JournalError::Missing) if matches!(way, Way::Term(_)) => Ok(Vec::new()),
            result => result,
        }
    }
}

fn ids(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<Vec<i64>> {
    connection.prepare_cached(sql)?.query_map(values, |row| row.get(0))?.collect()
}

/// Messages with a delivery in a state that is not "delivered", from the index of open deliveries, for one target or for all.
fn open_ids(connection: &Connection, state: usize, target: Option<&str>, below: i64) -> rusqlite::Result<Vec<i64>> {
    let targets = match target {
        Some(target) => {
            connection.prepare_cached("SELECT id FROM name WHERE text = ?1")?.query_row([target], |row| row.get(0)).optional()?.into_iter().collect()
        }
        None => ids(connection, "SELECT DISTINCT c.id FROM name AS c JOIN tally AS t ON t.kind = 2 AND t.a = c.text", [])?,
    };
    let mut all = Vec::new();
    for target in targets {
        let sql = "SELECT DISTINCT message FROM delivery INDEXED BY delivery_open WHERE target = ?1 AND state = ?2 AND state <> 1 AND message < ?3 \
                   ORDER BY message DESC LIMIT ?4";
        all.extend(ids(connection, sql, params![target, state as i64, below, STEP])?);
    }
    all.sort_unstable_by(|one, other| other.cmp(one));
    all.dedup();
    all.truncate(STEP as usize);
    Ok(all)
}

/// Reads one message's header and deliveries, and judges it by all of the query.
fn look(connection: &Connection, id: i64, query: &Query) -> rusqlite::Result<Option<Found>> {
    let head = connection
        .prepare_cached(
            "SELECT m.received, l.text, m.type, m.application, m.facility, m.control_id, m.disposition, m.code, m.reason, length(m.payload) - 1 \
             FROM message AS m CROSS JOIN name AS l ON l.id = m.listener WHERE m.id = ?1",
        )?
        .query_row([id], |row| {
            let disposition: i64 = row.get(6)?;
            Ok((
                rows::disposition_word(disposition),
                Found {
                    id: MessageId(id.cast_unsigned()),
                    received: Timestamp(row.get(0)?),
                    listener: row.get(1)?,
                    message_type: row.get(2)?,
                    sending_application: row.get(3)?,
                    sending_facility: row.get(4)?,
                    control_id: ControlId(row.get(5)?),
                    disposition: rows::disposition(disposition, row.get(7)?, row.get(8)?),
                    bytes: row.get::<_, i64>(9)?.unsigned_abs(),
                    deliveries: Vec::new(),
                },
            ))
        })
        .optional()?;
    let Some((word, mut found)) = head else { return Ok(None) };
    let type_fits = |wanted: &str| {
        found.message_type == wanted || (!wanted.contains('^') && found.message_type.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('^')))
    };
    let fits = query.message_type.as_deref().is_none_or(type_fits)
        && query.listener.as_deref().is_none_or(|listener| *found.listener == *listener)
        && query.from.is_none_or(|from| found.received >= from)
        && query.to.is_none_or(|to| found.received < to)
        && query.control_id.as_ref().is_none_or(|control_id| found.control_id == *control_id)
        && query.disposition.as_deref().is_none_or(|wanted| wanted == word);
    if !fits {
        return Ok(None);
    }
    let asked = query.state.is_some() || query.target.is_some() || query.route.is_some() || query.code.is_some() || query.reason.is_some();
    found.deliveries = deliveries(connection, id, query)?;
    Ok(Some(found).filter(|found| !asked || found.deliveries.iter().any(|delivery| delivery.wanted)))
}

fn deliveries(connection: &Connection, id: i64, query: &Query) -> rusqlite::Result<Vec<FoundDelivery>> {
    let mut all: Vec<FoundDelivery> = connection
        .prepare_cached(
            "SELECT d.number, r.text, t.text, d.state FROM delivery AS d CROSS JOIN name AS r ON r.id = d.route CROSS JOIN name AS t ON t.id = d.target \
             WHERE d.message = ?1 ORDER BY d.number",
        )?
        .query_map([id], |row| {
            let state = state(row.get(3)?);
            Ok(FoundDelivery {
                number: row.get(0)?,
                route: row.get(1)?,
                target: row.get(2)?,
                state,
                wanted: false,
                code: String::new(),
                summary: String::new(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut last = connection.prepare_cached("SELECT code, summary FROM attempt WHERE message = ?1 AND number = ?2 ORDER BY id DESC LIMIT 1")?;
    for delivery in &mut all {
        if delivery.state != DeliveryState::Delivered {
            let said = last.query_row(params![id, delivery.number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            (delivery.code, delivery.summary) = said.unwrap_or_default();
        }
        delivery.wanted = query.state.is_none_or(|wanted| wanted == delivery.state)
            && query.target.as_deref().is_none_or(|wanted| wanted == &*delivery.target)
            && query.route.as_deref().is_none_or(|wanted| wanted == &*delivery.route)
            && query.code.as_deref().is_none_or(|wanted| wanted == delivery.code)
            && query.reason.as_deref().is_none_or(|wanted| delivery.summary.to_lowercase().contains(&wanted.to_lowercase()));
    }
    Ok(all)
}
