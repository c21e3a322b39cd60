//! Go executables: `.gopclntab` names, lines, inlined calls and stack-pointer deltas, stripped or not.
//!
//! Comes in: an [`ObjectFile`](crate::ObjectFile). Goes out: [`GoSymbols`] (address → frames),
//! [`unwind_rows`] (rows for [`UnwindTable`](crate::unwind::UnwindTable)) and [`GoProgram`] (its version, and
//! how its goroutines are found), and [`GoRequestCode`] (where it works on requests).
//! Never: symbol tables or DWARF, which a stripped Go executable does not have, and which the Go
//! runtime itself does without.
//!
//! The runtime must walk its stacks and name its functions in every executable, so everything it
//! needs is in loaded, read-only memory: the *pclntab* ([`pclntab`]) with all functions, their lines
//! and stack depths; the *module data* ([`module_data`]), a struct in writable memory that says where
//! the text begins and where the function data lie; and in the function data the trees of inlined
//! calls ([`inline`]).
//!
//! Versions: Go 1.18 to 1.26, whose pclntabs begin with the magic numbers 0xfffffff0 (to 1.19) and
//! 0xfffffff1 (from 1.20). Older ones have entry addresses in place of offsets and are not read.

mod build_info;
mod goroutine_ids;
mod goroutines;
mod inline;
mod labels;
mod locate;
mod module_data;
mod pclntab;
mod prologue;
mod request_code;
mod scan;
mod symbols;
mod text;
mod unwind;

pub use goroutines::{GoProgram, GoroutineOffsets};
pub use labels::GoLabels;
pub use request_code::{CodeRange, GoPoint, GoProbe, GoRequestCode, GrpcOffsets, MAX_CODE_RANGES};
pub use symbols::{GoSymbols, Inlining};
pub(crate) use unwind::for_each_row;
pub use unwind::unwind_rows;
