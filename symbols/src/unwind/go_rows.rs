//! The rows of Go's tables, 6 bytes each: the largest programs have seven million.

use super::packer::MAX_RULES;
use super::rules::RuleNumbers;
use super::{Row, UnwindError, UnwindRule};
use crate::{ElfAddress, ObjectFile};

/// See the module. Sorted by address.
#[derive(Debug)]
pub(super) struct GoRows {
    base: u64,
    /// Bytes from the base.
    offsets: Vec<u32>,
    /// Numbers of the rules.
    numbers: Vec<u16>,
    rules: RuleNumbers,
}

impl Default for GoRows {
    fn default() -> Self {
        Self { base: 0, offsets: Vec::new(), numbers: Vec::new(), rules: RuleNumbers::new() }
    }
}

impl GoRows {
    /// Reads the rows of an object.
    ///
    /// # Errors
    /// As [`crate::go::unwind_rows`]; [`UnwindError::TooLarge`] for code of more than 4 GiB,
    /// or with more rules than a table has room for.
    pub(super) fn read(object: &ObjectFile) -> Result<Self, UnwindError> {
        let mut rows = Self::default();
        let mut fits = true;
        crate::go::for_each_row(object, |row| fits &= rows.push(&row))?;
        if !fits {
            let what = format!("Go's tables span more than 4 GiB or have more than {MAX_RULES} rules");
            return Err(UnwindError::TooLarge { path: object.path().to_owned(), what });
        }
        // Functions that overlap, which no linker makes.
        if !rows.offsets.is_sorted() {
            let mut pairs: Vec<(u32, u16)> = rows.offsets.iter().copied().zip(rows.numbers).collect();
            pairs.sort_by_key(|(offset, _)| *offset);
            (rows.offsets, rows.numbers) = pairs.into_iter().unzip();
        }
        Ok(rows)
    }

    /// Answers whether it fits.
    fn push(&mut self, row: &Row) -> bool {
        if self.offsets.is_empty() {
            self.base = row.address.0;
        }
        let Some(Ok(offset)) = row.address.0.checked_sub(self.base).map(u32::try_from) else { return false };
        let number = self.rules.number(row.rule);
        let Some(number) = u16::try_from(number).ok().filter(|number| usize::from(*number) < MAX_RULES)
        else {
            return false;
        };
        self.offsets.push(offset);
        self.numbers.push(number);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Row> {
        let (offset, number) = (*self.offsets.get(index)?, *self.numbers.get(index)?);
        let rule = self.rules.rules().get(usize::from(number)).copied().unwrap_or(UnwindRule::NONE);
        Some(Row { address: ElfAddress(self.base.saturating_add(u64::from(offset))), rule })
    }

    /// The first row behind an address.
    pub(super) fn after(&self, address: u64) -> usize {
        let Some(distance) = address.checked_sub(self.base) else { return 0 };
        self.offsets.partition_point(|offset| u64::from(*offset) <= distance)
    }
}
