//! How often a long string may be referred to.
//!
//! In pprof and OTLP a few bytes refer to a string of any length, so that a small file can ask for
//! terabytes of names. Every copy is paid from one budget.

use super::IngestError;

/// What is left of the bytes that may be copied.
pub(super) struct TextBudget {
    left: usize,
    limit: usize,
}

impl TextBudget {
    pub(super) fn new(limit: usize) -> Self {
        Self { left: limit, limit }
    }

    /// A copy of `text`, paid for.
    pub(super) fn copy(&mut self, text: &str) -> Result<String, IngestError> {
        self.left = self
            .left
            .checked_sub(text.len())
            .ok_or(IngestError::TooLarge { what: "bytes of names and labels", limit: self.limit })?;
        Ok(text.to_owned())
    }
}
