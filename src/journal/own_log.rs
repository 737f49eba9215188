//! The writer's part in keeping write-ahead logs short: it folds back what the keeper cannot, and holds intake at the limit.

use crate::journal::queue::File;
use crate::journal::read::wal_bytes;
use crate::journal::writer::Writer;
use std::time::{Duration, Instant};

/// How long the writer waits for readers before it goes on without what it wanted.
pub(in crate::journal) const PATIENCE: Duration = Duration::from_millis(100);

/// How far the log of the active segment may grow before the writer itself looks at it.
const LOOK_BYTES: u64 = 4 << 20;

/// How long intake waits at most for a log at its limit, and how long it goes on after it has waited in vain.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const AFTER_VAIN_WAIT: Duration = Duration::from_secs(10);

/// When the writer looked last at how long its own log has grown, should the keeper be too slow for it.
#[derive(Default)]
pub(in crate::journal) struct LogWatch {
    pub(in crate::journal) grown: u64,
    waited: Option<Instant>,
}

impl Writer {
    /// Copies the rest of a log into its file. The keeper has copied nearly all of it before; what came since is short. A log starts over only if
    /// nobody reads in it at that moment, so readers are shut out first; whoever reads in another process is not waited for long, because intake
    /// waits meanwhile. `None` if the file is not open; else whether all of the log was copied.
    pub(in crate::journal) fn fold(&mut self, file: File, truncate: bool) -> Option<bool> {
        let alone = self.gate.shut(if truncate { PATIENCE } else { PATIENCE / 10 });
        let connection = match file {
            File::State => &self.state,
            File::Segment(first) => &self.sheets.get(&first)?.connection,
        };
        let mode = if truncate && alone.is_some() { "TRUNCATE" } else { "PASSIVE" };
        let _ = connection.busy_timeout(PATIENCE);
        let result = connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| Ok(row.get::<_, i64>(0)? == 0 && row.get::<_, i64>(1)? == row.get::<_, i64>(2)?));
        let _ = connection.busy_timeout(Duration::from_secs(5));
        drop(alone);
        Some(result.unwrap_or_else(|error| {
            self.blame(&error);
            false
        }))
    }

    /// The limit of a log holds also when the keeper cannot keep up, on a slow disk: then intake waits for it here.
    pub(in crate::journal) fn hold_log(&mut self) {
        if self.log.grown < (self.options.wal_bytes_max / 32).min(LOOK_BYTES) {
            return;
        }
        self.log.grown = 0;
        let file = File::Segment(self.active);
        let path = self.folder.segment(self.active);
        let near = self.options.wal_bytes_max / 8 * 7;
        if wal_bytes(&path) < near || self.board.has_failed() || self.log.waited.is_some_and(|last| last.elapsed() < AFTER_VAIN_WAIT) {
            return;
        }
        let began = Instant::now();
        while self.fold(file, true) == Some(false) && wal_bytes(&path) >= near && !self.board.has_failed() {
            if began.elapsed() > LONGEST_WAIT {
                tracing::warn!("a log of the journal is at its limit and cannot be folded back: somebody reads in it for long, or the disk is slow");
                self.log.waited = Some(Instant::now());
                return;
            }
            // The keeper is copying at this moment.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
