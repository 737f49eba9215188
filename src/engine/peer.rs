//! What is said to a sender at its own address, and what its answer means.

use crate::hl7v2::{AckCode, Answer};
use crate::target::{MllpConnection, MllpPeer, NoConnection, Silence};
use std::time::Duration;

/// How long connecting may take, TLS included.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a peer may take to read what it is sent.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long it may take to close its side after ours.
const LINGER: Duration = Duration::from_secs(1);

/// Why a peer was not told, in words without patient data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerFault {
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
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

/// Opens a connection.
pub(super) async fn connect(peer: &MllpPeer) -> Result<MllpConnection, PeerFault> {
    peer.connect().await.map_err(|NoConnection { text, .. }| PeerFault::Unreachable(peer.address().to_owned(), text))
}

/// Sends an acknowledgement with this MSH-10, and waits until it is accepted. Answers to others are passed over: one that was too late may come now.
pub(super) async fn ask(connection: &mut MllpConnection, bytes: &[u8], control_id: &str, wait: Duration) -> Result<(), PeerFault> {
    let take = |frame: bytes::Bytes| match Answer::read(&frame) {
        None => Some(Err(PeerFault::Garbage)),
        Some(answer) if !answer.answers(control_id.as_bytes()) => None,
        Some(answer) => Some(match answer.ack_code() {
            Some(code) if code.is_positive() => Ok(()),
            Some(code) => Err(PeerFault::Refused(AckCode::name(code))),
            None => Err(PeerFault::Garbage),
        }),
    };
    match connection.exchange(bytes, wait, take).await {
        Ok(answered) => answered,
        Err(Silence::Unsent | Silence::Closed(_)) => Err(PeerFault::Closed),
        Err(Silence::Refused(NoConnection { text, .. })) => Err(PeerFault::Unreachable("the sender".to_owned(), text)),
        Err(Silence::TimedOut(_)) => Err(PeerFault::Late),
        Err(Silence::TooLong) => Err(PeerFault::Garbage),
    }
}

/// Sends acknowledgements that nobody answers, and closes. A peer that resets the connection has not read them; one that says nothing may have.
pub(super) async fn tell(mut connection: MllpConnection, all: impl Iterator<Item = &[u8]>) -> Result<(), PeerFault> {
    for bytes in all {
        if !connection.tell(bytes, WRITE_WAIT).await {
            return Err(PeerFault::Closed);
        }
    }
    if connection.finish(LINGER).await { Ok(()) } else { Err(PeerFault::Closed) }
}
