//! Chance that repeats: everything random in a simulation comes from here, and follows from its seed.

use std::ops::RangeInclusive;

/// `SplitMix64`: small, quick, and good enough to stir a schedule.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far from each other.
        let mut chance = Self(seed ^ 0x6f7a_6d61_6c69_6e6b);
        chance.next();
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let width = range.end() - range.start() + 1;
        range.start() + self.next() % width
    }

    /// True once in `n` times, on average.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or_default()
    }

    /// Mostly short, now and then long: how waits are distributed where things go wrong.
    pub(crate) fn wait(&mut self, usual: RangeInclusive<u64>, rare: RangeInclusive<u64>) -> u64 {
        if self.one_in(12) { self.within(rare) } else { self.within(usual) }
    }
}
