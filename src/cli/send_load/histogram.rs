//! Times of a load, by share.

use crate::cli::paint::micros;
use std::time::Duration;

/// Times in microseconds, in buckets no wider than 1.6 % of their value.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    pub(super) total: u64,
    max: u64,
}

const SUB: u32 = 6;

impl Histogram {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; 64 << SUB], total: 0, max: 0 }
    }

    pub(super) fn add(&mut self, us: u64) {
        if let Some(b) = self.buckets.get_mut(Self::index(us)) {
            *b += 1;
        }
        self.total += 1;
        self.max = self.max.max(us);
    }

    pub(super) fn add_duration(&mut self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The usual shares, for --json; nothing if there is nothing to say.
    pub(super) fn json(&self) -> serde_json::Value {
        if self.total == 0 {
            return serde_json::Value::Null;
        }
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| self.quantile(share));
        serde_json::json!({ "p50": p50, "p90": p90, "p99": p99, "p999": p999, "max": self.max })
    }

    pub(super) fn words(&self) -> String {
        let q = |share| micros(self.quantile(share));
        format!("p50 {}   p90 {}   p99 {}   p99.9 {}   max {}", q(0.5), q(0.9), q(0.99), q(0.999), micros(self.max))
    }

    fn index(us: u64) -> usize {
        let top = u64::BITS - us.leading_zeros();
        if top <= SUB {
            return usize::try_from(us).unwrap_or(0);
        }
        let shift = top - SUB - 1;
        let within = (us >> shift) & ((1 << SUB) - 1);
        usize::try_from((u64::from(shift + 1) << SUB) | within).unwrap_or(0)
    }

    fn lower(index: usize) -> u64 {
        let (octave, within) = ((index >> SUB) as u64, (index & ((1 << SUB) - 1)) as u64);
        if octave == 0 { within } else { (within | 1 << SUB) << (octave - 1) }
    }

    /// The value that this share of all times does not exceed, within the width of a bucket.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (n, b) in self.buckets.iter().enumerate() {
            seen += b;
            if seen >= wanted {
                return Self::lower(n + 1).saturating_sub(1).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut h = Histogram::new();
        (1..=100_000).for_each(|n| h.add(n));
        for (share, exact) in [(0.5, 50_000_f64), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let got = h.quantile(share) as f64;
            assert!((got - exact).abs() / exact < 0.02, "{share}: {got}");
        }
        for us in [0, 1, 63, 64, 65, 1000, 123_456_789] {
            let n = Histogram::index(us);
            assert!(Histogram::lower(n) <= us && us < Histogram::lower(n + 1), "{us}");
        }
    }
}
