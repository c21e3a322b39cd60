//! Pages of a dictionary that are deflated (RFC 1951): names are a tenth of their length then.
//!
//! ```text
//! page    length of what was deflated (varint), the rest deflated
//! ```

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::varint::{Malformed, Reader, put};

/// Added to the number of a table in the column `kind`.
const DEFLATED: i64 = 64;
/// Shorter pages gain nothing.
const LEAST_BYTES: usize = 128;
/// Nothing that was deflated becomes so many times as long.
const MOST_TIMES: usize = 1040;

/// The page as it is to be written, with its kind: deflated if that is an eighth shorter.
pub(super) fn deflated(kind: i64, page: Vec<u8>) -> (i64, Vec<u8>) {
    if page.len() < LEAST_BYTES {
        return (kind, page);
    }
    let mut bytes = Vec::with_capacity(page.len());
    put(&mut bytes, page.len() as u64);
    let mut encoder = DeflateEncoder::new(bytes, Compression::fast());
    // Writing to memory does not fail; if it did, the page stays as it is.
    match encoder.write_all(&page).and_then(|()| encoder.finish()) {
        Ok(bytes) if bytes.len() < page.len() - page.len() / 8 => (kind + DEFLATED, bytes),
        _ => (kind, page),
    }
}

/// The kind of the page within a page of this kind, if that is deflated.
pub(super) fn kind_of(kind: i64) -> Option<i64> {
    (DEFLATED..2 * DEFLATED).contains(&kind).then(|| kind - DEFLATED)
}

/// The page within.
pub(super) fn plain(page: &[u8]) -> Result<Vec<u8>, Malformed> {
    let broken = Malformed("a page that cannot be inflated");
    let mut bytes = Reader::new(page);
    let length = usize::try_from(bytes.number()?).map_err(|_| broken)?;
    let deflated = bytes.rest();
    if length > deflated.len().saturating_mul(MOST_TIMES) {
        return Err(broken);
    }
    let mut plain = Vec::with_capacity(length);
    let most = (length as u64).saturating_add(1);
    DeflateDecoder::new(deflated).take(most).read_to_end(&mut plain).map_err(|_| broken)?;
    if plain.len() == length { Ok(plain) } else { Err(broken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_come_back(text in ".{0,400}", times in 1_usize..20) {
            let page = text.repeat(times).into_bytes();
            let (kind, written) = deflated(3, page.clone());
            match kind_of(kind) {
                Some(kind) => prop_assert_eq!((kind, plain(&written)), (3, Ok(page))),
                None => prop_assert_eq!((kind, written), (3, page)),
            }
        }

        #[test]
        fn hostile_pages_are_no_longer_than_they_say(page: Vec<u8>) {
            if let Ok(plain) = plain(&page) {
                prop_assert!(plain.len() <= page.len() * MOST_TIMES);
            }
        }
    }

    #[test]
    fn a_page_that_was_torn_off_or_says_another_length_is_refused() {
        let page: Vec<u8> =
            (0..200_u32).flat_map(|number| format!("shop::orders::{number}").into_bytes()).collect();
        let (kind, written) = deflated(1, page.clone());
        assert_eq!((kind_of(kind), kind_of(1)), (Some(1), None));
        assert!(written.len() < page.len() / 3, "{} of {}", written.len(), page.len());
        for length in 0..written.len() {
            assert!(plain(&written[..length]).is_err(), "{length}");
        }
        for length in [0, page.len() - 1, page.len() + 1, usize::MAX / 2] {
            let mut other = Vec::new();
            put(&mut other, length as u64);
            other.extend(&written[2..]);
            assert!(plain(&other).is_err(), "{length}");
        }
    }
}
