//! A file that is being read: in whose hands it is, how far it was read, and where it goes then. Each step leaves a state from which the next start goes on.

use crate::credential::FileMark;
use crate::listener::{Ack, Folder};
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
    /// Where the file goes: it was read whole, and its answers may be there already.
    #[serde(default)]
    place: Option<OsString>,
}

/// A file in our hands.
#[derive(Clone)]
pub(super) struct Claim {
    name: OsString,
    folder: PathBuf,
    pub(super) note: Note,
    /// True if another process, or an earlier attempt, began it.
    pub(super) resumed: bool,
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
        Self { name, folder: folder.path.clone(), note, resumed: false, unwritten: Vec::new() }
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
    pub(super) fn answer(&mut self, ack: &Ack, write: bool) {
        self.note.refused += u64::from(!ack.code.is_positive());
        if write {
            self.unwritten.extend_from_slice(ack.bytes.expose());
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

    /// True if it was read whole, and only its last moves are missing.
    pub(super) fn is_read(&self) -> bool {
        self.note.place.is_some()
    }

    /// How it ended, by what is noted.
    pub(super) fn ending(&self) -> Ending {
        if !self.note.flawed && self.note.refused == 0 && self.note.done > 0 { Ending::Done } else { Ending::Failed }
    }

    /// Where the file goes. It is noted first: after a crash between two moves the answers and their file meet there.
    fn place(&mut self, folder: &Folder, ending: Ending) -> Result<PathBuf> {
        if let Some(noted) = self.note.place.clone().map(PathBuf::from)
            && is_free(&noted)?
        {
            return Ok(noted);
        }
        let to = match ending {
            Ending::Done => &folder.done,
            Ending::Failed => &folder.failed,
        };
        std::fs::create_dir_all(to)?;
        let place = free(to, &self.name)?;
        self.note.place = Some(place.clone().into_os_string());
        self.write_note()?;
        Ok(place)
    }

    /// Moves the file, and its answers, to where they belong. Nothing that is there is overwritten.
    pub(super) fn end(mut self, folder: &Folder, ending: Ending) -> Result<()> {
        let place = self.place(folder, ending)?;
        let answers = self.at(ANSWERS);
        if answers.try_exists()? {
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
        if claim.path().try_exists()? {
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

/// Takes a file into our hands: first the note, then the file. `None` if it is not as it was `seen` any more: somebody writes to it, or took it away.
///
/// # Errors
/// `AlreadyExists` if there is one of that name in our hands, without a note: nothing is written over it.
pub(super) fn claim(folder: &Folder, name: &OsStr, seen: FileMark, newest: u64) -> Result<Option<Claim>> {
    for place in [FILES, NOTES, ANSWERS] {
        std::fs::create_dir_all(folder.path.join(place))?;
    }
    if !is_free(&folder.path.join(FILES).join(name))? {
        return Err(ErrorKind::AlreadyExists.into());
    }
    if FileMark::of(&folder.path.join(name)) != Some(seen) {
        return Ok(None);
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
    Ok(Some(claim))
}

#[cfg(test)]
mod tests {
    use super::{Claim, Ending, beside, claim, claimed, matches, waiting};
    use crate::exchange::Phi;
    use crate::hl7v2::AckCode;
    use crate::listener::{Ack, Folder};
    use std::path::Path;
    use std::time::Duration;

    fn folder(path: &Path) -> Folder {
        Folder { path: path.into(), done: path.join("done"), failed: path.join("failed"), names: Vec::new(), quiet: Duration::ZERO, answers: true }
    }

    fn take(folder: &Folder, text: &str) -> Claim {
        std::fs::write(folder.path.join("a.hl7"), text).expect("written");
        let (name, mark, _) = waiting(folder).expect("readable").remove(0);
        let mut claim = claim(folder, &name, mark, 0).expect("writable").expect("as it was");
        claim.answer(&Ack { bytes: Phi::new(text.to_owned().into()), code: AckCode::ApplicationAccept }, true);
        claim.note.done = 1;
        claim
    }

    /// A crash after the answers were moved, and before their file was; and another file of that name meanwhile.
    #[test]
    fn answers_and_their_file_meet_whatever_comes_between() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = folder(place.path());
        let read = |name: &str| std::fs::read_to_string(folder.done.join(name)).expect("it is there");
        take(&folder, "one").end(&folder, Ending::Done).expect("moved");
        let mut second = take(&folder, "two");
        second.write_note().expect("written");
        let to = second.place(&folder, Ending::Done).expect("there is a place");
        std::fs::rename(second.at(super::ANSWERS), beside(&to, ".ack")).expect("moved");
        let left = claimed(&folder).expect("readable").remove(0);
        assert!(left.is_read());
        let ending = left.ending();
        left.end(&folder, ending).expect("moved");
        assert_eq!((read("a.hl7"), read("a.hl7.ack")), ("one".into(), "one".into()));
        assert_eq!((read("a.hl7.1"), read("a.hl7.1.ack")), ("two".into(), "two".into()));
        assert_eq!(std::fs::read_dir(&folder.done).expect("readable").count(), 4);
    }

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
