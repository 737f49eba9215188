//! A frame that holds several messages: a file, a batch, or messages in a row. Each is judged, stored and answered for itself.

use crate::engine::acknowledgement::{Own, hl7_time};
use crate::engine::shared::now;
use crate::exchange::Phi;
use crate::hl7v2::{AckCode, BatchItem, Closed, Fault, Header, Wrapper, WrapperAnswer, wrap_answer};
use crate::listener::{Ack, Reply};
use crate::site::BatchAnswer;
use std::collections::VecDeque;

/// What became of one message.
pub(super) struct Answered {
    /// What is sent back.
    pub(super) reply: Reply,
    /// True if it is what a question asked for, and not an acknowledgement.
    pub(super) is_asked_for: bool,
}

/// What the frame holds, and in which way its answer is put together.
pub(super) struct BatchReply<'a> {
    /// Its items, in order.
    pub(super) items: &'a [BatchItem],
    /// `batch:`.
    pub(super) manner: BatchAnswer,
    /// Who answers where no header says to whom.
    pub(super) own: &'a Own,
}

impl BatchReply<'_> {
    /// Puts the answers of the messages together, in their order. If one message could not be stored, there is no answer at all: the sender sends the
    /// whole again, and what was stored of it is known then.
    pub(super) fn assemble(&self, answered: Vec<Answered>) -> Reply {
        if answered.iter().any(|one| matches!(one.reply, Reply::Close)) {
            return Reply::Close;
        }
        let messages = answered.len();
        let mut acks: VecDeque<(Vec<Ack>, bool)> = answered.into_iter().map(|one| (acks_of(one.reply), one.is_asked_for)).collect();
        let are_answers = messages > 0 && acks.iter().all(|(acks, _)| acks.is_empty());
        let code = acks.iter().flat_map(|(acks, _)| acks).fold(AckCode::ApplicationAccept, |worst, ack| worst.worse(ack.code));
        let has_wrapper = self.items.iter().any(|item| matches!(item, BatchItem::Opened(..) | BatchItem::Closed(_)));
        match self.manner {
            // A batch of acknowledgements is not acknowledged.
            _ if are_answers => Reply::Silent,
            BatchAnswer::All | BatchAnswer::Errors if has_wrapper => Reply::Ack(Ack { bytes: Phi::new(self.wrapped(&mut acks).into()), code }),
            _ => Reply::Acks(acks.into_iter().flat_map(|(acks, _)| acks).collect()),
        }
    }

    fn wrapped(&self, acks: &mut VecDeque<(Vec<Ack>, bool)>) -> Vec<u8> {
        let mut out = Parts::default();
        for item in self.items {
            match item {
                BatchItem::Opened(..) => {}
                BatchItem::Message(_) | BatchItem::Stray(_) => {
                    let (acks, is_asked_for) = acks.pop_front().unwrap_or_default();
                    for ack in acks {
                        // What a question asked for is never left out.
                        if self.manner == BatchAnswer::All || is_asked_for || !ack.code.is_positive() {
                            out.acks += 1;
                            out.loose.extend_from_slice(ack.bytes.expose());
                        }
                    }
                }
                BatchItem::Closed(closed) => {
                    let faults: Vec<Fault> = closed.flaws.iter().map(|flaw| flaw.fault(closed.wrapper)).collect();
                    out.close(closed, |header, count, inner| self.wrap(closed.wrapper, header, count, &faults, inner));
                }
            }
        }
        // Batches without a file around, and messages after the last wrapper's end.
        out.done.append(&mut out.batches);
        out.done.append(&mut out.loose);
        out.done
    }

    fn wrap(&self, wrapper: Wrapper, header: Option<&Header>, count: usize, faults: &[Fault], inner: &[u8]) -> Vec<u8> {
        let at = now();
        let (time, control_id) = (hl7_time(at), format!("K{}{}", wrapper.header(), at.0));
        let answer =
            WrapperAnswer { header, count, faults, time: &time, control_id: &control_id, application: &self.own.application, facility: &self.own.facility };
        wrap_answer(wrapper, &answer, inner)
    }
}

fn acks_of(reply: Reply) -> Vec<Ack> {
    match reply {
        Reply::Ack(ack) => vec![ack],
        Reply::Acks(all) => all,
        Reply::Silent | Reply::Close => Vec::new(),
    }
}

/// An answer that grows.
#[derive(Default)]
struct Parts {
    /// What no wrapper is around any more.
    done: Vec<u8>,
    /// Batches of the file that is not closed yet, and how many.
    batches: Vec<u8>,
    batch_count: usize,
    /// Acknowledgements that no batch is around yet, and how many.
    loose: Vec<u8>,
    acks: usize,
}

impl Parts {
    fn close(&mut self, closed: &Closed, wrap: impl FnOnce(Option<&Header>, usize, &[u8]) -> Vec<u8>) {
        let header = closed.header.as_deref();
        match closed.wrapper {
            Wrapper::Batch => {
                let inner = std::mem::take(&mut self.loose);
                self.batches.extend(wrap(header, std::mem::take(&mut self.acks), &inner));
                self.batch_count += 1;
            }
            Wrapper::File => {
                // Acknowledgements of messages that no BHS heads stand in the file as those did.
                let mut inner = std::mem::take(&mut self.batches);
                let count = std::mem::take(&mut self.batch_count) + usize::from(std::mem::take(&mut self.acks) > 0);
                inner.append(&mut self.loose);
                self.done.extend(wrap(header, count, &inner));
            }
        }
    }
}
