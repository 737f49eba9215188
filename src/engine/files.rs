//! Messages that come from files by way of a listener: handed over by whoever reads the file, and found again after an interruption.

use crate::engine::Engine;
use crate::engine::intake::Gate;
use crate::exchange::{MessageId, Phi, Row};
use crate::listener::{Intake, Peer, Received, Reply, Taken};
use bytes::Bytes;
use std::sync::Arc;

/// One message of a file.
pub struct FromFile {
    /// The file's name, as the journal is to have it.
    pub file: Phi<Arc<str>>,
    /// Which of its messages, from 1.
    pub number: u64,
    /// The message; only its beginning if it is longer than the listener takes.
    pub bytes: Bytes,
    /// True if it is longer.
    pub oversize: bool,
    /// What it has in common with the others that are handed over meanwhile.
    pub row: Arc<Row>,
}

impl Engine {
    fn gate(&self, listener: &str) -> Option<Arc<Gate>> {
        self.doors().iter().find(|door| *door.name() == *listener).map(|door| Arc::clone(&door.gate))
    }

    /// The longest message that a listener takes, in bytes; `None` without such a listener.
    pub fn message_bytes_max(&self, listener: &str) -> Option<usize> {
        self.doors().iter().find(|door| *door.name() == *listener).map(|door| door.site.socket.frame_bytes_max)
    }

    /// Takes a message as if it had come in by the listener; `None` without such a listener.
    pub async fn take(&self, listener: &str, message: FromFile) -> Option<Reply> {
        let gate = self.gate(listener)?;
        let received = Received {
            listener: listener.into(),
            peer: Peer::File { name: message.file, number: message.number },
            received: crate::engine::shared::now(),
            bytes: Phi::new(message.bytes),
            oversize: message.oversize,
            back: None,
            charset: None,
            row: Some(message.row),
        };
        Some(gate.take(received).await)
    }

    /// Returns when a listener has room, at once without such a listener.
    pub async fn room(&self, listener: &str) {
        if let Some(gate) = self.gate(listener) {
            gate.room().await;
        }
    }

    /// Which messages of the files whose names begin with `files` a listener stored after `since`: name, number, and whether it was refused.
    /// `None` if the journal cannot be read.
    pub async fn taken(&self, listener: &str, files: &str, since: MessageId) -> Option<Vec<(String, Taken)>> {
        let peers = self.shared.journal.peers_after(since, listener, files).await.ok()?;
        Some(peers.iter().filter_map(|(peer, refused)| taken(peer, *refused)).collect())
    }
}

/// File, number and fate of a message, from its peer.
pub(super) fn taken(peer: &str, refused: bool) -> Option<(String, Taken)> {
    let (file, number) = Peer::read_file(peer)?;
    Some((file.to_owned(), Taken { number, refused }))
}
