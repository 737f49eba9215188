//! A segment opened for writing: the statements by which a commit changes it, and what that commit will have changed.

use crate::exchange::{DeliveryId, MessageId, OrderKey, Timestamp};
use crate::journal::owed::{self, Sender};
use crate::journal::query::DeliveryState;
use crate::journal::rows::{self, outcome};
use crate::journal::schema::{CODEC_RAW, Kind, database, open_writable};
use crate::journal::settle::{IdentityKey, Learned};
use crate::journal::shelf::{STATES, Segment, States, kind, state_number};
use crate::journal::{Append, Disposition, NewDelivery, OpenError, Settle, SettleFault, Settlement};
use rusqlite::blob::ZeroBlob;
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What one transaction on one segment does; applied to memory only after its commit.
#[derive(Default)]
pub(in crate::journal) struct Changes {
    /// Deliveries by target and state.
    pub(in crate::journal) targets: HashMap<Arc<str>, States>,
    tallies: HashMap<(i64, Arc<str>, String, i64), i64>,
    /// Targets that something newly waits for.
    pub(in crate::journal) arrived: BTreeSet<Arc<str>>,
    /// Whom something is newly to be told.
    pub(in crate::journal) due: BTreeSet<Sender>,
    /// For the identity map.
    pub(in crate::journal) learned: Vec<Learned>,
    /// Of the identity map.
    pub(in crate::journal) forgotten: Vec<IdentityKey>,
    last_received: Option<i64>,
    /// Messages stored.
    pub(in crate::journal) messages: usize,
    /// Settlements stored.
    pub(in crate::journal) settlements: usize,
    /// About how much the file grows.
    pub(in crate::journal) bytes: u64,
    /// When the transaction began.
    began: Option<Instant>,
}

impl Changes {
    /// From the begin of the transaction until now.
    pub(in crate::journal) fn took(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    fn tally(&mut self, kind: i64, a: &Arc<str>, b: &str, c: i64) {
        *self.tallies.entry((kind, a.clone(), b.to_owned(), c)).or_default() += 1;
    }

    pub(in crate::journal) fn step(&mut self, target: &Arc<str>, from: Option<DeliveryState>, to: DeliveryState) {
        let states = self.targets.entry(target.clone()).or_default();
        if let Some(from) = from {
            states[state_number(from)] -= 1;
        }
        states[state_number(to)] += 1;
        if to == DeliveryState::Pending {
            self.arrived.insert(target.clone());
        }
    }
}

/// What was found about a control ID in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::journal) enum Earlier {
    /// Never seen.
    Nothing,
    /// The same sender used it for something else.
    OtherContent,
    /// The same message.
    Same(MessageId, Timestamp),
}

/// A segment opened for writing.
pub(in crate::journal) struct Sheet {
    /// What readers share.
    pub(in crate::journal) segment: Arc<Segment>,
    pub(in crate::journal) connection: Connection,
    names: HashMap<Arc<str>, i64>,
    packed: Vec<u8>,
    /// True if a sender is or was owed an application acknowledgement for one of its messages.
    pub(in crate::journal) owes: bool,
    changes: Option<Changes>,
}

/// A delivery's row, as far as a change needs it.
pub(in crate::journal) struct Row {
    pub(in crate::journal) target: Arc<str>,
    pub(in crate::journal) target_number: i64,
    pub(in crate::journal) state: DeliveryState,
    pub(in crate::journal) keys: Vec<OrderKey>,
}

impl Sheet {
    /// Opens a segment that is on the shelf.
    pub(in crate::journal) fn open(segment: Arc<Segment>, cache_kib: i64) -> Result<Self, OpenError> {
        let connection = open_writable(&segment.path, Kind::Segment, cache_kib)?;
        Self::over(segment, connection)
    }

    /// A segment whose file is open already.
    pub(in crate::journal) fn over(segment: Arc<Segment>, connection: Connection) -> Result<Self, OpenError> {
        let owes = owed::has_any(&connection).map_err(|error| database(&segment.path, &error))?;
        Ok(Self { segment, connection, names: HashMap::new(), packed: Vec::new(), owes, changes: None })
    }

    /// Whether a transaction is open.
    pub(in crate::journal) fn is_open(&self) -> bool {
        self.changes.is_some()
    }

    /// About how many bytes the open transaction adds.
    pub(in crate::journal) fn growth(&self) -> u64 {
        self.changes.as_ref().map_or(0, |changes| changes.bytes)
    }

    /// Begins a transaction unless one is open.
    pub(in crate::journal) fn begin(&mut self) -> rusqlite::Result<()> {
        if self.changes.is_none() {
            let began = Instant::now();
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.changes = Some(Changes { began: Some(began), ..Changes::default() });
        }
        Ok(())
    }

    /// Something is newly to be told to this sender.
    pub(in crate::journal) fn due(&mut self, whom: Sender) {
        self.changes().due.insert(whom);
    }

    /// Notes about how much the open transaction adds.
    pub(in crate::journal) fn has_grown(&mut self, bytes: u64) {
        self.changes().bytes += bytes;
    }

    pub(in crate::journal) fn changes(&mut self) -> &mut Changes {
        self.changes.get_or_insert_default()
    }

    /// Commits; on return everything is on the disk and in the shelf's counts.
    pub(in crate::journal) fn commit(&mut self) -> rusqlite::Result<Changes> {
        let Some(changes) = self.changes.take() else { return Ok(Changes::default()) };
        {
            let mut add = self.connection.prepare_cached("INSERT INTO tally VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET n = n + excluded.n")?;
            for ((kind, a, b, c), n) in &changes.tallies {
                add.execute(params![kind, a, b, c, n])?;
            }
            for (target, states) in &changes.targets {
                for (state, n) in states.iter().enumerate().filter(|(_, n)| **n != 0) {
                    add.execute(params![kind::DELIVERY, target, "", state as i64, n])?;
                }
            }
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.segment.add(&changes.targets);
        if let Some(received) = changes.last_received {
            self.segment.last_received.fetch_max(received, Ordering::Relaxed);
        }
        Ok(changes)
    }

    /// Forgets the open transaction.
    pub(in crate::journal) fn roll_back(&mut self) {
        self.changes = None;
        // Names that were given in it are gone too.
        self.names.clear();
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    pub(in crate::journal) fn name(&mut self, text: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some(number) = self.names.get(text) {
            return Ok(*number);
        }
        self.connection.prepare_cached("INSERT OR IGNORE INTO name (text) VALUES (?1)")?.execute([text])?;
        let number = self.connection.prepare_cached("SELECT id FROM name WHERE text = ?1")?.query_row([text], |row| row.get(0))?;
        self.names.insert(text.clone(), number);
        Ok(number)
    }

    /// Looks for an earlier use of the message's control ID by the same sender, received at or after `since`.
    pub(in crate::journal) fn earlier(&self, append: &Append, since: i64) -> rusqlite::Result<Earlier> {
        let envelope = &append.envelope;
        let control_id = &envelope.control_id.0;
        // Nearly every message ends here, after one look into the index.
        let mut seen = self.connection.prepare_cached("SELECT 1 FROM message WHERE control_id = ?1 AND control_id <> '' LIMIT 1")?;
        if !seen.exists([control_id])? {
            return Ok(Earlier::Nothing);
        }
        if !envelope.message_time.is_empty() {
            let mut same = self.connection.prepare_cached(
                "SELECT id, received, payload FROM message WHERE control_id = ?1 AND control_id <> '' AND message_time = ?2 AND disposition <> 3 \
                 AND received >= ?3 AND application = ?4 AND facility = ?5 AND listener = (SELECT id FROM name WHERE text = ?6) ORDER BY id DESC LIMIT 8",
            )?;
            let sender = params![control_id, envelope.message_time, since, envelope.sending_application, envelope.sending_facility, envelope.listener];
            let mut rows = same.query(sender)?;
            while let Some(row) = rows.next()? {
                if row.get_ref(2)?.as_blob()?.split_first().is_some_and(|(codec, bytes)| *codec == CODEC_RAW && bytes == &envelope.bytes.expose()[..]) {
                    return Ok(Earlier::Same(MessageId(row.get::<_, i64>(0)?.cast_unsigned()), Timestamp(row.get(1)?)));
                }
            }
        }
        let mut other = self.connection.prepare_cached(
            "SELECT 1 FROM message WHERE control_id = ?1 AND control_id <> '' AND disposition <> 3 AND received >= ?2 AND application = ?3 AND facility = ?4 \
             AND listener = (SELECT id FROM name WHERE text = ?5) AND payload <> ?6 LIMIT 1",
        )?;
        let mut packed = vec![CODEC_RAW];
        packed.extend_from_slice(envelope.bytes.expose());
        let sender = params![control_id, since, envelope.sending_application, envelope.sending_facility, envelope.listener, packed];
        Ok(if other.exists(sender)? { Earlier::OtherContent } else { Earlier::Nothing })
    }

    /// Stores a message and its deliveries.
    pub(in crate::journal) fn store(&mut self, id: MessageId, append: &Append, other_content: bool) -> rusqlite::Result<()> {
        let envelope = &append.envelope;
        let listener = self.name(&envelope.listener)?;
        let (disposition, code, reason) = rows::disposition_columns(&append.disposition);
        let bytes = envelope.bytes.expose();
        let large = bytes.len() > rows::LARGE_BYTES;
        self.packed.clear();
        if !large {
            self.packed.push(CODEC_RAW);
            self.packed.extend_from_slice(bytes);
        }
        // A place for it comes first, so that it need not stand in SQLite's memory as a whole.
        let payload: &dyn ToSql = if large { &ZeroBlob(bytes.len() as u64 + 1) } else { &self.packed };
        self.connection.prepare_cached("INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)")?.execute(params![
            id.0.cast_signed(),
            envelope.received.0,
            listener,
            rows::format_number(envelope.format),
            disposition,
            code,
            reason,
            envelope.message_type,
            envelope.sending_application,
            envelope.sending_facility,
            envelope.message_time,
            envelope.control_id.0,
            envelope.peer,
            rows::key_bytes(&envelope.order_keys),
            payload
        ])?;
        if large {
            rows::write_large_payload(&self.connection, id.0.cast_signed(), bytes)?;
        }
        let grown = bytes.len() as u64 + 401;
        if !matches!(append.disposition, Disposition::Refused { .. }) {
            self.store_deliveries(id, 0, &append.deliveries, append.program.as_deref(), envelope.received, &envelope.order_keys)?;
            for number in &append.awaited {
                self.connection.prepare_cached("INSERT INTO awaited VALUES (?1, ?2)")?.execute(params![id.0.cast_signed(), number])?;
            }
        }
        self.owe(id, append)?;
        let received = envelope.received.0;
        let changes = self.changes();
        changes.tally(kind::MESSAGE, &envelope.listener, &envelope.message_type, disposition);
        if other_content {
            changes.tally(kind::REUSED, &envelope.listener, "", 0);
        }
        changes.last_received = Some(changes.last_received.unwrap_or(received).max(received));
        changes.messages += 1;
        changes.bytes += grown;
        Ok(())
    }

    fn store_deliveries(
        &mut self,
        id: MessageId,
        from: u16,
        deliveries: &[NewDelivery],
        program: Option<&str>,
        received: Timestamp,
        keys: &[OrderKey],
    ) -> rusqlite::Result<()> {
        let of_message = rows::key_bytes(keys);
        for (number, delivery) in (from..).zip(deliveries) {
            let (target, route) = (self.name(&delivery.target)?, self.name(&delivery.route)?);
            let own = delivery.keys.as_deref().map(rows::key_bytes);
            self.connection.prepare_cached("INSERT INTO delivery VALUES (?1, ?2, ?3, ?4, 0, 0, NULL, NULL, 0, ?7, ?5, ?6)")?.execute(params![
                id.0.cast_signed(),
                number,
                target,
                route,
                received.0,
                own.as_ref().unwrap_or(&of_message),
                program
            ])?;
            self.changes().step(&delivery.target, None, DeliveryState::Pending);
        }
        Ok(())
    }

    /// Notes that a message came again.
    pub(in crate::journal) fn store_duplicate(&mut self, original: MessageId, append: &Append) -> rusqlite::Result<()> {
        let envelope = &append.envelope;
        self.connection.prepare_cached("INSERT INTO duplicate (original, at, peer) VALUES (?1, ?2, ?3)")?.execute(params![
            original.0.cast_signed(),
            envelope.received.0,
            envelope.peer
        ])?;
        self.changes().tally(kind::DUPLICATE, &envelope.listener, "", 0);
        self.changes().messages += 1;
        Ok(())
    }

    /// Gives a stored message further deliveries.
    pub(in crate::journal) fn add_deliveries(&mut self, id: MessageId, deliveries: &[NewDelivery]) -> rusqlite::Result<Option<Vec<DeliveryId>>> {
        let message = self
            .connection
            .query_row("SELECT received, order_keys FROM message WHERE id = ?1", [id.0.cast_signed()], |row| {
                Ok((Timestamp(row.get(0)?), rows::keys(row.get_ref(1)?.as_blob()?)))
            })
            .optional()?;
        let Some((received, keys)) = message else { return Ok(None) };
        let next = "SELECT coalesce(max(number) + 1, 0) FROM delivery WHERE message = ?1";
        let from: u16 = self.connection.query_row(next, [id.0.cast_signed()], |row| row.get(0))?;
        self.store_deliveries(id, from, deliveries, None, received, &keys)?;
        Ok(Some((from..).take(deliveries.len()).map(|number| DeliveryId { message: id, number }).collect()))
    }

    pub(in crate::journal) fn delivery(&self, id: DeliveryId) -> rusqlite::Result<Option<Row>> {
        self.connection
            .prepare_cached("SELECT n.text, d.target, d.state, d.order_keys FROM delivery AS d CROSS JOIN name AS n ON n.id = d.target WHERE d.message = ?1 AND d.number = ?2")?
            .query_row(params![id.message.0.cast_signed(), id.number], |row| {
                let state = usize::try_from(row.get::<_, i64>(2)?).ok().and_then(|place| STATES.get(place)).copied();
                Ok(Row {
                    target: row.get(0)?,
                    target_number: row.get(1)?,
                    state: state.unwrap_or(DeliveryState::Pending),
                    keys: rows::keys(row.get_ref(3)?.as_blob()?),
                })
            })
            .optional()
    }

    /// Stores how an attempt ended. `sequence` numbers the settlements, so that the newest target state can be told.
    pub(in crate::journal) fn settle(&mut self, settle: &Settle, sequence: u64) -> rusqlite::Result<Result<(), SettleFault>> {
        let id = settle.delivery;
        let Some(row) = self.delivery(id)? else { return Ok(Err(SettleFault::Unknown)) };
        if row.state == DeliveryState::Delivered {
            return Ok(Err(SettleFault::Unknown));
        }
        if let Settlement::Refused { code, summary, detail, told } = &settle.outcome {
            let note = Note { outcome: outcome::REFUSED, code, summary, detail: detail.as_ref().map(|detail| detail.expose().as_str()) };
            return self.refuse(settle, *told, &note);
        }
        let mut note = Note { outcome: outcome::BEGUN, code: "", summary: "", detail: None };
        let (mut ambiguous, mut not_before, mut tried) = (0, None, 1);
        let to = match &settle.outcome {
            Settlement::Begun => {
                (ambiguous, tried) = (2, 0);
                DeliveryState::Pending
            }
            Settlement::Delivered { receipt, learned, forget, target_state } => {
                note = Note { outcome: outcome::DELIVERED, detail: Some(receipt.expose()), ..note };
                if let Some(state) = target_state {
                    self.connection.prepare_cached("INSERT OR REPLACE INTO target_state VALUES (?1, ?2, ?3)")?.execute(params![
                        row.target,
                        sequence.cast_signed(),
                        state
                    ])?;
                }
                self.changes().learned.extend_from_slice(learned);
                self.changes().forgotten.extend_from_slice(forget);
                DeliveryState::Delivered
            }
            Settlement::Retry { not_before: time, ambiguous: perhaps, code, summary, detail, forget } => {
                note = Note { outcome: outcome::RETRY, code, summary, detail: detail.as_ref().map(|detail| detail.expose().as_str()) };
                (ambiguous, not_before) = (i64::from(*perhaps), Some(time.0));
                self.changes().forgotten.extend_from_slice(forget);
                DeliveryState::Pending
            }
            Settlement::DeadLetter { code, summary, detail, .. } => {
                note = Note { outcome: outcome::DEAD_LETTER, code, summary, detail: detail.as_ref().map(|detail| detail.expose().as_str()) };
                DeliveryState::DeadLetter
            }
            Settlement::Parked { reason } => {
                note = Note { outcome: outcome::PARKED, summary: reason, ..note };
                tried = 0;
                DeliveryState::Parked
            }
            Settlement::Skipped { reason } => {
                note = Note { outcome: outcome::SKIPPED, summary: reason, ..note };
                tried = 0;
                DeliveryState::Skipped
            }
            // Done above.
            Settlement::Refused { .. } => return Ok(Err(SettleFault::TooLate)),
            Settlement::Superseded => {
                note = Note { outcome: outcome::SUPERSEDED, ..note };
                tried = 0;
                DeliveryState::Superseded
            }
        };
        self.connection
            .prepare_cached(
                "UPDATE delivery SET state = ?3, attempts = attempts + ?4, not_before = ?5, ambiguous = ?6, program = coalesce(program, ?7), \
                 first_attempt = CASE WHEN ?4 = 1 THEN coalesce(first_attempt, ?8) ELSE first_attempt END WHERE message = ?1 AND number = ?2",
            )?
            .execute(params![id.message.0.cast_signed(), id.number, state_number(to) as i64, tried, not_before, ambiguous, settle.program, settle.at.0])?;
        if row.state != DeliveryState::Pending {
            self.unblock(id, &row)?;
        }
        if matches!(to, DeliveryState::Delivered | DeliveryState::Skipped | DeliveryState::Superseded) {
            let mut answered = self.connection.prepare_cached("DELETE FROM awaited WHERE message = ?1 AND number = ?2")?;
            answered.execute(params![id.message.0.cast_signed(), id.number])?;
        }
        if to == DeliveryState::Parked || matches!(settle.outcome, Settlement::DeadLetter { blocks: true, .. }) {
            let mut block = self.connection.prepare_cached("INSERT OR IGNORE INTO parked VALUES (?1, ?2, ?3, ?4)")?;
            for key in &row.keys {
                block.execute(params![row.target_number, rows::key_number(*key), id.message.0.cast_signed(), id.number])?;
            }
        }
        self.note(id, settle.at, &note)?;
        if !matches!(to, DeliveryState::Pending | DeliveryState::Parked) {
            let told = if let Settlement::DeadLetter { told, .. } = &settle.outcome { told.as_deref() } else { None };
            self.decide(id.message, settle.at, told)?;
        }
        let changes = self.changes();
        if row.state != to {
            changes.step(&row.target, Some(row.state), to);
        }
        changes.settlements += 1;
        Ok(Ok(()))
    }

    /// Makes a message a refused one and withdraws all of its deliveries, unless one of them was done or may have been.
    fn refuse(&mut self, settle: &Settle, told: u16, note: &Note<'_>) -> rusqlite::Result<Result<(), SettleFault>> {
        let message = settle.delivery.message.0.cast_signed();
        // 1: an attempt that ended without an answer. 2: one that was begun; of this delivery it is the one that has just failed for certain.
        let sql = "SELECT count(*) FROM delivery WHERE message = ?1 AND (state NOT IN (0, 3) OR ambiguous = 1 OR (ambiguous = 2 AND number <> ?2))";
        let done: i64 = self.connection.prepare_cached(sql)?.query_row(params![message, settle.delivery.number], |row| row.get(0))?;
        let awaited = self.connection.prepare_cached("SELECT 1 FROM awaited WHERE message = ?1")?.exists([message])?;
        if done > 0 || !awaited {
            return Ok(Err(SettleFault::TooLate));
        }
        let numbers: Vec<u16> = self
            .connection
            .prepare_cached("SELECT number FROM delivery WHERE message = ?1")?
            .query_map([message], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for number in numbers {
            let id = DeliveryId { message: settle.delivery.message, number };
            let Some(row) = self.delivery(id)? else { continue };
            let (tried, program) = if number == settle.delivery.number { (1, settle.program.as_deref()) } else { (0, None) };
            self.connection
                .prepare_cached(
                    "UPDATE delivery SET state = ?3, attempts = attempts + ?4, not_before = NULL, ambiguous = 0, program = coalesce(program, ?5) \
                     WHERE message = ?1 AND number = ?2",
                )?
                .execute(params![message, number, state_number(DeliveryState::Skipped) as i64, tried, program])?;
            self.unblock(id, &row)?;
            let withdrawn = Note { outcome: outcome::WITHDRAWN, code: "", summary: "the sender was told that the message is refused", detail: None };
            self.note(id, settle.at, if tried == 1 { note } else { &withdrawn })?;
            self.changes().step(&row.target, Some(row.state), DeliveryState::Skipped);
        }
        self.connection.prepare_cached("DELETE FROM awaited WHERE message = ?1")?.execute([message])?;
        let sql = "SELECT l.text, m.type, m.disposition FROM message AS m CROSS JOIN name AS l ON l.id = m.listener WHERE m.id = ?1";
        let (listener, message_type, was): (Arc<str>, String, i64) =
            self.connection.prepare_cached(sql)?.query_row([message], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let refused = Disposition::Refused { code: told, text: note.summary.to_owned() };
        let (disposition, code, reason) = rows::disposition_columns(&refused);
        self.connection.prepare_cached("UPDATE message SET disposition = ?2, code = ?3, reason = ?4 WHERE id = ?1")?.execute(params![
            message,
            disposition,
            code,
            reason
        ])?;
        let changes = self.changes();
        changes.tally(kind::MESSAGE, &listener, &message_type, disposition);
        *changes.tallies.entry((kind::MESSAGE, listener, message_type, was)).or_default() -= 1;
        changes.settlements += 1;
        Ok(Ok(()))
    }

    pub(in crate::journal) fn note(&self, id: DeliveryId, at: Timestamp, note: &Note<'_>) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT INTO attempt (message, number, at, outcome, code, summary, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![id.message.0.cast_signed(), id.number, at.0, note.outcome, note.code, note.summary, note.detail])?;
        Ok(())
    }

    pub(in crate::journal) fn unblock(&self, id: DeliveryId, row: &Row) -> rusqlite::Result<()> {
        let mut lift = self.connection.prepare_cached("DELETE FROM parked WHERE target = ?1 AND key = ?2 AND message = ?3 AND number = ?4")?;
        for key in &row.keys {
            lift.execute(params![row.target_number, rows::key_number(*key), id.message.0.cast_signed(), id.number])?;
        }
        Ok(())
    }

    /// When the message of the oldest pending delivery to a target was received.
    pub(in crate::journal) fn oldest(&self, target: &str) -> rusqlite::Result<Option<Timestamp>> {
        self.connection
            .prepare_cached(
                "SELECT received FROM delivery INDEXED BY delivery_open WHERE target = (SELECT id FROM name WHERE text = ?1) AND state = 0 AND state <> 1 \
                 ORDER BY message, number LIMIT 1",
            )?
            .query_row([target], |row| row.get(0).map(Timestamp))
            .optional()
    }
}

/// An attempt's row.
pub(in crate::journal) struct Note<'a> {
    pub(in crate::journal) outcome: i64,
    pub(in crate::journal) code: &'a str,
    pub(in crate::journal) summary: &'a str,
    pub(in crate::journal) detail: Option<&'a str>,
}
