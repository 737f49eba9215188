//! The thread that makes messages findable by patient, behind the acknowledgement: it reads segments and writes a search file for each.

use crate::exchange::{Envelope, MessageId};
use crate::journal::OpenError;
use crate::journal::options::Indexer;
use crate::journal::own_log::PATIENCE;
use crate::journal::query::JournalError;
use crate::journal::queue::Board;
use crate::journal::read::{Library, unread, wal_bytes, with_suffix};
use crate::journal::rows;
use crate::journal::schema::{IOERR_SHMSIZE, Kind, code, open_readable, open_writable};
use crate::journal::shelf::Segment;
use rusqlite::{Connection, params};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Messages that are read in one transaction.
const STEP: i64 = 200;

/// Messages whose words are written in one transaction, at most. Words are spread over the whole file, so that each commit writes nearly a
/// page a word: fewer and larger ones write less.
const ROUND: usize = 10_000;

/// Above this many messages a second the finder works a tenth of the time and may fall behind: intake needs the processor.
const BUSY_PER_SECOND: f64 = 2000.0;

/// How often it works then.
const BUSY_REST: u32 = 9;

/// A search file's log of fewer bytes is left to go on growing.
const FOLD_BYTES: u64 = 8 << 20;

/// The number under which a word is found. Keyed, so that the file tells nothing; 64 bits, so that an accidental equality is a wonder.
pub(in crate::journal) fn term_hash(secret: &[u8; 32], term: &str) -> i64 {
    let hash = blake3::keyed_hash(secret, term.trim().to_lowercase().as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

/// Stops a thread that sleeps.
#[derive(Default)]
pub(in crate::journal) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Asks the thread to finish.
    pub(in crate::journal) fn now(&self) {
        *self.stopped.lock().expect("no holder panics") = true;
        self.changed.notify_all();
    }

    /// Sleeps; true if it is time to finish.
    pub(in crate::journal) fn rest(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().expect("no holder panics");
        *self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped).expect("no holder panics").0
    }
}

/// The thread and what it needs.
pub(in crate::journal) struct Finder {
    pub(in crate::journal) library: Arc<Library>,
    pub(in crate::journal) board: Arc<Board>,
    pub(in crate::journal) indexer: Indexer,
    pub(in crate::journal) stop: Arc<Stop>,
    pub(in crate::journal) indexed_to: Arc<AtomicU64>,
    pub(in crate::journal) wal_bytes_max: u64,
}

/// What the thread has open, and what it need not look at again.
#[derive(Default)]
struct Desk {
    search: Option<(u64, Connection)>,
    segment: Option<(u64, Connection)>,
    done: Vec<Arc<Segment>>,
}

impl Finder {
    /// Runs until stopped. A fault is said and tried again later, since search is worth no acknowledgement; but a disk that fails ends the journal.
    pub(in crate::journal) fn run(self) {
        let mut desk = Desk::default();
        let mut rest = Duration::ZERO;
        let mut seen = (Instant::now(), self.board.stored.load(Ordering::Relaxed));
        let mut busy = false;
        while !self.stop.rest(rest) {
            if self.board.has_failed() {
                return;
            }
            let began = Instant::now();
            rest = match self.step(&mut desk) {
                Ok(true) if busy => began.elapsed() * BUSY_REST,
                Ok(true) => Duration::ZERO,
                Ok(false) => Duration::from_millis(50),
                Err(error) => {
                    desk = Desk::default();
                    tracing::warn!(%error, "messages cannot be made findable for the moment");
                    Duration::from_secs(5)
                }
            };
            let since = seen.0.elapsed().as_secs_f64();
            if since > 0.2 {
                let stored = self.board.stored.load(Ordering::Relaxed);
                busy = (stored - seen.1) as f64 / since > BUSY_PER_SECOND;
                seen = (Instant::now(), stored);
            }
        }
    }

    /// Indexes the next messages of one segment; false if there are none anywhere.
    fn step(&self, desk: &mut Desk) -> Result<bool, JournalError> {
        let segments = self.library.shelf.all();
        desk.done.retain(|done| segments.iter().any(|segment| Arc::ptr_eq(segment, done)));
        for (place, segment) in segments.iter().enumerate() {
            let last = place + 1 == segments.len();
            let finished = last && self.board.last.load(Ordering::Acquire) <= self.indexed_to.load(Ordering::Relaxed);
            if finished || desk.done.iter().any(|done| Arc::ptr_eq(segment, done)) {
                continue;
            }
            if self.index(segment, desk)? {
                self.fold(segment, desk, FOLD_BYTES)?;
                return Ok(true);
            }
            if !last {
                self.fold(segment, desk, 0)?;
                desk.done.push(segment.clone());
            }
        }
        Ok(false)
    }

    /// Runs a step as a reader: the gate keeps retention from taking the segment away, and its search file with it. `None` if it is gone.
    fn while_present<T>(&self, segment: &Arc<Segment>, step: impl FnOnce() -> Result<T, JournalError>) -> Result<Option<T>, JournalError> {
        let _inside = self.library.gate.enter();
        let present = self.library.shelf.all().iter().any(|present| Arc::ptr_eq(segment, present));
        if present { step().map(Some) } else { Ok(None) }
    }

    /// Indexes the next messages of a segment; false if there are none. Readers of the segment may be shut out between any two pages.
    fn index(&self, segment: &Arc<Segment>, desk: &mut Desk) -> Result<bool, JournalError> {
        if desk.search.as_ref().is_none_or(|(first, _)| *first != segment.first) {
            (desk.search, desk.segment) = (None, None);
            let opened = self.while_present(segment, || {
                let messages = open_readable(&segment.path, 512).map_err(|error| JournalError::Database(error.to_string()))?;
                Ok((self.open_search(segment.first)?, messages))
            })?;
            let Some((search, messages)) = opened else { return Ok(false) };
            (desk.search, desk.segment) = (Some((segment.first, search)), Some((segment.first, messages)));
        }
        let (Some((_, search)), Some((_, messages))) = (&desk.search, &desk.segment) else { return Ok(false) };
        let mark: i64 = search.query_row("SELECT message FROM mark", [], |row| row.get(0)).map_err(unread)?;
        let (mut last, mut count, mut terms) = (mark, 0, Vec::new());
        while count < ROUND && !self.stop.rest(Duration::ZERO) {
            let Some((page, more)) = self.while_present(segment, || read(messages, last).map_err(unread))? else { return Ok(false) };
            for (id, envelope) in &page {
                last = id.0.cast_signed();
                let words = envelope.as_ref().map(|envelope| (self.indexer)(envelope)).unwrap_or_default();
                terms.extend(words.iter().map(|word| (term_hash(&self.library.secret, word), last)));
            }
            count += page.len();
            if !more {
                break;
            }
        }
        if count == 0 {
            self.indexed_to.fetch_max(mark.cast_unsigned(), Ordering::Relaxed);
            return Ok(false);
        }
        // In the order of the file, so that each page is looked for once.
        terms.sort_unstable();
        let written = self.while_present(segment, || write(search, &terms, last).map_err(|error| self.judge(&code(&error))))?;
        self.indexed_to.fetch_max(last.cast_unsigned(), Ordering::Relaxed);
        Ok(written.is_some())
    }

    /// Folds the log of a search file back: nobody else does. It starts over when nobody reads in it, which is nearly always.
    fn fold(&self, segment: &Arc<Segment>, desk: &Desk, from_bytes: u64) -> Result<(), JournalError> {
        let Some((_, search)) = desk.search.as_ref().filter(|(first, _)| *first == segment.first) else { return Ok(()) };
        let length = wal_bytes(&self.library.folder.search(segment.first));
        if length <= from_bytes.min(self.wal_bytes_max / 8) {
            return Ok(());
        }
        let alone = if length > self.wal_bytes_max / 4 || from_bytes == 0 { self.library.gate.shut(PATIENCE) } else { None };
        let mode = if alone.is_some() { "TRUNCATE" } else { "PASSIVE" };
        let result = search.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
        result.map_err(|error| self.judge(&code(&error)))
    }

    /// A failed fsync or write is final whichever file it hits: the system has forgotten what it should have written, so that a second try
    /// would only seem to succeed, and the disk that failed here is the one that acknowledgements rely on.
    fn judge(&self, code: &str) -> JournalError {
        let failing = code.starts_with("SystemIoFailure") && !code.ends_with(&format!(" {IOERR_SHMSIZE}"));
        if failing && !self.board.has_failed() {
            tracing::error!(code, "the journal's disk failed at a search file");
            self.board.fail();
        }
        JournalError::Database(code.to_owned())
    }

    /// A search file that cannot be read is made anew: everything in it is in its segment.
    fn open_search(&self, first: u64) -> Result<Connection, JournalError> {
        let path = self.library.folder.search(first);
        match open_writable(&path, Kind::Search, 2048) {
            Ok(connection) => Ok(connection),
            Err(OpenError::Database { code, .. }) if code.starts_with("DatabaseCorrupt") || code.starts_with("NotADatabase") => {
                tracing::warn!("a search file was damaged and is made anew");
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(with_suffix(&path, suffix));
                }
                open_writable(&path, Kind::Search, 2048).map_err(|error| JournalError::Database(error.to_string()))
            }
            Err(OpenError::Database { code, .. }) => Err(self.judge(&code)),
            Err(error) => Err(JournalError::Database(error.to_string())),
        }
    }
}

/// Writes the words of messages up to `last`, in one transaction.
fn write(search: &Connection, terms: &[(i64, i64)], last: i64) -> rusqlite::Result<()> {
    let written = (|| {
        search.execute_batch("BEGIN IMMEDIATE")?;
        {
            let mut insert = search.prepare_cached("INSERT OR IGNORE INTO term VALUES (?1, ?2)")?;
            for (hash, message) in terms {
                insert.execute(params![hash, message])?;
            }
        }
        search.execute("UPDATE mark SET message = ?1", [last])?;
        search.execute_batch("COMMIT")
    })();
    if !search.is_autocommit() {
        let _ = search.execute_batch("ROLLBACK");
    }
    written
}

/// The next messages of a segment, and whether there may be more.
type Page = (Vec<(MessageId, Option<Envelope>)>, bool);

fn read(connection: &Connection, after: i64) -> rusqlite::Result<Page> {
    let sql = format!("SELECT {} FROM message AS m CROSS JOIN name AS l ON l.id = m.listener WHERE m.id > ?1 ORDER BY m.id LIMIT ?2", rows::ENVELOPE);
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query([after, STEP])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let envelope = rows::searched(connection, row)?;
        bytes += envelope.as_ref().map_or(0, |envelope| envelope.bytes.expose().len());
        page.push((MessageId(row.get::<_, i64>(14)?.cast_unsigned()), envelope));
        if bytes > rows::LARGE_BYTES {
            return Ok((page, true));
        }
    }
    let more = page.len() >= STEP as usize;
    Ok((page, more))
}
