//! Many short runs of values, end to end in one vector: what a vector of vectors says, without a pointer, a length, a
//! capacity and the allocator's own for each. A day of a busy host has a million stacks.

use std::ops::Index;

/// See the module. Indices are in order of adding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices<T> {
    values: Vec<T>,
    /// Where each slice ends in `values`; it begins where the one before it ends.
    ends: Vec<usize>,
}

impl<T> Default for Slices<T> {
    fn default() -> Self {
        Self { values: Vec::new(), ends: Vec::new() }
    }
}

impl<T> Slices<T> {
    /// Nothing, with room for so many slices that have so many values together.
    #[must_use]
    pub fn with_capacity(slices: usize, values: usize) -> Self {
        Self { values: Vec::with_capacity(values), ends: Vec::with_capacity(slices) }
    }

    /// Adds a slice of these values.
    pub fn push(&mut self, slice: impl IntoIterator<Item = T>) {
        self.values.extend(slice);
        self.ends.push(self.values.len());
    }

    /// Adds all slices of others.
    pub fn append(&mut self, others: Self) {
        let Self { mut values, ends } = others;
        let before = self.values.len();
        self.values.append(&mut values);
        self.ends.extend(ends.into_iter().map(|end| before + end));
    }

    /// The slice of an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&[T]> {
        let index = index as usize;
        let begin = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.values.get(begin..*self.ends.get(index)?)
    }

    /// The slices, in order of index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[T]> + Clone {
        let mut begin = 0;
        self.ends
            .iter()
            .map(move |&end| self.values.get(std::mem::replace(&mut begin, end)..end).unwrap_or_default())
    }

    /// The values of all slices, one slice after the other.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The same, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// How many slices there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Removes all slices; their memory is kept.
    pub fn clear(&mut self) {
        self.values.clear();
        self.ends.clear();
    }
}

impl<T: Copy> Slices<T> {
    /// Keeps the slices for which `is_wanted`, asked in order of index, says so.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&[T]) -> bool) {
        let Self { values, ends } = self;
        let (mut begin, mut kept) = (0, 0);
        ends.retain_mut(|end| {
            let slice = std::mem::replace(&mut begin, *end)..*end;
            let wanted = values.get(slice.clone()).is_some_and(&mut is_wanted);
            if wanted {
                values.copy_within(slice.clone(), kept);
                kept += slice.len();
                *end = kept;
            }
            wanted
        });
        values.truncate(kept);
    }
}

impl<T> Index<usize> for Slices<T> {
    type Output = [T];

    /// # Panics
    /// There is no such slice.
    fn index(&self, index: usize) -> &[T] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[begin..self.ends[index]]
    }
}

impl<T, S: IntoIterator<Item = T>> Extend<S> for Slices<T> {
    fn extend<I: IntoIterator<Item = S>>(&mut self, slices: I) {
        slices.into_iter().for_each(|slice| self.push(slice));
    }
}

impl<T, S: IntoIterator<Item = T>> FromIterator<S> for Slices<T> {
    fn from_iter<I: IntoIterator<Item = S>>(slices: I) -> Self {
        let mut all = Self::default();
        all.extend(slices);
        all
    }
}

impl<T, S: IntoIterator<Item = T>, const LENGTH: usize> From<[S; LENGTH]> for Slices<T> {
    fn from(slices: [S; LENGTH]) -> Self {
        slices.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_come_back_by_index_and_in_order() {
        let mut slices: Slices<u32> = [vec![], vec![1, 2], vec![], vec![3]].into();
        slices.append([[4, 5]].into());
        let expected: [&[u32]; 5] = [&[], &[1, 2], &[], &[3], &[4, 5]];
        assert!(slices.iter().eq(expected));
        assert_eq!((slices.len(), slices.iter().len(), slices.is_empty()), (5, 5, false));
        for (index, slice) in expected.into_iter().enumerate() {
            assert_eq!((slices.get(index as u32), &slices[index]), (Some(slice), slice));
        }
        assert_eq!((slices.get(5), slices.get(u32::MAX)), (None, None));
        slices.values_mut().iter_mut().for_each(|value| *value += 1);
        assert_eq!(slices.values(), [2, 3, 4, 5, 6]);
        slices.clear();
        assert_eq!(slices, Slices::default());
    }

    #[test]
    fn what_is_kept_moves_up_and_an_empty_slice_is_one() {
        let mut slices: Slices<u32> = [vec![1], vec![], vec![2, 3], vec![4], vec![]].into();
        let mut asked = Vec::new();
        slices.retain(|slice| {
            asked.push(slice.to_vec());
            slice.len() != 1
        });
        assert_eq!(asked, [vec![1], vec![], vec![2, 3], vec![4], vec![]], "of what was there before");
        assert_eq!(slices, [vec![], vec![2, 3], vec![]].into());
        slices.retain(|_| false);
        assert_eq!(slices, Slices::default());
    }
}
