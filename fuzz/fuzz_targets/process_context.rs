//! Any list of mappings and any memory behind it as what a process says of itself (OTEP 4719), which may change while it is
//! read.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/model"]
mod model {
    pub mod socket;
    pub mod span;
    pub use socket::RequestKey;
}
#[path = "../../src/process/process_context.rs"]
mod process_context;

use std::cell::Cell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use model::span::AttributeValue;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Lines of its own before the one that names the mapping, if there is one.
    maps: Vec<u8>,
    is_named: bool,
    /// Signature, version, length, time and place as they should be, or as these bytes say.
    header: Option<[u8; 32]>,
    times: [u64; 4],
    payload: Vec<u8>,
    says_bytes: Option<u32>,
    /// Memory ends there.
    readable: u16,
}

const HEADER: u64 = 0x7f00;
const PAYLOAD: u64 = 0x9000;

fuzz_target!(|input: Input| {
    let mut maps = input.maps.clone();
    if input.is_named {
        maps.extend(b"\n7f00-8000 rw-p 00000000 00:01 1037 /memfd:OTEL_CTX (deleted)\n");
    }
    let looks = Cell::new(0);
    let header = || {
        if let Some(header) = input.header {
            return header.to_vec();
        }
        let time = input.times[looks.get() % input.times.len()];
        looks.set(looks.get() + 1);
        let mut header = b"OTEL_CTX".to_vec();
        header.extend(2_u32.to_ne_bytes());
        header.extend(input.says_bytes.unwrap_or(input.payload.len() as u32).to_ne_bytes());
        header.extend(time.to_ne_bytes());
        header.extend(PAYLOAD.to_ne_bytes());
        header
    };
    let read = |address: u64, bytes: usize| {
        assert!(bytes <= 64 << 10, "no more than a payload may have");
        match address {
            HEADER => header().get(..bytes).map(<[u8]>::to_vec),
            PAYLOAD if bytes <= usize::from(input.readable) => {
                let mut memory = input.payload.clone();
                memory.resize(bytes, 0);
                Some(memory)
            }
            _ => None,
        }
    };
    let told = process_context::told(maps.as_slice(), &read);
    assert!(told.len() <= 128);
    for (name, value) in &told {
        assert!(!name.is_empty() && !name.starts_with("threadlocal."));
        assert!(!matches!(value, AttributeValue::Text(text) if text.len() > 4096));
    }
    let _ = process_context::service(&told);
});
