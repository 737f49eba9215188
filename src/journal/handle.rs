//! The handle that the engine holds: cheap to clone, every method is safe to call from any task.

use crate::exchange::{DeliveryId, Envelope, MessageId, OrderKey, Phi, Timestamp};
use crate::journal::append::{Append, AppendFault, NewDelivery, Stored};
use crate::journal::finder::{Finder, Stop};
use crate::journal::folder::Folder;
use crate::journal::gate::Gate;
use crate::journal::keeper::Keeper;
use crate::journal::kept::{Kept, ReplyRecord};
use crate::journal::later::{Later, Reopening};
use crate::journal::options::{OpenError, Options};
use crate::journal::owed::{AcknowledgementAttempt, OwedRecord, Sender};
use crate::journal::query::{Counts, Found, Gone, JournalError, MessageRecord, Pending, Program, Pruned, Query, Statistics, Unsettled, Verification};
use crate::journal::queue::{Board, Command, Queue, Reply};
use crate::journal::read::Library;
use crate::journal::replay::{Edit, Replay};
use crate::journal::settle::{IdentityKey, ServerId, Settle, SettleFault};
use crate::journal::unknown::{Unknown, UnknownList};
use crate::journal::writer::Writer;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{Notify, Semaphore, oneshot};

/// Commands that may wait for the writer at the same time; further callers wait for a place.
const WAITING_MAX: usize = 16_384;

/// An open journal.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    library: Arc<Library>,
    board: Arc<Board>,
    queue: Arc<Queue>,
    places: Semaphore,
    stop: Arc<Stop>,
    indexed_to: Option<Arc<AtomicU64>>,
    /// With how many waiting deliveries nothing more is accepted, and with how many it is again.
    backlog: Option<(u64, u64)>,
    choked: AtomicBool,
    keep_bytes: Option<u64>,
    open: Mutex<Option<Open>>,
    reads: AtomicU64,
}

/// What is given up at the end.
struct Open {
    threads: Vec<JoinHandle<()>>,
    _lock: File,
}

impl Inner {
    /// Waits for the threads; then the lock goes.
    fn close(&self) {
        let Some(mut open) = self.open.lock().expect("no holder panics").take() else { return };
        let _ = self.queue.push(Command::Close);
        self.stop.now();
        for thread in open.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal {
    /// Opens the journal for writing; makes it if there is none. One process at a time.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let folder = Folder::make(&options.path, options.allow_network_file_system)?;
        let lock = folder.lock()?;
        folder.delete_drafts();
        let secret = folder.secret(true)?;
        let (queue, gate, stop) = (Arc::new(Queue::default()), Arc::new(Gate::default()), Arc::new(Stop::default()));
        let writer = Writer::open(folder.clone(), options.clone(), queue.clone(), gate.clone())?;
        let (board, shelf) = (writer.board.clone(), writer.shelf.clone());
        let library = Arc::new(Library { folder: folder.clone(), shelf: shelf.clone(), gate: gate.clone(), secret });
        let keeper = Keeper {
            folder: folder.clone(),
            shelf,
            board: board.clone(),
            queue: queue.clone(),
            gate,
            stop: stop.clone(),
            low_water: options.low_water,
            high_water: options.high_water,
            wal_bytes_max: options.wal_bytes_max,
        };
        keeper.look_at_room();
        let io = |source| OpenError::Io { path: folder.path().into(), source };
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.into()).spawn(run).map_err(io);
        let mut threads = vec![start("journal", Box::new(move || writer.run()))?, start("journal-keeper", Box::new(move || keeper.run()))?];
        let indexed_to = options.indexer.is_some().then(Arc::default);
        if let (Some(indexer), Some(indexed_to)) = (options.indexer, &indexed_to) {
            let finder = Finder {
                library: library.clone(),
                board: board.clone(),
                indexer,
                stop: stop.clone(),
                indexed_to: Arc::clone(indexed_to),
                wal_bytes_max: options.wal_bytes_max,
            };
            threads.push(start("journal-finder", Box::new(move || finder.run()))?);
        }
        let open = Mutex::new(Some(Open { threads, _lock: lock }));
        let places = Semaphore::new(WAITING_MAX);
        let backlog = options.backlog_max.map(|most| (most, options.backlog_resume.unwrap_or(most - most / 10).min(most)));
        let (choked, keep_bytes, reads) = (AtomicBool::new(false), options.keep_bytes, AtomicU64::new(0));
        Ok(Self { inner: Arc::new(Inner { library, board, queue, places, stop, indexed_to, backlog, choked, keep_bytes, open, reads }) })
    }

    /// Stores a message and waits for the fsync of its commit: the one running on arrival, then its own.
    pub async fn append(&self, append: Append) -> Result<Stored, AppendFault> {
        let board = &self.inner.board;
        if board.has_failed() {
            return Err(AppendFault::Failing);
        }
        if append.is_behind() {
            return Err(AppendFault::Behind);
        }
        if !board.room.load(Ordering::Relaxed) {
            append.break_row();
            return Err(AppendFault::Full);
        }
        if self.has_too_much_backlog(append.deliveries.len() as u64) {
            append.break_row();
            return Err(AppendFault::TooMuchBacklog);
        }
        self.ask(|reply| Command::Append(Box::new(append), reply)).await.unwrap_or(Err(AppendFault::Closed))
    }

    /// Stores an outcome, many in a commit, and waits for the fsync.
    pub async fn settle(&self, settle: Settle) -> Result<(), SettleFault> {
        self.ask(|reply| Command::Settle(Box::new(settle), reply)).await.unwrap_or(Err(SettleFault::Closed))
    }

    /// Stores what became of telling a sender, many in a commit, and waits for the fsync.
    pub async fn tell(&self, telling: AcknowledgementAttempt) -> Result<(), SettleFault> {
        self.ask(|reply| Command::Tell(Box::new(telling), reply)).await.unwrap_or(Err(SettleFault::Closed))
    }

    /// What the sender of a message in enhanced mode was and is told; `None` in original mode.
    pub async fn owed(&self, id: MessageId) -> Result<Option<OwedRecord>, JournalError> {
        self.read(move |library| library.owed(id)).await
    }

    /// What can be told to one sender at this time, in the order of its messages, after `after`, at most `limit`.
    pub async fn due(&self, whom: &Sender, after: Option<MessageId>, at: Timestamp, limit: usize) -> Result<Vec<OwedRecord>, JournalError> {
        let whom = whom.clone();
        self.read(move |library| library.due(&whom, after, at, limit)).await
    }

    /// When the next of what is to be told to one sender after this time may be told; `None` if nothing waits for a time.
    pub async fn next_due(&self, whom: &Sender, at: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        let whom = whom.clone();
        self.read(move |library| library.next_due(&whom, at)).await
    }

    /// Everyone to whom something is to be told, from the disk.
    pub async fn senders_owed(&self) -> Result<BTreeSet<Sender>, JournalError> {
        self.read(Library::senders_owed).await
    }

    /// Those to whom there may be something new to tell since the last call; waits until there is somebody.
    pub async fn news_for(&self) -> BTreeSet<Sender> {
        loop {
            let arrived = self.inner.board.due_arrived.notified();
            let whom = self.inner.board.take_due();
            if !whom.is_empty() {
                return whom;
            }
            arrived.await;
        }
    }

    /// There is a new way to tell this sender something.
    pub fn look_for(&self, whom: Sender) {
        self.inner.board.note_due(&BTreeSet::from([whom]));
    }

    /// Keeps what a route's questions found, or the answer to a question, and waits for the fsync.
    pub async fn keep(&self, kept: Kept) -> Result<(), SettleFault> {
        self.ask(|reply| Command::Keep(Box::new(kept), reply)).await.unwrap_or(Err(SettleFault::Closed))
    }

    /// What the questions of a delivery's route found; `None` before they were asked.
    pub async fn answers(&self, id: DeliveryId) -> Result<Option<Phi<String>>, JournalError> {
        self.read(move |library| library.answers(id)).await
    }

    /// What a question's sender was answered; `None` for a message that was no question.
    pub async fn reply(&self, id: MessageId) -> Result<Option<ReplyRecord>, JournalError> {
        self.read(move |library| library.reply(id)).await
    }

    /// Deliveries to `target` that wait, in the order of storing, after `after`, at most `limit`. Retries that wait for their time are among them.
    pub async fn pending(&self, target: &str, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Pending>, JournalError> {
        let target = target.to_owned();
        self.read(move |library| library.pending(&target, after, limit)).await
    }

    /// Whether something earlier than `delivery` is parked, or is a dead letter that blocks, at this target on one of these keys.
    pub async fn is_blocked(&self, target: &str, delivery: DeliveryId, keys: &[OrderKey]) -> Result<bool, JournalError> {
        let (target, keys) = (target.to_owned(), keys.to_vec());
        self.read(move |library| library.is_blocked(&target, delivery, &keys)).await
    }

    /// What is not settled for good at `target`, by route; of messages after `after` only, if one is given.
    pub async fn unsettled(&self, target: &str, after: Option<MessageId>) -> Result<BTreeMap<Arc<str>, Unsettled>, JournalError> {
        let target = target.to_owned();
        self.read(move |library| library.unsettled(&target, after)).await
    }

    /// The newest message that has a dead letter for `target`.
    pub async fn newest_dead_letter(&self, target: &str) -> Result<Option<MessageId>, JournalError> {
        let target = target.to_owned();
        self.read(move |library| library.newest_dead_letter(&target)).await
    }

    /// The newest message that is stored; all older numbers are.
    pub fn newest(&self) -> MessageId {
        MessageId(self.inner.board.last.load(Ordering::Acquire))
    }

    /// Targets that have something pending or parked, whether the site still has them or not.
    pub fn targets_with_pending(&self) -> Vec<Arc<str>> {
        self.inner.board.targets().into_iter().filter(|(_, counts)| counts.backlog + counts.parked > 0).map(|(target, _)| target).collect()
    }

    /// Targets that the journal knows of.
    pub fn targets(&self) -> Vec<Arc<str>> {
        self.inner.board.targets().into_iter().map(|(target, _)| target).collect()
    }

    /// What waits for a target. Kept in memory: free.
    pub fn counts(&self, target: &str) -> Counts {
        self.inner.board.counts(target)
    }

    /// Is notified (`notify_one`) after each commit that stored or resumed deliveries to `target`. One per target, the same each time.
    pub fn arrivals(&self, target: &str) -> Arc<Notify> {
        self.inner.board.arrivals(target)
    }

    /// A message as it is mapped: as it was received, or as an operator edited it.
    pub async fn payload(&self, id: MessageId) -> Result<Envelope, JournalError> {
        self.payloads(&[id]).await?.pop().ok_or(JournalError::Missing)
    }

    /// A message as it was received, whatever an operator made of it since.
    pub async fn received(&self, id: MessageId) -> Result<Envelope, JournalError> {
        self.read(move |library| library.received(id)).await
    }

    /// Many at once, in the order asked; cheaper than one by one. Fails if one is missing.
    pub async fn payloads(&self, ids: &[MessageId]) -> Result<Vec<Envelope>, JournalError> {
        let ids = ids.to_vec();
        self.read(move |library| library.payloads(&ids)).await
    }

    /// Makes every parked delivery to `target` that shares one of `keys` pending again; then what was parked behind those. A dead letter stays
    /// one and goes on blocking: what another one than was replayed or skipped blocks is parked again. Returns how many became pending.
    pub async fn resume_parked(&self, target: &str, keys: &[OrderKey], at: Timestamp) -> Result<u64, JournalError> {
        let (target, keys) = (target.into(), keys.to_vec());
        self.ask(|reply| Command::Resume(target, keys, at, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// Makes dead letters, parked, skipped and superseded deliveries pending again (an operator's replay), in their old place in the order.
    /// Returns how many there were.
    pub async fn replay(&self, deliveries: &[DeliveryId], how: &Replay) -> Result<u64, JournalError> {
        let (deliveries, how) = (deliveries.to_vec(), how.clone());
        self.ask(|reply| Command::Replay(deliveries, how, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// Keeps what an operator made of a message; from then on that is what [`Journal::payload`] gives. `Missing` if there is no such message,
    /// or if one of its deliveries waits or is under way.
    pub async fn edit(&self, id: MessageId, edit: Edit) -> Result<(), JournalError> {
        self.ask(|reply| Command::Edit(id, Box::new(edit), reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// For each of these deliveries, those of later messages to the same target that share an order key and were delivered: what a replay
    /// would override. One pass over what came after the oldest of them.
    pub async fn later_delivered(&self, deliveries: Vec<Reopening>) -> Result<Vec<Later>, JournalError> {
        self.read(move |library| library.later_delivered(&deliveries)).await
    }

    /// All of those together, in order; `None` if there are more than `limit`.
    pub async fn all_later_delivered(&self, deliveries: Vec<Reopening>, limit: usize) -> Result<Option<BTreeSet<DeliveryId>>, JournalError> {
        self.read(move |library| library.all_later_delivered(&deliveries, limit)).await
    }

    /// Counts codes and authorities that are not known, in one commit. A power failure may lose the last of them.
    pub async fn keep_unknown(&self, found: Vec<Unknown>) -> Result<(), JournalError> {
        self.ask(|reply| Command::Unknown(found, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// Forgets what was counted of a list, all of it or one code: it is known now. Returns how many rows went.
    pub async fn forget_unknown(&self, list: UnknownList, code: Option<Phi<String>>) -> Result<u64, JournalError> {
        self.ask(|reply| Command::Known(list, code, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// Keeps the site file that is in force, and for each target that is gone the last one that had it.
    pub async fn put_site(&self, text: String, gone: Gone) -> Result<(), JournalError> {
        self.ask(|reply| Command::Site(text, gone, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// The site file that was applied last, or, for a target that is gone, the last one that had it.
    pub async fn site(&self, target: Option<&str>) -> Result<Option<String>, JournalError> {
        let target = target.map(str::to_owned);
        self.read(move |library| library.site(target.as_deref())).await
    }

    /// Gives a stored message further ways (an unrouted one whose route now exists). Returns their ids.
    pub async fn add_deliveries(&self, id: MessageId, deliveries: Vec<NewDelivery>) -> Result<Vec<DeliveryId>, JournalError> {
        self.ask(|reply| Command::Add(id, deliveries, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// The name under which an identity of a target is remembered: keyed, so that the file tells nothing about a patient.
    pub fn identity_key(&self, target: &str, resource_type: &str, system: &str, value: &str) -> IdentityKey {
        let mut hash = blake3::Hasher::new_keyed(&self.inner.library.secret);
        for part in ["identity", target, resource_type, system, value] {
            // The length keeps the parts apart: ("ab", "c") is not ("a", "bc").
            hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        IdentityKey(hash.finalize().as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// Where these identities are on their server, as far as receipts told.
    pub async fn known(&self, identities: &[IdentityKey]) -> Result<Vec<Option<ServerId>>, JournalError> {
        let identities = identities.to_vec();
        self.read(move |library| library.known(&identities)).await
    }

    /// Keeps a route set, once per hash, and makes it the last one applied. Durable on return.
    pub async fn put_program(&self, program: Program) -> Result<(), JournalError> {
        self.apply_program(program, Vec::new()).await
    }

    /// The same, and notes in the same commit with which set each route that is gone was there last.
    pub async fn apply_program(&self, program: Program, retired: Vec<(Arc<str>, String)>) -> Result<(), JournalError> {
        self.ask(|reply| Command::Program(Box::new(program), retired, reply)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// The routes that were ever gone from a set that was applied, and the hash of the last set that had each.
    pub async fn retired(&self) -> Result<HashMap<Arc<str>, String>, JournalError> {
        self.read(Library::retired).await
    }

    /// Deliveries to `target` that wait and were never tried, by route; of messages after `after` and up to `to` only.
    pub async fn untried(&self, target: &str, after: Option<MessageId>, to: MessageId) -> Result<BTreeMap<Arc<str>, u64>, JournalError> {
        let target = target.to_owned();
        self.read(move |library| library.untried(&target, after, to)).await
    }

    /// A stored route set.
    pub async fn program(&self, hash: &str) -> Result<Option<Program>, JournalError> {
        let hash = hash.to_owned();
        self.read(move |library| library.program(Some(&hash))).await
    }

    /// The route set that was applied last.
    pub async fn last_program(&self) -> Result<Option<Program>, JournalError> {
        self.read(|library| library.program(None)).await
    }

    /// What the last delivered outcome of `target` asked to remember.
    pub async fn target_state(&self, target: &str) -> Result<Option<String>, JournalError> {
        let target = target.to_owned();
        self.read(move |library| library.target_state(&target)).await
    }

    /// Finds messages, newest first.
    pub async fn search(&self, query: Query) -> Result<Vec<Found>, JournalError> {
        self.read(move |library| library.search(&query)).await
    }

    /// Everything about one message.
    pub async fn show(&self, id: MessageId) -> Result<MessageRecord, JournalError> {
        self.read(move |library| library.show(id)).await
    }

    /// The peers that begin with `prefix`, of a listener's messages after `after`, in the order of storing; and whether the message was refused.
    pub async fn peers_after(&self, after: MessageId, listener: &str, prefix: &str) -> Result<Vec<(String, bool)>, JournalError> {
        let (listener, prefix) = (listener.to_owned(), prefix.to_owned());
        self.read(move |library| library.peers_after(after, &listener, &prefix)).await
    }

    /// Counts; cheap enough for each scrape.
    pub async fn stats(&self) -> Result<Statistics, JournalError> {
        let indexed_to = self.inner.indexed_to.as_ref().map(|mark| MessageId(mark.load(Ordering::Relaxed)));
        self.read(move |library| library.stats().map(|statistics| Statistics { indexed_to, ..statistics })).await
    }

    /// Reads everything and says what is wrong. Slow.
    pub async fn verify(&self) -> Result<Verification, JournalError> {
        self.read(Library::verify).await
    }

    /// Deletes whole segments whose last message is older than `Options::keep`, and the oldest as long as there are more bytes than
    /// `Options::keep_bytes`; what is unsettled in them is carried over first, and goes once it is settled and old enough.
    /// A segment in which very much is unsettled stays, and so do those after it.
    pub async fn prune(&self, now: Timestamp) -> Result<Pruned, JournalError> {
        let mut sum = Pruned::default();
        loop {
            let one = self.ask(|reply| Command::Prune(now, reply)).await.unwrap_or(Err(JournalError::Closed))?;
            if one.segments == 0 {
                return Ok(sum);
            }
            sum = Pruned { segments: sum.segments + 1, messages: sum.messages + one.messages, carried: sum.carried + one.carried };
        }
    }

    /// 32 random bytes that were made with the journal: the key for order keys, derived ids and file names.
    pub fn secret(&self) -> &[u8; 32] {
        &self.inner.library.secret
    }

    /// False below the low-water mark, with too many deliveries waiting, or after a failure: stop reading, and say so in /readyz.
    pub fn has_room(&self) -> bool {
        self.inner.board.room.load(Ordering::Relaxed) && !self.has_too_much_backlog(0) && !self.has_failed()
    }

    /// Whether more deliveries wait than may, with so many more; once it was so, until few enough are left.
    pub fn has_too_much_backlog(&self, more: u64) -> bool {
        let Some((most, resume)) = self.inner.backlog else { return false };
        let waiting = self.inner.board.backlog.load(Ordering::Relaxed);
        if waiting + more > most {
            self.inner.choked.store(true, Ordering::Relaxed);
        } else if waiting <= resume {
            self.inner.choked.store(false, Ordering::Relaxed);
        }
        self.inner.choked.load(Ordering::Relaxed)
    }

    /// True if the journal has more bytes than `Options::keep_bytes`, as of the last second: `prune` may have something to do.
    pub fn is_too_large(&self) -> bool {
        self.inner.keep_bytes.is_some_and(|most| self.bytes() > most)
    }

    /// Says that deliveries begin, for whoever opens the journal next. True if the one before began and never said that it ended: what it had
    /// sent may still be under way. Durable on return.
    pub async fn begin_deliveries(&self) -> Result<bool, JournalError> {
        let folder = self.inner.library.folder.clone();
        let marked = tokio::task::spawn_blocking(move || folder.mark_delivering()).await;
        marked.ok().and_then(Result::ok).ok_or_else(|| JournalError::Database("its folder cannot be written".into()))
    }

    /// Says that every delivery that was under way has come to its end.
    pub async fn end_deliveries(&self) {
        let folder = self.inner.library.folder.clone();
        // Should it fail, the next start is more careful than it need be.
        let _ = tokio::task::spawn_blocking(move || folder.unmark_delivering()).await;
    }

    /// True after an I/O error or a failed fsync. The process must exit with code 74.
    pub fn has_failed(&self) -> bool {
        self.inner.board.has_failed()
    }

    /// Returns when the disk has failed; else never.
    pub async fn failed(&self) {
        let mut failure = self.inner.board.failure();
        if failure.wait_for(|failed| *failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Bytes in write-ahead logs, as of the last second.
    pub fn wal_bytes(&self) -> u64 {
        self.inner.board.wal_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the whole journal, as of the last second.
    pub fn bytes(&self) -> u64 {
        self.inner.board.bytes.load(Ordering::Relaxed)
    }

    /// Commits what waits, folds the log back, closes the files and gives up the lock. Later calls say `Closed`.
    pub async fn close(&self) {
        let inner = self.inner.clone();
        let _ = tokio::task::spawn_blocking(move || inner.close()).await;
    }

    /// Puts a command before the writer and waits for its answer; `None` if the journal is closed.
    async fn ask<T, E>(&self, command: impl FnOnce(Reply<T, E>) -> Command) -> Option<Result<T, E>> {
        let _place = self.inner.places.acquire().await.ok()?;
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(command(reply)).ok()?;
        answer.await.ok()
    }

    /// How many times something was read since the start: a measure of work that no busy machine distorts.
    pub fn reads(&self) -> u64 {
        self.inner.reads.load(Ordering::Relaxed)
    }

    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Library) -> Result<T, JournalError> + Send + 'static) -> Result<T, JournalError> {
        self.inner.reads.fetch_add(1, Ordering::Relaxed);
        let library = self.inner.library.clone();
        tokio::task::spawn_blocking(move || read(&library)).await.unwrap_or_else(|_| Err(JournalError::Database("a reader stopped".into())))
    }
}
