//! SplitMix64: small, and the same everywhere. For whoever plays at random and wants to play it again.

/// A seed's stream.
#[derive(Debug)]
pub(in crate::ledger) struct Dice(u64);

impl Dice {
    pub(in crate::ledger) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::ledger) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::ledger) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(in crate::ledger) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}
