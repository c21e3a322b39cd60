//! Figures, their bounds, and the table they are printed in.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure must not exceed, or must reach.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// The median must not be greater.
    AtMost(f64),
    /// The median must not be smaller.
    AtLeast(f64),
}

/// One line of the table: a figure that was taken several times, or the reason why there is none.
#[derive(Debug, Clone)]
pub struct Figure {
    what: String,
    unit: &'static str,
    values: Vec<f64>,
    bound: Option<Bound>,
    missing: Option<String>,
}

impl Figure {
    /// A figure with its single values.
    pub fn new(what: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        let missing = values.is_empty().then(|| "no value was measured".to_owned());
        Self { what: what.into(), unit, values, bound: None, missing }
    }

    /// A figure that could not be had.
    pub fn missing(what: impl Into<String>, reason: impl Into<String>) -> Self {
        let missing = Some(reason.into());
        Self { what: what.into(), unit: "", values: Vec::new(), bound: None, missing }
    }

    /// The same figure with a bound.
    #[must_use]
    pub fn bounded(mut self, bound: Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    /// The middle value; of an even number the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(f64::midpoint(lower, upper))
    }

    fn verdict(&self) -> &'static str {
        match (self.median(), self.bound) {
            (None, _) => "unknown",
            (_, None) => "",
            (Some(median), Some(Bound::AtMost(limit))) if median <= limit => "ok",
            (Some(median), Some(Bound::AtLeast(limit))) if median >= limit => "ok",
            (Some(_), Some(_)) => "missed",
        }
    }

    fn measured(&self) -> String {
        let Some(median) = self.median() else {
            return self.missing.clone().unwrap_or_default();
        };
        let mut text = format!("{} {}", significant(median), self.unit);
        if self.values.len() > 1 {
            let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let _ =
                write!(text, "  ({} × {}…{})", self.values.len(), significant(least), significant(greatest));
        }
        text
    }

    fn bound_text(&self) -> String {
        match self.bound {
            None => String::new(),
            Some(Bound::AtMost(limit)) => format!("≤ {}", significant(limit)),
            Some(Bound::AtLeast(limit)) => format!("≥ {}", significant(limit)),
        }
    }

    fn json(&self) -> Value {
        let (at_most, at_least) = match self.bound {
            None => (None, None),
            Some(Bound::AtMost(limit)) => (Some(limit), None),
            Some(Bound::AtLeast(limit)) => (None, Some(limit)),
        };
        json!({
            "what": self.what, "unit": self.unit, "median": self.median(), "values": self.values,
            "at_most": at_most, "at_least": at_least, "verdict": self.verdict(), "missing": self.missing,
        })
    }
}

/// Three significant digits for small numbers, whole numbers above a thousand.
fn significant(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 0.01 || magnitude == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}

/// Figures of one concern under a heading that says how they were taken.
#[derive(Debug)]
pub struct Section {
    title: String,
    method: String,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Section {
    /// An empty section.
    pub fn new(title: &str, method: &str) -> Self {
        Self { title: title.to_owned(), method: method.to_owned(), figures: Vec::new(), notes: Vec::new() }
    }

    /// Adds a figure.
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Adds what is no figure: it is printed below them.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds that something could not be measured, and goes on.
    pub fn missing(&mut self, what: impl Into<String>, reason: &anyhow::Error) {
        self.add(Figure::missing(what, format!("{reason:#}")));
    }

    /// The section as a table for people.
    pub fn print(&self) {
        println!("\n{}\n  {}", self.title, self.method);
        let width_of = |text: &str| text.chars().count();
        let what = self.figures.iter().map(|figure| width_of(&figure.what)).max().unwrap_or(0);
        let measured = self.figures.iter().map(|figure| width_of(&figure.measured())).max().unwrap_or(0);
        for figure in &self.figures {
            println!(
                "  {:what$} | {:measured$} | {:8} | {}",
                figure.what,
                figure.measured(),
                figure.bound_text(),
                figure.verdict()
            );
        }
        for note in &self.notes {
            println!("  {note}");
        }
    }

    /// The section for programs.
    pub fn json(&self) -> Value {
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        json!({"title": self.title, "method": self.method, "figures": figures, "notes": self.notes})
    }

    /// How many figures met their bound, missed it, and could not be had.
    pub fn verdicts(&self) -> (usize, usize, usize) {
        let count = |verdict| self.figures.iter().filter(|figure| figure.verdict() == verdict).count();
        (count("ok"), count("missed"), count("unknown"))
    }
}
