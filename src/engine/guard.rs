//! The identity guard of one target: two saves of one identity are never in flight together.
//!
//! Order keys come from the message; identities come from the run, and may be equal where no key was (an appointment known by
//! two numbers). Taking all identities at once, or none, cannot deadlock.

use crate::exchange::DeliveryId;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
struct State {
    held: HashSet<u64>,
    waiting: BTreeMap<DeliveryId, Vec<u64>>,
}

/// Who holds which identities of a target. An identity is a 64-bit keyed hash: a collision only makes two deliveries wait for each other.
#[derive(Default)]
pub(super) struct IdentityGuard {
    state: Mutex<State>,
    released: Notify,
}

impl IdentityGuard {
    /// Waits until none of the identities is held and no earlier delivery waits for one of them, then holds them all.
    pub(super) async fn hold(self: &Arc<Self>, delivery: DeliveryId, mut identities: Vec<u64>) -> Held {
        identities.sort_unstable();
        identities.dedup();
        // Made before the first look, so that a caller that is dropped while it waits leaves the line.
        let mut place = Held { guard: Arc::clone(self), delivery, identities, holds: false };
        loop {
            let released = self.released.notified();
            if self.try_hold(&mut place) {
                return place;
            }
            released.await;
        }
    }

    fn try_hold(&self, place: &mut Held) -> bool {
        let mut state = self.lock();
        let wanted = |held: &u64| place.identities.binary_search(held).is_ok();
        let free = !place.identities.iter().any(|i| state.held.contains(i))
            && !state.waiting.range(..place.delivery).any(|(_, identities)| identities.iter().any(wanted));
        if free {
            state.waiting.remove(&place.delivery);
            state.held.extend(&place.identities);
            place.holds = true;
        } else {
            state.waiting.entry(place.delivery).or_insert_with(|| place.identities.clone());
        }
        free
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way, so the state is whole even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identities that are held until this is dropped.
pub(super) struct Held {
    guard: Arc<IdentityGuard>,
    delivery: DeliveryId,
    identities: Vec<u64>,
    holds: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.guard.lock();
        if self.holds {
            for identity in &self.identities {
                state.held.remove(identity);
            }
        } else {
            state.waiting.remove(&self.delivery);
        }
        drop(state);
        self.guard.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::MessageId;

    fn id(n: u64) -> DeliveryId {
        DeliveryId { message: MessageId(n), number: 0 }
    }

    #[tokio::test]
    async fn equal_identities_wait_and_others_do_not() {
        let guard = Arc::new(IdentityGuard::default());
        let first = guard.hold(id(1), vec![1, 2]).await;
        let other = guard.hold(id(2), vec![3]).await;
        let mut third = Box::pin(guard.hold(id(3), vec![2, 3]));
        let mut fourth = Box::pin(guard.hold(id(4), vec![2]));
        assert!(futures_util::poll(&mut third).is_none() && futures_util::poll(&mut fourth).is_none());
        drop(first);
        assert!(futures_util::poll(&mut fourth).is_none(), "the third came first and waits for 2 as well");
        drop(other);
        let held = third.await;
        assert!(futures_util::poll(&mut fourth).is_none());
        drop(held);
        fourth.await;
    }

    #[tokio::test]
    async fn one_that_gives_up_waiting_leaves_the_line() {
        let guard = Arc::new(IdentityGuard::default());
        let first = guard.hold(id(1), vec![1]).await;
        let mut second = Box::pin(guard.hold(id(2), vec![1, 2]));
        assert!(futures_util::poll(&mut second).is_none());
        drop(second);
        let _third = guard.hold(id(3), vec![2]).await;
        drop(first);
    }

    mod futures_util {
        use ::futures_util::FutureExt;
        use std::future::Future;

        pub(super) fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
            future.now_or_never()
        }
    }
}
