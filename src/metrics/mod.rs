//! Counters and histograms, and how they are told to a scraper.
//!
//! Comes in: what the parts of spanflame count. Goes out: families of metrics with their values, and their
//! text in the two formats that Prometheus reads. Never: HTTP, a global registry, a clock.
//!
//! Parts count in their own structures, close to what happens; a page of metrics is put together from all
//! of them when it is asked for. So there is nothing to register and nothing to forget.

pub mod exposition;
mod family;
mod histogram;

pub mod memory;
pub mod own_process;
pub mod requests;

pub use family::{Exemplar, Family, Kind, Sample, Value};
pub use histogram::{Histogram, HistogramSnapshot};
