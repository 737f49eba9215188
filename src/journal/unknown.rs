//! Codes that no table knows and authorities that no naming system knows, counted per sender: what an analyst is to decide.

use crate::exchange::{MessageId, Phi, Timestamp};
use crate::journal::query::JournalError;
use crate::journal::read::{Library, unread};
use crate::journal::writer::Writer;
use rusqlite::params;

/// The most rows that are kept. A field of free text that a table is asked for could fill the disk.
const ROWS_MAX: i64 = 10_000;

/// The longest code that is kept, in bytes: what is longer is no code.
const CODE_MAX: usize = 200;

/// What did not know a code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownList {
    /// A table of this name.
    Table(String),
    /// The `systems:` documents.
    Systems,
}

impl UnknownList {
    fn columns(&self) -> (i64, &str) {
        match self {
            Self::Table(name) => (1, name),
            Self::Systems => (2, ""),
        }
    }
}

/// A code or authority that was not known, so many times.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// The listener of the messages.
    pub listener: String,
    /// MSH-3.
    pub application: String,
    /// MSH-4.
    pub facility: String,
    /// What did not know it.
    pub list: UnknownList,
    /// The code, or the authority's namespace.
    pub code: Phi<String>,
    /// The v2 place, such as `PV1-14`.
    pub place: String,
    /// In so many deliveries.
    pub count: u64,
    /// When the newest of them was made.
    pub at: Timestamp,
    /// The newest message with it.
    pub example: MessageId,
}

/// One row of what is counted.
#[derive(Clone, Debug)]
pub struct UnknownCount {
    /// The code, its sender, and how often; `at` and `example` are of the newest.
    pub what: Unknown,
    /// When it came first.
    pub first: Timestamp,
}

impl Writer {
    /// Adds counts. New rows end at the limit; what is there goes on being counted.
    pub(in crate::journal) fn keep_unknown(&mut self, found: &[Unknown]) -> rusqlite::Result<()> {
        let left_out = self.in_state(|state| {
            let rows: i64 = state.query_row("SELECT count(*) FROM unknown", [], |row| row.get(0))?;
            let (mut room, mut left_out) = (ROWS_MAX - rows, 0);
            let mut add = state.prepare_cached(
                "UPDATE unknown SET n = n + ?7, last = max(last, ?8), example = max(example, ?9), place = ?10 \
                 WHERE listener = ?1 AND application = ?2 AND facility = ?3 AND kind = ?4 AND list = ?5 AND code = ?6",
            )?;
            let mut begin = state.prepare_cached("INSERT INTO unknown VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?10, ?7, ?8, ?8, ?9)")?;
            for one in found.iter().filter(|one| one.code.expose().len() <= CODE_MAX) {
                let (kind, list) = one.list.columns();
                let values = params![
                    one.listener,
                    one.application,
                    one.facility,
                    kind,
                    list,
                    one.code.expose(),
                    one.count.cast_signed(),
                    one.at.0,
                    one.example.0.cast_signed(),
                    one.place
                ];
                if add.execute(values)? > 0 {
                    continue;
                }
                if room > 0 {
                    begin.execute(values)?;
                    room -= 1;
                } else {
                    left_out += 1;
                }
            }
            Ok(left_out)
        })?;
        if left_out > 0 && !std::mem::replace(&mut self.told_of_unknown, true) {
            tracing::warn!(left_out, rows = ROWS_MAX, "there are more unknown codes than are kept; `kiln unmapped` shows the first. This is said once");
        }
        Ok(())
    }

    /// Deletes what was last seen before this time: its example is gone, and nobody sends it any more.
    pub(in crate::journal) fn prune_unknown(&mut self, before: i64) -> rusqlite::Result<usize> {
        self.in_state(|state| state.execute("DELETE FROM unknown WHERE last < ?1", [before]))
    }

    /// Forgets what is known now.
    pub(in crate::journal) fn forget_unknown(&mut self, list: &UnknownList, code: Option<&Phi<String>>) -> rusqlite::Result<u64> {
        let (kind, name) = list.columns();
        let sql = "DELETE FROM unknown WHERE kind = ?1 AND list = ?2 AND (?3 IS NULL OR code = ?3)";
        self.in_state(|state| state.execute(sql, params![kind, name, code.map(Phi::expose)])).map(|rows| rows as u64)
    }
}

impl Library {
    /// All that is counted, by sender, most often first.
    pub(in crate::journal) fn unknown(&self) -> Result<Vec<UnknownCount>, JournalError> {
        self.with(|connections| {
            let connection = connections.get(&self.folder.state())?;
            let sql = "SELECT listener, application, facility, kind, list, code, place, n, first, last, example FROM unknown \
                       ORDER BY listener, application, facility, n DESC, kind, list, code";
            let mut query = connection.prepare_cached(sql).map_err(unread)?;
            let rows = query.query_map([], |row| {
                let list = if row.get::<_, i64>(3)? == 1 { UnknownList::Table(row.get(4)?) } else { UnknownList::Systems };
                Ok(UnknownCount {
                    what: Unknown {
                        listener: row.get(0)?,
                        application: row.get(1)?,
                        facility: row.get(2)?,
                        list,
                        code: Phi::new(row.get(5)?),
                        place: row.get(6)?,
                        count: row.get::<_, i64>(7)?.unsigned_abs(),
                        at: Timestamp(row.get(9)?),
                        example: MessageId(row.get::<_, i64>(10)?.cast_unsigned()),
                    },
                    first: Timestamp(row.get(8)?),
                })
            });
            rows.map_err(unread)?.collect::<rusqlite::Result<_>>().map_err(unread)
        })
    }
}
