//! Application acknowledgements that senders in enhanced mode are owed (HL7 chapter 2, section 2.9.3): stored with their message, decided in the
//! same commit as the delivery that decides them, and kept until they are told.

use crate::exchange::{Envelope, MessageId, Phi, Timestamp};
use crate::journal::Append;
use crate::journal::query::{DeliveryState, JournalError};
use crate::journal::read::{Library, state, unread};
use crate::journal::settle::SettleFault;
use crate::journal::sheet::Sheet;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a sender in enhanced mode is told of a message that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// MSA-1 of the accept acknowledgement that it is answered when the message is stored; `None` if it wants none.
    pub accept: Option<&'static str>,
    /// Whether it wants an application acknowledgement.
    pub wanted: Wanted,
    /// What that depends on.
    pub depends: Depends,
    /// By which connection the message came.
    pub line: Option<Place>,
}

/// For which outcomes a sender wants to be told (HL7 table 0155).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// For each.
    Always,
    /// For none.
    Never,
    /// If it cannot be done.
    Failure,
    /// If it was done.
    Success,
}

/// What an application acknowledgement depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Depends {
    /// Nothing any more: it is positive.
    Done,
    /// Nothing any more: it is negative, in the engine's words.
    Failed(String),
    /// On these deliveries: positive once all of them are delivered, skipped or superseded, negative as soon as one is a dead letter.
    Deliveries(Vec<u16>),
}

/// A place on a connection: its number, which no other connection ever has, and how many of its frames must have been answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The connection.
    pub line: u64,
    /// Its frames up to and with the message.
    pub frames: u64,
}

/// Whom an acknowledgement is for: what sends to a listener under one MSH-3 and MSH-4.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender {
    /// The listener.
    pub listener: Arc<str>,
    /// A hash of MSH-3 and MSH-4.
    pub number: i64,
}

impl Sender {
    /// The sender of a message.
    pub fn of(envelope: &Envelope) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(&(envelope.sending_application.len() as u64).to_le_bytes());
        hash.update(envelope.sending_application.as_bytes()).update(envelope.sending_facility.as_bytes());
        let number = hash.finalize().as_bytes().first_chunk().copied().map_or(0, i64::from_le_bytes);
        Self { listener: envelope.listener.clone(), number }
    }
}

/// How far an application acknowledgement has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwedState {
    /// What it will say is not known yet.
    Open,
    /// It is to be told.
    Due,
    /// The sender does not want it.
    NotWanted,
    /// It was told.
    Sent,
    /// It was told, and the sender said that it has it.
    Accepted,
    /// Nobody took it for too long.
    GivenUp,
}

const OWED_STATES: [OwedState; 6] = [OwedState::Open, OwedState::Due, OwedState::NotWanted, OwedState::Sent, OwedState::Accepted, OwedState::GivenUp];

/// Both acknowledgements of a message in enhanced mode.
#[derive(Clone, Debug)]
pub struct OwedRecord {
    /// Which message.
    pub message: MessageId,
    /// MSA-1 of the accept acknowledgement; `None` if the sender wanted none.
    pub accept: Option<String>,
    /// How far the other one has come.
    pub state: OwedState,
    /// Whether it is positive, once that is known.
    pub positive: Option<bool>,
    /// When that was known.
    pub decided: Option<Timestamp>,
    /// Why it is negative, in the engine's words.
    pub told: Option<String>,
    /// By which connection the message came.
    pub line: Option<Place>,
    /// How often telling was tried.
    pub attempts: u32,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// When it was last tried, or told.
    pub at: Option<Timestamp>,
    /// A sentence about that, without patient data.
    pub note: String,
    /// MSA-1 of what was told.
    pub code: Option<String>,
    /// What was told.
    pub bytes: Option<Phi<Vec<u8>>>,
}

/// What became of telling.
#[derive(Clone, Debug)]
pub struct AcknowledgementAttempt {
    /// Which message's.
    pub message: MessageId,
    /// When.
    pub at: Timestamp,
    /// A sentence without patient data.
    pub note: String,
    /// What happened.
    pub outcome: Told,
}

/// How an attempt to tell ended.
#[derive(Clone, Debug)]
pub enum Told {
    /// It is to be tried again.
    Later {
        /// Not before this time.
        not_before: Timestamp,
        /// What was sent, if something was: its MSA-1 and its bytes.
        sent: Option<(&'static str, Phi<Vec<u8>>)>,
    },
    /// It was sent, and nobody is asked whether it arrived.
    Sent(&'static str, Phi<Vec<u8>>),
    /// The sender said that it has it.
    Accepted {
        /// Only if it was sent by this listener.
        listener: Arc<str>,
        /// What was sent, if that is not known yet.
        sent: Option<(&'static str, Phi<Vec<u8>>)>,
    },
    /// The sender said that it does not take it; it is tried again.
    Declined {
        /// Only if it was sent by this listener.
        listener: Arc<str>,
        /// Not before this time.
        not_before: Timestamp,
    },
    /// Nobody took it for too long.
    GivenUp,
    /// The sender asks for it again; from now on by this connection, if one is given.
    Again(Option<Place>),
}

/// What one segment has of it.
pub(in crate::journal) const TABLE: &str = "
CREATE TABLE acknowledgement (
    message INTEGER PRIMARY KEY, listener INTEGER NOT NULL, sender INTEGER NOT NULL, accept TEXT, wanted INTEGER NOT NULL, awaited BLOB NOT NULL,
    state INTEGER NOT NULL, positive INTEGER, decided INTEGER, told TEXT, line INTEGER, frames INTEGER,
    attempts INTEGER NOT NULL, not_before INTEGER, at INTEGER, note TEXT NOT NULL, code TEXT, bytes BLOB
) STRICT;
CREATE INDEX acknowledgement_due ON acknowledgement (listener, sender, message, not_before) WHERE state = 1;
";

impl Wanted {
    fn number(self) -> i64 {
        self as i64
    }

    fn asks(number: i64, positive: bool) -> bool {
        match number {
            0 => true,
            2 => !positive,
            3 => positive,
            _ => false,
        }
    }
}

fn owed_state(number: i64) -> OwedState {
    usize::try_from(number).ok().and_then(|place| OWED_STATES.get(place)).copied().unwrap_or(OwedState::GivenUp)
}

fn number_of(state: OwedState) -> i64 {
    OWED_STATES.iter().position(|known| *known == state).map_or(0, |place| place as i64)
}

/// Whether a segment has any, so that the rest of the journal need not look.
pub(in crate::journal) fn has_any(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM acknowledgement)", [], |row| row.get(0))
}

impl Sheet {
    /// Stores what the sender of a new message is owed.
    pub(in crate::journal) fn owe(&mut self, message: MessageId, append: &Append) -> rusqlite::Result<()> {
        let Some(owed) = &append.owed else { return Ok(()) };
        let (positive, told, awaited) = match &owed.depends {
            Depends::Done => (Some(true), None, [].as_slice()),
            Depends::Failed(words) => (Some(false), Some(words), [].as_slice()),
            Depends::Deliveries(numbers) => (numbers.is_empty().then_some(true), None, numbers.as_slice()),
        };
        let wanted = owed.wanted.number();
        let state = match positive {
            _ if owed.wanted == Wanted::Never => OwedState::NotWanted,
            Some(positive) if Wanted::asks(wanted, positive) => OwedState::Due,
            Some(_) => OwedState::NotWanted,
            None => OwedState::Open,
        };
        let awaited: Vec<u8> = awaited.iter().flat_map(|number| number.to_le_bytes()).collect();
        let sender = Sender::of(&append.envelope);
        let listener = self.name(&sender.listener)?;
        let received = append.envelope.received.0;
        self.connection
            .prepare_cached(
                "INSERT INTO acknowledgement (message, listener, sender, accept, wanted, awaited, state, positive, decided, told, line, frames, attempts, note) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, '')",
            )?
            .execute(params![
                message.0.cast_signed(),
                listener,
                sender.number,
                owed.accept,
                wanted,
                awaited,
                number_of(state),
                positive,
                positive.map(|_| received),
                told,
                owed.line.map(|place| place.line.cast_signed()),
                owed.line.map(|place| place.frames.cast_signed()),
            ])?;
        self.owes = true;
        if state == OwedState::Due {
            self.due(sender);
        }
        Ok(())
    }

    /// After a delivery has come to an end: decides what the sender is told, if that depended on it. `told` is why it failed.
    pub(in crate::journal) fn decide(&mut self, message: MessageId, at: Timestamp, told: Option<&str>) -> rusqlite::Result<()> {
        if !self.owes {
            return Ok(());
        }
        let number = message.0.cast_signed();
        let sql = "SELECT n.text, a.sender, a.wanted, a.awaited FROM acknowledgement AS a CROSS JOIN name AS n ON n.id = a.listener WHERE a.message = ?1 AND a.state = 0";
        let open = |row: &Row<'_>| Ok((Sender { listener: row.get(0)?, number: row.get(1)? }, row.get::<_, i64>(2)?, row.get::<_, Vec<u8>>(3)?));
        let Some((sender, wanted, awaited)) = self.connection.prepare_cached(sql)?.query_row([number], open).optional()? else { return Ok(()) };
        let awaited: Vec<u16> = awaited.chunks_exact(2).map(|bytes| u16::from_le_bytes(bytes.try_into().unwrap_or_default())).collect();
        let states: Vec<DeliveryState> = self
            .connection
            .prepare_cached("SELECT number, state FROM delivery WHERE message = ?1")?
            .query_map([number], |row| Ok((row.get::<_, u16>(0)?, state(row.get(1)?))))?
            .filter(|row| row.as_ref().map_or(true, |(number, _)| awaited.contains(number)))
            .map(|row| row.map(|(_, state)| state))
            .collect::<rusqlite::Result<_>>()?;
        let failed = states.contains(&DeliveryState::DeadLetter);
        if !failed && states.iter().any(|state| matches!(state, DeliveryState::Pending | DeliveryState::Parked)) {
            return Ok(());
        }
        let next = if Wanted::asks(wanted, !failed) { OwedState::Due } else { OwedState::NotWanted };
        self.connection
            .prepare_cached("UPDATE acknowledgement SET state = ?2, positive = ?3, decided = ?4, told = ?5 WHERE message = ?1")?
            .execute(params![number, number_of(next), !failed, at.0, told.filter(|_| failed)])?;
        if next == OwedState::Due {
            self.due(sender);
        }
        Ok(())
    }

    /// Stores what became of telling.
    pub(in crate::journal) fn tell(&mut self, telling: &AcknowledgementAttempt) -> rusqlite::Result<Result<(), SettleFault>> {
        let Some(record) = record(&self.connection, telling.message)? else { return Ok(Err(SettleFault::Unknown)) };
        let due = record.state == OwedState::Due;
        let (state, attempts, not_before, sent, line) = match &telling.outcome {
            Told::Later { not_before, sent } if due => {
                (OwedState::Due, record.attempts + 1, Some(not_before.0), sent.as_ref().map(|(code, bytes)| (*code, bytes)), None)
            }
            Told::Declined { listener, not_before } if due && record.code.is_some() && *listener == self.listener_of(telling.message)? => {
                (OwedState::Due, record.attempts + 1, Some(not_before.0), None, None)
            }
            Told::Sent(code, bytes) if due => (OwedState::Sent, record.attempts + 1, None, Some((*code, bytes)), None),
            Told::Accepted { listener, sent } if due && (record.code.is_some() || sent.is_some()) && *listener == self.listener_of(telling.message)? => {
                let tried = u32::from(sent.is_some());
                (OwedState::Accepted, record.attempts + tried, None, sent.as_ref().map(|(code, bytes)| (*code, bytes)), None)
            }
            Told::GivenUp if due => (OwedState::GivenUp, record.attempts, None, None, None),
            Told::Again(line) => match record.state {
                OwedState::Open => (OwedState::Open, 0, None, None, *line),
                OwedState::Due | OwedState::Sent | OwedState::Accepted | OwedState::GivenUp => (OwedState::Due, 0, None, None, *line),
                OwedState::NotWanted => return Ok(Err(SettleFault::Unknown)),
            },
            _ => return Ok(Err(SettleFault::Unknown)),
        };
        self.connection
            .prepare_cached(
                "UPDATE acknowledgement SET state = ?2, attempts = ?3, not_before = ?4, at = ?5, note = ?6, code = coalesce(?7, code), \
                 bytes = coalesce(?8, bytes), line = coalesce(?9, line), frames = coalesce(?10, frames) WHERE message = ?1",
            )?
            .execute(params![
                telling.message.0.cast_signed(),
                number_of(state),
                attempts,
                not_before,
                telling.at.0,
                telling.note,
                sent.map(|(code, _)| code),
                sent.map(|(_, bytes)| bytes.expose()),
                line.map(|place| place.line.cast_signed()),
                line.map(|place| place.frames.cast_signed())
            ])?;
        if matches!(telling.outcome, Told::Again(_) | Told::Declined { .. }) && state == OwedState::Due {
            let sender = self.sender_of(telling.message)?;
            self.due(sender);
        }
        Ok(Ok(()))
    }

    fn sender_of(&self, message: MessageId) -> rusqlite::Result<Sender> {
        let sql = "SELECT n.text, a.sender FROM acknowledgement AS a CROSS JOIN name AS n ON n.id = a.listener WHERE a.message = ?1";
        self.connection.prepare_cached(sql)?.query_row([message.0.cast_signed()], |row| Ok(Sender { listener: row.get(0)?, number: row.get(1)? }))
    }

    fn listener_of(&self, message: MessageId) -> rusqlite::Result<Arc<str>> {
        Ok(self.sender_of(message)?.listener)
    }
}

const COLUMNS: &str = "message, accept, state, positive, decided, told, line, frames, attempts, not_before, at, note, code, bytes";

fn read_record(row: &Row<'_>) -> rusqlite::Result<OwedRecord> {
    let time = |place: usize| row.get::<_, Option<i64>>(place).map(|at| at.map(Timestamp));
    let number = |place: usize| row.get::<_, Option<i64>>(place).map(|n| n.map(i64::cast_unsigned));
    Ok(OwedRecord {
        message: MessageId(row.get::<_, i64>(0)?.cast_unsigned()),
        accept: row.get(1)?,
        state: owed_state(row.get(2)?),
        positive: row.get(3)?,
        decided: time(4)?,
        told: row.get(5)?,
        line: number(6)?.zip(number(7)?).map(|(line, frames)| Place { line, frames }),
        attempts: row.get(8)?,
        not_before: time(9)?,
        at: time(10)?,
        note: row.get(11)?,
        code: row.get(12)?,
        bytes: row.get::<_, Option<Vec<u8>>>(13)?.map(Phi::new),
    })
}

/// What a message's sender is owed, from its segment.
pub(in crate::journal) fn record(connection: &Connection, message: MessageId) -> rusqlite::Result<Option<OwedRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM acknowledgement WHERE message = ?1");
    connection.prepare_cached(&sql)?.query_row([message.0.cast_signed()], read_record).optional()
}

impl Library {
    /// What a message's sender is owed.
    pub(in crate::journal) fn owed(&self, message: MessageId) -> Result<Option<OwedRecord>, JournalError> {
        let segment = self.shelf.home(message).ok_or(JournalError::Missing)?;
        self.with(|connections| record(connections.get(&segment.path)?, message).map_err(unread))
    }

    /// What can be told to one sender at this time, in the order of its messages, after `after`, at most `limit`.
    pub(in crate::journal) fn due(&self, whom: &Sender, after: Option<MessageId>, at: Timestamp, limit: usize) -> Result<Vec<OwedRecord>, JournalError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM acknowledgement INDEXED BY acknowledgement_due WHERE listener = (SELECT id FROM name WHERE text = ?1) AND sender = ?2 \
             AND message > ?3 AND (not_before IS NULL OR not_before <= ?5) AND state = 1 ORDER BY message LIMIT ?4"
        );
        let after = after.map_or(-1, |after| after.0.cast_signed());
        self.steadily(|| {
            let mut found = Vec::new();
            for segment in self.shelf.all().iter() {
                let wanted = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
                let page = self.with(|connections| {
                    let mut query = connections.get(&segment.path)?.prepare_cached(&sql).map_err(unread)?;
                    let rows = query.query_map(params![whom.listener, whom.number, after, wanted, at.0], read_record).map_err(unread)?;
                    rows.collect::<rusqlite::Result<Vec<_>>>().map_err(unread)
                })?;
                found.extend(page);
                if found.len() >= limit {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// When the next of what is to be told to one sender after this time may be told; `None` if nothing waits for a time.
    pub(in crate::journal) fn next_due(&self, whom: &Sender, at: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        let sql = "SELECT min(not_before) FROM acknowledgement INDEXED BY acknowledgement_due WHERE listener = (SELECT id FROM name WHERE text = ?1) \
                   AND sender = ?2 AND not_before > ?3 AND state = 1";
        self.steadily(|| {
            let mut next = None;
            for segment in self.shelf.all().iter() {
                let found: Option<i64> = self.with(|connections| {
                    let mut query = connections.get(&segment.path)?.prepare_cached(sql).map_err(unread)?;
                    query.query_row(params![whom.listener, whom.number, at.0], |row| row.get(0)).map_err(unread)
                })?;
                next = [next, found].into_iter().flatten().min();
            }
            Ok(next.map(Timestamp))
        })
    }

    /// Everyone to whom something is to be told.
    pub(in crate::journal) fn senders_owed(&self) -> Result<BTreeSet<Sender>, JournalError> {
        let sql = "SELECT DISTINCT n.text, a.sender FROM acknowledgement AS a INDEXED BY acknowledgement_due CROSS JOIN name AS n ON n.id = a.listener WHERE a.state = 1";
        self.steadily(|| {
            let mut all = BTreeSet::new();
            for segment in self.shelf.all().iter() {
                self.with(|connections| {
                    let mut query = connections.get(&segment.path)?.prepare_cached(sql).map_err(unread)?;
                    let rows = query.query_map([], |row| Ok(Sender { listener: row.get(0)?, number: row.get(1)? })).map_err(unread)?;
                    for row in rows {
                        all.insert(row.map_err(unread)?);
                    }
                    Ok(())
                })?;
            }
            Ok(all)
        })
    }
}
