//! How commands change a journal: through the running daemon's socket in the journal's folder, or with the lock when no daemon runs.
//!
//! One JSON object each way, a line each. The socket's permissions (0600, in a folder of 0700) are the whole access control.

use crate::exchange::{DeliveryId, MessageId, Timestamp};
use crate::journal::{DeliveryState, Journal, Options, Reader, Settle, Settlement};
use crate::site::words;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Request {
    /// Delete what is older than `keep`.
    Prune,
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

/// A request is a few thousand numbers at most.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// The socket in the journal's folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// Asks the daemon; does it here when none runs.
pub(crate) async fn ask_or_do(folder: &Path, request: &Request) -> Result<Done, String> {
    match UnixStream::connect(socket(folder)).await {
        Ok(stream) => ask(stream, request).await,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            // Reading first: opening to write would make a journal where there is none.
            Reader::open(folder).map_err(|e| e.to_string())?;
            let journal = Journal::open(Options::at(folder)).map_err(|e| e.to_string())?;
            let done = apply(&journal, request).await;
            journal.close().await;
            done
        }
        Err(e) => Err(format!("the daemon's socket in {} cannot be used: {}", folder.display(), words(&e))),
    }
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

/// Answers until closing.
pub(crate) async fn serve(listener: UnixListener, journal: Journal, closing: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(kind = ?words(&e), "the control socket failed");
                    return;
                }
            },
        };
        // One at a time: these are an operator's commands.
        let answered = tokio::time::timeout(std::time::Duration::from_secs(600), answer(stream, &journal)).await;
        if !matches!(answered, Ok(Ok(()))) {
            tracing::debug!("a control connection ended early");
        }
    }
}

async fn answer(stream: UnixStream, journal: &Journal) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => apply(journal, &request).await.map_or_else(Answer::Fault, Answer::Done),
        Err(_) => Answer::Fault("the request makes no sense; is the command of another version?".to_owned()),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    write.write_all(&line).await
}

async fn apply(journal: &Journal, request: &Request) -> Result<Done, String> {
    let now = Timestamp(jiff::Timestamp::now().as_millisecond());
    match request {
        Request::Prune => {
            let pruned = journal.prune(now).await.map_err(|e| e.to_string())?;
            tracing::info!(segments = pruned.segments, messages = pruned.messages, "pruned on request");
            Ok(Done { segments: pruned.segments, messages: pruned.messages, carried: pruned.carried, ..Done::default() })
        }
        Request::Replay { messages, target } => {
            let again = |s| matches!(s, DeliveryState::DeadLetter | DeliveryState::Skipped | DeliveryState::Superseded);
            let deliveries = chosen(journal, messages, target.as_deref(), again).await?;
            let replayed = journal.replay(&deliveries, now).await.map_err(|e| e.to_string())?;
            tracing::info!(deliveries = replayed, "replayed on request");
            Ok(Done { deliveries: replayed, ..Done::default() })
        }
        Request::Skip { messages, target } => {
            let deliveries = chosen(journal, messages, target.as_deref(), |s| s == DeliveryState::DeadLetter).await?;
            for delivery in &deliveries {
                let outcome = Settlement::Skipped { reason: "given up by an operator".to_owned() };
                let settle = Settle { delivery: *delivery, at: now, program: None, outcome };
                journal.settle(settle).await.map_err(|e| e.to_string())?;
            }
            tracing::info!(deliveries = deliveries.len(), "skipped on request");
            Ok(Done { deliveries: deliveries.len() as u64, ..Done::default() })
        }
    }
}

async fn chosen(journal: &Journal, messages: &[u64], target: Option<&str>, wanted: impl Fn(DeliveryState) -> bool) -> Result<Vec<DeliveryId>, String> {
    let mut found = Vec::new();
    for number in messages {
        let record = journal.show(MessageId(*number)).await.map_err(|e| format!("message {number}: {e}"))?;
        found.extend(record.deliveries.iter().filter(|d| wanted(d.state) && target.is_none_or(|t| t == &*d.target)).map(|d| d.id));
    }
    Ok(found)
}
