//! Who is this? The table of processes, their executable mappings, the objects behind them, and what
//! identifies a process to a person (service, container).
//!
//! Comes in: [`crate::kernel::ProcessEvent`]s and `/proc`. Goes out: mapping tables for the unwinder,
//! objects for the symbolizer, for every sample the [`image::Image`] that its process ran.
//! Never: stacks, symbols, spans, files of its own.

mod endings;
mod event_loop_program;
mod go_program;
pub mod identity;
pub mod image;
pub mod listening;
pub mod living;
pub mod machine;
mod mapped_file;
pub mod mapping_list;
pub mod objects;
pub mod proc_maps;
mod process_context;
mod runtimes;
mod service_name;
mod span_resource;
pub mod table;
mod task_state;
mod tls_libraries;

pub use event_loop_program::{EventLoopProcess, EventLoopPrograms};
pub use go_program::{GoProcess, GoPrograms};
pub use image::Image;
pub use listening::ListeningPorts;
pub use living::{LivingProcess, LivingThread, living};
pub use mapped_file::FileNumbers;
pub use mapping_list::{ExecutableMapping, MappingContent, MappingList};
pub use objects::{ObjectRegistry, RegisteredObject};
pub use runtimes::{FoundRuntimes, RuntimeOfProcess, find_runtimes};
pub use span_resource::SpanResources;
pub use table::{Interest, ProcessTable};
pub use tls_libraries::{ProcessLibraries, TlsLibraries, TlsLibrary};
