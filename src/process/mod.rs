//! Who is this?

pub mod proc_maps;
