//! How commands change a journal: through the running daemon's socket in the journal's folder, or with the lock when no daemon runs.
//!
//! One JSON object each way, a line each. The socket's permissions (0600, in a folder of 0700) are the whole access control.

use crate::cli::control_changes;
use crate::cli::import;
use crate::console::Watch;
use crate::engine::Engine;
use crate::hl7v2::ParseOptions;
use crate::journal::{Journal, Options, Reader};
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
    Replay(ReplayRequest),
    /// Take messages of an archive; they follow, and their answers come one by one.
    Import {
        /// The listener that takes them.
        listener: String,
        /// How the names of the archive's files begin in the journal.
        files: String,
        /// The newest message when the import was noted last; `None` if it begins.
        since: Option<u64>,
    },
    /// Give dead letters up.
    Skip(ReplayRequest),
    /// Forget unknown codes that are known now.
    Known {
        /// A table; `None` for the naming systems.
        table: Option<String>,
        /// The codes.
        codes: Vec<String>,
    },
}

/// Which deliveries an operator means, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReplayRequest {
    /// The messages, each once.
    pub items: Vec<Item>,
    /// Only to this target.
    pub target: Option<String>,
    /// Who wishes it.
    pub by: String,
    /// By the route set of their first attempt, not by that of the day.
    pub as_received: bool,
    /// What becomes of those behind which later messages were delivered.
    pub superseded: Superseded,
    /// What the one message is to be, in Base64.
    pub edit: Option<String>,
}

/// A message that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its number.
    pub message: u64,
    /// Only these of its deliveries; `None` for all that were given up.
    pub deliveries: Option<Vec<u16>>,
}

/// What a replay does with a delivery behind which later ones of the same patient, visit or order were delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Superseded {
    /// Leaves it out, and marks it as superseded
    #[default]
    Skip,
    /// Sends it all the same, over the newer state
    Send,
    /// Sends it, and after it everything later of the same keys once more, in order
    Key,
}

/// A delivery behind which later ones were delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overridden {
    /// Its message.
    pub message: u64,
    /// Its target.
    pub target: String,
    /// How many later messages were delivered.
    pub later: u64,
    /// The newest of them.
    pub newest: u64,
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
    /// Deliveries behind which later ones were delivered: left out, or sent all the same, as was wished.
    pub superseded: Vec<Overridden>,
}

/// Somebody asks the daemon for a reload and wants to hear what changed, or why nothing did.
pub(crate) type Ask = oneshot::Sender<Result<Vec<String>, String>>;

/// What the daemon's side of the socket needs.
#[derive(Clone)]
pub(crate) struct ControlContext {
    /// What is changed.
    pub engine: Arc<Engine>,
    /// Where reloads are asked for.
    pub reloads: mpsc::Sender<Ask>,
    /// How the last one went.
    pub watch: Arc<Watch>,
    /// Imports that are being taken.
    pub imports: import::Turns,
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
/// A request is a hundred thousand numbers at most, or one edited message.
const REQUEST_BYTES_MAX: u64 = 128 << 20;

/// The socket in the journal's folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// What of a site decides how its journal is changed.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// How old a settled message must be to go.
    pub keep: Option<Duration>,
    /// How large the journal may be before the oldest go.
    pub keep_bytes: Option<u64>,
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
                (_, Some(keep)) => (options.keep, options.keep_bytes) = (keep, rules.keep_bytes),
                // The default may be shorter than what the site promises to keep.
                (Request::Prune, None) => return Err("how long to keep is in the site file: say --config FILE".to_owned()),
                (_, None) => {}
            }
            let journal = Journal::open(options).map_err(|e| e.to_string())?;
            let done = control_changes::JournalAccess::Alone(&journal, rules).apply(request).await;
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
pub(crate) async fn serve(listener: UnixListener, context: ControlContext, closing: CancellationToken) {
    let mut connections = JoinSet::new();
    let turn = Arc::new(Mutex::new(()));
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (context, turn) = (context.clone(), Arc::clone(&turn));
                    connections.spawn(async move {
                        if !matches!(answer(stream, &context, &turn).await, Ok(())) {
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

async fn answer(stream: UnixStream, context: &ControlContext, turn: &Mutex<()>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut request = BufReader::new(read.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(REQUEST_TIME_MAX, request.read_line(&mut line)).await??;
    let request_read = serde_json::from_str::<Request>(&line);
    if let Ok(Request::Import { listener, files, since }) = &request_read {
        // Nothing was sent behind the request: the client waits for its answer first. It may take hours, and holds up nobody.
        let read = BufReader::new(request.into_inner().into_inner());
        return import::answer(read, write, &context.engine, &context.imports, (listener, files, *since)).await;
    }
    let answer = match request_read {
        Ok(Request::Status) => Answer::Done(Done { said: context.watch.routes().last_reload_error.into_iter().collect(), ..Done::default() }),
        Ok(request) => {
            // Whoever is silent holds up nobody; what changes the journal goes one after the other.
            let change = async {
                let _turn = turn.lock().await;
                control_changes::JournalAccess::Running(context).apply(&request).await
            };
            tokio::time::timeout(PATIENCE, change).await?.map_or_else(Answer::Fault, Answer::Done)
        }
        Err(_) => Answer::Fault("the request makes no sense; is the command of another version?".to_owned()),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    write.write_all(&line).await
}
