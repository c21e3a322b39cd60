//! Sections with `SHF_COMPRESSED`: a header (gABI `Elf64_Chdr`: type, reserved, size, alignment), then
//! a zlib or zstd stream. The size in the header is a claim: memory grows with what really comes out.

use std::io::{self, BufRead, Read};

use crate::little_endian::{u32_at, u64_at};

const COMPRESSION_HEADER_BYTES: usize = 24;
/// Bytes that are decompressed together.
const PIECE_BYTES: usize = 32 << 10;
const ELFCOMPRESS_ZLIB: u32 = 1;
const ELFCOMPRESS_ZSTD: u32 = 2;

/// Why a compressed section could not be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// It claims or turns out to be larger than allowed.
    TooLarge,
    /// Not a stream of a known kind, or a damaged one.
    Malformed(String),
}

/// Decompresses a section of at most `limit_bytes` bytes.
pub(crate) fn decompress(stored: &[u8], limit_bytes: u64) -> Result<Vec<u8>, DecompressError> {
    let mut data = Vec::new();
    decompress_from(stored, limit_bytes, &mut |piece| {
        data.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(data)
}

/// Decompresses a section of at most `limit_bytes` bytes and hands it on piece by piece.
pub(crate) fn decompress_from(
    mut stored: impl BufRead,
    limit_bytes: u64,
    on_piece: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DecompressError> {
    let malformed = |reason: &str| DecompressError::Malformed(reason.to_owned());
    let mut header = [0; COMPRESSION_HEADER_BYTES];
    stored.read_exact(&mut header).map_err(|_| malformed("no compression header"))?;
    let kind = u32_at(&header, 0).ok_or_else(|| malformed("no compression header"))?;
    let size_bytes = u64_at(&header, 8).ok_or_else(|| malformed("no compression header"))?;
    if size_bytes > limit_bytes {
        return Err(DecompressError::TooLarge);
    }
    match kind {
        ELFCOMPRESS_ZLIB => read_exactly(flate2::bufread::ZlibDecoder::new(stored), size_bytes, on_piece),
        ELFCOMPRESS_ZSTD => {
            let decoder = zstd::stream::read::Decoder::with_buffer(stored)
                .map_err(|error| DecompressError::Malformed(format!("zstd: {error}")))?;
            read_exactly(decoder, size_bytes, on_piece)
        }
        other => Err(DecompressError::Malformed(format!("compression type {other} is not known"))),
    }
}

/// Hands on what `decoder` yields, which must be `size_bytes` bytes, no fewer and no more.
fn read_exactly(
    decoder: impl Read,
    size_bytes: u64,
    on_piece: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DecompressError> {
    let damaged = |error: io::Error| DecompressError::Malformed(format!("damaged stream: {error}"));
    let mut decoder = decoder.take(size_bytes.saturating_add(1));
    let mut piece = vec![0; PIECE_BYTES];
    let mut read_bytes = 0_u64;
    loop {
        let count = match decoder.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(error)),
        };
        read_bytes += count as u64;
        if read_bytes <= size_bytes {
            on_piece(piece.get(..count).unwrap_or_default()).map_err(damaged)?;
        }
    }
    if read_bytes != size_bytes {
        let reason = format!("its header says {size_bytes} bytes, its stream differs");
        return Err(DecompressError::Malformed(reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn section(kind: u32, claimed_bytes: u64, stream: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&claimed_bytes.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(stream);
        bytes
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn zlib_and_zstd_come_back_as_they_went_in() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let size_bytes = data.len() as u64;
        assert_eq!(decompress(&section(1, size_bytes, &zlib(&data)), size_bytes).unwrap(), data);
        let zstd = zstd::encode_all(&data[..], 1).unwrap();
        assert_eq!(decompress(&section(2, size_bytes, &zstd), size_bytes).unwrap(), data);
    }

    #[test]
    fn a_bomb_is_refused_by_its_claim_or_by_what_comes_out() {
        let bomb = zlib(&vec![0; 10 << 20]);
        assert_eq!(decompress(&section(1, 10 << 20, &bomb), 1 << 20), Err(DecompressError::TooLarge));
        assert!(matches!(decompress(&section(1, 4096, &bomb), 1 << 20), Err(DecompressError::Malformed(_))));
    }

    #[test]
    fn truncated_streams_and_unknown_kinds_are_errors() {
        let data = vec![42; 5000];
        let stream = zlib(&data);
        for cut in 0..stream.len() {
            assert!(decompress(&section(1, 5000, &stream[..cut]), 1 << 20).is_err(), "cut at {cut}");
        }
        assert!(decompress(&section(3, 5000, &stream), 1 << 20).is_err());
        assert!(decompress(&section(1, 5001, &stream), 1 << 20).is_err());
        assert!(decompress(&[1, 0, 0], 1 << 20).is_err());
    }
}
