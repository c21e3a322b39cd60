//! `CPython`'s frames by the kernel side's unwinder: of interpreters that run here, and of recorded ones.
mod placeholder {}
