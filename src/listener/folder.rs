//! A folder of files as a listener: what is put into it and stays as it is for a while is read, message by message, and moved away.
//!
//! A file is first moved to `.kiln` in the folder, beside a note of how far it was read. After a crash the note, and what the journal has of the
//! file since the note was written, say which message is the next one: each is stored once.

use crate::credential::FileMark;
use crate::exchange::{Phi, Row, Timestamp};
use crate::hl7v2::{BatchItem, Extract, Splitter};
use crate::listener::claim::{Claim, Ending, claim, claimed, waiting};
use crate::listener::mllp::Live;
use crate::listener::{Intake, Kind, Opened, Peer, Received, Reply, Taken};
use crate::metrics::{FrameFault, Metrics};
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::coop::{Unconstrained, unconstrained};
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
            // Files before it may have taken long: it is looked at once more.
            match self.io(folder, move |folder| claim(folder, &name, mark, newest)).await {
                Some(Some(claim)) => {
                    if !self.read(config, folder, claim).await {
                        return;
                    }
                }
                Some(None) => {}
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
                self.tell(folder, &error);
                None
            }
        }
    }

    /// Tells a fault of the disk, unless it was the last one that was told.
    fn tell(&mut self, folder: &Folder, error: &std::io::Error) {
        // Names of files may tell of patients, and the system's words have none.
        let what = match error.kind() {
            ErrorKind::AlreadyExists => "in its .kiln/files lies a file that nobody reads, and another of that name came: move one of them away".to_owned(),
            kind => kind.to_string(),
        };
        if self.told.as_ref() != Some(&what) {
            let config = self.live.config();
            self.metrics.frame_fault(&config.name, FrameFault::Folder);
            tracing::error!(listener = %config.name, folder = %folder.path.display(), "a folder cannot be read or written: {what}; it is tried again");
            self.told = Some(what);
        }
    }

    /// Reads a file to its end and moves it away. False if that stops half-way: closing, or a fault of the disk.
    async fn read(&mut self, config: &Opened, folder: &Folder, mut claim: Claim) -> bool {
        if claim.is_read() {
            return self.end(config, folder, claim).await;
        }
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
        let mut row = Arc::<Row>::default();
        let mut noted = Instant::now();
        let mut ended = false;
        let mut unreadable = None;
        loop {
            while !ended && unreadable.is_none() && ahead.len() < config.in_flight_max && !self.closing.is_cancelled() && self.intake.has_room() {
                match splitter.next_item() {
                    Some(BatchItem::Message(extract) | BatchItem::Stray(extract)) => {
                        if extract.number <= claim.note.done {
                            continue;
                        }
                        let newest = self.intake.newest();
                        let stored = known.remove(&extract.number);
                        let received = if stored.is_none() { Some(received(config, &claim, &extract, &row)) } else { None };
                        let message = Ahead { newest, received, number: extract.number, stored };
                        replies.push_back(hand_over(&self.intake, message.hand()));
                        ahead.push_back(message);
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
                        // What the system cannot read now is no fault of the file.
                        Err(error) if !is_damage(&error) => unreadable = Some(error),
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
                if let Some(error) = unreadable {
                    self.tell(folder, &error);
                    self.note(folder, &mut claim).await;
                    return false;
                }
                if self.closing.is_cancelled() {
                    self.note(folder, &mut claim).await;
                    return false;
                }
                self.room().await;
                continue;
            };
            if let Some(Reply::Close) = reply {
                // It could not be stored. None of its row overtakes it: what comes back stored behind it was not of this row any more, or is known from before.
                let mut back = vec![reply];
                while let Some(reply) = replies.next().await {
                    back.push(reply);
                }
                if self.closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                    self.note(folder, &mut claim).await;
                    return false;
                }
                self.room().await;
                row = Arc::default();
                for (message, reply) in ahead.iter_mut().zip(back) {
                    let hand = match reply {
                        Some(Reply::Close) => {
                            message.received.iter_mut().for_each(|received| received.row = Some(Arc::clone(&row)));
                            message.hand()
                        }
                        reply => Hand::Answered(reply),
                    };
                    replies.push_back(hand_over(&self.intake, hand));
                }
                continue;
            }
            let Some(message) = ahead.pop_front() else { break };
            match &reply {
                Some(Reply::Ack(ack)) => claim.answer(ack, folder.answers),
                Some(Reply::Acks(all)) => all.iter().for_each(|ack| claim.answer(ack, folder.answers)),
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
        self.end(config, folder, claim).await
    }

    /// Moves a file that was read whole to where it belongs. False if that cannot be done now.
    async fn end(&mut self, config: &Opened, folder: &Folder, claim: Claim) -> bool {
        let (messages, refused, ending) = (claim.note.done, claim.note.refused, claim.ending());
        let good = ending == Ending::Done;
        let moved = self.io(folder, move |folder| claim.end(folder, ending)).await.is_some();
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

/// What becomes of a message that is next in its file.
enum Hand {
    /// It is handed over.
    Over(Received),
    /// It has its answer, or was stored by an earlier attempt.
    Answered(Option<Reply>),
}

/// At its first turn it goes as far as the journal's queue, so that messages are stored in their order.
fn hand_over<I: Intake>(intake: &Arc<I>, hand: Hand) -> Unconstrained<impl Future<Output = Option<Reply>> + use<I>> {
    let intake = Arc::clone(intake);
    unconstrained(async move {
        match hand {
            Hand::Over(received) => Some(intake.take(received).await),
            Hand::Answered(reply) => reply,
        }
    })
}

/// Is it the file that cannot be read, and not the disk? So say the unpackers.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput)
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

impl Ahead {
    fn hand(&self) -> Hand {
        self.received.clone().map_or(Hand::Answered(None), Hand::Over)
    }
}

fn received(config: &Opened, claim: &Claim, extract: &Extract, row: &Arc<Row>) -> Received {
    Received {
        listener: Arc::clone(&config.name),
        peer: Peer::File { name: Phi::new(claim.source()), number: extract.number },
        received: Timestamp(jiff::Timestamp::now().as_millisecond()),
        bytes: Phi::new(extract.bytes.clone()),
        oversize: extract.oversize,
        back: None,
        charset: None,
        row: Some(Arc::clone(row)),
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
        // An unpacker that fails at a file fails at it again: it is treated as damaged.
        let (source, bytes) = read.await.unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::InvalidData)))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.source = Some(source);
        Ok(Some(bytes))
    }
}
