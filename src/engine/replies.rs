//! Application acknowledgements of what Kiln sent, that come to one of its listeners: each finds the delivery of its MSA-2.
//!
//! Never settles anything: the delivery's next attempt does, with the answer at hand.

use crate::exchange::DeliveryId;
use crate::hl7v2::Answer;
use crate::target::{Sent, Stage};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Answers that nobody expects (yet) are kept, the newest of them: one may be quicker than the news that it is expected.
const UNCLAIMED_MAX: usize = 1_000;
/// Of their texts so much is kept.
const UNCLAIMED_BYTES_MAX: usize = 4 << 20;
/// How long whoever brought an answer waits for what it ends to be stored.
const SETTLE_WAIT: Duration = Duration::from_secs(5);

/// The answers of one target.
#[derive(Default)]
pub(super) struct Replies {
    state: Mutex<State>,
    news: Notify,
    settled: Notify,
}

#[derive(Default)]
struct State {
    /// By MSH-10 of what was sent.
    expected: HashMap<String, Vec<DeliveryId>>,
    /// The control IDs that a delivery waits for.
    waiting: HashMap<DeliveryId, Vec<String>>,
    answers: HashMap<DeliveryId, Vec<Answer>>,
    /// With when each came, the oldest first.
    unclaimed: VecDeque<(Instant, Answer)>,
    unclaimed_bytes: usize,
    answered: Vec<DeliveryId>,
    /// Since when something of a delivery may have left; `None`: since before this process.
    begun: HashMap<DeliveryId, Option<Instant>>,
}

impl State {
    /// Keeps an answer that nobody expects; the oldest make room for it.
    fn keep(&mut self, answer: Answer) {
        self.unclaimed_bytes += bytes(&answer);
        self.unclaimed.push_back((Instant::now(), answer));
        while (self.unclaimed.len() > UNCLAIMED_MAX || self.unclaimed_bytes > UNCLAIMED_BYTES_MAX)
            && let Some((_, oldest)) = self.unclaimed.pop_front()
        {
            self.unclaimed_bytes -= bytes(&oldest);
        }
    }

    /// Takes out what answers a control ID. What is too old to be meant goes, and is not given.
    fn claim(&mut self, control_id: &str, since: Option<Instant>) -> Vec<Answer> {
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unclaimed).into_iter().partition(|(_, a)| a.answers(control_id.as_bytes()));
        self.unclaimed = others.into();
        self.unclaimed_bytes -= own.iter().map(|(_, answer)| bytes(answer)).sum::<usize>();
        own.into_iter().filter(|(came, _)| since.is_none_or(|since| *came >= since)).map(|(_, answer)| answer).collect()
    }
}

/// About what an answer takes in memory.
fn bytes(answer: &Answer) -> usize {
    let errors = answer.errors.iter().map(|e| size_of_val(e) + e.location.len() + e.code.len() + e.severity.len() + e.text.len());
    size_of_val(answer) + answer.code.len() + answer.control_id.len() + answer.text.len() + errors.sum::<usize>()
}

impl Replies {
    /// An attempt at a delivery begins; only the first one is noted. `tried`: it is not the first since the delivery was made or replayed.
    pub(super) fn begin(&self, delivery: DeliveryId, tried: bool) {
        self.lock().begun.entry(delivery).or_insert_with(|| (!tried).then(Instant::now));
    }

    /// A delivery waits for the answers to these messages. True if one of them is there already. What came before the delivery
    /// began ([`Self::begin`]) answers something else that had the same control ID.
    pub(super) fn expect(&self, delivery: DeliveryId, sent: &[Sent]) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let since = state.begun.get(&delivery).copied().flatten();
        let mut found = false;
        for (n, awaited) in sent.iter().enumerate().filter(|(_, s)| matches!(s.stage, Stage::Awaited(_))) {
            if sent.iter().skip(n + 1).any(|later| later.draft == awaited.draft) {
                continue;
            }
            let control_id = awaited.control_id.trim();
            let waiting = state.expected.entry(control_id.to_owned()).or_default();
            if !waiting.contains(&delivery) {
                waiting.push(delivery);
                state.waiting.entry(delivery).or_default().push(control_id.to_owned());
            }
            let own = state.claim(control_id, since);
            if !own.is_empty() {
                found = true;
                state.answers.entry(delivery).or_default().extend(own);
            }
        }
        found
    }

    /// An answer came. Returns when what it ends has been stored, at once if nobody waits for it; true if somebody did.
    pub(super) async fn arrived(&self, answer: Answer) -> bool {
        let Some(delivery) = self.hand_over(answer) else { return false };
        let settled = async {
            loop {
                let news = self.settled.notified();
                if !self.lock().answers.contains_key(&delivery) {
                    return;
                }
                news.await;
            }
        };
        // A target whose places are all taken may need longer; the answer stays here meanwhile.
        let _ = tokio::time::timeout(SETTLE_WAIT, settled).await;
        true
    }

    fn hand_over(&self, answer: Answer) -> Option<DeliveryId> {
        let mut guard = self.lock();
        let state = &mut *guard;
        // Of several deliveries with one control ID, the oldest that has no answer yet.
        let waiting = state.expected.get(answer.control_id.trim());
        let delivery = waiting.and_then(|all| all.iter().find(|id| !state.answers.contains_key(id)).or(all.first())).copied();
        match delivery {
            Some(delivery) => {
                state.answers.entry(delivery).or_default().push(answer);
                state.answered.push(delivery);
                self.news.notify_one();
            }
            None => state.keep(answer),
        }
        delivery
    }

    /// The answers to a delivery's messages that have come so far.
    pub(super) fn answers(&self, delivery: DeliveryId) -> Vec<Answer> {
        self.lock().answers.get(&delivery).cloned().unwrap_or_default()
    }

    /// A delivery has come to its end.
    pub(super) fn end(&self, delivery: DeliveryId) {
        self.lock().begun.remove(&delivery);
        self.forget(delivery);
    }

    /// What was sent is done, or is sent again: its answers are no longer those that are waited for.
    pub(super) fn forget(&self, delivery: DeliveryId) {
        let mut state = self.lock();
        let known = state.answers.remove(&delivery).is_some();
        let control_ids = state.waiting.remove(&delivery);
        if !known && control_ids.is_none() {
            return;
        }
        for control_id in control_ids.into_iter().flatten() {
            if let Some(waiting) = state.expected.get_mut(&control_id) {
                waiting.retain(|id| *id != delivery);
                if waiting.is_empty() {
                    state.expected.remove(&control_id);
                }
            }
        }
        drop(state);
        self.settled.notify_waiters();
    }

    /// Deliveries for which something came since the last call.
    pub(super) fn take_answered(&self) -> Vec<DeliveryId> {
        std::mem::take(&mut self.lock().answered)
    }

    /// Returns when something came.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made in one step; the state is whole whatever happened to a holder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::MessageId;

    fn id(n: u64) -> DeliveryId {
        DeliveryId { message: MessageId(n), number: 0 }
    }

    fn sent(control_id: &str, stage: Stage) -> Sent {
        Sent { draft: 0, control_id: control_id.into(), code: "CA".into(), stage }
    }

    fn answer(control_id: &str) -> Answer {
        Answer { code: "AA".into(), control_id: control_id.into(), ..Answer::default() }
    }

    #[tokio::test]
    async fn an_answer_finds_its_delivery_and_no_other() {
        let replies = Replies::default();
        assert!(!replies.expect(id(1), &[sent("A", Stage::Awaited(9))]));
        assert!(!replies.expect(id(2), &[sent("B", Stage::Awaited(9))]));
        assert!(!replies.arrived(answer("C")).await, "nobody waits for it");
        assert_eq!(replies.hand_over(answer("B")), Some(id(2)));
        assert_eq!((replies.take_answered(), replies.answers(id(1)).len(), replies.answers(id(2)).len()), (vec![id(2)], 0, 1));
        replies.forget(id(2));
        assert!(replies.answers(id(2)).is_empty());
        assert_eq!(replies.hand_over(answer("B")), None);
    }

    #[tokio::test]
    async fn an_answer_that_was_quicker_is_found() {
        let replies = Replies::default();
        assert!(!replies.arrived(answer("A")).await);
        assert!(replies.expect(id(1), &[sent("A", Stage::Awaited(9))]));
        assert_eq!(replies.answers(id(1)).len(), 1);
    }

    #[tokio::test]
    async fn two_deliveries_of_one_control_id_get_an_answer_each() {
        let replies = Replies::default();
        replies.expect(id(1), &[sent("A", Stage::Awaited(9))]);
        replies.expect(id(2), &[sent("A", Stage::Awaited(9))]);
        assert_eq!((replies.hand_over(answer("A")), replies.hand_over(answer("A"))), (Some(id(1)), Some(id(2))));
    }

    #[tokio::test]
    async fn an_answer_to_what_was_sent_before_is_not_taken_for_one_to_this() {
        let replies = Replies::default();
        assert!(!replies.arrived(answer("A")).await);
        replies.begin(id(1), false);
        assert!(!replies.expect(id(1), &[sent("A", Stage::Awaited(9))]), "it came before the message had left");
        assert!(replies.answers(id(1)).is_empty());
        assert_eq!(replies.hand_over(answer("A")), Some(id(1)));
        // One that came while an attempt was made whose outcome nobody knows answers the next one, too.
        replies.begin(id(2), false);
        replies.hand_over(answer("B"));
        replies.forget(id(2));
        replies.begin(id(2), true);
        assert!(replies.expect(id(2), &[sent("B", Stage::Awaited(9))]));
        replies.end(id(2));
        let state = replies.lock();
        assert_eq!((state.unclaimed_bytes, state.begun.len()), (0, 1));
    }

    #[test]
    fn what_nobody_expects_is_bounded_in_number_and_size() {
        let replies = Replies::default();
        for n in 0..=UNCLAIMED_MAX {
            replies.hand_over(answer(&n.to_string()));
        }
        assert_eq!(replies.lock().unclaimed.len(), UNCLAIMED_MAX);
        assert!(!replies.expect(id(1), &[sent("0", Stage::Awaited(9))]), "the oldest has made room");
        assert!(replies.expect(id(2), &[sent("1", Stage::Awaited(9))]));
        replies.hand_over(Answer { text: "x".repeat(UNCLAIMED_BYTES_MAX - 1_000), ..answer("long") });
        assert!(replies.lock().unclaimed_bytes <= UNCLAIMED_BYTES_MAX);
        replies.hand_over(Answer { text: "x".repeat(UNCLAIMED_BYTES_MAX + 1), ..answer("longer") });
        let state = replies.lock();
        assert_eq!((state.unclaimed.len(), state.unclaimed_bytes), (0, 0));
    }

    #[test]
    fn what_was_sent_again_is_not_awaited() {
        let replies = Replies::default();
        replies.expect(id(1), &[sent("A", Stage::Awaited(9)), sent("A", Stage::Open)]);
        assert_eq!(replies.hand_over(answer("A")), None);
    }

    #[tokio::test]
    async fn whoever_brings_an_answer_waits_until_it_is_stored() {
        let replies = std::sync::Arc::new(Replies::default());
        replies.expect(id(1), &[sent("A", Stage::Awaited(9))]);
        let (arriving, settling) = tokio::join!(replies.arrived(answer("A")), async {
            replies.news().await;
            replies.forget(id(1));
        });
        assert!(arriving);
        let () = settling;
    }
}
