//! A family of metrics with its values at one moment: plain data, made anew for each scrape.

use std::time::SystemTime;

use super::HistogramSnapshot;

/// All metrics of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name, for a counter without `_total`, which [`super::exposition`] adds.
    pub name: String,
    /// One sentence for people.
    pub help: String,
    /// What the values are.
    pub kind: Kind,
    /// The values, each with other labels.
    pub samples: Vec<Sample>,
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever more, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names and values of labels, in the order in which they are written.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// What a [`Sample`] is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge. Up to 2^53 it is exact.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// The counts.
        counts: HistogramSnapshot,
        /// For each bucket in the order of `counts.counts`, an observation that fell into it, if one is known.
        exemplars: Vec<Option<Exemplar>>,
    },
}

/// An observation that can be looked up elsewhere, by the trace it was made in.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Such as `trace_id`. OpenMetrics allows 128 characters in all.
    pub labels: Vec<(&'static str, String)>,
    /// What was observed.
    pub value: f64,
    /// When.
    pub time: SystemTime,
}

impl Family {
    /// A family without values.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>, help: impl Into<String>) -> Self {
        Self { name: name.into(), help: help.into(), kind, samples: Vec::new() }
    }

    /// Adds a value that has no labels.
    #[must_use]
    pub fn value(self, value: impl Into<Value>) -> Self {
        self.labelled(&[], value)
    }

    /// Adds a value with labels.
    #[must_use]
    pub fn labelled(mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) -> Self {
        let labels = labels.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        self.samples.push(Sample { labels, value: value.into() });
        self
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    #[expect(clippy::cast_precision_loss, reason = "what is scraped is a double")]
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<HistogramSnapshot> for Value {
    fn from(counts: HistogramSnapshot) -> Self {
        Self::Histogram { counts, exemplars: Vec::new() }
    }
}
