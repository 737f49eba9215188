//! A connection to a sender's own address, by which it is told what it is owed.

use crate::exchange::ControlId;
use crate::hl7v2::{Acknowledged, Header};
use crate::wire::Mllp;
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a peer may take to read what it is sent.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long it may take to close its side after ours.
const LINGER: Duration = Duration::from_secs(1);
/// The longest answer that is read, in bytes: an acknowledgement is a few hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// Why a peer was not told, in words without patient data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerFault {
    #[error("{0} cannot be reached ({1})")]
    Connect(String, String),
    #[error("the connection was closed before it had been answered")]
    Closed,
    #[error("no acknowledgement came in time")]
    Late,
    #[error("what came back is no acknowledgement")]
    Garbage,
    #[error("it was answered {0}")]
    Refused(&'static str),
}

impl PeerFault {
    /// True if it is about this one acknowledgement; else about the way there.
    pub(super) fn is_of_the_message(&self) -> bool {
        matches!(self, PeerFault::Refused(_))
    }
}

/// An open connection.
pub(super) struct Peer {
    stream: TcpStream,
    mllp: Mllp,
    buffer: BytesMut,
}

impl Peer {
    /// Connects to `host:port`.
    pub(super) async fn connect(address: &str) -> Result<Self, PeerFault> {
        let fault = |why: String| PeerFault::Connect(address.to_owned(), why);
        match timeout(CONNECT_WAIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Only a matter of milliseconds; without it everything works too.
                let _ = stream.set_nodelay(true);
                Ok(Self { stream, mllp: Mllp::new(ANSWER_BYTES_MAX), buffer: BytesMut::new() })
            }
            Ok(Err(error)) => Err(fault(crate::site::words(&error))),
            Err(_) => Err(fault("it takes too long".to_owned())),
        }
    }

    /// Sends a payload in a frame.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), PeerFault> {
        let mut out = BytesMut::new();
        Mllp::write_frame(payload, &mut out);
        match timeout(WRITE_WAIT, self.stream.write_all_buf(&mut out)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(PeerFault::Closed),
            Err(_) => Err(PeerFault::Late),
        }
    }

    /// Waits until what has this MSH-10 is accepted. Answers to other messages are passed over: one that was too late may come now.
    pub(super) async fn accepted(&mut self, control_id: &str, wait: Duration) -> Result<(), PeerFault> {
        let deadline = Instant::now() + wait;
        loop {
            while let Some(frame) = self.mllp.next_frame(&mut self.buffer).map_err(|_| PeerFault::Garbage)? {
                let answer = Header::read(&frame.payload).ok().and_then(|header| Acknowledged::read(&frame.payload, &header));
                match answer {
                    Some(Acknowledged { code: Some(code), control_id: ControlId(id) }) if id == control_id => {
                        return if code.is_positive() { Ok(()) } else { Err(PeerFault::Refused(code.name())) };
                    }
                    Some(Acknowledged { control_id: ControlId(id), .. }) if id != control_id => {}
                    _ => return Err(PeerFault::Garbage),
                }
            }
            match timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0) | Err(_)) => return Err(PeerFault::Closed),
                Ok(Ok(_)) => {}
                Err(_) => return Err(PeerFault::Late),
            }
        }
    }

    /// Closes this side, and gives the peer a moment to close its own. A reset says that it did not read what it was sent; silence says nothing.
    pub(super) async fn finish(mut self) -> Result<(), PeerFault> {
        self.stream.shutdown().await.map_err(|_| PeerFault::Closed)?;
        let mut scratch = [0; 4_096];
        let rest = async {
            while self.stream.read(&mut scratch).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        match timeout(LINGER, rest).await {
            Ok(Err(_)) => Err(PeerFault::Closed),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}
