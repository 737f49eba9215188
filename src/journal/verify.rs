//! Proof that what is on the disk is sound: SQLite's own check of each file, then what the journal promises beyond it.

use crate::journal::query::{JournalError, Verification};
use crate::journal::read::{Library, unread};
use crate::journal::shelf::{Segment, kind};
use rusqlite::Connection;
use std::sync::Arc;

/// What must never be found, in the words of a report.
const NEVER: [(&str, &str); 10] = [
    ("deliveries belong to no message", "SELECT count(*) FROM delivery WHERE message NOT IN (SELECT id FROM message)"),
    (
        "attempts belong to no delivery",
        "SELECT count(*) FROM attempt AS a WHERE NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.message = a.message AND d.number = a.number)",
    ),
    ("messages have an unreadable payload", "SELECT count(*) FROM message WHERE length(payload) < 1 OR substr(payload, 1, 1) <> x'00'"),
    (
        "edits are unreadable or of no message",
        "SELECT count(*) FROM edit WHERE length(payload) < 1 OR substr(payload, 1, 1) <> x'00' OR message NOT IN (SELECT id FROM message)",
    ),
    ("messages lack their listener's name", "SELECT count(*) FROM message WHERE listener NOT IN (SELECT id FROM name)"),
    (
        "deliveries lack their route's or target's name",
        "SELECT count(*) FROM delivery WHERE target NOT IN (SELECT id FROM name) OR route NOT IN (SELECT id FROM name)",
    ),
    (
        "refused messages have deliveries that were not withdrawn",
        "SELECT count(*) FROM delivery AS d JOIN message AS m ON m.id = d.message WHERE m.disposition = 3 AND d.state <> 4 \
         AND NOT EXISTS (SELECT 1 FROM attempt AS a WHERE a.message = d.message AND a.outcome = 8)",
    ),
    ("acknowledgements belong to no message", "SELECT count(*) FROM acknowledgement WHERE message NOT IN (SELECT id FROM message)"),
    (
        "application acknowledgements wait for nothing",
        "SELECT count(*) FROM acknowledgement AS a WHERE a.state = 0 AND NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.message = a.message AND d.state IN (0, 3))",
    ),
    (
        "parked keys belong to no parked delivery or dead letter",
        "SELECT count(*) FROM parked AS p WHERE NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.message = p.message AND d.number = p.number AND d.state IN (2, 3))",
    ),
];

impl Library {
    /// Reads everything.
    pub(in crate::journal) fn verify(&self) -> Result<Verification, JournalError> {
        let mut report = Verification::default();
        for segment in self.shelf.all().iter() {
            let result = self.with(|connections| {
                // Retention moves the border between what was carried over and the rest, but not while somebody reads.
                let until = self.shelf.all().iter().map(|other| other.first).find(|first| *first > segment.first);
                check(connections.get(&segment.path)?, segment, until, &mut report).map_err(unread)
            });
            match result {
                // Retention may have taken it meanwhile.
                Ok(()) | Err(JournalError::Missing) => {}
                Err(error) => report.faults.push(format!("{}: {error}", segment.file())),
            }
        }
        self.with(|connections| integrity(connections.get(&self.folder.state())?, "state.db", &mut report).map_err(unread))?;
        Ok(report)
    }
}

fn integrity(connection: &Connection, file: &str, report: &mut Verification) -> rusqlite::Result<()> {
    let mut query = connection.prepare("PRAGMA integrity_check(20)")?;
    // SQLite names pages and indexes here, never values.
    let lines: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    report.faults.extend(lines.into_iter().filter(|line| line != "ok").map(|line| format!("{file}: {line}")));
    Ok(())
}

fn check(connection: &Connection, segment: &Arc<Segment>, until: Option<u64>, report: &mut Verification) -> rusqlite::Result<()> {
    let file = segment.file();
    integrity(connection, &file, report)?;
    // One picture of the file for all that follows.
    connection.execute_batch("BEGIN")?;
    let result = promises(connection, segment, until, &file, report);
    connection.execute_batch("ROLLBACK")?;
    result
}

fn promises(connection: &Connection, segment: &Arc<Segment>, until: Option<u64>, file: &str, report: &mut Verification) -> rusqlite::Result<()> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    report.messages += count("SELECT count(*) FROM message")?;
    report.deliveries += count("SELECT count(*) FROM delivery")?;
    for (what, sql) in NEVER {
        let found = count(sql)?;
        if found > 0 {
            report.faults.push(format!("{file}: {found} {what}"));
        }
    }
    let until = until.map_or(i64::MAX, u64::cast_signed);
    let strangers =
        connection.query_row("SELECT count(*) FROM message WHERE id < ?1 OR id >= ?2", [segment.first.cast_signed(), until], |row| row.get::<_, i64>(0))?;
    if strangers > 0 {
        report.faults.push(format!("{file}: {strangers} messages belong to another segment"));
    }
    for (what, kind, rows) in [
        (
            "messages",
            kind::MESSAGE,
            "SELECT l.text AS a, m.type AS b, m.disposition AS c, count(*) AS n FROM message AS m JOIN name AS l ON l.id = m.listener GROUP BY 1, 2, 3",
        ),
        (
            "deliveries",
            kind::DELIVERY,
            "SELECT t.text AS a, '' AS b, d.state AS c, count(*) AS n FROM delivery AS d JOIN name AS t ON t.id = d.target GROUP BY 1, 3",
        ),
    ] {
        let tallied = "SELECT a, b, c, n FROM tally WHERE n <> 0 AND kind = ";
        let differ = count(&format!(
            "SELECT (SELECT count(*) FROM ({rows} EXCEPT {tallied}{kind})) + (SELECT count(*) FROM ({tallied}{kind} EXCEPT SELECT a, b, c, n FROM ({rows})))"
        ))?;
        if differ > 0 {
            report.faults.push(format!("{file}: the counts of {what} are not those of the rows"));
        }
    }
    Ok(())
}
