//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive in order of their symbols, and follow those of
//! the lengths below. So the lengths are all there is to write down.

/// Length of each symbol's code in bits; the last is the end of the string.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
const SYMBOLS: usize = 257;
const END_OF_STRING: u16 = 256;
const LONGEST: usize = 30;

/// The code, ready to be read.
struct Code {
    /// Symbols in order of their codes.
    symbols: [u16; SYMBOLS],
    /// For each length: the first code that is longer, its bits from the highest on.
    ends: [u32; LONGEST + 1],
    /// For each length: what added to a code gives its place in `symbols`.
    offsets: [i64; LONGEST + 1],
    /// For each byte: the symbol and the length of the code that it begins with; length 0 if that is longer.
    short: [(u8, u8); 256],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut code = Code {
        symbols: [0; SYMBOLS],
        ends: [0; LONGEST + 1],
        offsets: [0; LONGEST + 1],
        short: [(0, 0); 256],
    };
    let (mut length, mut next, mut place) = (1, 0_u32, 0);
    while length <= LONGEST {
        next <<= 1;
        code.offsets[length] = place as i64 - next as i64;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.symbols[place] = symbol as u16;
                if length <= 8 {
                    let begin = (next as usize) << (8 - length);
                    let mut at = begin;
                    while at < begin + (1 << (8 - length)) {
                        code.short[at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        // The last code of all is all ones: nothing is longer.
        code.ends[length] = if length == LONGEST { u32::MAX } else { next << (32 - length) };
        length += 1;
    }
    code
}

/// Appends the string that is coded so; whether it is one.
pub(super) fn decode(coded: &[u8], decoded: &mut Vec<u8>) -> bool {
    // Bits that are not read yet, from the highest on, then ones.
    let mut window = u64::MAX;
    let mut available = 0_u32;
    let mut rest = coded.iter();
    loop {
        while available <= 56 {
            let Some(&byte) = rest.next() else { break };
            let hole = 56 - available;
            window &= !(0xff << hole) | u64::from(byte) << hole;
            available += 8;
        }
        let (symbol, length) = match CODE.short[(window >> 56) as usize] {
            (_, 0) => {
                let high = (window >> 32) as u32;
                let Some(length) =
                    (9..=LONGEST).find(|&length| high < CODE.ends[length] || length == LONGEST)
                else {
                    return false;
                };
                let place = i64::from(high >> (32 - length)) + CODE.offsets[length];
                match usize::try_from(place).ok().and_then(|place| CODE.symbols.get(place)) {
                    Some(&symbol) => (symbol, length as u32),
                    None => return false,
                }
            }
            (symbol, length) => (u16::from(symbol), u32::from(length)),
        };
        if length > available {
            // What is left begins the code of the end: ones, fewer than a byte.
            return available < 8 && window == u64::MAX;
        }
        if symbol == END_OF_STRING {
            return false;
        }
        decoded.push(symbol as u8);
        window = window << length | ((1 << length) - 1);
        available -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The strings of RFC 7541 appendix C.4 and C.6.
    #[test]
    fn strings_of_the_specification() {
        for (coded, expected) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("640eff", "307"),
            ("d07abe941054d444a8200595040b8166e084a62d1bff", "Mon, 21 Oct 2013 20:13:22 GMT"),
            ("9bd9ab", "gzip"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
            ("", ""),
        ] {
            let coded: Vec<u8> = (0..coded.len() / 2)
                .map(|at| u8::from_str_radix(&coded[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let mut decoded = Vec::new();
            assert!(decode(&coded, &mut decoded));
            assert_eq!(String::from_utf8(decoded).unwrap(), expected);
        }
    }

    #[test]
    fn every_symbol_is_read_and_what_is_no_string_is_refused() {
        for symbol in 0..=255_u8 {
            // Its code: as many bits as its length says, at the place that the canonical order gives it.
            let length = usize::from(LENGTHS[usize::from(symbol)]);
            let place = CODE.symbols.iter().position(|&other| other == u16::from(symbol)).unwrap();
            let code = (place as i64 - CODE.offsets[length]) as u64;
            let bits = code << (64 - length) | u64::MAX >> length;
            let bytes = &bits.to_be_bytes()[..length.div_ceil(8)];
            let mut decoded = Vec::new();
            assert!(decode(bytes, &mut decoded), "{symbol}");
            assert_eq!(decoded, [symbol]);
        }
        for refused in [
            &[0xff][..],               // a whole byte of padding
            &[0xff, 0xff, 0xff, 0xff], // the end of the string, and more
            &[0x1f, 0xff],             // "a", three ones, and a whole byte more
            &[0x18],                   // "a" and padding of zeros
            &[0xff, 0xff, 0xff, 0xfc], // the end of the string
        ] {
            assert!(!decode(refused, &mut Vec::new()), "{refused:x?}");
        }
    }
}
