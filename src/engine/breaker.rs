//! The breaker of one target: whether to try at all, and whose fault a row of refusals is. Pure, no clock.

use crate::exchange::{MessageId, Timestamp};
use std::time::Duration;

/// So many faults of the target in a row open the breaker.
pub(super) const FAULTS_TO_OPEN: u32 = 3;
/// One kind of 4xx for so many different messages in a row is the target's fault, not theirs.
pub(super) const REFUSALS_TO_OPEN: u32 = 20;
/// The first pause of an open breaker; each failed probe doubles it.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause of an open breaker.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// May something be sent?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// As much as the target takes at once.
    Yes,
    /// One delivery, to find out; the breaker now waits for its outcome.
    Probe,
    /// Not before this time.
    NotBefore(Timestamp),
    /// The probe is on its way.
    AwaitProbe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Timestamp },
    Probing,
}

/// A row of equal refusals.
#[derive(Clone, Copy, Debug)]
struct Refusals {
    code: &'static str,
    last: MessageId,
    messages: u32,
}

/// One target's health, as far as deliveries have told.
pub(super) struct Breaker {
    state: State,
    faults: u32,
    /// Pauses since the last success.
    pauses: u32,
    refusals: Option<Refusals>,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed, faults: 0, pauses: 0, refusals: None }
    }

    /// True while nothing but a probe is sent.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Asked before each start. `Probe` is given once per pause.
    pub(super) fn permission(&mut self, now: Timestamp) -> Permission {
        match self.state {
            State::Closed => Permission::Yes,
            State::Open { until } if until > now => Permission::NotBefore(until),
            State::Open { .. } => {
                self.state = State::Probing;
                Permission::Probe
            }
            State::Probing => Permission::AwaitProbe,
        }
    }

    /// Until when nothing is sent at least, as far as is known now; `None` if something may be. Asks for nothing.
    pub(super) fn waits(&self, now: Timestamp, probe_pause: Duration) -> Option<Timestamp> {
        match self.state {
            State::Open { until } if until > now => Some(until),
            State::Probing => Some(Timestamp(now.0.saturating_add(i64::try_from(probe_pause.as_millis()).unwrap_or(i64::MAX)))),
            State::Closed | State::Open { .. } => None,
        }
    }

    /// A probe could not be made, since nothing is ready or the attempt said nothing about the target.
    pub(super) fn return_probe(&mut self, now: Timestamp) {
        if self.state == State::Probing {
            self.state = State::Open { until: now };
        }
    }

    /// The target did what it was asked. True if the breaker was open.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_open = self.is_open();
        *self = Self::new();
        was_open
    }

    /// The target was at fault; it asked for `retry_after`. True if this opened the breaker.
    pub(super) fn failed(&mut self, now: Timestamp, retry_after: Option<Duration>) -> bool {
        self.faults = self.faults.saturating_add(1);
        match self.state {
            // Attempts that were under way when the breaker opened say nothing new.
            State::Open { .. } => false,
            State::Closed if self.faults < FAULTS_TO_OPEN && retry_after.is_none() => false,
            State::Closed => {
                self.open(now, retry_after);
                true
            }
            State::Probing => {
                self.open(now, retry_after);
                false
            }
        }
    }

    fn open(&mut self, now: Timestamp, retry_after: Option<Duration>) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.pauses.min(10)).min(PAUSE_MAX).max(retry_after.unwrap_or_default());
        self.pauses = self.pauses.saturating_add(1);
        self.state = State::Open { until: Timestamp(now.0.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))) };
    }

    /// The target refused this message's content. True if it is the target's fault after all: it refuses everybody for the same reason.
    pub(super) fn refused(&mut self, message: MessageId, code: &'static str, now: Timestamp) -> bool {
        let row = match self.refusals {
            Some(row) if row.code == code && row.last == message => row,
            Some(row) if row.code == code => Refusals { last: message, messages: row.messages + 1, code },
            _ => Refusals { code, last: message, messages: 1 },
        };
        self.refusals = Some(row);
        self.faults = 0;
        if row.messages < REFUSALS_TO_OPEN {
            // It answered: it is there.
            if self.state == State::Probing {
                self.state = State::Closed;
            }
            return false;
        }
        if !matches!(self.state, State::Open { .. }) {
            self.open(now, None);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_down_gets_one_probe_per_pause() {
        let mut breaker = Breaker::new();
        for _ in 1..FAULTS_TO_OPEN {
            assert_eq!(breaker.permission(Timestamp(0)), Permission::Yes);
            assert!(!breaker.failed(Timestamp(0), None));
        }
        assert!(breaker.failed(Timestamp(0), None), "the third fault opens it");
        assert_eq!(breaker.permission(Timestamp(0)), Permission::NotBefore(Timestamp(500)));
        let waits = |breaker: &Breaker, now: i64| breaker.waits(Timestamp(now), Duration::from_millis(70)).map(|until| until.0);
        assert_eq!((waits(&breaker, 0), waits(&breaker, 500)), (Some(500), None));
        assert_eq!(breaker.permission(Timestamp(500)), Permission::Probe);
        assert_eq!(waits(&breaker, 500), Some(570), "somebody finds out just now");
        assert_eq!(breaker.permission(Timestamp(500)), Permission::AwaitProbe);
        breaker.failed(Timestamp(600), None);
        assert_eq!(breaker.permission(Timestamp(600)), Permission::NotBefore(Timestamp(1_600)), "the pause doubles");
        assert_eq!(breaker.permission(Timestamp(1_600)), Permission::Probe);
        assert!(breaker.succeeded());
        assert_eq!(breaker.permission(Timestamp(1_600)), Permission::Yes);
    }

    #[test]
    fn retry_after_opens_at_once_and_is_obeyed() {
        let mut breaker = Breaker::new();
        assert!(breaker.failed(Timestamp(0), Some(Duration::from_secs(120))));
        assert_eq!(breaker.permission(Timestamp(1_000)), Permission::NotBefore(Timestamp(120_000)));
    }

    #[test]
    fn one_refusal_of_many_messages_is_the_targets_fault() {
        let mut breaker = Breaker::new();
        for n in 1..u64::from(REFUSALS_TO_OPEN) {
            assert!(!breaker.refused(MessageId(n), "http-422", Timestamp(0)));
        }
        assert!(!breaker.refused(MessageId(u64::from(REFUSALS_TO_OPEN) - 1), "http-422", Timestamp(0)), "the same message counts once");
        assert!(breaker.refused(MessageId(99), "http-422", Timestamp(0)));
        assert!(breaker.is_open());
        assert_eq!(breaker.permission(Timestamp(500)), Permission::Probe);
        assert!(breaker.refused(MessageId(99), "http-422", Timestamp(500)), "the probe is refused in the same way");
        assert!(breaker.is_open());
        breaker.succeeded();
        assert!(!breaker.refused(MessageId(100), "http-422", Timestamp(0)), "a success ends the row");
    }
}
