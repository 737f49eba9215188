//! The thread that keeps house: it folds logs back into their files away from the writer, watches the disk's room, and makes filters.

use crate::journal::filter::Filter;
use crate::journal::finder::Stop;
use crate::journal::folder::Folder;
use crate::journal::gate::Gate;
use crate::journal::queue::{Board, Command, File, Queue};
use crate::journal::read::wal_bytes;
use crate::journal::schema::{Kind, Trouble, code, open_readable, open_writable, trouble};
use crate::journal::shelf::{Segment, Shelf};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often it looks.
const BEAT: Duration = Duration::from_millis(100);

/// A log of fewer frames (4 KiB each) than this is left to go on growing, unless its limit is lower still.
const FRAMES_MIN: u64 = 8192;

/// How long a log is left alone that could not be cut off although readers of this process were shut out.
const AFTER_VAIN: Duration = Duration::from_secs(1);

/// Filters are made for segments whose messages may still fall into a duplicate window.
const WINDOW_MS: i64 = 48 * 3600 * 1000;

/// The thread and what it needs.
pub(in crate::journal) struct Keeper {
    pub(in crate::journal) folder: Folder,
    pub(in crate::journal) shelf: Arc<Shelf>,
    pub(in crate::journal) board: Arc<Board>,
    pub(in crate::journal) queue: Arc<Queue>,
    pub(in crate::journal) gate: Arc<Gate>,
    pub(in crate::journal) stop: Arc<Stop>,
    pub(in crate::journal) low_water: Option<u64>,
    pub(in crate::journal) high_water: Option<u64>,
    pub(in crate::journal) wal_bytes_max: u64,
}

/// What the thread has open.
#[derive(Default)]
struct Desk {
    active: Option<(u64, Connection)>,
    state: Option<Connection>,
    commits: u64,
    slow: Option<Instant>,
    truncated: Option<Instant>,
}

impl Keeper {
    /// Runs until stopped.
    pub(in crate::journal) fn run(self) {
        let mut desk = Desk::default();
        while !self.stop.rest(BEAT) {
            if self.board.has_failed() {
                return;
            }
            self.look_at_room();
            let commits = self.board.commits.load(Ordering::Relaxed);
            if commits != desk.commits {
                desk.commits = commits;
                self.blame(self.fold_active(&mut desk));
            }
            if desk.slow.is_none_or(|last| last.elapsed() > Duration::from_secs(1)) {
                desk.slow = Some(Instant::now());
                self.blame(self.once_a_second());
            }
        }
    }

    /// Compares the free space with the low-water mark, or, once below it, with the high-water mark. Called once before intake begins, too.
    pub(in crate::journal) fn look_at_room(&self) {
        let Ok((free, size)) = self.folder.space() else { return };
        let low_water = self.low_water.unwrap_or_else(|| (size / 20).max(1 << 30));
        // Between the two marks it stays as it was: a disk at its limit must not open and shut the doors all the time.
        let high_water = self.high_water.unwrap_or_else(|| low_water.saturating_add(low_water / 10)).max(low_water);
        let room = free >= if self.board.room.load(Ordering::Relaxed) { low_water } else { high_water };
        if self.board.room.swap(room, Ordering::Relaxed) != room {
            if room {
                tracing::info!("the journal's disk has room again");
            } else {
                tracing::warn!(free_bytes = free, low_water_bytes = low_water, "the journal's disk is nearly full: nothing is accepted until there is room");
            }
        }
    }

    /// A checkpoint that fails is as final as a commit that fails: what it was to copy may be lost to the kernel.
    fn blame(&self, result: rusqlite::Result<()>) {
        if let Err(error) = result
            && trouble(&error) == Trouble::Failing
            && !self.board.has_failed()
        {
            tracing::error!(code = code(&error), "the journal's disk failed at a checkpoint");
            self.board.fail();
        }
    }

    /// Copies what is in the logs of the files that are written now. A log starts over only when all of it has been copied and nobody reads in
    /// it, which never happens while the writer and readers go on; so the writer is asked to copy the short rest, with readers shut out.
    fn fold_active(&self, desk: &mut Desk) -> rusqlite::Result<()> {
        let segments = self.shelf.all();
        let Some(active) = segments.last() else { return Ok(()) };
        {
            let _inside = self.gate.enter();
            if desk.active.as_ref().is_none_or(|(first, _)| *first != active.first) {
                desk.active = Some((active.first, open(&active.path, Kind::Segment)?));
            }
            if desk.state.is_none() {
                desk.state = Some(open(&self.folder.state(), Kind::State)?);
            }
        }
        if let Some((_, connection)) = &desk.active {
            self.fold(connection, File::Segment(active.first), &active.path, &mut desk.truncated)?;
        }
        if let Some(connection) = &desk.state {
            self.fold(connection, File::State, &self.folder.state(), &mut desk.truncated)?;
        }
        Ok(())
    }

    /// Folds one log back as far as it is worth it. False if the writer does not have the file open.
    fn fold(&self, connection: &Connection, file: File, path: &Path, truncated: &mut Option<Instant>) -> rusqlite::Result<bool> {
        let enough = (FRAMES_MIN * 4096).min(self.wal_bytes_max / 8);
        if wal_bytes(path) < enough / 4 {
            return Ok(true);
        }
        // What a passive checkpoint leaves to do is what came in meanwhile; the second one leaves less than the first.
        let frames = checkpoint(connection, "PASSIVE")?;
        if frames.unsigned_abs() * 4096 < enough {
            return Ok(true);
        }
        checkpoint(connection, "PASSIVE")?;
        let long = wal_bytes(path) > self.wal_bytes_max / 2;
        if long && truncated.is_some_and(|last| last.elapsed() < AFTER_VAIN) {
            // Somebody reads in another process; then trying all the time would only hold up intake.
            return Ok(true);
        }
        let (done, answer) = oneshot::channel();
        let open = self.queue.push(Command::Fold(file, long, done)).is_err() || answer.blocking_recv().unwrap_or(true);
        if long && wal_bytes(path) > self.wal_bytes_max / 2 {
            *truncated = Some(Instant::now());
        }
        Ok(open)
    }

    fn once_a_second(&self) -> rusqlite::Result<()> {
        let (bytes, wal_bytes_all) = self.folder.bytes();
        self.board.bytes.store(bytes, Ordering::Relaxed);
        self.board.wal_bytes.store(wal_bytes_all, Ordering::Relaxed);
        let segments = self.shelf.all();
        let Some((active, settled)) = segments.split_last() else { return Ok(()) };
        for segment in settled {
            let mut inside = self.gate.enter();
            if !self.shelf.all().iter().any(|present| Arc::ptr_eq(present, segment)) {
                continue;
            }
            let length = wal_bytes(&segment.path);
            if length > 0 {
                let connection = open(&segment.path, Kind::Segment)?;
                // A long one is being written: outcomes of many old messages. The writer must not wait until all of it is copied.
                drop(inside);
                let mut truncated = None;
                let busy = length > self.wal_bytes_max / 8 && self.fold(&connection, File::Segment(segment.first), &segment.path, &mut truncated)?;
                inside = self.gate.enter();
                if !busy {
                    checkpoint(&connection, "TRUNCATE")?;
                }
            }
            if segment.filter.get().is_none() && segment.first != 0 && segment.last_received() > active.last_received() - WINDOW_MS {
                let _ = segment.filter.set(filter(segment)?);
                if self.stop.rest(Duration::ZERO) {
                    break;
                }
            }
            drop(inside);
        }
        Ok(())
    }
}

fn open(path: &Path, kind: Kind) -> rusqlite::Result<Connection> {
    // Not being able to open a second connection is no failed fsync: it is tried again at the next beat.
    let busy = |_| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
    let connection = open_writable(path, kind, 512).map_err(busy)?;
    connection.busy_timeout(Duration::from_millis(100))?;
    Ok(connection)
}

/// Copies frames of a log into its file. Returns the frames that the log has.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}

fn filter(segment: &Segment) -> rusqlite::Result<Filter> {
    let busy = |_| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
    let connection = open_readable(&segment.path, 512).map_err(busy)?;
    let entries: i64 = connection.query_row("SELECT coalesce(sum(n), 0) FROM tally WHERE kind = 1", [], |row| row.get(0))?;
    let mut filter = Filter::with_room_for(usize::try_from(entries).unwrap_or(0));
    let mut query = connection.prepare("SELECT control_id FROM message INDEXED BY message_control WHERE control_id <> ''")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        filter.add(row.get_ref(0)?.as_str()?);
    }
    Ok(filter)
}
