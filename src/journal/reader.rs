//! A journal opened for reading only: what the command line uses, beside a running daemon or without one.

use crate::exchange::{DeliveryId, Envelope, MessageId, Phi};
use crate::journal::OpenError;
use crate::journal::folder::Folder;
use crate::journal::gate::Gate;
use crate::journal::kept::ReplyRecord;
use crate::journal::query::{Found, JournalError, MessageRecord, Program, Query, Statistics, Verification};
use crate::journal::read::Library;
use crate::journal::schema::{database, open_readable};
use crate::journal::shelf::{Segment, Shelf};
use crate::journal::unknown::UnknownCount;
use std::path::Path;
use std::sync::Arc;

/// A journal opened for reading, also while a daemon has it. It sees the segments that were there at `open`; open it anew for later ones.
pub struct Reader {
    library: Library,
}

impl Reader {
    /// Opens the journal in this folder for reading. Whoever may read the messages may read the secret that their search is keyed with.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let folder = Folder::existing(path)?;
        let secret = folder.secret(false)?;
        let (mut segments, mut live_from) = (Vec::new(), 0);
        for first in folder.segments()? {
            if first != 0 && first < live_from {
                continue;
            }
            let file = folder.segment(first);
            let failed = |error: rusqlite::Error| database(&file, &error);
            let connection = match open_readable(&file, 512) {
                // Taken away by retention, or being made, at this moment.
                Err(OpenError::Foreign { .. }) => continue,
                Err(_) if !file.exists() => continue,
                opened => opened?,
            };
            if first == 0 {
                let sql = "SELECT coalesce((SELECT value FROM setting WHERE key = 'live-from'), 0)";
                live_from = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed)?.cast_unsigned();
            }
            segments.push(Arc::new(Segment::load(first, file.clone(), &connection).map_err(failed)?));
        }
        Ok(Self { library: Library { folder, shelf: Arc::new(Shelf::new(segments)), gate: Arc::new(Gate::default()), secret } })
    }

    /// Finds messages, newest first.
    pub fn search(&self, query: &Query) -> Result<Vec<Found>, JournalError> {
        self.library.search(query)
    }

    /// Everything about one message.
    pub fn show(&self, id: MessageId) -> Result<MessageRecord, JournalError> {
        self.library.show(id)
    }

    /// Counts.
    pub fn stats(&self) -> Result<Statistics, JournalError> {
        self.library.stats()
    }

    /// Reads everything and says what is wrong.
    pub fn verify(&self) -> Result<Verification, JournalError> {
        self.library.verify()
    }

    /// Codes and authorities that no table and no naming system knows, by sender, most often first.
    pub fn unknown(&self) -> Result<Vec<UnknownCount>, JournalError> {
        self.library.unknown()
    }

    /// A message as it is mapped: as it was received, or as an operator edited it.
    pub fn envelope(&self, id: MessageId) -> Result<Envelope, JournalError> {
        self.library.payloads(&[id])?.pop().ok_or(JournalError::Missing)
    }

    /// What the questions of a delivery's route found; `None` before they were asked.
    pub fn answers(&self, id: DeliveryId) -> Result<Option<Phi<String>>, JournalError> {
        self.library.answers(id)
    }

    /// What a question's sender was answered; `None` for a message that was no question.
    pub fn reply(&self, id: MessageId) -> Result<Option<ReplyRecord>, JournalError> {
        self.library.reply(id)
    }

    /// The route set that was applied last; `None` if no daemon ever ran on the journal.
    pub fn applied(&self) -> Result<Option<Program>, JournalError> {
        self.library.program(None)
    }

    /// The site file that was applied last.
    pub fn site(&self) -> Result<Option<String>, JournalError> {
        self.library.site(None)
    }

    /// A stored route set.
    pub fn program(&self, hash: &str) -> Result<Option<Program>, JournalError> {
        self.library.program(Some(hash))
    }
}
