//! Who is this? The table of processes, their executable mappings, the objects behind them, and what
//! identifies a process to a person (service, container).
//!
//! Comes in: [`crate::kernel::ProcessEvent`]s and `/proc`. Goes out: mapping tables for the unwinder,
//! objects for the symbolizer, an [`identity::Identity`] for every process that was sampled.
//! Never: stacks, symbols, spans, files of its own.

pub mod identity;
mod mapped_file;
pub mod mapping_list;
pub mod objects;
pub mod proc_maps;
pub mod table;

pub use mapped_file::FileNumbers;
pub use mapping_list::{ExecutableMapping, MappingContent, MappingList};
pub use objects::{ObjectRegistry, RegisteredObject};
pub use table::{Interest, ProcessTable};
