//! How the writer answers: after a commit, after a fault, and when it can answer no more.

use crate::exchange::InRow;
use crate::journal::query::JournalError;
use crate::journal::queue::{Board, Command, Queue, Reply};
use crate::journal::schema::Trouble;
use crate::journal::{AppendFault, SettleFault, Stored};
use std::sync::Arc;

/// An answer that waits for a commit.
pub(in crate::journal) enum Answer {
    Stored(Reply<Stored, AppendFault>, Stored, Option<InRow>),
    Settled(Reply<(), SettleFault>),
}

impl Answer {
    pub(in crate::journal) fn done(self) {
        match self {
            Self::Stored(reply, stored, _) => answer(reply, Ok(stored)),
            Self::Settled(reply) => answer(reply, Ok(())),
        }
    }

    pub(in crate::journal) fn failed(self, trouble: Trouble) {
        let (append, settle) = match trouble {
            Trouble::Full => (AppendFault::Full, SettleFault::Full),
            Trouble::Failing => (AppendFault::Failing, SettleFault::Failing),
        };
        match self {
            Self::Stored(reply, _, row) => {
                row.iter().for_each(InRow::break_off);
                answer(reply, Err(append));
            }
            Self::Settled(reply) => answer(reply, Err(settle)),
        }
    }
}

/// If the thread should die of a mistake of ours, nobody may wait for it for ever.
pub(in crate::journal) struct Guard {
    pub(in crate::journal) queue: Arc<Queue>,
    pub(in crate::journal) board: Arc<Board>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.board.fail();
        }
        self.queue.close().into_iter().for_each(|command| refuse(command, Some(Trouble::Failing)));
    }
}

/// Sends an answer; who no longer waits does not need it.
pub(in crate::journal) fn answer<T, E>(reply: Reply<T, E>, result: Result<T, E>) {
    let _ = reply.send(result);
}

/// Answers a command that will not be done.
pub(in crate::journal) fn refuse(command: Command, trouble: Option<Trouble>) {
    let (append, settle, other) = match trouble {
        None => (AppendFault::Closed, SettleFault::Closed, JournalError::Closed),
        Some(Trouble::Full) => (AppendFault::Full, SettleFault::Full, JournalError::Full),
        Some(Trouble::Failing) => (AppendFault::Failing, SettleFault::Failing, JournalError::Failing),
    };
    match command {
        Command::Append(_, reply) => answer(reply, Err(append)),
        Command::Settle(_, reply) | Command::Tell(_, reply) | Command::Keep(_, reply) => answer(reply, Err(settle)),
        Command::Resume(_, _, _, reply) | Command::Replay(_, _, reply) | Command::Known(_, _, reply) => answer(reply, Err(other)),
        Command::Edit(_, _, reply) | Command::Unknown(_, reply) | Command::Site(_, _, reply) => answer(reply, Err(other)),
        Command::Add(_, _, reply) => answer(reply, Err(other)),
        Command::Program(_, _, reply) => answer(reply, Err(other)),
        Command::Prune(_, reply) => answer(reply, Err(other)),
        Command::Fold(..) | Command::Close => {}
    }
}
