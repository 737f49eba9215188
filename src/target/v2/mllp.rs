//! Messages over MLLP: a pool of connections that stay open, each with one message under way, and what each kind of silence means.

use crate::hl7v2::{AckCode, AckRequest, Answer, Conditions, Draft, Header, acknowledge, wide_encoding};
use crate::target::v2::Ended;
use crate::target::v2::connection::{Heard, MllpConnection, MllpPeer, NoConnection, Silence};
use crate::target::v2::rules::{Asked, Meaning, NoWord, Rules, no_application_acknowledgement};
use crate::target::{Fault, MllpConfig, Retry, Setback};
use bytes::Bytes;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Connecting never takes longer than this, unless the site says so.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// A receiver that has so often closed a connection after its one answer gets a connection for each message: a message must not meet the close.
const CLOSES_TO_LEARN: u32 = 2;

/// The connections to one receiver. As many are open as messages were under way at once.
pub(crate) struct Pool {
    peer: MllpPeer,
    timeout: Duration,
    idle: Mutex<Vec<MllpConnection>>,
    closes_after_one: AtomicU32,
}

impl Pool {
    /// Reads certificates; connects to nothing.
    pub(crate) fn open(config: &MllpConfig) -> Result<Self, String> {
        let connect_timeout = config.connect_timeout.unwrap_or_else(|| CONNECT_WAIT_MAX.min(config.timeout / 3));
        let tls = config.tls.as_ref().map(|tls| (tls, config.tls_name.as_deref()));
        let peer = MllpPeer::open(&config.address, tls, connect_timeout)?;
        Ok(Self { peer, timeout: config.timeout, idle: Mutex::default(), closes_after_one: AtomicU32::new(0) })
    }

    pub(crate) async fn probe(&self) -> Result<(), Setback> {
        let connection = self.connection().await?;
        self.keep(connection);
        Ok(())
    }

    /// One that is open, or a new one. A connection that the receiver has closed is found out before a message is written to it.
    async fn connection(&self) -> Result<MllpConnection, Setback> {
        while let Some(mut connection) = self.take() {
            if connection.is_alive() {
                return Ok(connection);
            }
            if connection.exchanges() == 1 {
                self.closes_after_one.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.peer.connect().await.map_err(unreached)
    }

    fn take(&self) -> Option<MllpConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, mut connection: MllpConnection) {
        if self.closes_after_one.load(Ordering::Relaxed) < CLOSES_TO_LEARN && connection.is_alive() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// Sends one message and waits for what ends its delivery, as far as that comes on this connection.
    pub(crate) async fn send(&self, draft: &Draft, asked: &Asked, rules: &Rules) -> Result<Ended, Setback> {
        let message = draft.bytes.as_slice();
        if let Some(set) = wide_encoding(message) {
            let summary = format!(
                "the message is written in {set}, whose characters hold the bytes by which MLLP begins and ends a frame: send it over HTTP, or let the route write it in another set, `MSH-18: \"UNICODE UTF-8\"`"
            );
            return Err(Setback::plain(Retry::Permanent, Fault::Message, "unframeable", summary));
        }
        if message.iter().any(|byte| matches!(byte, 0x0B | 0x1C)) {
            let summary = "the message holds bytes by which MLLP begins and ends a frame (0x0B, 0x1C), so that it cannot be sent over MLLP";
            return Err(Setback::plain(Retry::Permanent, Fault::Message, "unframeable", summary));
        }
        let mut connection = self.connection().await?;
        let elsewhere = asked.application && asked.enhanced && rules.replies;
        if !asked.accept && elsewhere {
            if !connection.tell(message, self.timeout).await {
                return Err(silence(Silence::Unsent, self.timeout));
            }
            self.keep(connection);
            return Ok(Ended::Awaited(String::new()));
        }
        let own = |payload: Bytes| match Answer::read(&payload) {
            Some(answer) if answer.answers(asked.control_id.as_bytes()) => Some(Ok((answer, payload))),
            // An answer to another message: it may be late, or said twice. The own one is still to come.
            Some(_) => None,
            None => Some(Err(payload)),
        };
        let wait = if asked.accept { self.timeout } else { rules.application_wait };
        let (answer, bytes) = match connection.exchange(message, wait, own).await {
            Ok(answer) => answer.map_err(|payload| not_an_acknowledgement(&payload))?,
            Err(fault) => return Err(silence(fault, wait)),
        };
        match rules.first(&answer, asked) {
            Meaning::Done(code) => {
                self.finish(connection, &answer, &bytes).await;
                Ok(Ended::Done(code))
            }
            Meaning::Refused(setback) => {
                self.finish(connection, &answer, &bytes).await;
                Err(setback.with_answer(&bytes))
            }
            Meaning::Accepted(code) if elsewhere => {
                self.keep(connection);
                Ok(Ended::Awaited(code))
            }
            Meaning::Accepted(_) => self.second(connection, rules, own).await,
        }
    }

    /// Waits on the same connection for the application acknowledgement of a message that was accepted.
    async fn second(
        &self,
        mut connection: MllpConnection,
        rules: &Rules,
        mut own: impl FnMut(Bytes) -> Option<Result<(Answer, Bytes), Bytes>>,
    ) -> Result<Ended, Setback> {
        let application = |payload: Bytes| match own(payload)? {
            // The accept acknowledgement once more.
            Ok((answer, _)) if answer.ack_code() == Some(AckCode::CommitAccept) => None,
            taken => Some(taken),
        };
        match connection.exchange_frame(&[], rules.application_wait, application).await {
            Ok(Ok((answer, bytes))) => {
                let meaning = rules.application(&answer);
                self.finish(connection, &answer, &bytes).await;
                match meaning {
                    Meaning::Done(code) | Meaning::Accepted(code) => Ok(Ended::Done(code)),
                    Meaning::Refused(setback) => Err(setback.with_answer(&bytes)),
                }
            }
            Ok(Err(payload)) => Err(no_application_acknowledgement(&NoWord::Garbage, true).with_answer(&payload)),
            Err(Silence::TimedOut(_)) => Err(no_application_acknowledgement(&NoWord::Late(rules.application_wait), true)),
            Err(Silence::TooLong) => Err(no_application_acknowledgement(&NoWord::Garbage, true)),
            Err(Silence::Unsent | Silence::Closed(_) | Silence::Refused(_)) => Err(no_application_acknowledgement(&NoWord::Lost, true)),
        }
    }

    /// The acknowledgement may itself ask for an accept acknowledgement; then the connection is free.
    async fn finish(&self, mut connection: MllpConnection, answer: &Answer, bytes: &[u8]) {
        if !matches!(answer.ack_code(), Some(AckCode::CommitAccept | AckCode::CommitError | AckCode::CommitReject))
            && let Ok(header) = Header::read(bytes)
            && Conditions::of(&header).is_some_and(|asked| asked.accept.asks(true))
        {
            let time = jiff::Timestamp::now().strftime("%Y%m%d%H%M%S+0000").to_string();
            let control_id = uuid::Uuid::new_v4().simple().to_string().chars().take(20).collect::<String>();
            let request = AckRequest {
                header: Some(&header),
                code: AckCode::CommitAccept,
                faults: &[],
                time: &time,
                control_id: &control_id,
                application: "KILN",
                facility: "",
                conditions: None,
            };
            connection.tell(&acknowledge(&request), self.timeout).await;
        }
        self.keep(connection);
    }
}

fn unreached(reason: NoConnection) -> Setback {
    Setback::plain(Retry::Transient, Fault::Target, reason.code, reason.text)
}

fn not_an_acknowledgement(payload: &[u8]) -> Setback {
    let summary = "the answer is no acknowledgement: it has no MSA segment; whether the message was accepted is not known";
    Setback::plain(Retry::Ambiguous, Fault::Target, "ack-garbage", summary).with_answer(payload)
}

/// What silence means: nothing was done where the frame never left whole, else nobody knows.
fn silence(silence: Silence, wait: Duration) -> Setback {
    const UNKNOWN: &str = "whether the message was accepted is not known; it is sent again with the same control ID";
    let ambiguous = |code, what: String| Setback::plain(Retry::Ambiguous, Fault::Target, code, format!("{what}: {UNKNOWN}"));
    let instead = |heard: Heard, end: &str| match heard {
        Heard { frames: 1.., .. } => {
            Some(("ack-other", format!("{end}, but {} for other messages (MSA-2 is not this MSH-10)", acknowledgements(heard.frames))))
        }
        Heard { unframed_bytes: 1.., .. } => {
            Some(("ack-unframed", format!("{end}, but {} bytes that are not framed as MLLP (0x0B ... 0x1C 0x0D)", heard.unframed_bytes)))
        }
        Heard { .. } => None,
    };
    match silence {
        Silence::Refused(reason) => unreached(reason),
        Silence::Unsent => Setback::plain(Retry::Transient, Fault::Target, "connection-lost", "the connection ended before the message was sent whole"),
        Silence::Closed(heard) => {
            let (code, what) = instead(heard, "the connection was closed without an answer")
                .unwrap_or(("connection-lost", "the connection was closed without an answer".to_owned()));
            ambiguous(code, what)
        }
        Silence::TimedOut(heard) => {
            let none = format!("no answer within {wait:?}");
            let (code, what) = instead(heard, &none).unwrap_or(("timeout", none.clone()));
            ambiguous(code, what)
        }
        Silence::TooLong => ambiguous("answer-too-long", "the answer is longer than 1 MiB".to_owned()),
    }
}

fn acknowledgements(count: u32) -> String {
    if count == 1 { "an acknowledgement".to_owned() } else { format!("{count} acknowledgements") }
}
