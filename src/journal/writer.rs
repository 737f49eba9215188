//! The one thread that writes: it takes all that waits, stores it in one transaction a segment, and answers after the fsync.

use crate::exchange::{MessageId, Timestamp};
use crate::journal::answer::{Answer, Guard, answer, refuse};
use crate::journal::folder::Folder;
use crate::journal::gate::Gate;
use crate::journal::options::{CommitReport, Options};
use crate::journal::own_log::LogWatch;
use crate::journal::query::{Counts, JournalError};
use crate::journal::queue::{Board, Command, File, Queue, Reply};
use crate::journal::schema::{Kind, Trouble, code, open_writable, trouble};
use crate::journal::settle::IdentityKey;
use crate::journal::sheet::{Changes, Earlier, Sheet};
use crate::journal::shelf::{Segment, Shelf, state_number};
use crate::journal::{AcknowledgementAttempt, Append, AppendFault, DeliveryState, Kept, OpenError, Settle, SettleFault, Settlement, Stored};
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Page cache of the segment that takes messages, and of each older one, in KiB.
const CACHE_KIB: (i64, i64) = (8192, 256);

/// Older segments that stay open for writing at the same time.
const OPEN_SEGMENTS_MAX: usize = 32;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// What the writer's thread owns.
pub(in crate::journal) struct Writer {
    pub(in crate::journal) folder: Folder,
    pub(in crate::journal) options: Options,
    pub(in crate::journal) shelf: Arc<Shelf>,
    pub(in crate::journal) board: Arc<Board>,
    pub(in crate::journal) queue: Arc<Queue>,
    pub(in crate::journal) gate: Arc<Gate>,
    pub(in crate::journal) sheets: HashMap<u64, Sheet>,
    pub(in crate::journal) state: Connection,
    pub(in crate::journal) active: u64,
    active_bytes: u64,
    active_day: Option<i64>,
    next_id: u64,
    sequence: u64,
    pub(in crate::journal) waiting: HashMap<u64, Vec<Answer>>,
    /// The segment whose open transaction holds a target state.
    state_home: Option<u64>,
    pub(in crate::journal) log: LogWatch,
    /// True once somebody was told that there are more unknown codes than are kept.
    pub(in crate::journal) told_of_unknown: bool,
}

impl Writer {
    /// Opens all files, finishes what a crash interrupted, and counts what waits.
    pub(in crate::journal) fn open(folder: Folder, options: Options, queue: Arc<Queue>, gate: Arc<Gate>) -> Result<Self, OpenError> {
        let state = open_writable(&folder.state(), Kind::State, 2048)?;
        let mut firsts = folder.segments()?;
        let carried = open_writable(&folder.segment(0), Kind::Segment, CACHE_KIB.1)?;
        let failed = |error: rusqlite::Error| crate::journal::schema::database(folder.path(), &error);
        let live_from: u64 = carried
            .query_row("SELECT coalesce((SELECT value FROM setting WHERE key = 'live-from'), 0)", [], |row| row.get::<_, i64>(0))
            .map_err(failed)?
            .cast_unsigned();
        let io = |source| OpenError::Io { path: folder.path().into(), source };
        for stale in firsts.iter().filter(|first| **first != 0 && **first < live_from) {
            folder.delete_segment(*stale).map_err(io)?;
        }
        firsts.retain(|first| *first != 0 && *first >= live_from);
        if firsts.is_empty() {
            firsts.push(live_from.max(1));
        }
        let (mut segments, mut sheets) = (Vec::new(), HashMap::new());
        let mut sequence = 0;
        let mut board_targets: HashMap<Arc<str>, Counts> = HashMap::new();
        let newest = firsts.last().copied().unwrap_or(1);
        let mut next_id = newest.max(1);
        for first in std::iter::once(0).chain(firsts) {
            let path = folder.segment(first);
            let connection =
                if first == newest { open_writable(&path, Kind::Segment, CACHE_KIB.0)? } else { open_writable(&path, Kind::Segment, CACHE_KIB.1)? };
            let segment = Arc::new(Segment::load(first, path, &connection).map_err(failed)?);
            let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM message", [], |row| row.get(0)).map_err(failed)?;
            next_id = next_id.max(last.cast_unsigned() + 1);
            sequence = sequence.max(last_sequence(&connection).map_err(failed)?);
            for (target, states) in segment.targets.lock().expect("no holder panics").iter() {
                add_counts(board_targets.entry(target.clone()).or_default(), states);
            }
            segments.push(segment.clone());
            if first == newest {
                sheets.insert(first, Sheet::over(segment, connection)?);
            }
        }
        drop(carried);
        folder.sync().map_err(io)?;
        let active_bytes = std::fs::metadata(folder.segment(newest)).map_or(0, |meta| meta.len());
        let active_day = segments.last().and_then(|segment| Some(segment.last_received()).filter(|last| *last > 0)).map(|last| last.div_euclid(DAY_MS));
        let board = Arc::new(Board::new(board_targets, next_id - 1));
        let mut writer = Self {
            shelf: Arc::new(Shelf::new(segments)),
            folder,
            options,
            board,
            queue,
            gate,
            sheets,
            state,
            active: newest,
            active_bytes,
            active_day,
            next_id,
            sequence,
            waiting: HashMap::new(),
            state_home: None,
            told_of_unknown: false,
            log: LogWatch::default(),
        };
        for (target, _) in writer.board.targets() {
            writer.refresh_oldest(&target).map_err(|error| crate::journal::schema::database(writer.folder.path(), &error))?;
        }
        Ok(writer)
    }

    /// Runs until `Command::Close`.
    pub(in crate::journal) fn run(mut self) {
        let guard = Guard { queue: self.queue.clone(), board: self.board.clone() };
        let mut batch = Vec::new();
        loop {
            self.queue.take(&mut batch);
            let mut closing = false;
            for command in batch.drain(..) {
                match command {
                    Command::Append(append, reply) => self.append(&append, reply),
                    Command::Settle(settle, reply) => self.settle(&settle, reply),
                    Command::Tell(telling, reply) => self.tell(&telling, reply),
                    Command::Keep(kept, reply) => self.keep(&kept, reply),
                    Command::Close => closing = true,
                    other => {
                        self.commit();
                        self.alone(other);
                    }
                }
            }
            self.commit();
            if closing {
                break;
            }
        }
        self.queue.close().into_iter().for_each(|command| refuse(command, None));
        if !self.board.has_failed() {
            for file in self.sheets.keys().copied().map(File::Segment).chain([File::State]).collect::<Vec<_>>() {
                self.fold(file, true);
            }
        }
        drop(guard);
    }

    /// Turns SQLite's error into the caller's, and stops the journal if it is final.
    pub(in crate::journal) fn judge<T>(&self, result: rusqlite::Result<T>) -> Result<T, JournalError> {
        result.map_err(|error| match self.blame(&error) {
            Trouble::Full => JournalError::Full,
            Trouble::Failing => JournalError::Failing,
        })
    }

    /// Sorts an error; after a final one nothing is written any more.
    pub(in crate::journal) fn blame(&self, error: &rusqlite::Error) -> Trouble {
        let trouble = trouble(error);
        if trouble == Trouble::Failing && !self.board.has_failed() {
            tracing::error!(code = code(error), "the journal's disk failed");
            self.board.fail();
        }
        trouble
    }

    fn append(&mut self, append: &Append, reply: Reply<Stored, AppendFault>) {
        if self.board.has_failed() {
            return answer(reply, Err(AppendFault::Failing));
        }
        if append.is_behind() {
            return answer(reply, Err(AppendFault::Behind));
        }
        if let Err(trouble) = self.roll_if_due(append.envelope.received) {
            append.break_row();
            return answer(reply, Err(if trouble == Trouble::Full { AppendFault::Full } else { AppendFault::Failing }));
        }
        let active = self.active;
        match self.try_append(append) {
            Ok(stored) => {
                #[cfg(feature = "sabotage")]
                if crate::journal::sabotage::early_acknowledgement() {
                    return answer(reply, Ok(stored));
                }
                self.waiting.entry(active).or_default().push(Answer::Stored(reply, stored, append.row.clone()));
            }
            Err(error) => {
                let trouble = self.blame(&error);
                self.give_up(active, trouble);
                append.break_row();
                answer(reply, Err(if trouble == Trouble::Full { AppendFault::Full } else { AppendFault::Failing }));
            }
        }
    }

    fn try_append(&mut self, append: &Append) -> rusqlite::Result<Stored> {
        let earlier = self.earlier(append)?;
        let sheet = self.sheets.get_mut(&self.active).expect("the active segment stays open");
        sheet.begin()?;
        if let Earlier::Same(id, received) = earlier {
            sheet.store_duplicate(id, append)?;
            return Ok(Stored { id, received, duplicate: true, other_content: false });
        }
        let id = MessageId(self.next_id);
        let other_content = earlier == Earlier::OtherContent;
        sheet.store(id, append, other_content)?;
        self.next_id += 1;
        Ok(Stored { id, received: append.envelope.received, duplicate: false, other_content })
    }

    /// Looks for an earlier use of the control ID, from the newest segment back as far as the window reaches.
    fn earlier(&mut self, append: &Append) -> rusqlite::Result<Earlier> {
        let control_id = &append.envelope.control_id.0;
        let Some(window) = append.duplicate_window.filter(|window| !window.is_zero() && !control_id.is_empty()) else { return Ok(Earlier::Nothing) };
        let since = append.envelope.received.0.saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
        let mut found = Earlier::Nothing;
        let segments = self.shelf.all();
        for segment in segments.iter().rev() {
            let active = segment.first == self.active;
            if !active && (segment.last_received() < since || segment.filter.get().is_some_and(|filter| !filter.may_hold(control_id))) {
                continue;
            }
            match self.sheet(segment)?.earlier(append, since)? {
                same @ Earlier::Same(..) => return Ok(same),
                Earlier::OtherContent => found = Earlier::OtherContent,
                Earlier::Nothing => {}
            }
        }
        Ok(found)
    }

    fn settle(&mut self, settle: &Settle, reply: Reply<(), SettleFault>) {
        if self.board.has_failed() {
            return answer(reply, Err(SettleFault::Failing));
        }
        let Some(segment) = self.shelf.home(settle.delivery.message) else { return answer(reply, Err(SettleFault::Unknown)) };
        let home = segment.first;
        if let Settlement::Delivered { target_state: Some(_), .. } = &settle.outcome {
            // Two files are two commits, in no promised order. A target's states must become durable in the order in which they were asked for.
            if self.state_home.is_some_and(|earlier| earlier != home) {
                self.commit();
            }
            self.state_home = Some(home);
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let result = self.sheet(&segment).and_then(|sheet| sheet.begin().and_then(|()| sheet.settle(settle, sequence)));
        self.settled(home, result, reply);
    }

    /// Stores what became of telling a sender.
    fn tell(&mut self, telling: &AcknowledgementAttempt, reply: Reply<(), SettleFault>) {
        if self.board.has_failed() {
            return answer(reply, Err(SettleFault::Failing));
        }
        let Some(segment) = self.shelf.home(telling.message) else { return answer(reply, Err(SettleFault::Unknown)) };
        let home = segment.first;
        let result = self.sheet(&segment).and_then(|sheet| sheet.begin().and_then(|()| sheet.tell(telling)));
        self.settled(home, result, reply);
    }

    fn settled(&mut self, home: u64, result: rusqlite::Result<Result<(), SettleFault>>, reply: Reply<(), SettleFault>) {
        match result {
            Ok(Ok(())) => self.waiting.entry(home).or_default().push(Answer::Settled(reply)),
            Ok(Err(fault)) => answer(reply, Err(fault)),
            Err(error) => {
                let trouble = self.blame(&error);
                self.give_up(home, trouble);
                answer(reply, Err(if trouble == Trouble::Full { SettleFault::Full } else { SettleFault::Failing }));
            }
        }
    }

    fn keep(&mut self, kept: &Kept, reply: Reply<(), SettleFault>) {
        if self.board.has_failed() {
            return answer(reply, Err(SettleFault::Failing));
        }
        let Some(segment) = self.shelf.home(kept.message()) else { return answer(reply, Err(SettleFault::Unknown)) };
        let home = segment.first;
        match self.sheet(&segment).and_then(|sheet| sheet.begin().and_then(|()| sheet.keep(kept))) {
            Ok(()) => self.waiting.entry(home).or_default().push(Answer::Settled(reply)),
            Err(error) => {
                let trouble = self.blame(&error);
                self.give_up(home, trouble);
                answer(reply, Err(if trouble == Trouble::Full { SettleFault::Full } else { SettleFault::Failing }));
            }
        }
    }

    /// Rolls a segment's transaction back and tells everyone who waited for it.
    pub(in crate::journal) fn give_up(&mut self, first: u64, trouble: Trouble) {
        if let Some(sheet) = self.sheets.get_mut(&first) {
            sheet.roll_back();
        }
        if trouble == Trouble::Full && first == self.active {
            tracing::warn!("the journal's disk is full: a commit was rolled back");
        }
        for answer in self.waiting.remove(&first).unwrap_or_default() {
            answer.failed(trouble);
        }
    }

    /// Commits every open transaction and answers those who waited for it.
    fn commit(&mut self) {
        self.state_home = None;
        let mut open: Vec<u64> = self.sheets.iter().filter(|(_, sheet)| sheet.is_open()).map(|(first, _)| *first).collect();
        open.sort_unstable();
        for first in open {
            if self.board.has_failed() {
                self.give_up(first, Trouble::Failing);
                continue;
            }
            let Some(sheet) = self.sheets.get_mut(&first) else { continue };
            let result = sheet.commit().and_then(|changes| {
                self.remember(&changes.learned, &changes.forgotten)?;
                Ok(changes)
            });
            match result {
                Ok(changes) => {
                    self.after_commit(first, &changes, changes.took());
                    for answer in self.waiting.remove(&first).unwrap_or_default() {
                        answer.done();
                    }
                    for target in &changes.arrived {
                        self.board.arrivals(target).notify_one();
                    }
                    self.look_at_oldest(&changes);
                }
                Err(error) => {
                    let trouble = self.blame(&error);
                    self.give_up(first, trouble);
                }
            }
        }
        // An answer without a transaction: its transaction was given up above.
        for (_, answers) in self.waiting.drain() {
            answers.into_iter().for_each(|answer| answer.failed(Trouble::Full));
        }
        self.close_some();
        self.hold_log();
    }

    pub(in crate::journal) fn after_commit(&mut self, first: u64, changes: &Changes, took: Duration) {
        self.board.change(|targets| {
            for (target, states) in &changes.targets {
                add_counts(targets.entry(target.clone()).or_default(), states);
            }
        });
        if first == self.active {
            self.active_bytes += changes.bytes;
            self.board.last.store(self.next_id - 1, Ordering::Release);
            self.board.stored.fetch_add(changes.messages as u64, Ordering::Relaxed);
            self.log.grown += changes.bytes;
        }
        self.board.note_due(&changes.due);
        self.board.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.options.observer {
            observer(CommitReport { took, messages: changes.messages, settlements: changes.settlements });
        }
    }

    /// Keeps the identity map. It may lag behind a power failure: an identity that is not known is looked up again, a stale one is refused by its ETag.
    fn remember(&self, learned: &[crate::journal::Learned], forgotten: &[IdentityKey]) -> rusqlite::Result<()> {
        if learned.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        let result = (|| {
            self.state.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for key in forgotten {
                self.state.prepare_cached("DELETE FROM identity WHERE key = ?1")?.execute([key.0])?;
            }
            for news in learned {
                self.state.prepare_cached("INSERT OR REPLACE INTO identity VALUES (?1, ?2, ?3)")?.execute(params![
                    news.identity.0,
                    news.server.id,
                    news.server.etag
                ])?;
            }
            self.state.prepare_cached("COMMIT")?.execute([])
        })();
        match result {
            Ok(_) => Ok(()),
            Err(error) => {
                if !self.state.is_autocommit() {
                    let _ = self.state.execute_batch("ROLLBACK");
                }
                // The outcome itself is stored. Without room, the map only knows less.
                if trouble(&error) == Trouble::Full { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Whoever waits for the commit does not wait for this, too.
    pub(in crate::journal) fn look_at_oldest(&mut self, changes: &Changes) {
        for target in changes.targets.keys() {
            if let Err(error) = self.refresh_oldest(target) {
                self.blame(&error);
            }
        }
    }

    fn refresh_oldest(&mut self, target: &Arc<str>) -> rusqlite::Result<()> {
        let mut oldest = None;
        for segment in self.shelf.all().iter().filter(|segment| segment.count(target, DeliveryState::Pending) > 0) {
            oldest = self.sheet(segment)?.oldest(target)?;
            if oldest.is_some() {
                break;
            }
        }
        self.board.change(|targets| targets.entry(target.clone()).or_default().oldest_waiting = oldest);
        Ok(())
    }

    /// A segment opened for writing.
    pub(in crate::journal) fn sheet(&mut self, segment: &Arc<Segment>) -> rusqlite::Result<&mut Sheet> {
        match self.sheets.entry(segment.first) {
            std::collections::hash_map::Entry::Occupied(sheet) => Ok(sheet.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let sheet = Sheet::open(segment.clone(), CACHE_KIB.1).map_err(open_failure)?;
                Ok(place.insert(sheet))
            }
        }
    }

    fn close_some(&mut self) {
        let active = self.active;
        while self.sheets.len() > OPEN_SEGMENTS_MAX {
            let Some(oldest) = self.sheets.iter().filter(|(first, sheet)| **first != active && !sheet.is_open()).map(|(first, _)| *first).min() else { break };
            self.sheets.remove(&oldest);
        }
    }

    /// Starts a new segment when even the newest message of the present one has been kept for long enough.
    pub(in crate::journal) fn roll_if_old(&mut self, before: i64) -> rusqlite::Result<()> {
        let old = self.next_id > self.active && self.shelf.all().last().is_some_and(|active| active.last_received() < before);
        if old { self.roll() } else { Ok(()) }
    }

    /// Starts a new segment when the present one is large enough, or on a new day.
    fn roll_if_due(&mut self, received: Timestamp) -> Result<(), Trouble> {
        let day = received.0.div_euclid(DAY_MS);
        let bytes = self.active_bytes + self.sheets.get(&self.active).map_or(0, Sheet::growth);
        let due = self.next_id > self.active && (bytes > self.options.segment_bytes || self.active_day.is_some_and(|active| day > active));
        if due {
            self.commit();
            if self.board.has_failed() {
                return Err(Trouble::Failing);
            }
            self.roll().map_err(|error| self.blame(&error))?;
        }
        if self.active_day.is_none() || due {
            self.active_day = Some(day);
        }
        Ok(())
    }

    /// Starts a new segment. Its name is durable before a message goes in.
    pub(in crate::journal) fn roll(&mut self) -> rusqlite::Result<()> {
        let first = self.next_id;
        let path = self.folder.segment(first);
        let connection = open_writable(&path, Kind::Segment, CACHE_KIB.0).map_err(open_failure)?;
        self.folder.sync().map_err(|_| failure(rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC))?;
        let segment = Arc::new(Segment::load(first, path, &connection)?);
        let mut segments = self.shelf.all().to_vec();
        segments.push(segment.clone());
        if let Some(full) = self.sheets.get(&self.active) {
            full.connection.execute_batch(&format!("PRAGMA cache_size = -{}", CACHE_KIB.1))?;
        }
        self.sheets.insert(first, Sheet::over(segment, connection).map_err(open_failure)?);
        self.shelf.replace(segments);
        (self.active, self.active_bytes, self.active_day) = (first, 0, None);
        Ok(())
    }

    /// Counts anew what waits, after segments have gone.
    pub(in crate::journal) fn recount(&mut self) -> rusqlite::Result<()> {
        let mut counted: HashMap<Arc<str>, Counts> = HashMap::new();
        for segment in self.shelf.all().iter() {
            for (target, states) in segment.targets.lock().expect("no holder panics").iter() {
                add_counts(counted.entry(target.clone()).or_default(), states);
            }
        }
        let targets: Vec<_> = counted.keys().cloned().collect();
        self.board.change(|targets| *targets = counted);
        targets.iter().try_for_each(|target| self.refresh_oldest(target))
    }
}

fn last_sequence(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(max(sequence), 0) FROM target_state", [], |row| row.get(0)).map(i64::cast_unsigned)
}

fn add_counts(counts: &mut Counts, states: &[i64; 6]) {
    let at = |state| states.get(state_number(state)).copied().unwrap_or(0);
    counts.backlog = counts.backlog.saturating_add_signed(at(DeliveryState::Pending));
    counts.parked = counts.parked.saturating_add_signed(at(DeliveryState::Parked));
    counts.dead_letters = counts.dead_letters.saturating_add_signed(at(DeliveryState::DeadLetter));
    counts.delivered = counts.delivered.saturating_add_signed(at(DeliveryState::Delivered));
}

/// An error of SQLite made of its code alone.
fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

/// A file that cannot be opened for want of room goes away by itself like any other full disk; anything else is final.
fn open_failure(error: OpenError) -> rusqlite::Error {
    match error {
        OpenError::Database { code, .. } if code.starts_with("DiskFull") => failure(rusqlite::ffi::SQLITE_FULL),
        OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => failure(rusqlite::ffi::SQLITE_FULL),
        _ => failure(rusqlite::ffi::SQLITE_IOERR),
    }
}
