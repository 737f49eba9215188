//! What an operator does with deliveries that were given up: tries them again, as they are or with an edited message.

use crate::exchange::{DeliveryId, MessageId, OrderKey, Phi, Timestamp};
use crate::journal::folder::Folder;
use crate::journal::query::DeliveryState;
use crate::journal::rows::{self, outcome};
use crate::journal::schema::CODEC_RAW;
use crate::journal::sheet::{Note, Sheet};
use bytes::Bytes;
use rusqlite::params;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// How deliveries are to be tried again.
#[derive(Clone, Debug)]
pub struct Replay {
    /// When it was asked for.
    pub at: Timestamp,
    /// Who asked, for the delivery's history; may be empty.
    pub by: String,
    /// True: by the route set of their first attempt, as when they were received. False: by the one of the day.
    pub as_received: bool,
    /// True: also what was delivered.
    pub delivered_too: bool,
}

impl Replay {
    /// By the routes of the day, nothing that was delivered, by nobody in particular.
    pub fn at(at: Timestamp) -> Self {
        Self { at, by: String::new(), as_received: false, delivered_too: false }
    }
}

/// What an operator made of a message. The message stays as it was received; the last edit is what is mapped and delivered from then on.
#[derive(Clone, Debug)]
pub struct Edit {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// The message as it is to be.
    pub bytes: Phi<Bytes>,
    /// By a delivery's number, keys that keep the edited message in order; they are added to those that it has.
    pub keys: Vec<(u16, Vec<OrderKey>)>,
}

/// A file in the journal's folder for a message that an operator edits: patient data belongs there. It is this process's; what processes that were
/// killed have left is deleted, now and whenever the journal is opened.
pub fn draft_file(folder: &Path, message: MessageId) -> PathBuf {
    if let Ok(folder) = Folder::existing(folder) {
        folder.delete_drafts();
    }
    folder.join(format!("edit-{}-{}.hl7", message.0, std::process::id()))
}

impl Sheet {
    /// Makes what is parked under `key` pending again, up to `limit` deliveries. A dead letter goes on blocking until it is replayed or skipped
    /// itself. Returns how many became pending; adds their other keys to `also`.
    pub(in crate::journal) fn resume(
        &mut self,
        target: &str,
        key: OrderKey,
        at: Timestamp,
        limit: usize,
        also: &mut HashSet<OrderKey>,
    ) -> rusqlite::Result<(u64, bool)> {
        let ids: Vec<DeliveryId> = self
            .connection
            .prepare_cached(
                "SELECT p.message, p.number FROM parked AS p CROSS JOIN delivery AS d ON d.message = p.message AND d.number = p.number \
                 WHERE p.target = (SELECT id FROM name WHERE text = ?1) AND p.key = ?2 AND d.state = 3 ORDER BY p.message, p.number LIMIT ?3",
            )?
            .query_map(params![target, rows::key_number(key), limit as i64], |row| {
                Ok(DeliveryId { message: MessageId(row.get::<_, i64>(0)?.cast_unsigned()), number: row.get(1)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut resumed = 0;
        for id in &ids {
            let Some(row) = self.delivery(*id)? else { continue };
            self.unblock(*id, &row)?;
            self.reopen(*id, &row, at, &Note { outcome: outcome::RESUMED, code: "", summary: "", detail: None }, false)?;
            also.extend(row.keys.iter().copied());
            resumed += 1;
        }
        Ok((resumed, ids.len() == limit))
    }

    /// Makes a delivery pending again.
    pub(in crate::journal) fn replay(&mut self, id: DeliveryId, how: &Replay) -> rusqlite::Result<bool> {
        let Some(row) = self.delivery(id)? else { return Ok(false) };
        let may = match row.state {
            DeliveryState::DeadLetter | DeliveryState::Skipped | DeliveryState::Superseded | DeliveryState::Parked => true,
            DeliveryState::Delivered => how.delivered_too,
            DeliveryState::Pending => false,
        };
        if !may {
            return Ok(false);
        }
        self.unblock(id, &row)?;
        if !how.as_received {
            self.forget_answers(id)?;
        }
        let routes = if how.as_received { "by the routes of its first attempt" } else { "by the routes of the day" };
        let summary = if how.by.is_empty() { String::new() } else { format!("{routes}, by {}", how.by) };
        self.reopen(id, &row, how.at, &Note { outcome: outcome::REPLAYED, code: "", summary: &summary, detail: None }, !how.as_received)?;
        Ok(true)
    }

    /// A replay after a change of routes must not keep the old route set (`fresh`); a resumed delivery was never tried or keeps what it had.
    fn reopen(&mut self, id: DeliveryId, row: &crate::journal::sheet::Row, at: Timestamp, note: &Note<'_>, fresh: bool) -> rusqlite::Result<()> {
        let again = note.outcome == outcome::REPLAYED;
        self.connection
            .prepare_cached(
                "UPDATE delivery SET state = 0, not_before = NULL, program = CASE WHEN ?3 = 1 THEN NULL ELSE program END, \
                 first_attempt = CASE WHEN ?4 = 1 THEN NULL ELSE first_attempt END WHERE message = ?1 AND number = ?2",
            )?
            .execute(params![id.message.0.cast_signed(), id.number, i64::from(fresh), i64::from(again)])?;
        self.note(id, at, note)?;
        self.changes().step(&row.target, Some(row.state), DeliveryState::Pending);
        Ok(())
    }

    /// Stores what an operator made of a message, and widens what keeps its deliveries in order. False if there is no such message, or if
    /// one of its deliveries waits or is under way: that would be made by half of each.
    pub(in crate::journal) fn edit(&mut self, id: MessageId, edit: &Edit) -> rusqlite::Result<bool> {
        let number = id.0.cast_signed();
        let there = self.connection.prepare_cached("SELECT 1 FROM message WHERE id = ?1")?.exists([number])?;
        let waits = self.connection.prepare_cached("SELECT 1 FROM delivery WHERE message = ?1 AND state = 0")?.exists([number])?;
        if !there || waits {
            return Ok(false);
        }
        let mut packed = vec![CODEC_RAW];
        packed.extend_from_slice(edit.bytes.expose());
        self.connection
            .prepare_cached("INSERT INTO edit (message, at, by, payload) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![number, edit.at.0, edit.by, packed])?;
        self.changes().bytes += packed.len() as u64;
        // They were found for the message as it was; who is asked next is asked about what it says now.
        self.connection.prepare_cached("DELETE FROM answer WHERE message = ?1")?.execute([number])?;
        for (delivery, keys) in &edit.keys {
            let id = DeliveryId { message: id, number: *delivery };
            let Some(row) = self.delivery(id)? else { continue };
            let mut all: Vec<OrderKey> = row.keys.iter().chain(keys).copied().collect();
            all.sort_unstable();
            all.dedup();
            self.connection.prepare_cached("UPDATE delivery SET order_keys = ?3 WHERE message = ?1 AND number = ?2")?.execute(params![
                number,
                delivery,
                rows::key_bytes(&all)
            ])?;
            // What blocks goes on to block those of its new keys, too, until it is replayed.
            let mut block = self.connection.prepare_cached(
                "INSERT OR IGNORE INTO parked SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM parked WHERE target = ?1 AND message = ?3 AND number = ?4)",
            )?;
            for key in keys {
                block.execute(params![row.target_number, rows::key_number(*key), number, delivery])?;
            }
        }
        Ok(true)
    }
}
