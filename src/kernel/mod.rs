//! The only code that talks to libbpf.
