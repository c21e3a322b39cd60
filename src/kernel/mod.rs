//! The only code that talks to libbpf.

pub mod ability;
