//! Bytes in, never more than asked for.

use std::borrow::Cow;
use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

use super::IngestError;

/// Everything a reader gives, or `None` if that is more than `limit` bytes. `expected` is how many they probably are; more
/// or fewer take longer.
pub(super) fn read_limited(reader: impl Read, expected: usize, limit: usize) -> io::Result<Option<Vec<u8>>> {
    // One more, for what says that this was all.
    let mut bytes = Vec::with_capacity(expected.min(limit).saturating_add(1));
    reader.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// The bytes without their gzip layer, if they have one. What follows the last member of the archive
/// makes it invalid, as it does for gzip.
pub(super) fn without_gzip(bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, IngestError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(bytes));
    }
    match read_limited(MultiGzDecoder::new(bytes), expected_length(bytes), limit) {
        Ok(Some(plain)) => Ok(Cow::Owned(plain)),
        Ok(None) => Err(IngestError::TooLarge { what: "bytes after decompression", limit }),
        Err(error) => Err(IngestError::Gzip(error)),
    }
}

/// No byte of deflate becomes more than this many (a match of 258 bytes may take two bits).
const MOST_FROM_A_BYTE: usize = 1032;

/// How long the only member of an archive says that it is, modulo 2^32 (RFC 1952, ISIZE). That may be a lie, but no
/// greater one than the archive could hold.
fn expected_length(archive: &[u8]) -> usize {
    let said = archive.last_chunk().map_or(0, |said| u32::from_le_bytes(*said) as usize);
    said.min(archive.len().saturating_mul(MOST_FROM_A_BYTE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[test]
    fn a_bomb_is_refused_after_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20_000);
        assert!(matches!(without_gzip(&bomb, 1 << 20), Err(IngestError::TooLarge { .. })));
        assert_eq!(without_gzip(&bomb, 10 << 20).expect("exactly at the limit").len(), 10 << 20);
    }

    #[test]
    fn what_an_archive_says_of_its_length_is_not_relied_on() {
        let mut archive = gzip(b"a;b 1\n");
        assert_eq!(expected_length(&archive), 6);
        archive.extend(gzip(b"c 2\n"));
        assert_eq!(expected_length(&archive), 4);
        assert_eq!(&*without_gzip(&archive, 100).expect("two members"), b"a;b 1\nc 2\n");
        let length = archive.len();
        archive[length - 4..].fill(0xff);
        assert_eq!(expected_length(&archive), length * MOST_FROM_A_BYTE);
        assert!(matches!(without_gzip(&archive, 100), Err(IngestError::Gzip(_))));
    }

    #[test]
    fn truncated_and_garbled_archives_are_errors_and_plain_bytes_pass() {
        let archive = gzip(b"a;b 1\n");
        for length in 2..archive.len() {
            assert!(matches!(without_gzip(&archive[..length], 100), Err(IngestError::Gzip(_))), "{length}");
        }
        assert_eq!(&*without_gzip(b"a;b 1\n", 100).expect("plain"), b"a;b 1\n");
    }
}
