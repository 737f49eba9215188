//! The way back: what is sent on an open connection without having been asked for there, such as the application acknowledgement of enhanced mode.

use crate::exchange::Phi;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// How many frames may wait to be sent on one connection; whoever has more waits for a place.
const WAITING_MAX: usize = 16;

/// One connection. Cheap to clone; holding it does not keep the connection open.
#[derive(Clone, Debug)]
pub struct Line {
    number: u64,
    frames: mpsc::Sender<Push>,
}

/// A message's place on its connection.
#[derive(Clone, Debug)]
pub struct WayBack {
    /// The connection.
    pub line: Line,
    /// How many frames came by it, up to and with this message's: its own answer leaves before anything that is sent after them.
    pub frames: u64,
}

/// A frame that waits to be sent.
pub(super) struct Push {
    /// Not before so many frames of this connection have been answered.
    pub(super) after: u64,
    pub(super) bytes: Phi<Bytes>,
    /// Is told when the system has taken it.
    pub(super) sent: oneshot::Sender<()>,
}

/// The connection is closed: nothing was sent, or nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct LineClosed;

impl Line {
    pub(super) fn new() -> (Self, mpsc::Receiver<Push>) {
        let (frames, waiting) = mpsc::channel(WAITING_MAX);
        (Self { number: next_number(), frames }, waiting)
    }

    /// Its number. No other connection has it, also none of an earlier or later process on this machine, as long as the clock goes forward.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// False once nothing can be sent by it any more.
    pub fn is_open(&self) -> bool {
        !self.frames.is_closed()
    }

    /// Sends a payload in a frame once `after` frames of this connection have been answered, and waits until the system has taken it.
    pub async fn send(&self, after: u64, bytes: Phi<Bytes>) -> Result<(), LineClosed> {
        let (sent, taken) = oneshot::channel();
        self.frames.send(Push { after, bytes, sent }).await.map_err(|_| LineClosed)?;
        taken.await.map_err(|_| LineClosed)
    }
}

/// Begins with the time of the first one in milliseconds and leaves room for a million a second.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0) << 10;
    let following = |last: u64| Some(now.max(last + 1));
    NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, following).map_or(now, |last| now.max(last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_never_come_again_and_a_closed_line_says_so() {
        let lines: Vec<_> = (0..5_000).map(|_| Line::new()).collect();
        let numbers: std::collections::BTreeSet<_> = lines.iter().map(|(line, _)| line.number()).collect();
        assert_eq!(numbers.len(), lines.len());
        let (line, waiting) = Line::new();
        assert!(line.is_open());
        drop(waiting);
        assert!(!line.is_open());
        assert_eq!(line.send(0, Phi::new(Bytes::new())).await, Err(LineClosed));
    }
}
