//! The first, cheap look at folded text: whether any eight bytes of it are the end of a seed. Nearly all text
//! ends here. It is written by hand because it is the one loop that sees every byte: it is more than twice as
//! fast as the automaton behind it, which finds the seeds themselves. And it takes the same time for seven right
//! bytes as for none.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// How many bytes are looked at together.
pub(super) const WIDTH: usize = 8;
/// The table of bits has two to the power of this.
const TABLE_BITS: u32 = 18;
const WORDS: usize = 1 << (TABLE_BITS - 6);

/// Knows the ends of a set of seeds.
pub(super) struct Prefilter {
    bits: Box<[u64; WORDS]>,
    /// Odd, and different in each, so that nobody can work out which texts take longer.
    factor: u64,
    ends: HashSet<u64>,
}

impl Prefilter {
    /// For these seeds; nothing if one is too short to have such an end.
    pub(super) fn of<'a>(seeds: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let factor = RandomState::new().hash_one(0) | 1;
        let mut filter = Self { bits: Box::new([0; WORDS]), factor, ends: HashSet::new() };
        for seed in seeds {
            let end = u64::from_le_bytes(*seed.last_chunk()?);
            let (word, bit) = filter.place(end);
            if let Some(word) = filter.bits.get_mut(word) {
                *word |= 1 << bit;
            }
            filter.ends.insert(end);
        }
        Some(filter)
    }

    /// Whether `text` may hold a seed.
    pub(super) fn may_match(&self, text: &[u8]) -> bool {
        const BLOCK: usize = 8;
        let mut rest = text;
        while let Some(block) = rest.first_chunk::<{ BLOCK + WIDTH - 1 }>() {
            let mut any = 0;
            for at in 0..BLOCK {
                any |= self.bit(window(block, at));
            }
            if any & 1 != 0 && block.windows(WIDTH).any(|window| self.has_end(window)) {
                return true;
            }
            rest = rest.get(BLOCK..).unwrap_or_default();
        }
        rest.windows(WIDTH).any(|window| self.has_end(window))
    }

    fn has_end(&self, window: &[u8]) -> bool {
        let Some(window) = window.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return false };
        self.bit(window) & 1 != 0 && self.ends.contains(&window)
    }

    /// The bit of `window`, and others above it.
    #[inline]
    fn bit(&self, window: u64) -> u64 {
        let (word, bit) = self.place(window);
        self.bits.get(word).copied().unwrap_or_default() >> bit
    }

    #[inline]
    fn place(&self, window: u64) -> (usize, u32) {
        let hash = (window.wrapping_mul(self.factor) >> (64 - TABLE_BITS)) as u32;
        ((hash >> 6) as usize, hash & 63)
    }
}

#[inline]
fn window<const N: usize>(block: &[u8; N], at: usize) -> u64 {
    block
        .get(at..at + WIDTH)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_seeds_disable_prefilter() {
        assert!(Prefilter::of([&b"12345678"[..], b"1234567"].into_iter()).is_none());
    }

    proptest! {
        #[test]
        fn seed_is_found_at_every_offset(
            before in proptest::collection::vec(any::<u8>(), 0..40),
            seeds in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 8..20), 1..20),
            after in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let filter = Prefilter::of(seeds.iter().map(Vec::as_slice)).unwrap();
            for seed in &seeds {
                prop_assert!(filter.may_match(&[&before[..], seed, &after].concat()));
            }
            let text = [before, after].concat();
            let holds = seeds.iter().any(|seed| text.windows(8).any(|window| seed.ends_with(window)));
            prop_assert_eq!(filter.may_match(&text), holds);
        }
    }
}
