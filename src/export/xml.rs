//! Text in XML 1.0: pictures and reports.

/// Text as it may stand in an element or an attribute. What XML has no place for at all (control characters but for the
/// line break; section 2.2) is a blank.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("a<b>&\"\u{1}c\u{1b}[31m\nd\u{ffff}"), "a&lt;b&gt;&amp;&quot; c [31m\nd ");
    }
}
