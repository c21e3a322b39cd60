//! The nearest known word to one that is not known.

/// Longer words are not compared: the distance takes time by the product of the lengths.
const LONGEST: usize = 80;

/// The candidate that `word` was probably meant to be: the same but for case, `-` and `_`, or at most a
/// third of its letters, and three, away. Of equals the first.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let wanted = plain(word);
    let farthest = wanted.chars().count().div_ceil(3).min(3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|&(distance, candidate)| distance <= farthest && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `selfTelemetry`, `self-telemetry` and `self_telemetry` are one word.
fn plain(word: &str) -> String {
    word.chars().filter(|character| !matches!(character, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 5] = ["self_telemetry", "sample_rate", "span_sample_rate", "listen", "path"];

    #[test]
    fn slips_of_the_finger_and_other_spellings_are_recognised() {
        for (word, wanted) in [
            ("selfTelemetry", "self_telemetry"),
            ("self-telemetry", "self_telemetry"),
            ("self_telemtry", "self_telemetry"),
            ("samplerate", "sample_rate"),
            ("lisetn", "listen"),
            ("paht", "path"),
        ] {
            assert_eq!(nearest(word, KEYS.into_iter()), Some(wanted), "{word}");
        }
    }

    #[test]
    fn words_that_have_nothing_in_common_suggest_nothing() {
        for word in ["", "x", "collector", "hast", "日本", &"listen".repeat(20)] {
            assert_eq!(nearest(word, KEYS.into_iter()), None, "{word}");
        }
    }
}
