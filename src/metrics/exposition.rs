//! Families of metrics as text for a scraper: Prometheus's text format 0.0.4 and OpenMetrics 1.0.
//!
//! They differ in little, and every difference matters to some parser. In OpenMetrics the family of a counter
//! is named without `_total` and its sample with it, HELP escapes quotation marks too, the bound of a bucket
//! is a float (`1.0`), samples may carry exemplars, and the text ends in `# EOF`. Units and times of creation
//! are left out of both.
//! Sources: prometheus.io "Exposition formats"; github.com/prometheus/OpenMetrics, specification 1.0.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::family::{Exemplar, Family, Kind, Sample, Value};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What the answer's `Content-Type` is.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a request asks for by its `Accept` headers, joined by commas: OpenMetrics if it is named and at
    /// least as welcome as plain text, which is for everybody else. RFC 9110, 12.5.1.
    #[must_use]
    pub fn accepted_by(accept: &str) -> Self {
        let mut open_metrics = 0;
        // The more closely a range names text, the more its weight counts.
        let mut text = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1000;
            let mut version = None;
            for parameter in parts {
                match parameter.split_once('=') {
                    Some((key, value)) if key.trim().eq_ignore_ascii_case("q") => weight = thousandths(value),
                    Some((key, value)) if key.trim().eq_ignore_ascii_case("version") => {
                        version = Some(value.trim().trim_matches('"'));
                    }
                    _ => {}
                }
            }
            match name.as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    open_metrics = open_metrics.max(weight);
                }
                "text/plain" if matches!(version, None | Some("0.0.4")) => text = text.max((3, weight)),
                "text/*" => text = text.max((2, weight)),
                "*/*" => text = text.max((1, weight)),
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text.1 { Self::OpenMetrics } else { Self::Text }
    }
}

/// The weight of a range: `0.75` → 750. What is no weight counts as none given.
fn thousandths(weight: &str) -> u16 {
    match weight.trim().parse::<f32>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in the range")]
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as u16,
        _ => 1000,
    }
}

/// Writes the families, in their order, and each one's samples together.
#[must_use]
pub fn write(families: &[Family], format: Format) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family, format);
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

// Writing to a string does not fail.
macro_rules! put {
    ($text:expr, $($what:tt)*) => { let _ = write!($text, $($what)*); };
}

fn write_family(text: &mut String, family: &Family, format: Format) {
    let total = match family.kind {
        Kind::Counter => "_total",
        Kind::Gauge | Kind::Histogram => "",
    };
    let suffix_of_family = if format == Format::Text { total } else { "" };
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let name = &family.name;
    let help = escape(&family.help, format == Format::OpenMetrics);
    put!(text, "# HELP {name}{suffix_of_family} {help}\n# TYPE {name}{suffix_of_family} {kind}\n");
    for sample in &family.samples {
        write_sample(text, name, total, sample, format);
    }
}

fn write_sample(text: &mut String, name: &str, total: &str, sample: &Sample, format: Format) {
    match &sample.value {
        Value::Number(number) => {
            put!(text, "{name}{total}{} {}\n", labels(&sample.labels, None), Number(*number));
        }
        Value::Histogram { counts, exemplars } => {
            let mut below = 0_u64;
            for (index, count) in counts.counts.iter().enumerate() {
                below = below.saturating_add(*count);
                let bound = match counts.bounds.get(index) {
                    Some(bound) if format == Format::OpenMetrics => format!("{bound:?}"),
                    Some(bound) => Number(*bound).to_string(),
                    None => "+Inf".to_owned(),
                };
                put!(text, "{name}_bucket{} {below}", labels(&sample.labels, Some(&bound)));
                if format == Format::OpenMetrics
                    && let Some(Some(exemplar)) = exemplars.get(index)
                {
                    write_exemplar(text, exemplar);
                }
                text.push('\n');
            }
            let labels = labels(&sample.labels, None);
            put!(text, "{name}_sum{labels} {}\n{name}_count{labels} {below}\n", Number(counts.sum));
        }
    }
}

fn write_exemplar(text: &mut String, exemplar: &Exemplar) {
    let since = exemplar.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let labels = match labels(&exemplar.labels, None) {
        none if none.is_empty() => "{}".to_owned(),
        labels => labels,
    };
    put!(text, " # {labels} {} {:.3}", Number(exemplar.value), since.as_secs_f64());
}

/// `{name="value",…}`, or nothing where there are none.
fn labels(labels: &[(&'static str, String)], bound: Option<&str>) -> String {
    let mut text = String::new();
    let with_bound =
        labels.iter().map(|(name, value)| (*name, value.as_str())).chain(bound.map(|it| ("le", it)));
    for (name, value) in with_bound {
        text.push(if text.is_empty() { '{' } else { ',' });
        put!(text, "{name}=\"{}\"", escape(value, true));
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

fn escape(text: &str, quotation_marks: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotation_marks => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A number as both formats want it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            number if number.is_nan() => formatter.write_str("NaN"),
            number if number == f64::INFINITY => formatter.write_str("+Inf"),
            number if number == f64::NEG_INFINITY => formatter.write_str("-Inf"),
            number => write!(formatter, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Histogram;

    fn families() -> Vec<Family> {
        let histogram = Histogram::new(&[0.5, 1.0]);
        histogram.observe(0.25);
        histogram.observe(3.0);
        let exemplar = Exemplar {
            labels: vec![("trace_id", "4bf9".to_owned())],
            value: 0.25,
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        };
        let value =
            Value::Histogram { counts: histogram.snapshot(), exemplars: vec![Some(exemplar), None, None] };
        vec![
            Family::new(Kind::Counter, "a_lost", "Lost, \"by\" a\\b\nreason")
                .labelled(&[("reason", "x\"y\\z\n")], 12_345_678_901_u64)
                .labelled(&[("reason", "é")], 0_u64),
            Family::new(Kind::Gauge, "a_bytes", "Bytes").value(f64::INFINITY),
            Family::new(Kind::Histogram, "a_seconds", "Seconds").value(value),
        ]
    }

    #[test]
    fn text_names_counters_by_their_total_and_leaves_exemplars_out() {
        let expected = "\
# HELP a_lost_total Lost, \"by\" a\\\\b\\nreason
# TYPE a_lost_total counter
a_lost_total{reason=\"x\\\"y\\\\z\\n\"} 12345678901
a_lost_total{reason=\"é\"} 0
# HELP a_bytes Bytes
# TYPE a_bytes gauge
a_bytes +Inf
# HELP a_seconds Seconds
# TYPE a_seconds histogram
a_seconds_bucket{le=\"0.5\"} 1
a_seconds_bucket{le=\"1\"} 1
a_seconds_bucket{le=\"+Inf\"} 2
a_seconds_sum 3.25
a_seconds_count 2
";
        assert_eq!(write(&families(), Format::Text), expected);
    }

    #[test]
    fn open_metrics_names_counters_without_their_total_and_ends() {
        let expected = "\
# HELP a_lost Lost, \\\"by\\\" a\\\\b\\nreason
# TYPE a_lost counter
a_lost_total{reason=\"x\\\"y\\\\z\\n\"} 12345678901
a_lost_total{reason=\"é\"} 0
# HELP a_bytes Bytes
# TYPE a_bytes gauge
a_bytes +Inf
# HELP a_seconds Seconds
# TYPE a_seconds histogram
a_seconds_bucket{le=\"0.5\"} 1 # {trace_id=\"4bf9\"} 0.25 1.500
a_seconds_bucket{le=\"1.0\"} 1
a_seconds_bucket{le=\"+Inf\"} 2
a_seconds_sum 3.25
a_seconds_count 2
# EOF
";
        assert_eq!(write(&families(), Format::OpenMetrics), expected);
    }

    #[test]
    fn open_metrics_is_for_those_who_name_it_and_like_it_as_well_as_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in [
            prometheus,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=1.0.0; q=0.5, */*; q=0.5",
            "text/plain;q=0.2, application/openmetrics-text;q=0.3",
            "text/plain;q=0.2, */*, application/openmetrics-text;q=0.3",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4",
        ] {
            assert_eq!(Format::accepted_by(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.5,text/plain",
            "application/openmetrics-text;q=0.5,text/*;q=0.6",
            ";;=,q=1,;q",
        ] {
            assert_eq!(Format::accepted_by(accept), Format::Text, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_label_holds_it_stays_on_its_line_and_between_its_quotation_marks(value in any::<String>()) {
            let family = Family::new(Kind::Gauge, "a", value.clone()).labelled(&[("l", &value)], 1_u64);
            for format in [Format::Text, Format::OpenMetrics] {
                let text = write(std::slice::from_ref(&family), format);
                let line = text.split('\n').nth(2).expect("a sample");
                let inside = line.strip_prefix("a{l=\"").and_then(|rest| rest.strip_suffix("\"} 1"));
                let inside = inside.expect("a label");
                let without_escapes = inside.replace("\\\\", "").replace("\\\"", "").replace("\\n", "");
                prop_assert!(!without_escapes.contains(['"', '\\']), "{}", line);
            }
        }

        #[test]
        fn any_accept_header_is_understood_somehow(accept in any::<String>()) {
            let _ = Format::accepted_by(&accept);
        }
    }
}
