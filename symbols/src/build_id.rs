//! What identifies the contents of an object: GNU build id, Go build id, else a content hash.

use std::fmt;

/// Identity of an object's contents. Equal ids mean equal code, wherever the file lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildId {
    /// `NT_GNU_BUILD_ID` note.
    Gnu(Vec<u8>),
    /// Go's build id, from the `Go` note; the text as the linker wrote it.
    Go(String),
    /// Hash over the file's executable contents, when it carries no id.
    Hash([u8; 20]),
}

impl BuildId {
    /// Lower-case hex, as pprof and OTLP carry it: a GNU id as it is, Go's text as its own hash.
    #[must_use]
    pub fn to_hex(&self) -> String {
        todo!("helper cfi")
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}
