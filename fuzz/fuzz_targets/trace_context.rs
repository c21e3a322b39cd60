//! Any text as `traceparent`, `tracestate`, `b3` and target.
#![no_main]
#![allow(dead_code)]

#[path = "../../src/model"]
mod model {
    pub mod socket;
    pub mod span;
    pub use socket::RequestKey;
}
#[path = "../../src/trace"]
mod trace {
    pub mod context;
    pub mod exchange;
    pub mod route;
}

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let _ = trace::context::w3c(first, second);
    let _ = trace::context::b3(first);
    if let Some(kept) = trace::context::trace_state(first) {
        assert_eq!(trace::context::trace_state(&kept).as_ref(), Some(&kept));
    }
    if let Some(template) = trace::route::path(first).and_then(trace::route::template) {
        assert_eq!(trace::route::template(&template).as_ref(), Some(&template));
    }
});
