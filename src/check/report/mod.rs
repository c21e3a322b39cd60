//! A comparison, as people and other programs read it: a file a format.
//!
//! Comes in: a [`Comparison`](crate::check::Comparison), and where the project's sources are. Goes out: text. Never: another
//! verdict than the one that was given.

pub mod github;
pub mod junit;
pub mod markdown;
mod phrases;
pub mod sarif;
pub mod source;
