//! The journal's folder: who may use it, what lies in it, and the secret that its keys are made with.

use crate::journal::OpenError;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A journal's folder.
#[derive(Clone, Debug)]
pub(in crate::journal) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder, made with mode 0700 if it was not there. Refuses network file systems unless told not to.
    pub(in crate::journal) fn make(path: &Path, allow_network: bool) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.into(), source };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_folder(parent).map_err(io)?;
            }
        }
        let folder = Self { path: path.into() };
        if !allow_network && let Some(kind) = network_kind(path).map_err(io)? {
            return Err(OpenError::NetworkFileSystem { path: path.into(), kind });
        }
        Ok(folder)
    }

    /// A folder that must be there.
    pub(in crate::journal) fn existing(path: &Path) -> Result<Self, OpenError> {
        if path.join("state.db").is_file() { Ok(Self { path: path.into() }) } else { Err(OpenError::Missing { path: path.into() }) }
    }

    /// The folder's own path.
    pub(in crate::journal) fn path(&self) -> &Path {
        &self.path
    }

    /// Route sets and identities.
    pub(in crate::journal) fn state(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// The segment whose first message is `first`; 0 is the one that holds what was carried over.
    pub(in crate::journal) fn segment(&self, first: u64) -> PathBuf {
        if first == 0 { self.path.join("carried.db") } else { self.path.join(format!("segment-{first:020}.db")) }
    }

    /// The search file of a segment.
    pub(in crate::journal) fn search(&self, first: u64) -> PathBuf {
        self.path.join(format!("search-{first:020}.db"))
    }

    /// The numbers of all segments, ascending, 0 (carried) first if it is there.
    pub(in crate::journal) fn segments(&self) -> Result<Vec<u64>, OpenError> {
        let io = |source| OpenError::Io { path: self.path.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == "carried.db" {
                found.push(0);
            } else if let Some(digits) = name.strip_prefix("segment-").and_then(|rest| rest.strip_suffix(".db"))
                && let Ok(first) = digits.parse()
            {
                found.push(first);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Deletes a segment, its search file and their logs.
    pub(in crate::journal) fn delete_segment(&self, first: u64) -> std::io::Result<()> {
        for path in [self.segment(first), self.search(first)] {
            for suffix in ["", "-wal", "-shm"] {
                let mut name = path.clone().into_os_string();
                name.push(suffix);
                match std::fs::remove_file(&name) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        sync_folder(&self.path)
    }

    /// Makes new names in the folder durable.
    pub(in crate::journal) fn sync(&self) -> std::io::Result<()> {
        sync_folder(&self.path)
    }

    /// Bytes of all files, and of the write-ahead logs among them.
    pub(in crate::journal) fn bytes(&self) -> (u64, u64) {
        let (mut all, mut logs) = (0, 0);
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let size = entry.metadata().map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
            all += size;
            if entry.file_name().to_string_lossy().ends_with("-wal") {
                logs += size;
            }
        }
        (all, logs)
    }

    /// Takes the lock. It is given up when the file is dropped, and by the kernel when the process dies.
    pub(in crate::journal) fn lock(&self) -> Result<File, OpenError> {
        let path = self.path.join("lock");
        let io = |source| OpenError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut process = String::new();
                let _ = file.take(32).read_to_string(&mut process);
                let process = if process.trim().is_empty() { "?".to_owned() } else { process.trim().to_owned() };
                return Err(OpenError::Locked { path: self.path.clone(), process });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        // Only for the message above; who holds the lock is decided by the kernel.
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
        Ok(file)
    }

    /// The secret, made at the first open. Keys, ids and file names depend on it, so it must survive a power failure before anything uses it.
    pub(in crate::journal) fn secret(&self, make: bool) -> Result<[u8; 32], OpenError> {
        let path = self.path.join("secret");
        let io = |source| OpenError::Io { path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| OpenError::Foreign { path: path.clone() }),
            Err(error) if make && error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|_| io(std::io::Error::other("no random numbers")))?;
                let draft = self.path.join("secret.new");
                let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft).map_err(io)?;
                file.write_all(&secret).and_then(|()| file.sync_all()).map_err(io)?;
                std::fs::rename(&draft, &path).and_then(|()| self.sync()).map_err(io)?;
                Ok(secret)
            }
            Err(source) => Err(io(source)),
        }
    }

    /// Deletes what an operator's editor was given and whose process is gone, killed before it could: it holds patient data. What cannot be deleted
    /// is for the next time.
    pub(in crate::journal) fn delete_drafts(&self) {
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix("edit-")?.strip_suffix(".hl7")?.split_once('-')?.1.parse::<i32>().ok());
            let Some(process) = process.and_then(rustix::process::Pid::from_raw) else { continue };
            // This process has none yet: a number comes again.
            let is_gone = process == rustix::process::getpid() || rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH);
            if is_gone && std::fs::remove_file(entry.path()).is_ok() {
                tracing::info!("deleted a message that was being edited when the editor's `kiln` was killed");
            }
        }
    }

    /// Notes that deliveries begin; true if that was noted before and never taken back.
    pub(in crate::journal) fn mark_delivering(&self) -> std::io::Result<bool> {
        let path = self.path.join("delivering");
        if path.exists() {
            return Ok(true);
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.sync_all()?;
        self.sync()?;
        Ok(false)
    }

    /// Takes it back.
    pub(in crate::journal) fn unmark_delivering(&self) -> std::io::Result<()> {
        match std::fs::remove_file(self.path.join("delivering")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    /// Bytes that this process may still write, and the size of the disk.
    pub(in crate::journal) fn space(&self) -> std::io::Result<(u64, u64)> {
        let space = rustix::fs::statvfs(&self.path)?;
        Ok((space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize)))
    }
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// The kind of network file system that a path is on. The numbers are those of statfs(2).
fn network_kind(path: &Path) -> std::io::Result<Option<&'static str>> {
    #[cfg(target_os = "linux")]
    {
        let kind = rustix::fs::statfs(path)?.f_type as u64 & 0xFFFF_FFFF;
        Ok(match kind {
            0x6969 => Some("nfs"),
            0x517B => Some("smb"),
            0xFF53_4D42 => Some("cifs"),
            0xFE53_4D42 => Some("smb2"),
            0x5346_414F => Some("afs"),
            0x00C3_6400 => Some("ceph"),
            0x7375_7245 => Some("coda"),
            0x0BD0_0BD0 => Some("lustre"),
            0x0102_1997 => Some("9p"),
            _ => None,
        })
    }
    #[cfg(not(target_os = "linux"))]
    Ok({
        let _ = path;
        None
    })
}
