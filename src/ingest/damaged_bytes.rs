//! Messages as they were written, and damaged: for tests that compare a reader with the general decoder.

use proptest::prelude::*;

/// What is done to a message.
#[derive(Debug)]
pub(super) struct Damage {
    /// Bytes that are others, by their places.
    changed: Vec<(usize, u8)>,
    /// How many are left.
    cut: usize,
}

/// Any.
pub(super) fn damage() -> impl Strategy<Value = Damage> {
    (proptest::collection::vec((0_usize..200, any::<u8>()), 0..3), 0_usize..200)
        .prop_map(|(changed, cut)| Damage { changed, cut })
}

impl Damage {
    /// Has `agrees` look at the bytes as they are, with some changed, and cut short.
    pub(super) fn each(
        self,
        mut bytes: Vec<u8>,
        agrees: impl Fn(&[u8]) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        agrees(&bytes)?;
        for (at, byte) in self.changed {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        agrees(&bytes)?;
        bytes.truncate(self.cut);
        agrees(&bytes)
    }
}
