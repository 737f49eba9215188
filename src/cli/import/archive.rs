//! What archives hold: plain files, gzip (RFC 1952), zip and tar, told by their first bytes, and the messages of each of their files.

use crate::hl7v2::{BatchItem, Splitter};
use crate::site::words;
use bytes::Bytes;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Read ahead of what is handed over.
const AHEAD_MAX: usize = 64;
/// How much is read at once.
const READ_BYTES: usize = 256 * 1_024;
/// Archives in archives are looked into so deep.
const DEPTH_MAX: usize = 4;

/// What is found.
pub(super) enum Item {
    /// A message.
    Message {
        /// The file in the archive; its own name for a plain one.
        member: String,
        /// Which of the archive's files that is, from 1: two may have one name.
        position: u64,
        /// Which message of that file, from 1.
        number: u64,
        bytes: Bytes,
        oversize: bool,
    },
    /// Something that is not as it should be. What can be read is read all the same.
    Flaw(String),
}

/// An archive that is being read, on a thread of its own.
pub(super) struct Reading {
    items: mpsc::Receiver<Item>,
    position: Arc<AtomicU64>,
    length: u64,
}

impl Reading {
    /// Begins. Faults come as items.
    pub(super) fn begin(archive: &Path, message_bytes_max: usize) -> Self {
        let (found, items) = mpsc::channel(AHEAD_MAX);
        let position = Arc::new(AtomicU64::new(0));
        let length = std::fs::metadata(archive).map_or(0, |facts| facts.len());
        let (path, at) = (archive.to_owned(), Arc::clone(&position));
        // It ends with the archive, or when nobody wants more.
        drop(tokio::task::spawn_blocking(move || Walk { found, message_bytes_max, at, members: Cell::new(0) }.archive(&path)));
        Self { items, position, length }
    }

    /// The next; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Item> {
        self.items.recv().await
    }

    /// How far it was read, in bytes of the archive itself.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// The archive's length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// Nobody wants more.
struct Enough;

struct Walk {
    found: mpsc::Sender<Item>,
    message_bytes_max: usize,
    at: Arc<AtomicU64>,
    /// Files that were begun.
    members: Cell<u64>,
}

impl Walk {
    fn archive(&self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let opened = File::open(path).and_then(|mut file| {
            let mut head = [0; 4];
            let length = file.read(&mut head)?;
            io::Seek::rewind(&mut file)?;
            Ok((file, is_zip(head.get(..length).unwrap_or_default())))
        });
        let done = match opened {
            Err(error) => self.flaw(&name, &words(&error)),
            // A zip file's list stands at its end: it is read in place.
            Ok((file, true)) => self.zip(&name, file),
            Ok((file, false)) => self.any(&name, Box::new(Counted { inner: file, at: Arc::clone(&self.at) }), 0),
        };
        // Whoever stopped listening knows why.
        let _: Result<(), Enough> = done;
    }

    /// A stream of which nothing is known.
    fn any(&self, name: &str, source: Box<dyn Read + '_>, depth: usize) -> Result<(), Enough> {
        let mut source = BufReader::with_capacity(READ_BYTES, source);
        let head = match source.fill_buf() {
            Ok(head) => head,
            Err(error) => return self.flaw(name, &damaged(&error)),
        };
        let (packed, tar, zip) = (head.starts_with(&[0x1F, 0x8B]), head.get(257..262) == Some(b"ustar"), is_zip(head));
        match () {
            () if (packed || tar || zip) && depth >= DEPTH_MAX => self.flaw(name, "archives within archives are looked into four deep"),
            () if packed => {
                let inner = name.strip_suffix(".gz").unwrap_or(name);
                self.any(inner, Box::new(flate2::read::MultiGzDecoder::new(source)), depth + 1)
            }
            () if tar => self.tar(name, source, depth),
            () if zip => self.flaw(name, "a zip file in an archive is not looked into: unpack it first"),
            () => self.messages(name, source),
        }
    }

    fn tar(&self, name: &str, source: impl Read, depth: usize) -> Result<(), Enough> {
        let mut tar = tar::Archive::new(source);
        let entries = match tar.entries() {
            Ok(entries) => entries,
            Err(error) => return self.flaw(name, &damaged(&error)),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.flaw(name, &damaged(&error)),
            };
            if entry.header().entry_type().is_file() {
                let member = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                self.any(&member, Box::new(entry), depth + 1)?;
            }
        }
        Ok(())
    }

    fn zip(&self, name: &str, file: File) -> Result<(), Enough> {
        let length = file.metadata().map_or(0, |facts| facts.len());
        let mut zip = match zip::ZipArchive::new(BufReader::new(file)) {
            Ok(zip) => zip,
            Err(error) => return self.flaw(name, &format!("it is damaged: {error}")),
        };
        let members = zip.len();
        for number in 0..members {
            match zip.by_index(number) {
                Ok(member) if member.is_file() => {
                    let name = member.name().map_or_else(|_| format!("file {number}"), std::borrow::Cow::into_owned);
                    self.any(&name, Box::new(member), 1)?;
                }
                Ok(_) => {}
                Err(error) => self.flaw(name, &format!("file {} of it cannot be read: {error}", number + 1))?,
            }
            self.at.store(length * (number as u64 + 1) / members.max(1) as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn messages(&self, name: &str, mut source: impl Read) -> Result<(), Enough> {
        let position = self.members.get() + 1;
        self.members.set(position);
        let mut splitter = Splitter::new(self.message_bytes_max);
        let mut page = vec![0; READ_BYTES];
        let mut ended = false;
        loop {
            while let Some(item) = splitter.next_item() {
                match item {
                    BatchItem::Message(extract) | BatchItem::Stray(extract) => {
                        let (number, bytes, oversize) = (extract.number, extract.bytes, extract.oversize);
                        self.say(Item::Message { member: name.to_owned(), position, number, bytes, oversize })?;
                    }
                    BatchItem::Closed(closed) => {
                        for flaw in &closed.flaws {
                            self.flaw(name, &flaw.fault(closed.wrapper).text)?;
                        }
                    }
                    BatchItem::Opened(..) => {}
                }
            }
            if ended {
                return Ok(());
            }
            match source.read(&mut page) {
                Ok(0) => {
                    ended = true;
                    splitter.finish();
                }
                Ok(length) => splitter.push(page.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    ended = true;
                    splitter.finish();
                    self.flaw(name, &damaged(&error))?;
                }
            }
        }
    }

    fn flaw(&self, name: &str, what: &str) -> Result<(), Enough> {
        self.say(Item::Flaw(format!("{name}: {what}")))
    }

    fn say(&self, item: Item) -> Result<(), Enough> {
        self.found.blocking_send(item).map_err(|_| Enough)
    }
}

fn damaged(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            "it is damaged or cut short; what came before was read".to_owned()
        }
        _ => words(error),
    }
}

fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

/// Counts what is read of the archive itself.
struct Counted {
    inner: File,
    at: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(into)?;
        self.at.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
