//! How much work a run did, so that its cost can be told from how much it did.

use anyhow::anyhow;
use regex::Regex;

use super::one_run::last_lines;
use crate::check::Work;

/// Longest part of a run's output that is searched, from its end: what a program says last is what it did.
pub(super) const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// Where the amount comes from.
#[derive(Debug, Clone)]
pub(in crate::cli::check) enum WorkSource {
    /// Each run does as much.
    Fixed(f64),
    /// What the pattern's first group catches in the output; the last match counts.
    Output(Regex),
}

/// Reads `--work-from`.
///
/// # Errors
/// What is wrong with the pattern.
pub(in crate::cli::check) fn parse_pattern(text: &str) -> Result<Regex, String> {
    let pattern = Regex::new(text).map_err(|error| error.to_string())?;
    if pattern.captures_len() < 2 {
        return Err(format!("{text:?} has no group that catches the number, such as \"([0-9]+) requests\""));
    }
    Ok(pattern)
}

impl WorkSource {
    /// What a run did whose output is this. `unit`: of what, for the reader.
    ///
    /// # Errors
    /// Nothing in the output matches; or what does is no number above zero.
    pub(super) fn of(&self, output: &str, unit: &str) -> anyhow::Result<Work> {
        let done = match self {
            Self::Fixed(done) => *done,
            Self::Output(pattern) => {
                let caught = pattern.captures_iter(output).last().and_then(|caught| caught.get(1));
                let caught = caught.ok_or_else(|| {
                    anyhow!(
                        "nothing that the command said matches --work-from {:?}; it said last:\n{}",
                        pattern.as_str(),
                        last_lines(output)
                    )
                })?;
                // People group digits: 12,345 or 12_345.
                let digits = caught.as_str().replace([',', '_'], "");
                let number = digits.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
                number.ok_or_else(|| {
                    anyhow!(
                        "--work-from {:?} has caught {:?}, which is no number above zero",
                        pattern.as_str(),
                        caught.as_str()
                    )
                })?
            }
        };
        Ok(Work { done, unit: unit.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_that_the_program_says_counts() {
        let source = WorkSource::Output(parse_pattern("([0-9.,]+) requests").expect("a pattern"));
        let work =
            source.of("10 requests so far\n12,345.5 requests in 3 s\n", "requests").expect("it is said");
        assert_eq!(work, Work { done: 12_345.5, unit: "requests".to_owned() });
    }

    #[test]
    fn what_says_no_amount_is_an_error_that_shows_what_was_looked_for() {
        let source = WorkSource::Output(parse_pattern("(.*) requests").expect("a pattern"));
        let message = source.of("all done\n", "").expect_err("nothing matches").to_string();
        assert!(
            message.contains("(.*) requests") && message.ends_with("it said last:\nall done"),
            "{message}"
        );
        for said in ["no requests", "0 requests", "-3 requests", "inf requests"] {
            let message = source.of(said, "").expect_err("no amount").to_string();
            assert!(message.contains("no number above zero"), "{message}");
        }
    }

    #[test]
    fn a_pattern_has_a_group_and_is_one() {
        assert!(parse_pattern("[0-9]+ requests").expect_err("no group").contains("no group"));
        assert!(parse_pattern("(").is_err());
    }
}
