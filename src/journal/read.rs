//! Reading, in short transactions, from any thread and also while another process writes.

use crate::exchange::{DeliveryId, Envelope, MessageId, OrderKey, Timestamp};
use crate::journal::folder::Folder;
use crate::journal::gate::{Connections, Gate};
use crate::journal::owed;
use crate::journal::query::{
    AttemptRecord, Counts, DeliveryRecord, DeliveryState, EditRecord, JournalError, MessageRecord, Pending, Program, SegmentRecord, Statistics, TypeCount,
    Unsettled,
};
use crate::journal::rows::{self, Names, outcome};
use crate::journal::schema::code;
use crate::journal::settle::{IdentityKey, ServerId};
use crate::journal::shelf::{STATES, Segment, Shelf, kind};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sets of connections that are kept for the next reader.
const SETS_MAX: usize = 4;

/// The journal as readers see it.
pub(in crate::journal) struct Library {
    pub(in crate::journal) folder: Folder,
    pub(in crate::journal) shelf: Arc<Shelf>,
    pub(in crate::journal) gate: Arc<Gate>,
    pub(in crate::journal) secret: [u8; 32],
}

/// SQLite's errors without its texts. A file whose pages or rows make no sense will make none at the next try either.
pub(in crate::journal) fn unread(error: rusqlite::Error) -> JournalError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, TypeMismatch};
    let damaged = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(failure.code, DatabaseCorrupt | NotADatabase | TypeMismatch),
        _ => true,
    };
    if damaged { JournalError::Damaged(code(&error)) } else { JournalError::Database(code(&error)) }
}

fn unknown_codec() -> JournalError {
    JournalError::Damaged("its payload is packed in a way that this version does not know".to_owned())
}

impl Library {
    /// Runs a reader with connections of its own.
    pub(in crate::journal) fn with<T>(&self, read: impl FnOnce(&mut Connections) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let _inside = self.gate.enter();
        let mut connections = self.gate.idle.lock().expect("no holder panics").pop().unwrap_or_default();
        let result = read(&mut connections);
        let mut idle = self.gate.idle.lock().expect("no holder panics");
        if idle.len() < SETS_MAX {
            idle.push(connections);
        }
        result
    }

    /// Reads what spans several transactions, and anew if retention took a segment away in between.
    pub(in crate::journal) fn steadily<T>(&self, read: impl Fn() -> Result<T, JournalError>) -> Result<T, JournalError> {
        loop {
            let before = self.shelf.all();
            let result = read();
            if Arc::ptr_eq(&before, &self.shelf.all()) {
                return result;
            }
        }
    }

    /// Deliveries that wait for a target, in order.
    pub(in crate::journal) fn pending(&self, target: &str, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Pending>, JournalError> {
        self.steadily(|| self.pending_once(target, after, limit))
    }

    fn pending_once(&self, target: &str, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Pending>, JournalError> {
        let segments = self.shelf.all();
        let mut found: Vec<Pending> = Vec::new();
        let mut routes = Names::default();
        let (message, number) = after.map_or((-1, 0), |after| (after.message.0.cast_signed(), after.number));
        for (place, segment) in segments.iter().enumerate() {
            let passed = place > 0 && segments.get(place + 1).is_some_and(|next| next.first.cast_signed() <= message);
            if passed || found.len() >= limit || segment.count(target, DeliveryState::Pending) == 0 {
                continue;
            }
            let wanted = limit - found.len();
            let page = self.with(|connections| pending_in(connections.get(&segment.path)?, target, (message, number), wanted, &mut routes).map_err(unread))?;
            found.extend(page);
        }
        self.mark_blocked(target, &segments, &mut found)?;
        Ok(found)
    }

    /// Marks those of which an earlier one of a common key is parked or blocks. Costs nothing as long as none is.
    fn mark_blocked(&self, target: &str, segments: &[Arc<Segment>], found: &mut [Pending]) -> Result<(), JournalError> {
        for segment in segments.iter().filter(|segment| segment.may_block(target)) {
            self.with(|connections| {
                let connection = connections.get(&segment.path)?;
                let number: Option<i64> = connection.query_row("SELECT id FROM name WHERE text = ?1", [target], |row| row.get(0)).optional().map_err(unread)?;
                let Some(number) = number else { return Ok(()) };
                let mut blocks = connection.prepare_cached("SELECT 1 FROM parked WHERE target = ?1 AND key = ?2 AND message < ?3 LIMIT 1").map_err(unread)?;
                for pending in found.iter_mut().filter(|pending| !pending.blocked) {
                    for key in &pending.keys {
                        let place = params![number, rows::key_number(*key), pending.id.message.0.cast_signed()];
                        if blocks.exists(place).map_err(unread)? {
                            pending.blocked = true;
                            break;
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What is not settled for a target, by route, of messages after `after`.
    pub(in crate::journal) fn unsettled(&self, target: &str, after: Option<MessageId>) -> Result<BTreeMap<Arc<str>, Unsettled>, JournalError> {
        self.steadily(|| {
            let after = after.map_or(-1, |after| after.0.cast_signed());
            let mut sum: BTreeMap<Arc<str>, Unsettled> = BTreeMap::new();
            let segments = self.shelf.all();
            for segment in segments.iter().filter(|s| s.may_block(target) || s.count(target, DeliveryState::Pending) > 0) {
                self.with(|connections| unsettled_in(connections.get(&segment.path)?, target, after, &mut sum).map_err(unread))?;
            }
            Ok(sum)
        })
    }

    /// What waits for a target and was never tried, by route.
    pub(in crate::journal) fn untried(&self, target: &str, after: Option<MessageId>, to: MessageId) -> Result<BTreeMap<Arc<str>, u64>, JournalError> {
        let sql = "SELECT (SELECT text FROM name WHERE id = d.route), count(*) FROM delivery AS d INDEXED BY delivery_open \
             WHERE d.target = (SELECT id FROM name WHERE text = ?1) AND d.state = 0 AND d.state <> 1 AND d.message > ?2 AND d.message <= ?3 \
             AND d.program IS NULL GROUP BY d.route";
        self.steadily(|| {
            let (after, to) = (after.map_or(-1, |after| after.0.cast_signed()), to.0.cast_signed());
            let mut sum: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            for segment in self.shelf.all().iter().filter(|s| s.count(target, DeliveryState::Pending) > 0) {
                self.with(|connections| {
                    let mut query = connections.get(&segment.path)?.prepare_cached(sql).map_err(unread)?;
                    let mut rows = query.query(params![target, after, to]).map_err(unread)?;
                    while let Some(row) = rows.next().map_err(unread)? {
                        *sum.entry(row.get(0).map_err(unread)?).or_default() += row.get::<_, i64>(1).map_err(unread)?.unsigned_abs();
                    }
                    Ok(())
                })?;
            }
            Ok(sum)
        })
    }

    /// Routes that are or were gone, with the last set that had each.
    pub(in crate::journal) fn retired(&self) -> Result<HashMap<Arc<str>, String>, JournalError> {
        self.with(|connections| {
            let connection = connections.get(&self.folder.state())?;
            let mut query = connection.prepare_cached("SELECT route, program FROM retired").map_err(unread)?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(unread)?;
            rows.collect::<rusqlite::Result<_>>().map_err(unread)
        })
    }

    /// The newest message with a dead letter for a target: one look into an index.
    pub(in crate::journal) fn newest_dead_letter(&self, target: &str) -> Result<Option<MessageId>, JournalError> {
        let sql = "SELECT message FROM delivery INDEXED BY delivery_open WHERE target = (SELECT id FROM name WHERE text = ?1) AND state = 2 \
             AND state <> 1 ORDER BY message DESC, number DESC LIMIT 1";
        self.steadily(|| {
            let mut newest = None;
            for segment in self.shelf.all().iter().filter(|segment| segment.count(target, DeliveryState::DeadLetter) > 0) {
                let found = self.with(|connections| {
                    let connection = connections.get(&segment.path)?;
                    connection.prepare_cached(sql).and_then(|mut query| query.query_row([target], |row| row.get::<_, i64>(0)).optional()).map_err(unread)
                })?;
                newest = newest.max(found.map(|id| MessageId(id.cast_unsigned())));
            }
            Ok(newest)
        })
    }

    /// Whether something earlier than `id` is parked or blocks on one of these keys.
    pub(in crate::journal) fn is_blocked(&self, target: &str, id: DeliveryId, keys: &[OrderKey]) -> Result<bool, JournalError> {
        let mut one = [Pending {
            id,
            route: "".into(),
            keys: keys.to_vec(),
            attempts: 0,
            not_before: None,
            ambiguous: false,
            program: None,
            received: Timestamp(0),
            first_attempt: None,
            blocked: false,
            awaited: None,
            owed: false,
        }];
        self.mark_blocked(target, &self.shelf.all(), &mut one)?;
        Ok(one.iter().any(|pending| pending.blocked))
    }

    /// Messages as they are mapped: as they were received, or as an operator edited them.
    pub(in crate::journal) fn payloads(&self, ids: &[MessageId]) -> Result<Vec<Envelope>, JournalError> {
        self.with(|connections| {
            ids.iter()
                .map(|id| {
                    let connection = connections.get(&self.shelf.home(*id).ok_or(JournalError::Missing)?.path)?;
                    let mut envelope = as_received(connection, *id)?;
                    let mut edited = connection.prepare_cached("SELECT payload FROM edit WHERE message = ?1 ORDER BY id DESC LIMIT 1").map_err(unread)?;
                    let edited = edited.query_row([id.0.cast_signed()], |row| Ok(rows::unpacked(row.get_ref(0)?.as_blob()?))).optional().map_err(unread)?;
                    if let Some(bytes) = edited {
                        envelope.bytes = crate::exchange::Phi::new(bytes.ok_or_else(unknown_codec)?);
                    }
                    Ok(envelope)
                })
                .collect()
        })
    }

    /// A message as it was received.
    pub(in crate::journal) fn received(&self, id: MessageId) -> Result<Envelope, JournalError> {
        self.with(|connections| as_received(connections.get(&self.shelf.home(id).ok_or(JournalError::Missing)?.path)?, id))
    }

    /// Where identities are on their server.
    pub(in crate::journal) fn known(&self, identities: &[IdentityKey]) -> Result<Vec<Option<ServerId>>, JournalError> {
        self.with(|connections| {
            let connection = connections.get(&self.folder.state())?;
            let mut query = connection.prepare_cached("SELECT id, etag FROM identity WHERE key = ?1").map_err(unread)?;
            let mut look = |key: &IdentityKey| query.query_row([key.0], |row| Ok(ServerId { id: row.get(0)?, etag: row.get(1)? })).optional().map_err(unread);
            identities.iter().map(&mut look).collect()
        })
    }

    /// The site file that was applied last, or the last one that had a target that is gone.
    pub(in crate::journal) fn site(&self, target: Option<&str>) -> Result<Option<String>, JournalError> {
        self.with(|connections| {
            let sql = "SELECT text FROM site WHERE target = ?1";
            connections.get(&self.folder.state())?.query_row(sql, [target.unwrap_or_default()], |row| row.get(0)).optional().map_err(unread)
        })
    }

    /// A route set; the last one applied if no hash is given.
    pub(in crate::journal) fn program(&self, hash: Option<&str>) -> Result<Option<Program>, JournalError> {
        self.with(|connections| {
            let sql = "SELECT hash, applied, bytes FROM program WHERE hash = coalesce(?1, (SELECT hash FROM applied))";
            let program = |row: &rusqlite::Row<'_>| Ok(Program { hash: row.get(0)?, applied: Timestamp(row.get(1)?), bytes: row.get(2)? });
            connections.get(&self.folder.state())?.query_row(sql, [hash], program).optional().map_err(unread)
        })
    }

    /// What a target asked to remember last.
    pub(in crate::journal) fn target_state(&self, target: &str) -> Result<Option<String>, JournalError> {
        self.steadily(|| self.target_state_once(target))
    }

    fn target_state_once(&self, target: &str) -> Result<Option<String>, JournalError> {
        let mut newest: Option<(i64, String)> = None;
        for segment in self.shelf.all().iter() {
            let sql = "SELECT sequence, state FROM target_state WHERE target = ?1";
            let found = self.with(|connections| {
                connections.get(&segment.path)?.query_row(sql, [target], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(unread)
            })?;
            newest = newest.max(found);
        }
        Ok(newest.map(|(_, state)| state))
    }

    /// Everything about one message.
    pub(in crate::journal) fn show(&self, id: MessageId) -> Result<MessageRecord, JournalError> {
        self.steadily(|| self.show_once(id))
    }

    fn show_once(&self, id: MessageId) -> Result<MessageRecord, JournalError> {
        let segment = self.shelf.home(id).ok_or(JournalError::Missing)?;
        let mut record = self.with(|connections| {
            let connection = connections.get(&segment.path)?;
            message(connection, id).map_err(unread)?.ok_or(JournalError::Missing)?.ok_or_else(unknown_codec)
        })?;
        for later in self.shelf.all().iter().filter(|later| later.first >= segment.first) {
            record.duplicates += self.with(|connections| {
                let sql = "SELECT count(*) FROM duplicate WHERE original = ?1";
                connections.get(&later.path)?.query_row(sql, [id.0.cast_signed()], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(unread)
            })?;
        }
        Ok(record)
    }

    /// Counts, from the tallies: a few rows a segment.
    pub(in crate::journal) fn stats(&self) -> Result<Statistics, JournalError> {
        self.steadily(|| self.stats_once())
    }

    fn stats_once(&self) -> Result<Statistics, JournalError> {
        let mut statistics = Statistics::default();
        let mut kinds: BTreeMap<(String, String, i64), u64> = BTreeMap::new();
        for segment in self.shelf.all().iter() {
            let mut messages = 0;
            self.with(|connections| {
                let connection = connections.get(&segment.path)?;
                let mut query = connection.prepare_cached("SELECT kind, a, b, c, n FROM tally WHERE kind <> ?1").map_err(unread)?;
                let mut rows = query.query([kind::DELIVERY]).map_err(unread)?;
                while let Some(row) = rows.next().map_err(unread)? {
                    let count = row.get::<_, i64>(4).map_err(unread)?.unsigned_abs();
                    match row.get(0).map_err(unread)? {
                        kind::MESSAGE => {
                            messages += count;
                            *kinds.entry((row.get(1).map_err(unread)?, row.get(2).map_err(unread)?, row.get(3).map_err(unread)?)).or_default() += count;
                        }
                        kind::DUPLICATE => statistics.duplicates += count,
                        _ => statistics.reused_control_ids += count,
                    }
                }
                Ok(())
            })?;
            let unsettled =
                segment.targets.lock().expect("no holder panics").values().map(|[pending, _, dead, parked, ..]| (pending + dead + parked).unsigned_abs()).sum();
            let bytes = [&segment.path, &with_suffix(&segment.path, "-wal")].iter().map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len())).sum();
            statistics.segments.push(SegmentRecord { file: segment.file(), messages, unsettled, bytes });
        }
        let count =
            |((listener, message_type, disposition), count)| TypeCount { listener, message_type, disposition: rows::disposition_word(disposition), count };
        statistics.messages = kinds.into_iter().map(count).collect();
        (statistics.bytes, statistics.wal_bytes) = self.folder.bytes();
        let mut targets: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
        for segment in self.shelf.all().iter() {
            for (target, [pending, delivered, dead, parked, ..]) in segment.targets.lock().expect("no holder panics").iter() {
                let counts = targets.entry(target.clone()).or_default();
                counts.backlog += pending.unsigned_abs();
                counts.delivered += delivered.unsigned_abs();
                counts.dead_letters += dead.unsigned_abs();
                counts.parked += parked.unsigned_abs();
            }
        }
        for (target, mut counts) in targets {
            counts.oldest_waiting = self.pending(&target, None, 1)?.first().map(|pending| pending.received);
            statistics.targets.push((target.to_string(), counts));
        }
        Ok(statistics)
    }
}

/// A path with something after its name.
pub(in crate::journal) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The length of a file's write-ahead log.
pub(in crate::journal) fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(with_suffix(path, "-wal")).map_or(0, |meta| meta.len())
}

/// A state from its stored number.
pub(in crate::journal) fn state(number: i64) -> DeliveryState {
    usize::try_from(number).ok().and_then(|place| STATES.get(place)).copied().unwrap_or(DeliveryState::Pending)
}

fn unsettled_in(connection: &Connection, target: &str, after: i64, sum: &mut BTreeMap<Arc<str>, Unsettled>) -> rusqlite::Result<()> {
    let mut query = connection.prepare_cached(
        "SELECT (SELECT text FROM name WHERE id = d.route), d.state, count(*) FROM delivery AS d INDEXED BY delivery_open \
         WHERE d.target = (SELECT id FROM name WHERE text = ?1) AND d.state IN (0, 2, 3) AND d.state <> 1 AND d.message > ?2 \
         AND (d.state <> 0 OR d.program IS NULL) GROUP BY d.route, d.state",
    )?;
    let mut rows = query.query(params![target, after])?;
    while let Some(row) = rows.next()? {
        let unsettled = sum.entry(row.get(0)?).or_default();
        let place = match row.get::<_, i64>(1)? {
            0 => &mut unsettled.untried,
            2 => &mut unsettled.dead_letters,
            _ => &mut unsettled.parked,
        };
        *place += row.get::<_, i64>(2)?.unsigned_abs();
    }
    Ok(())
}

fn pending_in(connection: &Connection, target: &str, after: (i64, u16), limit: usize, routes: &mut Names) -> rusqlite::Result<Vec<Pending>> {
    let mut query = connection.prepare_cached(
        "SELECT d.message, d.number, r.text, d.order_keys, d.attempts, d.not_before, d.ambiguous, d.program, d.received, d.first_attempt, \
         (SELECT max(a.number = d.number) FROM awaited AS a WHERE a.message = d.message), \
         EXISTS (SELECT 1 FROM acknowledgement AS k WHERE k.message = d.message AND k.state = 0) \
         FROM delivery AS d INDEXED BY delivery_open CROSS JOIN name AS r ON r.id = d.route \
         WHERE d.target = (SELECT id FROM name WHERE text = ?1) AND d.state = 0 AND d.state <> 1 AND (d.message, d.number) > (?2, ?3) \
         ORDER BY d.message, d.number LIMIT ?4",
    )?;
    let pending = query.query_map(params![target, after.0, after.1, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(Pending {
            id: DeliveryId { message: MessageId(row.get::<_, i64>(0)?.cast_unsigned()), number: row.get(1)? },
            route: routes.share(row.get_ref(2)?.as_str()?),
            keys: rows::keys(row.get_ref(3)?.as_blob()?),
            attempts: row.get(4)?,
            not_before: row.get::<_, Option<i64>>(5)?.map(Timestamp),
            ambiguous: row.get::<_, i64>(6)? != 0,
            program: row.get(7)?,
            received: Timestamp(row.get(8)?),
            first_attempt: row.get::<_, Option<i64>>(9)?.map(Timestamp),
            blocked: false,
            awaited: row.get::<_, Option<i64>>(10)?.map(|this| this != 0),
            owed: row.get(11)?,
        })
    })?;
    pending.collect()
}

/// A message as it was received.
fn as_received(connection: &Connection, id: MessageId) -> Result<Envelope, JournalError> {
    let sql = format!("SELECT {} FROM message AS m CROSS JOIN name AS l ON l.id = m.listener WHERE m.id = ?1", rows::ENVELOPE);
    let mut query = connection.prepare_cached(&sql).map_err(unread)?;
    let envelope = query.query_row([id.0.cast_signed()], |row| rows::envelope(connection, row)).optional().map_err(unread)?;
    envelope.ok_or(JournalError::Missing)?.ok_or_else(unknown_codec)
}

fn message(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<Option<MessageRecord>>> {
    // One picture: what is read first and what is read last must be of the same moment, or a message that is being refused looks answered.
    let _picture = connection.unchecked_transaction()?;
    let number = id.0.cast_signed();
    let sql = format!("SELECT {} FROM message AS m CROSS JOIN name AS l ON l.id = m.listener WHERE m.id = ?1", rows::ENVELOPE);
    let head = connection
        .prepare_cached(&sql)?
        .query_row([number], |row| Ok(rows::envelope(connection, row)?.map(|envelope| (envelope, row.get(11), row.get(12), row.get(13)))))
        .optional()?;
    let Some(head) = head else { return Ok(None) };
    let Some((envelope, disposition, code, reason)) = head else { return Ok(Some(None)) };
    let mut query = connection.prepare_cached(
        "SELECT d.number, r.text, t.text, d.state, d.not_before, d.program, d.order_keys FROM delivery AS d CROSS JOIN name AS r ON r.id = d.route \
         CROSS JOIN name AS t ON t.id = d.target WHERE d.message = ?1 ORDER BY d.number",
    )?;
    let mut deliveries: Vec<DeliveryRecord> = query
        .query_map([number], |row| {
            Ok(DeliveryRecord {
                id: DeliveryId { message: id, number: row.get(0)? },
                route: row.get(1)?,
                target: row.get(2)?,
                state: state(row.get(3)?),
                not_before: row.get::<_, Option<i64>>(4)?.map(Timestamp),
                program: row.get(5)?,
                keys: rows::keys(row.get_ref(6)?.as_blob()?),
                attempts: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut query = connection.prepare_cached("SELECT number, at, outcome, code, summary, detail FROM attempt WHERE message = ?1 ORDER BY id")?;
    let mut rows = query.query([number])?;
    while let Some(row) = rows.next()? {
        let place: u16 = row.get(0)?;
        let attempt = AttemptRecord {
            at: Timestamp(row.get(1)?),
            outcome: outcome::word(row.get(2)?),
            code: row.get(3)?,
            summary: row.get(4)?,
            detail: row.get::<_, Option<String>>(5)?.map(crate::exchange::Phi::new),
        };
        if let Some(delivery) = deliveries.iter_mut().find(|delivery| delivery.id.number == place) {
            delivery.attempts.push(attempt);
        }
    }
    let disposition = rows::disposition(disposition?, code?, reason?);
    let mut query = connection.prepare_cached("SELECT number FROM awaited WHERE message = ?1")?;
    let awaited = query.query_map([number], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let owed = owed::record(connection, id)?;
    let mut query = connection.prepare_cached("SELECT at, by, payload FROM edit WHERE message = ?1 ORDER BY id")?;
    let edits = query.query_map([number], |row| Ok((row.get(0)?, row.get(1)?, rows::unpacked(row.get_ref(2)?.as_blob()?))))?;
    let mut record = MessageRecord { id, envelope, disposition, deliveries, duplicates: 0, awaited, owed, edits: Vec::new() };
    for edit in edits {
        let (at, by, bytes) = edit?;
        let Some(bytes) = bytes else { return Ok(Some(None)) };
        record.edits.push(EditRecord { at: Timestamp(at), by, bytes: crate::exchange::Phi::new(bytes) });
    }
    Ok(Some(Some(record)))
}
