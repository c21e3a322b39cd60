//! Figures and names as the picture shows them.

use crate::model::ValueType;

/// Width of a letter of the text in boxes.
pub(super) const LETTER_PX: f64 = 7.0;

/// How values are shown.
pub(super) struct Unit {
    name: String,
    is_time: bool,
}

impl Unit {
    pub(super) fn of(value_type: &ValueType) -> Self {
        match value_type.unit.as_str() {
            "nanoseconds" => Self { name: String::new(), is_time: true },
            "count" => Self { name: format!(" {}", value_type.kind), is_time: false },
            unit => Self { name: format!(" {unit}"), is_time: false },
        }
    }

    pub(super) fn text(&self, value: f64) -> String {
        if self.is_time {
            return if value >= 1e9 {
                format!("{:.2} s", value / 1e9)
            } else {
                format!("{:.1} ms", value / 1e6)
            };
        }
        format!("{value:.0}{}", self.name)
    }
}

/// `+12.3 %`, `new`, `gone`.
pub(super) fn relative(base: f64, new: f64) -> String {
    match (base > 0.0, new > 0.0) {
        (true, true) => format!("{:+.1} %", 100.0 * (new - base) / base),
        (true, false) => "gone".to_owned(),
        (false, true) => "new".to_owned(),
        (false, false) => "nothing".to_owned(),
    }
}

/// The first letters; nothing where not even three have room.
pub(super) fn cut(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    if letters < 3 {
        return String::new();
    }
    name.chars().take(letters - 2).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_by_letters() {
        assert_eq!(cut("abcdef", 4), "ab..");
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("abcdef", 2), "");
    }
}
