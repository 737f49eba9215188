//! A folder of files as a listener: what is put into it and stays as it is for a while is read, message by message, and moved away.
//!
//! A file is first moved to `.kiln` in the folder, beside a note of how far it was read. After a crash the note, and what the journal has of the
//! file since the note was written, say which message is the next one: each is stored once.

use crate::credential::FileMark;
use crate::exchange::{Phi, Timestamp};
use crate::hl7v2::{BatchItem, Extract, Splitter};
use crate::listener::claim::{Claim, Ending, claim, claimed, waiting};
use crate::listener::mllp::Live;
use crate::listener::{Intake, Kind, Opened, Peer, Received, Reply, Taken};
use crate::metrics::{FrameFault, Metrics};
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

/// A folder that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The folder. Folders in it are not looked into.
    pub path: PathBuf,
    /// Where files go of which every message was accepted.
    pub done: PathBuf,
    /// Where the others go.
    pub failed: PathBuf,
    /// Which names are taken, `*` for any letters; empty for all but hidden ones and those of files that are being written (`.tmp`, `.part`).
    pub names: Vec<String>,
    /// A file is read once its size and time have not changed for so long.
    pub quiet: Duration,
    /// Whether the acknowledgements are written beside the file, as `NAME.ack`.
    pub answers: bool,
}

impl Folder {
    /// Makes the folders, and sees that files can be moved between them in one step.
    pub(super) fn prepare(&self) -> Result<(), String> {
        use std::os::unix::fs::MetadataExt as _;
        let device = |path: &Path| {
            let made = std::fs::create_dir_all(path).and_then(|()| std::fs::metadata(path));
            made.map(|facts| facts.dev()).map_err(|e| format!("the folder {} cannot be used: {}", path.display(), e.kind()))
        };
        let own = device(&self.path)?;
        for other in [&self.done, &self.failed] {
            if device(other)? != own {
                return Err(format!("{} is on another file system than {}: files could not be moved in one step", other.display(), self.path.display()));
            }
        }
        Ok(())
    }
}

/// How often the folder is looked at; more often if files are read after a shorter time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much of a file is read at once.
const READ_BYTES: usize = 256 * 1_024;
/// How often the note of how far a file was read is written at most.
const NOTE_EVERY: Duration = Duration::from_millis(200);
/// How long to wait after a message could not be taken, or a file could not be read or moved.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads what comes until `closing`; then what was handed over is noted.
pub(super) async fn run<I: Intake>(live: Arc<Live>, metrics: Arc<Metrics>, intake: Arc<I>, closing: CancellationToken) {
    let mut watch = Watch { live, metrics, intake, closing, seen: HashMap::new(), told: None };
    while !watch.closing.is_cancelled() {
        let config = watch.live.config();
        let Kind::Folder(folder) = &config.kind else { return };
        watch.round(&config, folder).await;
        let pause = LOOK_EVERY.min(folder.quiet / 2).max(Duration::from_millis(50));
        let _ = watch.closing.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

struct Watch<I> {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    intake: Arc<I>,
    closing: CancellationToken,
    /// Files that are there, as they were when they were looked at, and since when they are like that.
    seen: HashMap<OsString, (FileMark, Instant)>,
    /// The last fault that was told, so that one that lasts is told once.
    told: Option<String>,
}

impl<I: Intake> Watch<I> {
    async fn round(&mut self, config: &Opened, folder: &Folder) {
        // What was begun comes first: files are read one after the other.
        let begun = self.io(folder, claimed).await;
        let Some(begun) = begun else { return };
        for mut claim in begun {
            claim.resumed = true;
            if !self.read(config, folder, claim).await {
                return;
            }
        }
        let Some(found) = self.io(folder, waiting).await else { return };
        self.told = None;
        self.seen.retain(|name, _| found.iter().any(|(other, _, _)| other == name));
        for (name, mark, _) in found {
            if self.closing.is_cancelled() {
                return;
            }
            let since = match self.seen.get(&name) {
                Some((before, since)) if *before == mark => *since,
                _ => {
                    self.seen.insert(name.clone(), (mark, Instant::now()));
                    continue;
                }
            };
            if since.elapsed() < folder.quiet {
                continue;
            }
            self.room().await;
            if self.closing.is_cancelled() {
                return;
            }
            self.seen.remove(&name);
            let newest = self.intake.newest();
            match self.io(folder, move |folder| claim(folder, &name, newest)).await {
                Some(claim) => {
                    if !self.read(config, folder, claim).await {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// Work on the disk, away from the threads that serve connections. A fault is told once.
    async fn io<T: Send + 'static>(&mut self, folder: &Folder, work: impl FnOnce(&Folder) -> std::io::Result<T> + Send + 'static) -> Option<T> {
        let own = folder.clone();
        let done = tokio::task::spawn_blocking(move || work(&own)).await.unwrap_or_else(|_| Err(std::io::Error::other("a defect in kiln")));
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                // Names of files may tell of patients, and the system's words have none.
                let what = error.kind().to_string();
                if self.told.as_ref() != Some(&what) {
                    let config = self.live.config();
                    self.metrics.frame_fault(&config.name, FrameFault::Folder);
                    tracing::error!(listener = %config.name, folder = %folder.path.display(), "a folder cannot be read or written: {what}; it is tried again");
                    self.told = Some(what);
                }
                None
            }
        }
    }

    /// Reads a file to its end and moves it away. False if that stops half-way: closing, or a fault of the disk.
    async fn read(&mut self, config: &Opened, folder: &Folder, mut claim: Claim) -> bool {
        let mut known: HashMap<u64, Taken> = HashMap::new();
        if claim.resumed {
            let Some(taken) = self.intake.taken(&claim.source(), claim.note.newest).await else { return false };
            known.extend(taken.into_iter().map(|taken| (taken.number, taken)));
        }
        let Some(source) = self
            .io(folder, {
                let path = claim.path();
                move |_| open(&path)
            })
            .await
        else {
            return false;
        };
        let mut pages = Pages { source: Some(source), ended: false };
        let mut splitter = Splitter::new(config.frame_bytes_max);
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        let mut replies = FuturesOrdered::new();
        let mut noted = Instant::now();
        let mut ended = false;
        loop {
            while !ended && ahead.len() < config.in_flight_max && !self.closing.is_cancelled() && self.intake.has_room() {
                match splitter.next_item() {
                    Some(BatchItem::Message(extract) | BatchItem::Stray(extract)) => {
                        claim.found = claim.found.max(extract.number);
                        if extract.number <= claim.note.done {
                            continue;
                        }
                        let newest = self.intake.newest();
                        let stored = known.remove(&extract.number);
                        let received = if stored.is_none() { Some(received(config, &claim, &extract)) } else { None };
                        ahead.push_back(Ahead { newest, received: received.clone(), number: extract.number, stored });
                        let intake = Arc::clone(&self.intake);
                        replies.push_back(unconstrained(async move {
                            match received {
                                Some(received) => Some(intake.take(received).await),
                                None => None,
                            }
                        }));
                    }
                    Some(BatchItem::Closed(closed)) => {
                        for flaw in &closed.flaws {
                            claim.note.flawed = true;
                            self.metrics.frame_fault(&config.name, FrameFault::Batch);
                            tracing::warn!(listener = %config.name, "a file: {}", flaw.fault(closed.wrapper).text);
                        }
                    }
                    Some(BatchItem::Opened(..)) => {}
                    None => match pages.next().await {
                        Ok(Some(bytes)) => splitter.push(&bytes),
                        Ok(None) if pages.ended => {
                            ended = true;
                        }
                        Ok(None) => {
                            pages.ended = true;
                            splitter.finish();
                        }
                        Err(_) => {
                            claim.note.flawed = true;
                            self.metrics.frame_fault(&config.name, FrameFault::Truncated);
                            tracing::warn!(listener = %config.name, "a file ends before its end: it is damaged; what came before was taken");
                            pages.ended = true;
                            splitter.finish();
                        }
                    },
                }
            }
            let Some(reply) = replies.next().await else {
                if ended {
                    break;
                }
                if self.closing.is_cancelled() {
                    self.note(folder, &mut claim).await;
                    return false;
                }
                self.room().await;
                continue;
            };
            let Some(mut message) = ahead.pop_front() else { break };
            let mut reply = reply;
            while let Some(Reply::Close) = reply {
                // Nothing could be stored: it is tried again, so that none overtakes it.
                if self.closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                    self.note(folder, &mut claim).await;
                    return false;
                }
                self.room().await;
                message.newest = message.newest.min(self.intake.newest());
                reply = match message.received.clone() {
                    Some(received) => Some(self.intake.take(received).await),
                    None => None,
                };
            }
            match &reply {
                Some(Reply::Ack(bytes)) => claim.answer(bytes.expose(), folder.answers),
                Some(Reply::Acks(all)) => all.iter().for_each(|bytes| claim.answer(bytes.expose(), folder.answers)),
                Some(Reply::Silent | Reply::Close) => {}
                // Its answer went down with the process that stored it.
                None => claim.note.refused += u64::from(message.stored.is_some_and(|stored| stored.refused)),
            }
            claim.note.done = message.number;
            claim.note.newest = ahead.front().map_or_else(|| self.intake.newest(), |next| next.newest);
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                if !self.note(folder, &mut claim).await {
                    return false;
                }
            }
        }
        let good = claim.found > 0 && !claim.note.flawed && claim.note.refused == 0;
        let (messages, refused) = (claim.found, claim.note.refused);
        let done = if good { Ending::Done } else { Ending::Failed };
        let moved = self.io(folder, move |folder| claim.end(folder, done)).await.is_some();
        if moved {
            self.metrics.file(&config.name, good);
            tracing::info!(listener = %config.name, messages, refused, good, "read a file");
        }
        moved
    }

    /// Waits for room, or for the end.
    async fn room(&self) {
        let _ = self.closing.run_until_cancelled(self.intake.room()).await;
    }

    async fn note(&mut self, folder: &Folder, claim: &mut Claim) -> bool {
        let mut written = claim.clone();
        let noted = self.io(folder, move |_| {
            written.write_note()?;
            Ok(written)
        });
        let Some(written) = noted.await else { return false };
        *claim = written;
        true
    }
}

/// A message that was handed over and not answered yet.
struct Ahead {
    /// The newest message that was stored before it.
    newest: u64,
    /// Itself, should it have to be handed over again; `None` if it is stored already.
    received: Option<Received>,
    number: u64,
    stored: Option<Taken>,
}

fn received(config: &Opened, claim: &Claim, extract: &Extract) -> Received {
    Received {
        listener: Arc::clone(&config.name),
        peer: Peer::File { name: Phi::new(claim.source()), number: extract.number },
        received: Timestamp(jiff::Timestamp::now().as_millisecond()),
        bytes: Phi::new(extract.bytes.clone()),
        oversize: extract.oversize,
        back: None,
        charset: None,
    }
}

/// A file's bytes, unpacked if its name says that they are packed (`.gz`, RFC 1952).
fn open(path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
    let file = std::fs::File::open(path)?;
    let packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Ok(if packed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Reads a file a piece at a time, away from the threads that serve connections.
struct Pages {
    source: Option<Box<dyn Read + Send>>,
    ended: bool,
}

impl Pages {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let Some(mut source) = self.source.take() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; READ_BYTES];
            let length = source.read(&mut bytes)?;
            bytes.truncate(length);
            Ok((source, bytes))
        });
        let (source, bytes) = read.await.unwrap_or_else(|_| Err(std::io::Error::other("a defect in kiln")))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.source = Some(source);
        Ok(Some(bytes))
    }
}
