//! A small set of slots: the numbers by which a router thread names the targets of one group.
//!
//! It is `Copy`, 32 bytes, and never allocates: sets are built per request (tried, ejected, own zone). The main path: the union of
//! what is ejected and what was tried goes into [`Chooser::choose`](super::balance::Chooser::choose) as what to leave out.

use std::ops::{BitAnd, BitOr, Not};

/// Slots one group can have in a router.
pub const SLOTS_MAX: usize = 256;

/// Members one group can have: all can be replaced while requests are in flight at those before them.
pub const MEMBERS_MAX: usize = SLOTS_MAX / 2;

const WORD: usize = 64;

/// A set of slots below [`SLOTS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSet([u64; SLOTS_MAX / WORD]);

impl SlotSet {
    pub const EMPTY: Self = Self([0; SLOTS_MAX / WORD]);

    /// Adds `slot`; one at or above [`SLOTS_MAX`] is never in a set.
    pub const fn insert(&mut self, slot: usize) {
        if slot < SLOTS_MAX {
            self.0[slot / WORD] |= 1 << (slot % WORD);
        }
    }

    pub const fn remove(&mut self, slot: usize) {
        if slot < SLOTS_MAX {
            self.0[slot / WORD] &= !(1 << (slot % WORD));
        }
    }

    #[must_use]
    pub const fn contains(&self, slot: usize) -> bool {
        slot < SLOTS_MAX && self.0[slot / WORD] & (1 << (slot % WORD)) != 0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The slots in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(k, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                // The lowest bit goes; at 0 there is none.
                (word != 0).then(|| word &= word - 1).map(|()| k * WORD + bit)
            })
        })
    }
}

impl FromIterator<usize> for SlotSet {
    fn from_iter<I: IntoIterator<Item = usize>>(slots: I) -> Self {
        slots.into_iter().fold(Self::EMPTY, |mut set, slot| {
            set.insert(slot);
            set
        })
    }
}

impl BitOr for SlotSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] | other.0[k]))
    }
}

impl BitAnd for SlotSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] & other.0[k]))
    }
}

impl Not for SlotSet {
    type Output = Self;
    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(
            a in proptest::collection::btree_set(0..SLOTS_MAX, 0..40), b in proptest::collection::btree_set(0..SLOTS_MAX, 0..40),
        ) {
            let (x, y): (SlotSet, SlotSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(x.iter().collect::<Vec<_>>(), a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((x.len(), x.is_empty()), (a.len(), a.is_empty()));
            prop_assert!((x | y).iter().eq(a.union(&b).copied()));
            prop_assert!((x & !y).iter().eq(a.difference(&b).copied()));
            let mut less = x;
            b.iter().for_each(|slot| less.remove(*slot));
            prop_assert_eq!(less, x & !y);
        }
    }

    #[test]
    fn what_is_out_of_range_is_never_in() {
        let mut set = SlotSet::EMPTY;
        set.insert(SLOTS_MAX);
        assert!(set.is_empty() && !set.contains(SLOTS_MAX) && !(!set).contains(SLOTS_MAX));
    }
}
