//! Answers as bytes: what they are, under which name they are saved, and what they cover.

use std::io::Write;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::moment::rfc3339;
use crate::model::Profile;
use crate::store::Coverage;

/// Below this a compressed answer is hardly smaller.
const LEAST_COMPRESSED_BYTES: usize = 1024;

/// Media type of a picture.
pub const SVG: &str = "image/svg+xml";
/// A picture brings its own script, for zooming and searching. It runs as of an origin of its own, from which
/// nothing here can be asked.
const POLICY_OF_SVG: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; sandbox allow-scripts";

/// An answer. What it is of stands in its headers, so that every format tells it.
#[derive(Debug)]
pub struct Download {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub content_type: &'static str,
    /// The name under which it is saved; nothing for what pages and scripts ask for.
    pub file_name: Option<String>,
    /// Whether `bytes` were compressed for the way, by [`Download::compress`].
    pub compressed: bool,
    /// What of the range was covered by windows.
    pub coverage: Option<Coverage>,
    /// The share of the value whose stacks are complete.
    pub complete_share: Option<f64>,
    /// Further headers.
    pub facts: Vec<(&'static str, String)>,
}

impl Download {
    /// An answer without a name.
    #[must_use]
    pub fn new(bytes: Vec<u8>, content_type: &'static str) -> Self {
        Self {
            bytes,
            content_type,
            file_name: None,
            compressed: false,
            coverage: None,
            complete_share: None,
            facts: Vec::new(),
        }
    }

    /// Of a value that is written as JSON.
    #[must_use]
    pub fn json(value: &impl serde::Serialize) -> Self {
        // No type of ours has a key that is no text, which is all that can go wrong in memory.
        Self::new(serde_json::to_vec(value).unwrap_or_default(), "application/json")
    }

    /// With what it covers.
    #[must_use]
    pub fn covering(mut self, coverage: Coverage, complete_share: Option<f64>) -> Self {
        (self.coverage, self.complete_share) = (Some(coverage), complete_share);
        self
    }

    /// Compresses it for the way. Takes about ten milliseconds a megabyte, so it is done where queries run.
    #[must_use]
    pub fn compress(mut self, accepted: bool) -> Self {
        if !accepted || self.bytes.len() < LEAST_COMPRESSED_BYTES || self.bytes.starts_with(&[0x1f, 0x8b]) {
            return self;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        if let Ok(compressed) = encoder.write_all(&self.bytes).and_then(|()| encoder.finish()) {
            self.bytes = compressed;
            self.compressed = true;
        }
        self
    }
}

impl IntoResponse for Download {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.bytes));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if self.compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(name) = &self.file_name
            && let Ok(value) =
                HeaderValue::from_str(&format!("attachment; filename=\"{}\"", safe_file_name(name)))
        {
            headers.insert(header::CONTENT_DISPOSITION, value);
        }
        if self.content_type == SVG {
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY_OF_SVG));
        }
        if let Some(coverage) = &self.coverage {
            insert(headers, "x-spanflame-windows", &coverage.windows.to_string());
            if coverage.windows > 0 {
                insert(headers, "x-spanflame-covered-from", &rfc3339(coverage.from_unix_ns));
                insert(headers, "x-spanflame-covered-to", &rfc3339(coverage.to_unix_ns));
                insert(headers, "x-spanflame-covered-seconds", &seconds(coverage.covered_ns));
            }
        }
        if let Some(share) = self.complete_share {
            insert(headers, "x-spanflame-complete-share", &format!("{share:.6}"));
        }
        for (name, value) in &self.facts {
            insert(headers, name, value);
        }
        response
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn seconds(nanoseconds: u64) -> String {
    format!("{:.3}", nanoseconds as f64 / 1e9)
}

/// A name that no shell, no header and no file system takes amiss.
fn safe_file_name(name: &str) -> String {
    let safe = |character: char| {
        if character.is_ascii_alphanumeric() || "._-".contains(character) { character } else { '_' }
    };
    name.chars().take(120).map(safe).collect::<String>().trim_start_matches('.').to_owned()
}

/// Whether a client takes gzip (RFC 9110, 12.5.3).
#[must_use]
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for offer in texts.flat_map(|text| text.split(',')) {
        let (coding, weight) = offer.split_once(';').unwrap_or((offer, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|number| number.trim().parse::<f32>().ok());
        let wanted = weight.unwrap_or(1.0) > 0.0;
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return wanted,
            "*" => any = wanted,
            _ => {}
        }
    }
    any
}

/// The share of one value whose stacks reach the outermost frame; nothing of a profile without any.
/// Samples without a user stack count as complete: nothing of them is missing.
#[must_use]
pub fn complete_share(profile: &Profile, value: usize) -> Option<f64> {
    let incomplete: Vec<bool> =
        profile.label_sets.iter().map(|labels| labels.iter().any(|label| label.key == "unwind")).collect();
    let (mut total, mut cut) = (0_i64, 0_i64);
    for sample in &profile.samples {
        let weight = sample.values.get(value).copied().unwrap_or(0).max(0);
        total = total.saturating_add(weight);
        if incomplete.get(sample.labels as usize).copied().unwrap_or(false) {
            cut = cut.saturating_add(weight);
        }
    }
    (total > 0).then(|| 1.0 - cut as f64 / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Label, Sample, ValueType};

    fn accepted(text: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap());
        accepts_gzip(&headers)
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for text in ["gzip", "br, gzip", "gzip;q=0.5, br", "*", "GZIP", "deflate, gzip; q=1.0"] {
            assert!(accepted(text), "{text}");
        }
        for text in ["", "br", "gzip;q=0", "*;q=0", "identity", "gzip;q=0, *"] {
            assert!(!accepted(text), "{text}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn only_what_gains_by_it_is_compressed() {
        let long = vec![b'x'; 5000];
        let sent = Download::new(long.clone(), "text/plain").compress(true);
        assert!(sent.compressed && sent.bytes.len() < 100);
        assert!(!Download::new(long, "text/plain").compress(false).compressed);
        assert!(!Download::new(vec![b'x'; 100], "text/plain").compress(true).compressed);
        let again = Download::new(sent.bytes.repeat(50), "application/gzip").compress(true);
        assert!(!again.compressed);
    }

    #[test]
    fn a_file_is_named_by_harmless_characters() {
        assert_eq!(safe_file_name("shop \"1\"\r\nX: y/../ä.pb.gz"), "shop__1___X__y_..__.pb.gz");
        assert_eq!(safe_file_name("..x"), "x");
    }

    #[test]
    fn the_share_is_of_the_value_that_is_asked_for() {
        let mut profile =
            Profile { value_types: vec![ValueType::new("cpu", "nanoseconds")], ..Profile::default() };
        assert_eq!(complete_share(&profile, 0), None);
        profile.label_sets = vec![vec![], vec![Label::text("unwind", "no_rule")]];
        profile.samples = vec![
            Sample { stack: 0, labels: 0, values: vec![30] },
            Sample { stack: 0, labels: 1, values: vec![10] },
        ];
        assert_eq!(complete_share(&profile, 0), Some(0.75));
    }
}
