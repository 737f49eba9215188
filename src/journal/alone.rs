//! What the writer does in transactions of their own, between the group commits: an operator's changes, route sets, retention.

use crate::exchange::{MessageId, Timestamp};
use crate::journal::answer::{answer, refuse};
use crate::journal::query::{Gone, JournalError, Program};
use crate::journal::queue::Command;
use crate::journal::schema::Trouble;
use crate::journal::sheet::Sheet;
use crate::journal::writer::Writer;
use rusqlite::{Connection, params};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The most deliveries that one transaction resumes.
const RESUME_STEP: usize = 10_000;

impl Writer {
    /// Commands that are a transaction of their own.
    pub(in crate::journal) fn alone(&mut self, command: Command) {
        if self.board.has_failed() {
            return refuse(command, Some(Trouble::Failing));
        }
        match command {
            Command::Resume(target, keys, at, reply) => {
                let result = self.resume(&target, keys, at);
                answer(reply, self.judge(result));
            }
            Command::Replay(ids, how, reply) => {
                let result = self.each_segment(&ids, |sheet, id| sheet.replay(*id, &how).map(u64::from));
                answer(reply, self.judge(result));
            }
            Command::Edit(id, edit, reply) => {
                let result = self.in_home(id, |sheet| sheet.edit(id, &edit));
                answer(reply, self.judge(result).and_then(|edited| if edited == Some(true) { Ok(()) } else { Err(JournalError::Missing) }));
            }
            Command::Unknown(found, reply) => {
                let result = self.keep_unknown(&found);
                answer(reply, self.judge(result));
            }
            Command::Known(list, code, reply) => {
                let result = self.forget_unknown(&list, code.as_ref());
                answer(reply, self.judge(result));
            }
            Command::Site(text, gone, reply) => {
                let result = self.put_site(&text, &gone);
                answer(reply, self.judge(result));
            }
            Command::Add(id, deliveries, reply) => {
                let result = self.in_home(id, |sheet| sheet.add_deliveries(id, &deliveries));
                answer(reply, self.judge(result).and_then(|added| added.flatten().ok_or(JournalError::Missing)));
            }
            Command::Program(program, retired, reply) => {
                let result = self.put_program(&program, &retired);
                answer(reply, self.judge(result));
            }
            Command::Prune(now, reply) => {
                let result = self.prune(now);
                answer(reply, result);
            }
            Command::Fold(file, truncate, done) => {
                let _ = done.send(self.fold(file, truncate).is_some());
            }
            Command::Append(..) | Command::Settle(..) | Command::Tell(..) | Command::Keep(..) | Command::Close => {}
        }
    }

    /// Runs a change in the segment that holds a message, in a transaction of its own.
    fn in_home<T>(&mut self, id: MessageId, change: impl FnOnce(&mut Sheet) -> rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
        let Some(segment) = self.shelf.home(id) else { return Ok(None) };
        let sheet = self.sheet(&segment)?;
        let result = sheet.begin().and_then(|()| change(sheet));
        match result {
            Ok(value) => {
                self.finish(segment.first)?;
                Ok(Some(value))
            }
            Err(error) => {
                self.give_up(segment.first, Trouble::Full);
                Err(error)
            }
        }
    }

    fn finish(&mut self, first: u64) -> rusqlite::Result<()> {
        let Some(sheet) = self.sheets.get_mut(&first) else { return Ok(()) };
        match sheet.commit() {
            Ok(changes) => {
                self.after_commit(first, &changes, changes.took());
                changes.arrived.iter().for_each(|target| self.board.arrivals(target).notify_one());
                self.look_at_oldest(&changes);
                Ok(())
            }
            Err(error) => {
                self.give_up(first, Trouble::Full);
                Err(error)
            }
        }
    }

    fn each_segment<T: HasHome>(&mut self, items: &[T], mut change: impl FnMut(&mut Sheet, &T) -> rusqlite::Result<u64>) -> rusqlite::Result<u64> {
        let mut by_home: HashMap<u64, Vec<&T>> = HashMap::new();
        for item in items {
            if let Some(segment) = self.shelf.home(item.message()) {
                by_home.entry(segment.first).or_default().push(item);
            }
        }
        let mut sum = 0;
        for items in by_home.into_values() {
            let Some(id) = items.first().map(|item| item.message()) else { continue };
            let changed = self.in_home(id, |sheet| items.iter().try_fold(0, |sum, item| change(sheet, item).map(|more| sum + more)))?;
            sum += changed.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Resumes what is parked under these keys, and then what is parked under the other keys of what was resumed: it may have waited for that.
    fn resume(&mut self, target: &str, keys: Vec<crate::exchange::OrderKey>, at: Timestamp) -> rusqlite::Result<u64> {
        let (mut todo, mut done, mut sum) = (keys, HashSet::new(), 0);
        while let Some(key) = todo.pop() {
            if !done.insert(key) {
                continue;
            }
            let mut also = HashSet::new();
            for segment in self.shelf.all().iter().filter(|segment| segment.may_block(target)) {
                loop {
                    let (resumed, more) =
                        self.in_home(MessageId(segment.first), |sheet| sheet.resume(target, key, at, RESUME_STEP, &mut also))?.unwrap_or_default();
                    sum += resumed;
                    if !more {
                        break;
                    }
                }
            }
            todo.extend(also);
        }
        Ok(sum)
    }

    /// Keeps the site file that is in force, and for each target that is gone the last one that had it; those that are back are forgotten.
    fn put_site(&mut self, text: &str, gone: &Gone) -> rusqlite::Result<()> {
        self.in_state(|state| {
            state.execute("INSERT OR REPLACE INTO site VALUES ('', ?1)", [text])?;
            for target in &gone.back {
                state.execute("DELETE FROM site WHERE target = ?1", [target])?;
            }
            for (target, last) in &gone.left {
                state.execute("INSERT OR REPLACE INTO site VALUES (?1, ?2)", params![target, last])?;
            }
            Ok(())
        })
    }

    /// A transaction on the state.
    pub(in crate::journal) fn in_state<T>(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let result = (|| {
            self.state.execute_batch("BEGIN IMMEDIATE")?;
            let value = change(&self.state)?;
            self.state.execute_batch("COMMIT")?;
            Ok(value)
        })();
        if !self.state.is_autocommit() {
            let _ = self.state.execute_batch("ROLLBACK");
        }
        result
    }

    fn put_program(&mut self, program: &Program, retired: &[(Arc<str>, String)]) -> rusqlite::Result<()> {
        // Deliveries will name it, so unlike the identity map it must survive a power failure.
        self.state.execute_batch("PRAGMA synchronous = FULL")?;
        let result = self.in_state(|state| {
            state.execute("INSERT OR IGNORE INTO program VALUES (?1, ?2, ?3)", params![program.hash, program.applied.0, program.bytes])?;
            state.execute("INSERT OR REPLACE INTO applied VALUES (1, ?1)", [&program.hash])?;
            for (route, last) in retired {
                state.execute("INSERT OR REPLACE INTO retired VALUES (?1, ?2)", params![route, last])?;
            }
            Ok(())
        });
        self.state.execute_batch("PRAGMA synchronous = NORMAL")?;
        result
    }
}

/// Something that belongs to a message.
trait HasHome {
    fn message(&self) -> MessageId;
}

impl HasHome for crate::exchange::DeliveryId {
    fn message(&self) -> MessageId {
        self.message
    }
}
