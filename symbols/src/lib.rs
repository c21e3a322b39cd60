//! Objects and addresses → names, files, lines, inlined frames and unwind tables.
//!
//! Comes in: open files, process ids, addresses. Goes out: [`unwind::UnwindTable`]s,
//! [`symbolize::Symbol`]s and [`script::ScriptFunction`]s. Never: BPF, async, network.

pub mod address;
pub mod build_id;
mod compressed_section;
mod functions;
pub mod go;
pub mod hotspot;
mod identity;
mod indirect_calls;
mod little_endian;
pub mod object_file;
pub mod open;
mod paged_bytes;
pub mod process_memory;
pub mod python;
pub mod script;
pub mod symbolize;
pub mod thread_local;
pub mod unwind;
pub mod v8;

pub use address::{ElfAddress, FileOffset, ProcessAddress};
pub use build_id::BuildId;
pub use functions::{NamedFunction, find_functions};
pub use indirect_calls::indirect_calls;
pub use object_file::{Machine, ObjectError, ObjectFile};
pub use unwind::UnwindTable;
