//! Any bytes as a request of OTLP, profiles or traces, in protocol buffers or in JSON: refused, or taken with tables
//! that hold and within the limits.
//!
//! The sources are taken as they are, since the crate they belong to needs libbpf and a browser's page.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/ingest/mod.rs"]
mod ingest;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../src/export"]
mod export {
    pub mod otlp_attributes;
    pub mod otlp_schema;
    pub mod pprof_proto;
    pub mod speedscope_schema;

    // What readers know of writers, which need more.
    pub mod columnar {
        pub const MAGIC: [u8; 4] = *b"SFCG";
    }
    pub mod pprof {
        pub const JIT_MAPPING: &str = "[jit]";
    }
    pub mod svg {
        pub const HOST_COMMENT: &str = "host: ";
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Format {
        Pprof,
        Folded,
        Svg,
        Speedscope,
        Otlp,
        Columnar,
    }

    impl Format {
        pub fn from_path(_: &std::path::Path) -> Result<Self, ()> {
            Err(())
        }
    }
}

use export::otlp_schema::{PROFILES_REQUEST, TRACES_REQUEST};
use ingest::{Limits, otlp_json, read_request, read_spans};
use libfuzzer_sys::fuzz_target;

/// 2026.
const NOW_NS: u64 = 1_790_000_000_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, body)) = bytes.split_first() else { return };
    let limits = Limits {
        file_bytes: 1 << 16,
        fields: 10_000,
        text_bytes: 1 << 20,
        stack_entries: 10_000,
        rows: 10_000,
    };
    let is_traces = kind & 1 != 0;
    let translated;
    let body = if kind & 2 != 0 {
        let message = if is_traces { &TRACES_REQUEST } else { &PROFILES_REQUEST };
        let Ok(protobuf) = otlp_json::to_protobuf(body, message) else { return };
        translated = protobuf;
        translated.as_slice()
    } else {
        body
    };
    if is_traces {
        if let Ok(received) = read_spans(body, &limits, NOW_NS) {
            for span in &received.spans {
                assert!(span.end_unix_ns.is_none_or(|end| end >= span.start_unix_ns));
            }
        }
    } else if let Ok(received) = read_request(body, &limits, NOW_NS) {
        for (profile, profiles) in &received.windows {
            assert!(profile.validate().is_ok() && *profiles > 0);
        }
    }
});
