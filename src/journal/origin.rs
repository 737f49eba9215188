//! Messages by where they came from: which of a file's are stored already, after the reader of the file was interrupted.

use crate::exchange::MessageId;
use crate::journal::query::JournalError;
use crate::journal::read::{Library, unread};
use crate::journal::rows;
use rusqlite::params;

/// Rows that are looked at in one transaction.
const STEP: i64 = 2_000;

impl Library {
    /// The peers that begin with `prefix`, of a listener's messages after `after`, in the order of storing; and whether the message was refused.
    pub(in crate::journal) fn peers_after(&self, after: MessageId, listener: &str, prefix: &str) -> Result<Vec<(String, bool)>, JournalError> {
        const SQL: &str =
            "SELECT m.id, m.peer, m.disposition, l.text FROM message AS m JOIN name AS l ON l.id = m.listener WHERE m.id > ?1 ORDER BY m.id LIMIT ?2";
        let mut found = Vec::new();
        let mut above = after.0.cast_signed();
        for segment in self.shelf.all().iter() {
            loop {
                let page = self.with(|connections| {
                    let mut statement = connections.get(&segment.path)?.prepare_cached(SQL).map_err(unread)?;
                    let rows = statement.query_map(params![above, STEP], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
                    });
                    rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unread)
                })?;
                let Some((last, ..)) = page.last() else { break };
                above = *last;
                let wanted = page.into_iter().filter(|(_, peer, _, by)| by == listener && peer.starts_with(prefix));
                found.extend(wanted.map(|(_, peer, disposition, _)| (peer, rows::disposition_word(disposition) == "refused")));
            }
        }
        Ok(found)
    }
}
