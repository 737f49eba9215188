//! The way from `kiln import` to the daemon: by its control socket, a line of JSON and then the bytes for each message, and a line for each answer.

use crate::cli::control::Request;
use crate::engine::{Engine, FromFile};
use crate::exchange::{MessageId, Phi, Row};
use crate::hl7v2::Answer;
use crate::listener::Reply;
use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::coop::unconstrained;

/// Messages that the daemon has at once.
const IN_FLIGHT_MAX: usize = 16;
/// A line of JSON is no longer.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What the daemon says first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Why it takes nothing.
    pub(super) fault: Option<String>,
    /// The newest message of the journal.
    pub(super) newest: u64,
    /// The longest message that the listener takes, in bytes.
    pub(super) message_bytes_max: usize,
    /// What it has of these files since the import was noted last.
    pub(super) taken: Vec<TakenBefore>,
}

/// A message that is stored already.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TakenBefore {
    pub(super) source: String,
    pub(super) number: u64,
    pub(super) refused: bool,
}

/// A message; its bytes follow the line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) source: String,
    pub(super) number: u64,
    pub(super) bytes: usize,
    pub(super) oversize: bool,
}

/// What became of one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answered {
    /// MSA-1; empty if it is not answered, since it is an acknowledgement itself.
    pub(super) code: String,
    /// Why it was refused.
    pub(super) reason: String,
    /// The newest message of the journal then.
    pub(super) newest: u64,
    /// True if it could not be stored, and nothing more is taken.
    pub(super) closed: bool,
}

/// The client's side.
pub(super) struct Link {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: BufWriter<OwnedWriteHalf>,
}

impl Link {
    /// Connects, and asks what is there of the files whose names begin so.
    pub(super) async fn open(socket: &Path, listener: &str, files: &str, since: Option<u64>) -> Result<(Self, Hello), String> {
        let stream = UnixStream::connect(socket).await.map_err(|_| "no daemon runs on this journal; start it with `kiln serve`".to_owned())?;
        let (read, write) = stream.into_split();
        let mut link = Self { lines: BufReader::new(read).lines(), write: BufWriter::new(write) };
        let request = Request::Import { listener: listener.to_owned(), files: files.to_owned(), since };
        send(&mut link.write, &request).await.map_err(|_| GONE.to_owned())?;
        let hello: Hello = link.line().await?;
        match hello.fault {
            Some(fault) => Err(fault),
            None => Ok((link, hello)),
        }
    }

    async fn line<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, String> {
        let line = self.lines.next_line().await.ok().flatten().ok_or_else(|| GONE.to_owned())?;
        serde_json::from_str(&line).map_err(|_| "the daemon's answer makes no sense; is it of another version?".to_owned())
    }

    /// The answer to the first message that has none. May be dropped while it waits.
    pub(super) async fn answer(&mut self) -> Result<Answered, String> {
        self.line().await
    }

    /// Hands a message over.
    pub(super) async fn offer(&mut self, offer: &Offer, bytes: &[u8]) -> Result<(), String> {
        let sent = async {
            let mut line = serde_json::to_vec(offer)?;
            line.push(b'\n');
            self.write.write_all(&line).await?;
            self.write.write_all(bytes).await?;
            self.write.flush().await
        };
        sent.await.map_err(|_: std::io::Error| GONE.to_owned())
    }
}

const GONE: &str = "the daemon stopped before it answered";

async fn send(write: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    write.flush().await
}

/// Imports that the daemon takes, each for itself: whoever takes up an archive waits until what an earlier command handed over is stored.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Turns {
    async fn of(&self, listener: &str, files: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(format!("{listener}\n{files}")).or_default())
        };
        turn.lock_owned().await
    }
}

/// The daemon's side: takes messages until the client has no more, or goes away. What was taken stays.
pub(crate) async fn answer(
    mut read: impl AsyncBufRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    engine: &Engine,
    turns: &Turns,
    (listener, files, since): (&str, &str, Option<u64>),
) -> std::io::Result<()> {
    let _turn = turns.of(listener, files).await;
    let Some(message_bytes_max) = engine.message_bytes_max(listener) else {
        let hello = Hello { fault: Some(format!("the daemon has no listener `{listener}`")), ..Hello::default() };
        return send(&mut write, &hello).await;
    };
    let taken = match since {
        None => Some(Vec::new()),
        Some(since) => engine.taken(listener, files, MessageId(since)).await,
    };
    let Some(taken) = taken else {
        let hello = Hello { fault: Some("the journal cannot be read".to_owned()), ..Hello::default() };
        return send(&mut write, &hello).await;
    };
    let taken = taken.into_iter().map(|(source, t)| TakenBefore { source, number: t.number, refused: t.refused }).collect();
    send(&mut write, &Hello { fault: None, newest: engine.journal().newest().0, message_bytes_max, taken }).await?;
    let (offers, mut offered) = mpsc::channel(1);
    // Once one could not be stored nothing more is taken, so that none overtakes it.
    let row = Arc::<Row>::default();
    // Half a line must not be lost because an answer is due meanwhile: both sides go on by themselves.
    let reading = async {
        while let Some(message) = next_offer(&mut read, message_bytes_max, &row).await? {
            if offers.send(message).await.is_err() {
                break;
            }
        }
        drop(offers);
        Ok::<(), std::io::Error>(())
    };
    let answering = async {
        let mut replies = FuturesOrdered::new();
        // What was handed over comes to its end, also when nobody wants to hear of it: who comes next is to find it in the journal.
        let (mut ended, mut broken) = (false, None);
        // The next message waits for room by itself: of several that wait, any may be the first to hear of it.
        let mut next = None;
        loop {
            tokio::select! {
                biased;
                Some(reply) = replies.next(), if !replies.is_empty() => if broken.is_none() {
                    let answered = answered(reply, engine);
                    let sent = send(&mut write, &answered).await;
                    broken = sent.err().or_else(|| answered.closed.then(|| std::io::ErrorKind::ConnectionAborted.into()));
                    if broken.is_some() {
                        (ended, next) = (true, None);
                        offered.close();
                    }
                },
                () = engine.room(listener), if next.is_some() => {
                    replies.extend(next.take().map(|message| unconstrained(engine.take(listener, message))));
                }
                message = offered.recv(), if !ended && next.is_none() && replies.len() < IN_FLIGHT_MAX => match message {
                    None => ended = true,
                    message => next = message,
                },
                else => return broken.map_or(Ok(()), Err),
            }
        }
    };
    tokio::pin!(answering);
    let read = tokio::select! {
        answered = &mut answering => return answered,
        read = reading => read,
    };
    answering.await.and(read)
}

fn answered(reply: Option<Reply>, engine: &Engine) -> Answered {
    let newest = engine.journal().newest().0;
    let acks = match reply {
        Some(Reply::Ack(ack)) => vec![ack],
        Some(Reply::Acks(all)) => all,
        Some(Reply::Silent) => Vec::new(),
        Some(Reply::Close) | None => return Answered { newest, closed: true, ..Answered::default() },
    };
    // One message has one answer; should it hold several after all, what was refused tells.
    let Some(ack) = acks.iter().reduce(|one, other| if one.code.worse(other.code) == one.code { one } else { other }) else {
        return Answered { newest, ..Answered::default() };
    };
    let answer = Answer::read(ack.bytes.expose()).unwrap_or_default();
    let text = answer.errors.first().map_or(answer.text, |e| format!("{} {}", e.code, e.text));
    let code = ack.code.name();
    Answered { reason: format!("{code} {text}").trim().to_owned(), code: code.to_owned(), newest, closed: false }
}

/// The next message; `None` if the client has no more.
async fn next_offer(read: &mut (impl AsyncBufRead + Unpin), message_bytes_max: usize, row: &Arc<Row>) -> std::io::Result<Option<FromFile>> {
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut line = String::new();
    if (&mut *read).take(LINE_BYTES_MAX).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let offer: Offer = serde_json::from_str(&line).map_err(|_| broken())?;
    if offer.bytes > message_bytes_max {
        return Err(broken());
    }
    let mut bytes = vec![0; offer.bytes];
    read.read_exact(&mut bytes).await?;
    let file = Phi::new(offer.source.into());
    Ok(Some(FromFile { file, number: offer.number, bytes: Bytes::from(bytes), oversize: offer.oversize, row: Arc::clone(row) }))
}
