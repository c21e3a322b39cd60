//! The rows of Go's tables, 8 bytes each: the largest programs have seven million.

use super::rules::RuleNumbers;
use super::{Row, UnwindError, UnwindRule};
use crate::{ElfAddress, ObjectFile};

/// See the module. Sorted by address.
#[derive(Debug)]
pub(super) struct GoRows {
    base: u64,
    /// Bytes from the base, and number of the rule.
    rows: Vec<(u32, u32)>,
    rules: RuleNumbers,
}

impl Default for GoRows {
    fn default() -> Self {
        Self { base: 0, rows: Vec::new(), rules: RuleNumbers::new() }
    }
}

impl GoRows {
    /// Reads the rows of an object.
    ///
    /// # Errors
    /// As [`crate::go::unwind_rows`]; [`UnwindError::TooLarge`] for code of more than 4 GiB.
    pub(super) fn read(object: &ObjectFile) -> Result<Self, UnwindError> {
        let mut rows = Self::default();
        let mut fits = true;
        crate::go::for_each_row(object, |row| fits &= rows.push(&row))?;
        if !fits {
            let what = "Go's tables span more than 4 GiB".to_owned();
            return Err(UnwindError::TooLarge { path: object.path().to_owned(), what });
        }
        if !rows.rows.is_sorted_by_key(|(offset, _)| *offset) {
            rows.rows.sort_by_key(|(offset, _)| *offset);
        }
        rows.rows.shrink_to_fit();
        Ok(rows)
    }

    /// Answers whether it fits.
    fn push(&mut self, row: &Row) -> bool {
        if self.rows.is_empty() {
            self.base = row.address.0;
        }
        let Some(Ok(offset)) = row.address.0.checked_sub(self.base).map(u32::try_from) else { return false };
        let rule = self.rules.number(row.rule);
        self.rows.push((offset, rule));
        true
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Row> {
        let (offset, rule) = *self.rows.get(index)?;
        let rule = self.rules.rules().get(rule as usize).copied().unwrap_or(UnwindRule::NONE);
        Some(Row { address: ElfAddress(self.base.saturating_add(u64::from(offset))), rule })
    }

    /// The first row behind an address.
    pub(super) fn after(&self, address: u64) -> usize {
        let Some(distance) = address.checked_sub(self.base) else { return 0 };
        self.rows.partition_point(|(offset, _)| u64::from(*offset) <= distance)
    }
}
