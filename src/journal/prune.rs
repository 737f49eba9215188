//! Retention: whole segments go, and their space with them; what is unsettled in them is carried over first.

use crate::exchange::Timestamp;
use crate::journal::own_log::PATIENCE;
use crate::journal::query::{JournalError, Pruned};
use crate::journal::schema::{Kind, Trouble, open_writable, trouble};
use crate::journal::shelf::{Segment, kind};
use crate::journal::writer::Writer;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;

/// A segment with more unsettled messages than this is kept as it is: copying it would hold up intake, and it is not old but waiting.
const CARRIED_MAX: i64 = 10_000;

/// Copies everything of the unsettled messages of `old`; names have other numbers in each file. The tallies follow from the rows.
const CARRY: &str = "
CREATE TEMP TABLE chosen AS SELECT message AS id FROM old.delivery WHERE state IN (0, 2, 3) UNION SELECT message FROM old.acknowledgement WHERE state IN (0, 1);
INSERT OR IGNORE INTO main.name (text) SELECT text FROM old.name;
CREATE TEMP TABLE renamed AS SELECT o.id AS was, n.id AS now FROM old.name AS o JOIN main.name AS n ON n.text = o.text;
INSERT INTO main.message SELECT m.id, m.received, r.now, m.format, m.disposition, m.code, m.reason, m.type, m.application, m.facility, m.message_time,
    m.control_id, m.peer, m.order_keys, m.payload FROM old.message AS m JOIN temp.renamed AS r ON r.was = m.listener WHERE m.id IN (SELECT id FROM temp.chosen);
INSERT INTO main.delivery SELECT d.message, d.number, t.now, r.now, d.state, d.attempts, d.not_before, d.first_attempt, d.ambiguous, d.program, d.received, d.order_keys
    FROM old.delivery AS d JOIN temp.renamed AS t ON t.was = d.target JOIN temp.renamed AS r ON r.was = d.route WHERE d.message IN (SELECT id FROM temp.chosen);
INSERT INTO main.attempt (message, number, at, outcome, code, summary, detail)
    SELECT message, number, at, outcome, code, summary, detail FROM old.attempt WHERE message IN (SELECT id FROM temp.chosen) ORDER BY id;
INSERT INTO main.edit (message, at, by, payload) SELECT message, at, by, payload FROM old.edit WHERE message IN (SELECT id FROM temp.chosen) ORDER BY id;
INSERT INTO main.parked SELECT r.now, p.key, p.message, p.number FROM old.parked AS p JOIN temp.renamed AS r ON r.was = p.target;
INSERT INTO main.awaited SELECT message, number FROM old.awaited WHERE message IN (SELECT id FROM temp.chosen);
INSERT INTO main.acknowledgement SELECT a.message, r.now, a.sender, a.accept, a.wanted, a.awaited, a.state, a.positive, a.decided, a.told, a.line, a.frames,
    a.attempts, a.not_before, a.at, a.note, a.code, a.bytes FROM old.acknowledgement AS a JOIN temp.renamed AS r ON r.was = a.listener
    WHERE a.message IN (SELECT id FROM temp.chosen);
INSERT INTO main.answer SELECT message, number, answers FROM old.answer WHERE message IN (SELECT id FROM temp.chosen);
INSERT INTO main.reply SELECT message, at, program, route, answers, payload FROM old.reply WHERE message IN (SELECT id FROM temp.chosen);
INSERT INTO main.duplicate (original, at, peer) SELECT original, at, peer FROM old.duplicate WHERE original IN (SELECT id FROM temp.chosen);
INSERT INTO main.target_state SELECT target, sequence, state FROM old.target_state WHERE true
    ON CONFLICT (target) DO UPDATE SET sequence = excluded.sequence, state = excluded.state WHERE excluded.sequence > sequence;
";

/// A file of fewer pages (4 KiB each) is made anew in a moment.
const SMALL_PAGES: i64 = 16_384;

const CHOOSE_SETTLED: &str = "CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)";

/// Messages that were carried over, are old, and of which nothing is unsettled any more.
const SETTLED: &str = "INSERT INTO temp.chosen SELECT id FROM message AS m WHERE received < ?1
    AND NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.message = m.id AND d.state IN (0, 2, 3))
    AND NOT EXISTS (SELECT 1 FROM acknowledgement AS a WHERE a.message = m.id AND a.state IN (0, 1)) LIMIT ?2";

/// Deletes them with everything that is theirs, and the tallies, which follow from the rows that stay.
const DELETE_CHOSEN: &str = "
DELETE FROM message WHERE id IN (SELECT id FROM temp.chosen);
DELETE FROM delivery WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM attempt WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM parked WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM awaited WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM acknowledgement WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM answer WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM reply WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM edit WHERE message IN (SELECT id FROM temp.chosen);
DELETE FROM duplicate WHERE original IN (SELECT id FROM temp.chosen);
DELETE FROM tally WHERE kind IN (1, 2);
DELETE FROM temp.chosen;
INSERT INTO temp.chosen SELECT id FROM message;
";

impl Writer {
    /// Deletes the oldest segment if it is old enough, or the journal too large, and little in it is unsettled. One at a time, so that intake
    /// goes on in between.
    pub(in crate::journal) fn prune(&mut self, now: Timestamp) -> Result<Pruned, JournalError> {
        let keep = i64::try_from(self.options.keep.as_millis()).unwrap_or(i64::MAX);
        // What came last may be the last for long: it is not kept longer for that.
        let rolled = self.roll_if_old(now.0.saturating_sub(keep));
        rolled.map_err(|error| if self.blame(&error) == Trouble::Full { JournalError::Full } else { JournalError::Failing })?;
        let tidied = self.tidy(now.0.saturating_sub(keep));
        self.judge(tidied)?;
        let forgotten = self.prune_unknown(now.0.saturating_sub(keep));
        self.judge(forgotten)?;
        let segments = self.shelf.all();
        let [_, oldest, next, ..] = segments.as_slice() else { return Ok(Pruned::default()) };
        // What waits in write-ahead logs is in the files soon, and those that go take theirs along.
        let too_large = self.options.keep_bytes.is_some_and(|most| self.folder.bytes().0 > most);
        if oldest.last_received() >= now.0.saturating_sub(keep) && !too_large {
            return Ok(Pruned::default());
        }
        // Before the segment is given up, because afterwards it must go; while somebody reads for long, retention waits for its next turn.
        let gate = self.gate.clone();
        let Some(_alone) = gate.close(PATIENCE) else { return Ok(Pruned::default()) };
        let gone = self.carry(oldest, next.first).map_err(|error| match self.blame(&error) {
            Trouble::Full => JournalError::Full,
            Trouble::Failing => JournalError::Failing,
        })?;
        let Some((messages, carried)) = gone else { return Ok(Pruned::default()) };
        self.forget(oldest)?;
        self.recount().map_err(|error| {
            self.blame(&error);
            JournalError::Failing
        })?;
        Ok(Pruned { segments: 1, messages: messages - carried, carried })
    }

    /// Carries over what is unsettled and notes, in the same commit, that the segment is gone. How many messages it had and how many were
    /// carried; `None` if there are too many of them.
    fn carry(&mut self, old: &Arc<Segment>, next: u64) -> rusqlite::Result<Option<(u64, u64)>> {
        // A connection of its own: ATTACH is refused inside a transaction, and statements that the sheet keeps would have to be made anew.
        self.sheets.remove(&0);
        let carried = open_writable(&self.folder.segment(0), Kind::Segment, 2048).map_err(|_| io())?;
        carried.execute("ATTACH DATABASE ?1 AS old", [path_text(&old.path)?])?;
        let count = |sql: &str| carried.query_row(sql, [], |row| row.get::<_, i64>(0));
        let unsettled = count(
            "SELECT count(*) FROM (SELECT message FROM old.delivery WHERE state IN (0, 2, 3) UNION SELECT message FROM old.acknowledgement WHERE state IN (0, 1))",
        )?;
        if unsettled > CARRIED_MAX {
            return Ok(None);
        }
        let messages = count("SELECT coalesce(sum(n), 0) FROM old.tally WHERE kind = 1")?;
        carried.execute_batch("BEGIN IMMEDIATE")?;
        let result = carried.execute_batch(CARRY).and_then(|()| tally(&carried)).and_then(|()| {
            carried.execute("INSERT OR REPLACE INTO setting VALUES ('live-from', ?1)", [next.cast_signed()])?;
            carried.execute_batch("COMMIT")
        });
        if !carried.is_autocommit() {
            let _ = carried.execute_batch("ROLLBACK");
        }
        result?;
        Ok(Some((messages.unsigned_abs(), unsettled.unsigned_abs())))
    }

    /// Deletes, of what was carried over, what has been settled since and is old enough: a few thousand messages at a time.
    fn tidy(&mut self, before: i64) -> rusqlite::Result<()> {
        let Some(old) = self.shelf.all().first().cloned() else { return Ok(()) };
        self.sheets.remove(&0);
        let carried = open_writable(&old.path, Kind::Segment, 2048).map_err(|_| io())?;
        carried.execute_batch(CHOOSE_SETTLED)?;
        let chosen = carried.execute(SETTLED, params![before, CARRIED_MAX])?;
        if chosen == 0 {
            return Ok(());
        }
        let gate = self.gate.clone();
        let Some(_alone) = gate.close(PATIENCE) else { return Ok(()) };
        carried.execute_batch("BEGIN IMMEDIATE")?;
        let deleted = carried.execute_batch(DELETE_CHOSEN).and_then(|()| tally(&carried)).and_then(|()| carried.execute_batch("COMMIT"));
        if !carried.is_autocommit() {
            let _ = carried.execute_batch("ROLLBACK");
        }
        deleted?;
        // The pages are free for what is carried over next; where most are, the file is made anew, and its space given back.
        let (pages, free): (i64, i64) =
            (carried.pragma_query_value(None, "page_count", |row| row.get(0))?, carried.pragma_query_value(None, "freelist_count", |row| row.get(0))?);
        if free * 2 > pages && pages - free < SMALL_PAGES {
            // A reader in another process may stand in the way; then it is for the next time.
            match carried.execute_batch("VACUUM") {
                Err(error) if trouble(&error) == Trouble::Failing => return Err(error),
                _ => {}
            }
        }
        let left = Segment::load(0, old.path.clone(), &carried)?;
        let rest = self.shelf.all().iter().skip(1).cloned().collect::<Vec<_>>();
        self.shelf.replace(std::iter::once(Arc::new(left)).chain(rest).collect());
        self.recount()?;
        tracing::debug!(messages = chosen, "settled messages that had been carried over were deleted");
        Ok(())
    }

    /// Takes a segment off the shelf and deletes its files.
    fn forget(&mut self, old: &Arc<Segment>) -> Result<(), JournalError> {
        self.sheets.remove(&old.first);
        let failed = |_| JournalError::Failing;
        let carried = open_writable(&self.folder.segment(0), Kind::Segment, 512).map_err(failed)?;
        let carried = Segment::load(0, self.folder.segment(0), &carried).map_err(|_| JournalError::Failing)?;
        let rest = self.shelf.all().iter().skip(1).filter(|segment| segment.first != old.first).cloned().collect::<Vec<_>>();
        self.shelf.replace(std::iter::once(Arc::new(carried)).chain(rest).collect());
        // If the process dies before this is durable, the next start sees `live-from` and deletes it again.
        self.folder.delete_segment(old.first).map_err(|_| JournalError::Failing)
    }
}

/// Adds the tallies of what was just carried over.
fn tally(carried: &Connection) -> rusqlite::Result<()> {
    carried.execute(
        "INSERT INTO main.tally SELECT ?1, n.text, m.type, m.disposition, count(*) FROM main.message AS m JOIN main.name AS n ON n.id = m.listener \
         WHERE m.id IN (SELECT id FROM temp.chosen) GROUP BY n.text, m.type, m.disposition ON CONFLICT DO UPDATE SET n = n + excluded.n",
        params![kind::MESSAGE],
    )?;
    carried.execute(
        "INSERT INTO main.tally SELECT ?1, n.text, '', d.state, count(*) FROM main.delivery AS d JOIN main.name AS n ON n.id = d.target \
         WHERE d.message IN (SELECT id FROM temp.chosen) GROUP BY n.text, d.state ON CONFLICT DO UPDATE SET n = n + excluded.n",
        params![kind::DELIVERY],
    )?;
    Ok(())
}

fn path_text(path: &Path) -> rusqlite::Result<&str> {
    path.to_str().ok_or_else(io)
}

fn io() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR), None)
}
