//! How long to wait before an attempt is repeated: exponential, with full jitter, so that many that failed together don't return together.

use std::time::Duration;

/// The first wait after a fault of the target.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait after a fault of the target.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// The first wait after a race.
pub(super) const RACE_WAIT_MIN: Duration = Duration::from_millis(20);
/// The longest wait after a race.
pub(super) const RACE_WAIT_MAX: Duration = Duration::from_secs(2);

/// A time between nothing and `min * 2^attempts`, at most `max`; never less than what the target asked for.
pub(super) fn wait(min: Duration, max: Duration, attempts: u32, retry_after: Option<Duration>) -> Duration {
    let ceiling = min.saturating_mul(1 << attempts.min(20)).min(max);
    let asked = retry_after.unwrap_or_default();
    asked + ceiling.mul_f64(random_fraction())
}

/// Evenly spread over 0 to 1. Without the system's random source the wait is the whole ceiling: later is safer than a storm.
fn random_fraction() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_obey_the_target() {
        for attempts in 0..40 {
            let waited = wait(WAIT_MIN, WAIT_MAX, attempts, None);
            assert!(waited <= WAIT_MAX && waited <= WAIT_MIN.saturating_mul(1 << attempts.min(20)), "{attempts}: {waited:?}");
        }
        assert!(wait(WAIT_MIN, WAIT_MAX, 0, Some(Duration::from_secs(90))) >= Duration::from_secs(90));
        let spread: std::collections::BTreeSet<_> = (0..32).map(|_| wait(WAIT_MIN, WAIT_MAX, 6, None)).collect();
        assert!(spread.len() > 16, "no jitter: {spread:?}");
    }
}
