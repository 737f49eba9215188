//! A Bloom filter over the control IDs of a segment that takes no more messages: spares looking into each of them for each message.

/// Ten bits and five probes an entry: about one look in a hundred is in vain.
pub(in crate::journal) struct Filter {
    bits: Vec<u64>,
}

const PROBES: u32 = 5;
const BITS_PER_ENTRY: usize = 10;

impl Filter {
    /// A filter with room for so many entries.
    pub(in crate::journal) fn with_room_for(entries: usize) -> Self {
        Self { bits: vec![0; (entries * BITS_PER_ENTRY).div_ceil(64).max(1)] }
    }

    /// Adds a control ID.
    pub(in crate::journal) fn add(&mut self, control_id: &str) {
        for place in Self::places(self.bits.len(), control_id) {
            if let Some(word) = self.bits.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
    }

    /// False only if the control ID was never added.
    pub(in crate::journal) fn may_hold(&self, control_id: &str) -> bool {
        Self::places(self.bits.len(), control_id).all(|place| self.bits.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0))
    }

    /// Two halves of one hash make all probes (Kirsch and Mitzenmacher, 2006).
    fn places(words: usize, control_id: &str) -> impl Iterator<Item = usize> {
        let hash = blake3::hash(control_id.as_bytes());
        let half = |from: usize| hash.as_bytes().get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let (first, step, bits) = (half(0), half(8) | 1, words as u64 * 64);
        (0..u64::from(PROBES)).map(move |probe| (first.wrapping_add(probe.wrapping_mul(step)) % bits) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_denies_what_was_added_and_mostly_denies_the_rest() {
        let mut filter = Filter::with_room_for(10_000);
        (0..10_000).for_each(|n| filter.add(&format!("MSG{n}")));
        assert!((0..10_000).all(|n| filter.may_hold(&format!("MSG{n}"))));
        let wrong = (10_000..20_000).filter(|n| filter.may_hold(&format!("MSG{n}"))).count();
        assert!(wrong < 300, "{wrong} of 10,000 were held by mistake");
    }
}
