//! How commands change a journal: through the running daemon's socket in the journal's folder, or with the lock when no daemon runs.
//!
//! One JSON object each way, a line each. The socket's permissions (0600, in a folder of 0700) are the whole access control.

use crate::console::Watch;
use crate::engine::{Engine, Routes, deliveries};
use crate::exchange::{MessageId, Timestamp};
use crate::hl7v2::{Message, ParseOptions};
use crate::journal::{DeliveryState, Disposition, Journal, JournalError, MessageRecord, NewDelivery, Options, Reader, Settle, Settlement};
use crate::site::words;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Request {
    /// Delete what is older than `keep`.
    Prune,
    /// Read the site and its routes again.
    Reload,
    /// How the last reload went.
    Status,
    /// Try dead letters, skipped and superseded deliveries again.
    Replay {
        /// Message numbers.
        messages: Vec<u64>,
        /// Only to this target.
        target: Option<String>,
    },
    /// Give dead letters up.
    Skip {
        /// Message numbers.
        messages: Vec<u64>,
        /// Only to this target.
        target: Option<String>,
    },
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Done {
    /// Deliveries that were changed.
    pub deliveries: u64,
    /// Segments deleted.
    pub segments: u64,
    /// Messages deleted.
    pub messages: u64,
    /// Messages carried over.
    pub carried: u64,
    /// What a reload changed, or why the last one was refused.
    pub said: Vec<String>,
}

/// Somebody asks the daemon for a reload and wants to hear what changed, or why nothing did.
pub(crate) type Ask = oneshot::Sender<Result<Vec<String>, String>>;

/// What the daemon's side of the socket needs.
#[derive(Clone)]
pub(crate) struct Ears {
    /// What is changed.
    pub engine: Arc<Engine>,
    /// Where reloads are asked for.
    pub reloads: mpsc::Sender<Ask>,
    /// How the last one went.
    pub watch: Arc<Watch>,
}

impl Done {
    /// True if a replay or skip found nothing to change.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done(Done),
    Fault(String),
}

/// The longest that a command may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest that a client may take to say what it wants.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Clients at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 8;
/// How long to wait after a client could not be let in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A request is a few thousand numbers at most.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// The socket in the journal's folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// What of a site decides how its journal is changed.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// How old a settled message must be to go.
    pub keep: Option<Duration>,
    /// How the messages of each listener are read.
    pub manners: HashMap<Arc<str>, ParseOptions>,
}

/// Asks the daemon, which knows its site; does it here, by the rules, when none runs.
pub(crate) async fn ask_or_do(folder: &Path, request: &Request, rules: &Rules) -> Result<Done, String> {
    match UnixStream::connect(socket(folder)).await {
        Ok(stream) => ask(stream, request).await,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            if matches!(request, Request::Reload | Request::Status) {
                return Err(format!("no daemon runs on the journal in {}", folder.display()));
            }
            // Reading first: opening to write would make a journal where there is none.
            Reader::open(folder).map_err(|e| e.to_string())?;
            let mut options = Options::at(folder);
            match (request, rules.keep) {
                (_, Some(keep)) => options.keep = keep,
                // The default may be shorter than what the site promises to keep.
                (Request::Prune, None) => return Err("how long to keep is in the site file: say --config FILE".to_owned()),
                (_, None) => {}
            }
            let journal = Journal::open(options).map_err(|e| e.to_string())?;
            let done = Hands::Alone(&journal, rules).apply(request).await;
            journal.close().await;
            done
        }
        Err(e) => Err(format!("the daemon's socket in {} cannot be used: {}", folder.display(), words(&e))),
    }
}

/// Why the daemon on this journal refused the site as it was saved last; nothing if it did not, or if none runs.
pub(crate) fn last_refusal(folder: &Path) -> Option<String> {
    const WAIT: Duration = Duration::from_secs(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async {
        let stream = UnixStream::connect(socket(folder)).await.ok()?;
        ask(stream, &Request::Status).await.ok()?.said.into_iter().next()
    };
    runtime.block_on(async { tokio::time::timeout(WAIT, asked).await.ok().flatten() })
}

async fn ask(mut stream: UnixStream, request: &Request) -> Result<Done, String> {
    let broken = |_| "the daemon closed its socket before it answered".to_owned();
    let mut line = serde_json::to_vec(request).map_err(|_| "the request cannot be written".to_owned())?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.map_err(broken)?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Done(done)) => Ok(done),
        Ok(Answer::Fault(what)) => Err(what),
        Err(_) => Err("the daemon's answer makes no sense; is it of another version?".to_owned()),
    }
}

/// Binds the daemon's socket, taking the place of one that a killed daemon left. The journal's lock is held, so nobody else's is taken away.
pub(crate) fn bind(folder: &Path) -> std::io::Result<UnixListener> {
    let path = socket(folder);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // The process's umask is 077, so the socket is its user's only.
    UnixListener::bind(&path)
}

/// Answers until closing. Commands that are under way then are dropped between two of their changes.
pub(crate) async fn serve(listener: UnixListener, ears: Ears, closing: CancellationToken) {
    let mut connections = JoinSet::new();
    let turn = Arc::new(Mutex::new(()));
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (ears, turn) = (ears.clone(), Arc::clone(&turn));
                    connections.spawn(async move {
                        if !matches!(tokio::time::timeout(PATIENCE, answer(stream, &ears, &turn)).await, Ok(Ok(()))) {
                            tracing::debug!("a control connection ended early");
                        }
                    });
                }
                // A file too many, say: that passes, and an operator's commands are needed then most of all.
                Err(e) => {
                    tracing::warn!(kind = ?e.kind(), "the control socket could not accept; it is tried again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // The engine is given back before this returns.
    connections.shutdown().await;
}

async fn answer(stream: UnixStream, ears: &Ears, turn: &Mutex<()>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::time::timeout(REQUEST_TIME_MAX, BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Status) => Answer::Done(Done { said: ears.watch.routes().last_reload_error.into_iter().collect(), ..Done::default() }),
        Ok(request) => {
            // Whoever is silent holds up nobody; what changes the journal goes one after the other.
            let _turn = turn.lock().await;
            Hands::Running(ears).apply(&request).await.map_or_else(Answer::Fault, Answer::Done)
        }
        Err(_) => Answer::Fault("the request makes no sense; is the command of another version?".to_owned()),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    write.write_all(&line).await
}

/// Who changes the journal: a running engine keeps its queues in order meanwhile, a journal alone has none.
enum Hands<'a> {
    Running(&'a Ears),
    Alone(&'a Journal, &'a Rules),
}

impl Hands<'_> {
    async fn apply(&self, request: &Request) -> Result<Done, String> {
        match request {
            Request::Prune => self.prune().await,
            Request::Reload => self.reload().await,
            Request::Status => Ok(Done::default()),
            Request::Replay { messages, target } => self.replay(messages, target.as_deref()).await,
            Request::Skip { messages, target } => self.skip(messages, target.as_deref()).await,
        }
    }

    fn journal(&self) -> &Journal {
        match self {
            Self::Running(ears) => ears.engine.journal(),
            Self::Alone(journal, _) => journal,
        }
    }

    async fn record(&self, number: u64) -> Result<MessageRecord, String> {
        self.journal().show(MessageId(number)).await.map_err(|e| format!("message {number}: {e}"))
    }

    async fn reload(&self) -> Result<Done, String> {
        let Self::Running(ears) = self else { return Err("no daemon runs on this journal".to_owned()) };
        let (ask, answer) = oneshot::channel();
        let deaf = |_| "this daemon has no site file to read again";
        ears.reloads.send(ask).await.map_err(|_| deaf(()))?;
        let said = answer.await.map_err(|_| "the daemon stopped before it answered")??;
        Ok(Done { said, ..Done::default() })
    }

    async fn prune(&self) -> Result<Done, String> {
        let pruned = self.journal().prune(now()).await.map_err(|e| e.to_string())?;
        tracing::info!(segments = pruned.segments, messages = pruned.messages, "pruned on request");
        Ok(Done { segments: pruned.segments, messages: pruned.messages, carried: pruned.carried, ..Done::default() })
    }

    async fn replay(&self, messages: &[u64], target: Option<&str>) -> Result<Done, String> {
        let mut done = Done::default();
        let mut again = Vec::new();
        for number in messages {
            let record = self.record(*number).await?;
            if record.deliveries.is_empty() && matches!(record.disposition, Disposition::Unrouted | Disposition::Filtered) {
                let ways: Vec<_> = self.ways(&record).await?.into_iter().filter(|w| target.is_none_or(|t| t == &*w.target)).collect();
                if !ways.is_empty() {
                    done.deliveries += self.add(record.id, ways).await.map_err(|e| e.to_string())?;
                }
            }
            let given_up = |s| matches!(s, DeliveryState::DeadLetter | DeliveryState::Skipped | DeliveryState::Superseded);
            again.extend(record.deliveries.iter().filter(|d| given_up(d.state) && target.is_none_or(|t| t == &*d.target)).map(|d| d.id));
        }
        done.deliveries += match self {
            Self::Running(ears) => ears.engine.replay(&again).await,
            Self::Alone(journal, _) => journal.replay(&again, now()).await,
        }
        .map_err(|e| e.to_string())?;
        tracing::info!(deliveries = done.deliveries, "replayed on request");
        Ok(done)
    }

    async fn add(&self, id: MessageId, ways: Vec<NewDelivery>) -> Result<u64, JournalError> {
        match self {
            Self::Running(ears) => ears.engine.add_deliveries(id, ways).await,
            Self::Alone(journal, _) => journal.add_deliveries(id, ways).await.map(|ids| ids.len() as u64),
        }
    }

    /// Where the routes in force would send it.
    async fn ways(&self, record: &MessageRecord) -> Result<Vec<NewDelivery>, String> {
        let routes = match self {
            Self::Running(ears) => ears.engine.routes(),
            Self::Alone(journal, _) => match Routes::last_applied(journal).await.map_err(|e| e.to_string())? {
                Some(routes) => Arc::new(routes),
                None => return Ok(Vec::new()),
            },
        };
        let listener = &record.envelope.listener;
        let options = match self {
            Self::Running(ears) => ears.engine.parse_options(listener),
            Self::Alone(_, rules) => rules.manners.get(listener).copied().unwrap_or_default(),
        };
        let Ok(message) = Message::parse(record.envelope.bytes.expose().clone(), &options) else { return Ok(Vec::new()) };
        let taken = routes.set.matching(listener, &message).taken;
        Ok(deliveries(&routes, &taken, &message, listener, self.journal().secret()))
    }

    async fn skip(&self, messages: &[u64], target: Option<&str>) -> Result<Done, String> {
        let mut done = Done::default();
        for number in messages {
            let record = self.record(*number).await?;
            for d in record.deliveries.iter().filter(|d| d.state == DeliveryState::DeadLetter && target.is_none_or(|t| t == &*d.target)) {
                let outcome = Settlement::Skipped { reason: "given up by an operator".to_owned() };
                let settle = Settle { delivery: d.id, at: now(), program: None, outcome };
                self.journal().settle(settle).await.map_err(|e| e.to_string())?;
                // What waited behind it goes on.
                let resumed = match self {
                    Self::Running(ears) => ears.engine.resume_parked(&d.target, &d.keys).await,
                    Self::Alone(journal, _) => journal.resume_parked(&d.target, &d.keys, now()).await,
                };
                match resumed {
                    // The site has this target no more; what is parked for it stays so.
                    Ok(_) | Err(JournalError::Missing) => done.deliveries += 1,
                    Err(e) => return Err(e.to_string()),
                }
            }
        }
        tracing::info!(deliveries = done.deliveries, "skipped on request");
        Ok(done)
    }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
