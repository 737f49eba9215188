//! Who may read: readers come and go through a gate, each with connections of its own, and wait while files go away.

use crate::journal::query::JournalError;
use crate::journal::schema::open_readable;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Files that one set of connections keeps open.
const OPEN_FILES_MAX: usize = 6;

/// Page cache of a reading connection in KiB.
const CACHE_KIB: i64 = 512;

/// Lets readers in, and shuts them out while files go away or a log must shrink.
#[derive(Default)]
pub(in crate::journal) struct Gate {
    inside: Mutex<Inside>,
    changed: Condvar,
    pub(in crate::journal) idle: Mutex<Vec<Connections>>,
}

#[derive(Default)]
struct Inside {
    readers: usize,
    closed: bool,
}

/// A reader is inside as long as it holds this.
pub(in crate::journal) struct Visit<'a>(&'a Gate);

/// Nobody is inside as long as this is held.
pub(in crate::journal) struct Alone<'a>(&'a Gate);

impl Gate {
    /// Waits until the gate is open.
    pub(in crate::journal) fn enter(&self) -> Visit<'_> {
        let inside = self.inside.lock().expect("no holder panics");
        let mut inside = self.changed.wait_while(inside, |inside| inside.closed).expect("no holder panics");
        inside.readers += 1;
        Visit(self)
    }

    /// Lets nobody in any more and waits for those inside to leave, but not longer than `patience`: the writer must not wait for somebody who
    /// checks a whole journal.
    pub(in crate::journal) fn shut(&self, patience: Duration) -> Option<Alone<'_>> {
        let mut inside = self.inside.lock().expect("no holder panics");
        inside.closed = true;
        let (mut inside, _) = self.changed.wait_timeout_while(inside, patience, |inside| inside.readers > 0).expect("no holder panics");
        if inside.readers > 0 {
            inside.closed = false;
            drop(inside);
            self.changed.notify_all();
            return None;
        }
        drop(inside);
        Some(Alone(self))
    }

    /// As `shut`, and forgets the connections that readers left, so that files can go away.
    pub(in crate::journal) fn close(&self, patience: Duration) -> Option<Alone<'_>> {
        let alone = self.shut(patience)?;
        self.idle.lock().expect("no holder panics").clear();
        Some(alone)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().expect("no holder panics").readers -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().expect("no holder panics").closed = false;
        self.0.changed.notify_all();
    }
}

/// Connections of one reader, the last used at the end.
#[derive(Default)]
pub(in crate::journal) struct Connections {
    open: Vec<(PathBuf, Connection)>,
}

impl Connections {
    /// The connection to a file.
    pub(in crate::journal) fn get(&mut self, path: &Path) -> Result<&Connection, JournalError> {
        if let Some(place) = self.open.iter().position(|(open, _)| open == path) {
            let found = self.open.remove(place);
            self.open.push(found);
        } else {
            if !path.exists() {
                return Err(JournalError::Missing);
            }
            let connection = open_readable(path, CACHE_KIB).map_err(|error| JournalError::Database(error.to_string()))?;
            if self.open.len() >= OPEN_FILES_MAX {
                self.open.remove(0);
            }
            self.open.push((path.into(), connection));
        }
        self.open.last().map(|(_, connection)| connection).ok_or(JournalError::Missing)
    }
}
