//! The few file operations that both layouts stand on, with their fsyncs.
//!
//! Assumed of the disk: fsync of a file covers its content, fsync of a folder its names, and rename replaces a name at once.

use crate::fhir::Json;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOCK: &str = ".kiln-lock";
const TEMPORARY: &str = ".kiln-tmp";
/// How long a reload may wait for the former target to let go of the folder.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A folder that this process alone writes.
pub(crate) struct Disk {
    root: PathBuf,
    _lock: File,
}

/// A failed step of a batch; whether it was an fsync decides what may be trusted afterwards.
pub(crate) enum Broken {
    Write(io::Error),
    Fsync,
}

impl Disk {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let root = &std::path::absolute(root)?;
        // A folder is durable when its name is: in its parent, and so on up to the first that was there before.
        let new: Vec<&Path> = root.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(root)?;
        for parent in new.iter().rev().filter_map(|folder| folder.parent()).chain(root.parent()) {
            sync_folder(parent)?;
        }
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(root.join(LOCK))?;
        take_lock(&lock)?;
        let temporary = root.join(TEMPORARY);
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir(&temporary)?;
        sync_folder(root)?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A name for a file that is not finished; it never outlives the next start.
    pub(crate) fn temporary(&self, number: usize) -> PathBuf {
        self.root.join(TEMPORARY).join(number.to_string())
    }

    /// Writes a file as a whole, durable under its temporary name, then gives it its own name. The folder is not yet synced.
    pub(crate) fn replace(&self, number: usize, path: &Path, content: &Json) -> Result<(), Broken> {
        let temporary = self.temporary(number);
        let mut file = File::create(&temporary).map_err(Broken::Write)?;
        content.write_to(&mut file).map_err(Broken::Write)?;
        file.sync_all().map_err(|_| Broken::Fsync)?;
        fs::rename(&temporary, path).map_err(Broken::Write)
    }
}

fn take_lock(lock: &File) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another target or daemon writes it"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
