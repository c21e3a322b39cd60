//! Half-open address ranges that may overlap, each with a value: which ones hold an address?

/// Ranges before an address that are looked at: real ranges nest a few deep.
const MAX_SCAN: usize = 256;

/// Ranges sorted by their begin.
#[derive(Debug, Clone)]
pub struct Intervals<T> {
    entries: Vec<Interval<T>>,
}

#[derive(Debug, Clone)]
struct Interval<T> {
    begin: u64,
    end: u64,
    /// The greatest end of this and all ranges before it: where a search may stop.
    greatest_end: u64,
    value: T,
}

impl<T: Copy> Intervals<T> {
    /// Sorts ranges; empty ones are left out. Of equal ranges the one given first is found first.
    #[must_use]
    pub fn new(ranges: Vec<(u64, u64, T)>) -> Self {
        let mut entries: Vec<_> = ranges
            .into_iter()
            .filter(|(begin, end, _)| begin < end)
            .map(|(begin, end, value)| Interval { begin, end, greatest_end: end, value })
            .collect();
        entries.reverse();
        entries.sort_by_key(|entry| (entry.begin, std::cmp::Reverse(entry.end)));
        let mut greatest_end = 0;
        for entry in &mut entries {
            greatest_end = entry.end.max(greatest_end);
            entry.greatest_end = greatest_end;
        }
        entries.shrink_to_fit();
        Self { entries }
    }

    /// Values of the ranges that hold `address`, innermost first. O(log n) and at most `MAX_SCAN` steps.
    pub fn covering(&self, address: u64) -> impl Iterator<Item = T> {
        let after = self.entries.partition_point(|entry| entry.begin <= address);
        let before = self.entries.get(..after).unwrap_or_default();
        before
            .iter()
            .rev()
            .take(MAX_SCAN)
            .take_while(move |entry| entry.greatest_end > address)
            .filter(move |entry| address < entry.end)
            .map(|entry| entry.value)
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Interval<T>>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn innermost_comes_first_and_ends_are_exclusive() {
        let intervals =
            Intervals::new(vec![(0, 100, 'a'), (10, 20, 'b'), (10, 15, 'c'), (30, 30, 'd'), (50, 40, 'e')]);
        assert_eq!(intervals.covering(12).collect::<String>(), "cba");
        assert_eq!(intervals.covering(15).collect::<String>(), "ba");
        assert_eq!(intervals.covering(20).collect::<String>(), "a");
        assert_eq!(intervals.covering(45).collect::<String>(), "a");
        assert_eq!(intervals.covering(100).collect::<String>(), "");
    }

    proptest! {
        #[test]
        fn finds_what_a_linear_search_finds(
            ranges in proptest::collection::vec((0_u64..50, 0_u64..50), 0..60),
            address in 0_u64..60,
        ) {
            let numbered: Vec<_> = ranges.iter().enumerate().map(|(i, &(b, e))| (b, e, i)).collect();
            let mut expected: Vec<_> =
                numbered.iter().filter(|(b, e, _)| *b <= address && address < *e).map(|r| r.2).collect();
            let mut found: Vec<_> = Intervals::new(numbered).covering(address).collect();
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
