//! A rate limit: so many requests in a time, evenly, with a little room to catch up.

use crate::target::Rate;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What was not used may be caught up for so long: a timer's tick, and a pause of the machine, cost no throughput.
const CATCH_UP: Duration = Duration::from_millis(100);

pub(crate) struct Pace {
    every: Duration,
    /// When the next request may go.
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { every: rate.per / rate.requests.max(1), next: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn. Turns are given in the order of asking.
    pub(crate) async fn turn(&self) {
        let at = {
            // A moment in time is whole whatever happened to a holder.
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = (*next).max(now.checked_sub(CATCH_UP.min(self.every * 10)).unwrap_or(now));
            *next = at + self.every;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_spread_over_time() {
        let pace = Pace::new(Rate { requests: 100, per: Duration::from_secs(1) });
        let began = Instant::now();
        for _ in 0..31 {
            pace.turn().await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(190), "30 pauses of 10 ms, less the room to catch up: {took:?}");
    }
}
