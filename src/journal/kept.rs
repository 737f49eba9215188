//! What is kept beside a message so that it can be told again: what a route's questions found, and the answer that a question's sender got.

use crate::exchange::{DeliveryId, MessageId, Phi, Timestamp};
use crate::journal::query::JournalError;
use crate::journal::read::{Library, unread};
use crate::journal::sheet::Sheet;
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

/// What one segment has of it: answers by delivery, and replies by message.
pub(in crate::journal) const TABLES: &str = "CREATE TABLE answer (message INTEGER NOT NULL, number INTEGER NOT NULL, answers TEXT NOT NULL, PRIMARY KEY (message, number)) STRICT, WITHOUT ROWID; \
     CREATE TABLE reply (message INTEGER PRIMARY KEY, at INTEGER NOT NULL, program TEXT NOT NULL, route TEXT NOT NULL, answers TEXT NOT NULL, payload BLOB NOT NULL) STRICT;";

/// Something to be kept.
#[derive(Clone, Debug)]
pub enum Kept {
    /// What the questions of a delivery's route found. The first that is stored stays, until the delivery is replayed.
    Answers {
        /// The delivery.
        delivery: DeliveryId,
        /// As JSON.
        answers: Phi<String>,
    },
    /// What the sender of a question is answered.
    Reply {
        /// The question.
        message: MessageId,
        /// The answer.
        reply: ReplyRecord,
    },
}

impl Kept {
    /// The message that it belongs to.
    pub(in crate::journal) fn message(&self) -> MessageId {
        match self {
            Self::Answers { delivery, .. } => delivery.message,
            Self::Reply { message, .. } => *message,
        }
    }
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct ReplyRecord {
    /// When it was made.
    pub at: Timestamp,
    /// The hash of the route set that made it.
    pub program: String,
    /// The route that made it.
    pub route: String,
    /// What the route's questions found, as JSON.
    pub answers: Phi<String>,
    /// The answer, without framing.
    pub bytes: Phi<Bytes>,
}

impl Sheet {
    /// Keeps it.
    pub(in crate::journal) fn keep(&mut self, kept: &Kept) -> rusqlite::Result<()> {
        let number = kept.message().0.cast_signed();
        let grown = match kept {
            Kept::Answers { delivery, answers } => {
                let sql = "INSERT OR IGNORE INTO answer VALUES (?1, ?2, ?3)";
                self.connection.prepare_cached(sql)?.execute(params![number, delivery.number, answers.expose()])?;
                answers.expose().len()
            }
            Kept::Reply { reply, .. } => {
                let (answers, bytes) = (reply.answers.expose(), reply.bytes.expose());
                let sql = "INSERT OR REPLACE INTO reply VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                self.connection.prepare_cached(sql)?.execute(params![number, reply.at.0, reply.program, reply.route, answers, bytes.as_ref()])?;
                answers.len() + bytes.len()
            }
        };
        self.has_grown(grown as u64 + 100);
        Ok(())
    }

    /// A replay asks anew.
    pub(in crate::journal) fn forget_answers(&self, id: DeliveryId) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM answer WHERE message = ?1 AND number = ?2")?.execute(params![id.message.0.cast_signed(), id.number])?;
        Ok(())
    }
}

impl Library {
    /// What the questions of a delivery's route found; `None` before they were asked.
    pub(in crate::journal) fn answers(&self, id: DeliveryId) -> Result<Option<Phi<String>>, JournalError> {
        let sql = "SELECT answers FROM answer WHERE message = ?1 AND number = ?2";
        self.steadily(|| {
            let segment = self.shelf.home(id.message).ok_or(JournalError::Missing)?;
            self.with(|connections| {
                let connection = connections.get(&segment.path)?;
                let found = connection
                    .prepare_cached(sql)
                    .and_then(|mut query| query.query_row(params![id.message.0.cast_signed(), id.number], |row| row.get(0)).optional());
                found.map(|answers| answers.map(Phi::new)).map_err(unread)
            })
        })
    }

    /// What a question's sender was answered; `None` for a message that was no question.
    pub(in crate::journal) fn reply(&self, id: MessageId) -> Result<Option<ReplyRecord>, JournalError> {
        let sql = "SELECT at, program, route, answers, payload FROM reply WHERE message = ?1";
        self.steadily(|| {
            let segment = self.shelf.home(id).ok_or(JournalError::Missing)?;
            self.with(|connections| {
                let connection = connections.get(&segment.path)?;
                let read = |row: &rusqlite::Row<'_>| {
                    Ok(ReplyRecord {
                        at: Timestamp(row.get(0)?),
                        program: row.get(1)?,
                        route: row.get(2)?,
                        answers: Phi::new(row.get(3)?),
                        bytes: Phi::new(Bytes::from(row.get::<_, Vec<u8>>(4)?)),
                    })
                };
                connection.prepare_cached(sql).and_then(|mut query| query.query_row([id.0.cast_signed()], read).optional()).map_err(unread)
            })
        })
    }
}
