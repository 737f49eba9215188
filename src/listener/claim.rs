//! A file that is being read: in whose hands it is, how far it was read, and where it goes then. Each step leaves a state from which the next start goes on.

use crate::credential::FileMark;
use crate::hl7v2::Answer;
use crate::listener::Folder;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Where files are while they are read, how far each was read, and what was answered, each under the file's name.
const FILES: &str = ".kiln/files";
const NOTES: &str = ".kiln/notes";
const ANSWERS: &str = ".kiln/answers";
/// A note while it is written.
const DRAFT: &str = ".kiln/note";
/// The ends of names that stand for files which are being written.
const UNFINISHED: [&str; 6] = [".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp"];

/// How far a file was read, as it stands beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    /// The number of the last message that was answered; those before it were, too.
    pub(super) done: u64,
    /// The newest message that was in the journal before any later message of the file could be.
    pub(super) newest: u64,
    /// How many were refused.
    pub(super) refused: u64,
    /// True if the file itself is damaged, or counts its messages wrongly.
    pub(super) flawed: bool,
    /// How many bytes of answers belong to that.
    pub(super) answers: u64,
}

/// A file in our hands.
#[derive(Clone)]
pub(super) struct Claim {
    name: OsString,
    folder: PathBuf,
    pub(super) note: Note,
    /// True if another process, or an earlier attempt, began it.
    pub(super) resumed: bool,
    /// How many messages were found.
    pub(super) found: u64,
    /// Answers that were not written yet.
    unwritten: Vec<u8>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    Failed,
}

impl Claim {
    fn new(folder: &Folder, name: OsString, note: Note) -> Self {
        Self { name, folder: folder.path.clone(), note, resumed: false, found: 0, unwritten: Vec::new() }
    }

    fn at(&self, place: &str) -> PathBuf {
        self.folder.join(place).join(&self.name)
    }

    /// Where the file is now.
    pub(super) fn path(&self) -> PathBuf {
        self.at(FILES)
    }

    /// The file's name, as its messages carry it in the journal.
    pub(super) fn source(&self) -> Arc<str> {
        self.name.to_string_lossy().into()
    }

    /// Takes an answer down.
    pub(super) fn answer(&mut self, answer: &[u8], write: bool) {
        self.note.refused += u64::from(!Answer::read(answer).is_some_and(|answer| answer.is_positive()));
        if write {
            self.unwritten.extend_from_slice(answer);
            if !answer.ends_with(b"\r") {
                self.unwritten.push(b'\r');
            }
        }
    }

    /// Writes the answers, then how far the file was read: what the note counts is there.
    pub(super) fn write_note(&mut self) -> Result<()> {
        if !self.unwritten.is_empty() {
            let mut file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(self.at(ANSWERS))?;
            file.set_len(self.note.answers)?;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.note.answers))?;
            file.write_all(&self.unwritten)?;
            file.sync_all()?;
            self.note.answers += self.unwritten.len() as u64;
            self.unwritten.clear();
        }
        let text = serde_json::to_vec(&self.note).map_err(std::io::Error::other)?;
        let (draft, note) = (self.folder.join(DRAFT), self.at(NOTES));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, &note)?;
        sync_folder(&note)
    }

    /// Moves the file, and its answers, to where they belong. Nothing that is there is overwritten.
    pub(super) fn end(mut self, folder: &Folder, ending: Ending) -> Result<()> {
        self.write_note()?;
        let to = match ending {
            Ending::Done => &folder.done,
            Ending::Failed => &folder.failed,
        };
        std::fs::create_dir_all(to)?;
        let place = free(to, &self.name)?;
        let answers = self.at(ANSWERS);
        if answers.exists() {
            // What was written after the last note belongs to messages that were read again.
            OpenOptions::new().write(true).open(&answers)?.set_len(self.note.answers)?;
            std::fs::rename(&answers, beside(&place, ".ack"))?;
        }
        // Within a file system that is one step; across two it cannot be, and the system refuses it.
        std::fs::rename(self.path(), &place)?;
        sync_folder(&place)?;
        let note = self.at(NOTES);
        std::fs::remove_file(&note)?;
        sync_folder(&note)
    }
}

fn sync_folder(file: &Path) -> Result<()> {
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The file's name with something behind it.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A name that nobody has there: `NAME`, else `NAME.1`, `NAME.2` ...
fn free(folder: &Path, name: &OsStr) -> Result<PathBuf> {
    let wanted = folder.join(name);
    for number in 0..u32::MAX {
        let place = if number == 0 { wanted.clone() } else { beside(&wanted, &format!(".{number}")) };
        if is_free(&place)? && is_free(&beside(&place, ".ack"))? {
            return Ok(place);
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn is_free(place: &Path) -> Result<bool> {
    match place.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Ok(false),
    }
}

/// Files that were begun, in the order of their names. What a crash left between two steps of [`claim`] is put in order.
pub(super) fn claimed(folder: &Folder) -> Result<Vec<Claim>> {
    let entries = match std::fs::read_dir(folder.path.join(NOTES)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut claims = Vec::new();
    for entry in entries {
        let mut claim = Claim::new(folder, entry?.file_name(), Note::default());
        let note = claim.at(NOTES);
        if claim.path().exists() {
            claim.note = serde_json::from_slice(&std::fs::read(&note)?).map_err(|_| std::io::Error::from(ErrorKind::InvalidData))?;
            claims.push(claim);
        } else {
            // Noted and not taken yet, or moved away and the note not removed yet.
            std::fs::remove_file(&note)?;
        }
    }
    claims.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(claims)
}

/// Files that wait, the oldest first: name, state, time.
pub(super) fn waiting(folder: &Folder) -> Result<Vec<(OsString, FileMark, SystemTime)>> {
    std::fs::create_dir_all(&folder.path)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder.path)? {
        let entry = entry?;
        let name = entry.file_name();
        // One that went away meanwhile was never there.
        let (Ok(facts), Some(mark)) = (entry.metadata(), FileMark::of(&entry.path())) else { continue };
        if facts.is_file() && takes(folder, &name.to_string_lossy()) {
            found.push((name, mark, facts.modified()?));
        }
    }
    found.sort_by(|(a, _, at), (b, _, bt)| at.cmp(bt).then_with(|| a.cmp(b)));
    Ok(found)
}

fn takes(folder: &Folder, name: &str) -> bool {
    let unfinished = name.starts_with('.') || name.ends_with('~') || UNFINISHED.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    !unfinished && (folder.names.is_empty() || folder.names.iter().any(|pattern| matches(pattern, name)))
}

/// `*` stands for any letters, also none.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Takes a file into our hands: first the note, then the file.
pub(super) fn claim(folder: &Folder, name: &OsStr, newest: u64) -> Result<Claim> {
    for place in [FILES, NOTES, ANSWERS] {
        std::fs::create_dir_all(folder.path.join(place))?;
    }
    let mut claim = Claim::new(folder, name.to_owned(), Note { newest, ..Note::default() });
    // Answers of an earlier file of that name, which a crash left.
    match std::fs::remove_file(claim.at(ANSWERS)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    claim.write_note()?;
    let taken = claim.path();
    std::fs::rename(folder.path.join(name), &taken)?;
    sync_folder(&taken)?;
    sync_folder(&folder.path.join(name))?;
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, expected) in [
            ("*.hl7", "a.hl7", true),
            ("*.hl7", ".hl7", true),
            ("*.hl7", "a.hl7.gz", false),
            ("adt*.hl7", "adt.hl7", true),
            ("adt*.hl7", "siu-adt.hl7", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
