//! The tables of the journal's files, and how each file is opened.

use crate::journal::OpenError;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// `KILN` in ASCII: what `file` and SQLite show as the application of each of the journal's files.
const APPLICATION_ID: i64 = 0x4B49_4C4E;

/// The format that this program writes. A higher one is refused; a lower one is upgraded when it is opened for writing.
const FORMAT: i64 = 3;

/// The first byte of a payload: how the rest is packed. Zstandard and encryption will take other numbers.
pub(in crate::journal) const CODEC_RAW: u8 = 0;

/// Messages with everything that is theirs. Few indexes, each growing at its end in the usual case: control IDs ascend per sender,
/// deliveries ascend per target, and an entry of `delivery_open` leaves when it is delivered.
const SEGMENT: &str = "
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE message (
    id INTEGER PRIMARY KEY, received INTEGER NOT NULL, listener INTEGER NOT NULL, format INTEGER NOT NULL,
    disposition INTEGER NOT NULL, code INTEGER, reason TEXT, type TEXT NOT NULL, application TEXT NOT NULL, facility TEXT NOT NULL,
    message_time TEXT NOT NULL, control_id TEXT NOT NULL, peer TEXT NOT NULL, order_keys BLOB NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE INDEX message_control ON message (control_id, message_time) WHERE control_id <> '';
CREATE TABLE delivery (
    message INTEGER NOT NULL, number INTEGER NOT NULL, target INTEGER NOT NULL, route INTEGER NOT NULL, state INTEGER NOT NULL,
    attempts INTEGER NOT NULL, not_before INTEGER, first_attempt INTEGER, ambiguous INTEGER NOT NULL, program TEXT,
    received INTEGER NOT NULL, order_keys BLOB NOT NULL, PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_open ON delivery (target, state, message, number) WHERE state <> 1;
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY, message INTEGER NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, outcome INTEGER NOT NULL,
    code TEXT NOT NULL, summary TEXT NOT NULL, detail TEXT
) STRICT;
CREATE INDEX attempt_delivery ON attempt (message, number);
CREATE TABLE parked (
    target INTEGER NOT NULL, key INTEGER NOT NULL, message INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (target, key, message, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE duplicate (id INTEGER PRIMARY KEY, original INTEGER NOT NULL, at INTEGER NOT NULL, peer TEXT NOT NULL) STRICT;
CREATE INDEX duplicate_original ON duplicate (original);
CREATE TABLE target_state (target TEXT PRIMARY KEY, sequence INTEGER NOT NULL, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tally (kind INTEGER NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, c INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, a, b, c)) STRICT, WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// What outlives segments: route sets, and what is known of servers.
const STATE: &str = "
CREATE TABLE program (hash TEXT PRIMARY KEY, applied INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
CREATE TABLE applied (one INTEGER PRIMARY KEY CHECK (one = 1), hash TEXT NOT NULL) STRICT;
CREATE TABLE identity (key BLOB PRIMARY KEY, id TEXT NOT NULL, etag TEXT) STRICT, WITHOUT ROWID;
";

/// The words that one segment's messages are found by, as keyed hashes. Made from the segment; may be deleted at any time.
const SEARCH: &str = "
CREATE TABLE term (hash INTEGER NOT NULL, message INTEGER NOT NULL, PRIMARY KEY (hash, message)) STRICT, WITHOUT ROWID;
CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), message INTEGER NOT NULL) STRICT;
INSERT INTO mark VALUES (1, 0);
";

/// What format 2 added to segments: deliveries that decide what a sender is answered, as long as they have not come to a good end.
const SEGMENT_2: &str = "CREATE TABLE awaited (message INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (message, number)) STRICT, WITHOUT ROWID;";

/// What format 2 added to the state: routes that are gone, with the last set that had them.
const STATE_2: &str = "CREATE TABLE retired (route TEXT PRIMARY KEY, program TEXT NOT NULL) STRICT, WITHOUT ROWID;";

/// What format 3 added to segments, besides what senders are owed ([`crate::journal::owed`]) and what is kept of questions
/// ([`crate::journal::kept`]): what an operator made of a message. The last edit is delivered, and the message stays as it was received.
const SEGMENT_3: &str = "
CREATE TABLE edit (id INTEGER PRIMARY KEY, message INTEGER NOT NULL, at INTEGER NOT NULL, by TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
CREATE INDEX edit_message ON edit (message);
";

/// What format 3 added to the state: codes and authorities that no table (kind 1) and no naming system (kind 2) knows, per sender; and the site
/// file that was applied last (under the empty name), with the last one that had each target that is gone.
const STATE_3: &str = "
CREATE TABLE unknown (
    listener TEXT NOT NULL, application TEXT NOT NULL, facility TEXT NOT NULL, kind INTEGER NOT NULL, list TEXT NOT NULL, code TEXT NOT NULL,
    place TEXT NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, example INTEGER NOT NULL,
    PRIMARY KEY (listener, application, facility, kind, list, code)
) STRICT, WITHOUT ROWID;
CREATE TABLE site (target TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// What each format added, to segments and to the state. Formats that were released are never changed; a new one is a new line.
const STEPS: &[(i64, &[&str], &[&str])] =
    &[(2, &[SEGMENT_2], &[STATE_2]), (3, &[crate::journal::owed::TABLE, crate::journal::kept::TABLES, SEGMENT_3], &[STATE_3])];

/// Which of the journal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::journal) enum Kind {
    /// Messages.
    Segment,
    /// Route sets and identities.
    State,
    /// Search.
    Search,
}

impl Kind {
    fn tables(self) -> &'static str {
        match self {
            Self::Segment => SEGMENT,
            Self::State => STATE,
            Self::Search => SEARCH,
        }
    }

    /// What makes a file of this format of one of the format `from`; 0 is the file that its first tables have just been made in.
    fn upgrade(self, from: i64) -> String {
        let mut steps = String::new();
        for (format, segment, state) in STEPS {
            if *format > from.max(1) {
                let added: &[&str] = match self {
                    Self::Segment => segment,
                    Self::State => state,
                    Self::Search => &[],
                };
                added.iter().for_each(|tables| steps.push_str(tables));
            }
        }
        steps
    }

    /// Only segments hold what an acknowledgement promises. The rest may lose its newest commits to a power failure, never its consistency.
    fn synchronous(self) -> &'static str {
        #[cfg(feature = "sabotage")]
        if crate::journal::sabotage::sync_off() {
            return "OFF";
        }
        match self {
            Self::Segment => "FULL",
            Self::State | Self::Search => "NORMAL",
        }
    }
}

/// Opens a file for writing and makes its tables if they are not there yet. `cache_kib` is the page cache of this connection.
pub(in crate::journal) fn open_writable(path: &Path, kind: Kind, cache_kib: i64) -> Result<Connection, OpenError> {
    // SQLite would make the file readable for the group; the logs beside it take its mode over.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|source| OpenError::Io { path: path.into(), source })?;
    let database = |error| database(path, &error);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(database)?;
    prepare(&connection, cache_kib).map_err(database)?;
    connection
        .execute_batch(&format!("PRAGMA page_size = 4096; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = {};", kind.synchronous()))
        .map_err(database)?;
    write_ahead(&connection).map_err(database)?;
    if pragma(&connection, "user_version").map_err(database)? == 0 && is_empty(&connection).map_err(database)? {
        let (tables, added) = (kind.tables(), kind.upgrade(0));
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {tables} {added} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"))
            .map_err(database)?;
    }
    check(&connection, path)?;
    let found = pragma(&connection, "user_version").map_err(database)?;
    if found < FORMAT {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {FORMAT}; COMMIT;", kind.upgrade(found))).map_err(database)?;
    }
    Ok(connection)
}

/// Opens a file for reading, also while another process writes it.
pub(in crate::journal) fn open_readable(path: &Path, cache_kib: i64) -> Result<Connection, OpenError> {
    let database = |error| database(path, &error);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(database)?;
    prepare(&connection, cache_kib).map_err(database)?;
    check(&connection, path)?;
    let found = pragma(&connection, "user_version").map_err(database)?;
    if found < FORMAT {
        // Nobody has opened it for writing since the former format: what later ones added is empty.
        let added = format!("{} {}", Kind::Segment.upgrade(found), Kind::State.upgrade(found));
        let added = added.replace("CREATE TABLE ", "CREATE TEMP TABLE ").replace("CREATE INDEX ", "CREATE INDEX temp.");
        connection.execute_batch(&added).map_err(database)?;
    }
    Ok(connection)
}

/// Turns the write-ahead log on. The statement commits only after its row, so it is read to its end: whoever stops at the row never hears of an
/// fsync that failed.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn prepare(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(&format!("PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -{cache_kib};"))
}

fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let database = |error| database(path, &error);
    if pragma(connection, "application_id").map_err(database)? != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let found = pragma(connection, "user_version").map_err(database)?;
    if found > FORMAT {
        return Err(OpenError::TooNew { path: path.into(), found, known: FORMAT });
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// An error of SQLite without its text, which could quote a value.
pub(in crate::journal) fn database(path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Database { path: path.into(), code: code(error) }
}

/// SQLite's name for an error, such as `DiskFull 13`; nothing of the statement or its values.
pub(in crate::journal) fn code(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => format!("{:?} {}", failure.code, failure.extended_code),
        rusqlite::Error::QueryReturnedNoRows => "no rows".to_owned(),
        _ => "unexpected content".to_owned(),
    }
}

/// What an error of SQLite means for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::journal) enum Trouble {
    /// No room, or somebody else holds the file: not stored, and worth another try.
    Full,
    /// Final.
    Failing,
}

/// SQLITE_IOERR_SHMSIZE: no room for the log's index.
pub(in crate::journal) const IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// Sorts an error. SQLITE_IOERR_SHMSIZE is a full disk under the log's index; every other I/O error is final, a failed fsync above all:
/// the kernel may have dropped what it could not write.
pub(in crate::journal) fn trouble(error: &rusqlite::Error) -> Trouble {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => Trouble::Full,
            _ if failure.extended_code == IOERR_SHMSIZE => Trouble::Full,
            _ => Trouble::Failing,
        },
        _ => Trouble::Failing,
    }
}
