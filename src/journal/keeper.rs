//! The thread that keeps house: it folds logs back into their files away from the writer, watches the disk's room, and makes filters.

use crate::journal::filter::Filter;
use crate::journal::finder::Stop;
use crate::journal::folder::Folder;
use crate::journal::queue::{Board, Command, File, Queue};
use crate::journal::read::{Gate, with_suffix};
use crate::journal::schema::{Kind, Trouble, code, open_readable, open_writable, trouble};
use crate::journal::shelf::{Segment, Shelf};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often it looks.
const BEAT: Duration = Duration::from_millis(100);

/// A log of fewer frames (4 KiB each) than this is left to go on growing, unless its limit is lower still.
const FRAMES_MIN: u64 = 8192;

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

    /// Compares the free space with the low-water mark. Called once before intake begins, too.
    pub(in crate::journal) fn look_at_room(&self) {
        let Ok((free, size)) = self.folder.space() else { return };
        let low_water = self.low_water.unwrap_or_else(|| (size / 20).max(1 << 30));
        let room = free >= low_water;
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

    /// Copies what is in the logs of the files that are written now. A log starts over only when all of it has been copied, which never
    /// happens while the writer goes on; so the writer is asked to copy the short rest.
    fn fold_active(&self, desk: &mut Desk) -> rusqlite::Result<()> {
        let _inside = self.gate.enter();
        let segments = self.shelf.all();
        let Some(active) = segments.last() else { return Ok(()) };
        if desk.active.as_ref().is_none_or(|(first, _)| *first != active.first) {
            desk.active = Some((active.first, open(&active.path, Kind::Segment)?));
        }
        if desk.state.is_none() {
            desk.state = Some(open(&self.folder.state(), Kind::State)?);
        }
        let files = [
            (desk.active.as_ref().map(|(_, connection)| connection), File::Segment(active.first), active.path.clone()),
            (desk.state.as_ref(), File::State, self.folder.state()),
        ];
        for (connection, file, path) in files {
            let Some(connection) = connection else { continue };
            let frames_min = FRAMES_MIN.min(self.wal_bytes_max / 2 / 4096);
            if wal_bytes(&path) < frames_min * 4096 / 4 {
                continue;
            }
            let mut frames = checkpoint(connection, "PASSIVE")?;
            if frames.unsigned_abs() >= frames_min {
                frames = checkpoint(connection, "PASSIVE")?;
            }
            if wal_bytes(&path) > self.wal_bytes_max {
                // Whoever reads in another process can keep it from shrinking; then trying all the time would only hold up intake.
                if desk.truncated.is_none_or(|last| last.elapsed() > Duration::from_secs(2)) {
                    desk.truncated = Some(Instant::now());
                    tracing::warn!("a log of the journal has reached its limit: readers wait until it is folded back");
                    let _ = self.queue.push(Command::Fold(file, true));
                }
            } else if frames.unsigned_abs() >= frames_min {
                let _ = self.queue.push(Command::Fold(file, false));
            }
        }
        Ok(())
    }

    fn once_a_second(&self) -> rusqlite::Result<()> {
        let (bytes, wal_bytes_all) = self.folder.bytes();
        self.board.bytes.store(bytes, Ordering::Relaxed);
        self.board.wal_bytes.store(wal_bytes_all, Ordering::Relaxed);
        let segments = self.shelf.all();
        let Some((active, settled)) = segments.split_last() else { return Ok(()) };
        for segment in settled {
            let _inside = self.gate.enter();
            if !self.shelf.all().iter().any(|present| Arc::ptr_eq(present, segment)) {
                continue;
            }
            if wal_bytes(&segment.path) > 0 {
                let connection = open(&segment.path, Kind::Segment)?;
                checkpoint(&connection, "TRUNCATE")?;
            }
            if segment.filter.get().is_none() && segment.first != 0 && segment.last_received() > active.last_received() - WINDOW_MS {
                let _ = segment.filter.set(filter(segment)?);
                if self.stop.rest(Duration::ZERO) {
                    break;
                }
            }
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

fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(with_suffix(path, "-wal")).map_or(0, |meta| meta.len())
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
