//! Which pages of the slabs are taken: runs of consecutive pages, first fit, freed with a delay.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a freed extent stays as it was. A sample that is being taken may still read it; it takes
/// microseconds, and this leaves room for a virtual machine's CPU that was taken away meanwhile. A
/// reader that slept longer would see the pages' new contents: a wrong stack, never a wrong access.
pub(super) const REUSE_DELAY: Duration = Duration::from_secs(1);

/// A run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Number of its first page.
    pub first: u32,
    /// Its length.
    pub pages: u32,
}

/// Hands out pages. Knows nothing of what lies in them.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// Free runs: first page → pages. Neighbours are always joined.
    free: BTreeMap<u32, u32>,
    /// Freed, in order of time.
    resting: VecDeque<(Instant, Extent)>,
    total: u32,
    used: u32,
}

impl Extents {
    /// Pages that there are.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Pages that are taken, resting ones included.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Adds pages behind those that there are.
    pub(super) fn grow(&mut self, pages: u32) {
        let first = self.total;
        self.total = self.total.saturating_add(pages);
        self.insert_free(Extent { first, pages: self.total - first });
    }

    /// How many pages must be added so that `pages` can be taken.
    pub(super) fn missing(&self, pages: u32) -> u32 {
        let tail = match self.free.last_key_value() {
            Some((&first, &length)) if first + length == self.total => length,
            _ => 0,
        };
        pages.saturating_sub(tail)
    }

    /// Takes the first run that is long enough.
    pub(super) fn take(&mut self, pages: u32, now: Instant) -> Option<Extent> {
        self.wake(now);
        let (&first, &length) = self.free.iter().find(|&(_, &length)| length >= pages)?;
        self.free.remove(&first);
        if length > pages {
            self.free.insert(first + pages, length - pages);
        }
        self.used += pages;
        Some(Extent { first, pages })
    }

    /// Gives a run back, to be used again after [`REUSE_DELAY`].
    pub(super) fn release(&mut self, extent: Extent, now: Instant) {
        if extent.pages > 0 {
            self.resting.push_back((now, extent));
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some(&(since, extent)) = self.resting.front() {
            if now.saturating_duration_since(since) < REUSE_DELAY {
                return;
            }
            self.resting.pop_front();
            self.used -= extent.pages;
            self.insert_free(extent);
        }
    }

    fn insert_free(&mut self, extent: Extent) {
        let Extent { mut first, mut pages } = extent;
        if let Some((&before, &length)) = self.free.range(..first).next_back()
            && before + length == first
        {
            self.free.remove(&before);
            first = before;
            pages += length;
        }
        if let Some(length) = self.free.remove(&(first + pages)) {
            pages += length;
        }
        self.free.insert(first, pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_freed_run_rests_before_it_is_used_again_and_joins_its_neighbours() {
        let mut extents = Extents::default();
        let start = Instant::now();
        extents.grow(8);
        let first = extents.take(4, start).expect("room");
        let second = extents.take(4, start).expect("room");
        assert_eq!((first.first, second.first), (0, 4));
        extents.release(first, start);
        extents.release(second, start);
        assert_eq!(extents.take(1, start + REUSE_DELAY / 2), None, "still resting");
        let all = extents.take(8, start + REUSE_DELAY).expect("joined");
        assert_eq!(all, Extent { first: 0, pages: 8 });
        assert_eq!(extents.used(), 8);
    }

    #[test]
    fn growing_counts_what_is_free_at_the_end() {
        let mut extents = Extents::default();
        assert_eq!(extents.missing(3), 3);
        extents.grow(4);
        assert_eq!(extents.missing(6), 2);
        extents.take(4, Instant::now()).expect("room");
        assert_eq!(extents.missing(6), 6);
    }

    proptest! {
        #[test]
        fn taken_runs_never_overlap_and_all_pages_come_back(steps in prop::collection::vec((any::<bool>(), 1u32..20), 1..200)) {
            let mut extents = Extents::default();
            let mut now = Instant::now();
            let mut taken: Vec<Extent> = Vec::new();
            for (take, pages) in steps {
                now += REUSE_DELAY / 3;
                if take {
                    extents.wake(now);
                    let missing = extents.missing(pages);
                    let extent = match extents.take(pages, now) {
                        Some(extent) => extent,
                        None => {
                            extents.grow(missing);
                            extents.take(pages, now).expect("just grown")
                        }
                    };
                    for other in &taken {
                        prop_assert!(extent.first + extent.pages <= other.first || other.first + other.pages <= extent.first);
                    }
                    prop_assert!(extent.first + extent.pages <= extents.total());
                    taken.push(extent);
                } else if !taken.is_empty() {
                    extents.release(taken.swap_remove(pages as usize % taken.len()), now);
                }
            }
            for extent in taken.drain(..) {
                extents.release(extent, now);
            }
            extents.wake(now + REUSE_DELAY);
            prop_assert_eq!(extents.used(), 0);
            prop_assert_eq!(extents.free.len(), usize::from(extents.total() > 0));
        }
    }
}
