//! How a frame reads: its name, what sort it is, and the suffixes of folded stacks.
//!
//! Folded stacks have no escaping: `;` separates frames, a space and a number end the line, and a
//! line that begins with `#` is a comment to most tools. A name that contains such things is
//! changed, in every format that shows text alone, so that it reads the same everywhere:
//!
//! - `;` becomes `:` (as other collapsing tools have it), control characters become spaces;
//! - a last word that is a number is joined by `_` instead of a space, since tools take a second
//!   number at the end of a line for the other half of a difference;
//! - a leading `#` gets a `_` before it;
//! - an empty name reads `[unknown]`.
//!
//! A function whose own name ends in one of the suffixes is taken for that sort when it is read back:
//! names that other programs have folded before keep their meaning that way.
//!
//! An address without a name reads `[module+0xoff]`: the file name of its mapping and the ELF address
//! in hexadecimal. Outside of every mapping the module is `unknown`, `kernel` or `jit`.

use std::borrow::Cow;

use crate::model::{FrameKind, Location, Mapping, Profile};

/// What sort of frame this is, as far as a reader can be shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameClass {
    /// Compiled code.
    Native,
    /// A function inlined into the frame towards the root.
    Inlined,
    /// The kernel, inlined there or not.
    Kernel,
    /// Code that a runtime generated.
    Jit,
    /// A program's function that an interpreter works through.
    Interpreted,
}

impl From<FrameKind> for FrameClass {
    fn from(kind: FrameKind) -> Self {
        match kind {
            FrameKind::Native => Self::Native,
            FrameKind::Kernel => Self::Kernel,
            FrameKind::Jit | FrameKind::V8Jit | FrameKind::JvmJit => Self::Jit,
            FrameKind::Python | FrameKind::V8 | FrameKind::Jvm => Self::Interpreted,
        }
    }
}

impl FrameClass {
    /// The ending that folded stacks mark it with.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Native | Self::Interpreted => "",
            Self::Inlined => "_[i]",
            Self::Kernel => "_[k]",
            Self::Jit => "_[j]",
        }
    }
}

/// A frame as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFrame<'a> {
    /// Name, or `[module+0xoff]`.
    pub name: Cow<'a, str>,
    /// What sort of frame it is.
    pub class: FrameClass,
    /// Whether `name` is an address because no name was found.
    pub unnamed: bool,
    /// Source file, empty if unknown.
    pub file: &'a str,
    /// Line in it, 0 if unknown.
    pub line: u32,
}

impl NamedFrame<'_> {
    /// The frame in a folded stack: safe name and suffix.
    #[must_use]
    pub fn folded(&self) -> String {
        format!("{}{}", safe_name(&self.name), self.class.suffix())
    }
}

/// The frames of a location, the outermost (the function of the machine code) first.
#[must_use]
pub fn frames_of_location<'a>(profile: &'a Profile, location: &Location) -> Vec<NamedFrame<'a>> {
    if location.frames.is_empty() {
        let mapping = location.mapping.and_then(|index| profile.mappings.get(index as usize));
        let class = FrameClass::from(location.kind);
        let name = Cow::Owned(address_text(mapping, location));
        return vec![NamedFrame { name, class, unnamed: true, file: "", line: 0 }];
    }
    let mut named = Vec::with_capacity(location.frames.len());
    for (depth, frame) in location.frames.iter().rev().enumerate() {
        let function = profile.functions.get(frame.function as usize);
        let class = match location.kind {
            FrameKind::Kernel => FrameClass::Kernel,
            _ if depth > 0 => FrameClass::Inlined,
            kind => kind.into(),
        };
        let name = function.map_or("", |function| function.name.as_str());
        named.push(NamedFrame {
            name: Cow::Borrowed(if name.is_empty() { "[unknown]" } else { name }),
            class,
            unnamed: false,
            file: function.map_or("", |function| function.file.as_str()),
            line: frame.line,
        });
    }
    named
}

/// `[module+0xoff]` for an address that has no name.
fn address_text(mapping: Option<&Mapping>, location: &Location) -> String {
    let module = match mapping {
        Some(mapping) => module_name(&mapping.path),
        None => "",
    };
    let module = match (module, location.kind) {
        ("", FrameKind::Native) => "unknown",
        ("", kind) => kind.frame_type(),
        (module, _) => module,
    };
    format!("[{module}+{:#x}]", location.address)
}

/// The name a mapping is known by: the file name of its path, without the brackets of `[vdso]` and
/// without the kernel's ` (deleted)`.
#[must_use]
pub fn module_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name)
}

/// A name that cannot break the line format (see the top of this file).
#[must_use]
pub fn safe_name(name: &str) -> Cow<'_, str> {
    let harmless = !name.is_empty()
        && !name.contains(|character: char| character == ';' || is_unprintable(character))
        && !name.starts_with('#')
        && name.trim().len() == name.len()
        && !ends_in_number_word(name);
    if harmless {
        return Cow::Borrowed(name);
    }
    let replaced: String = name
        .chars()
        .map(|character| match character {
            ';' => ':',
            other if is_unprintable(other) => ' ',
            other => other,
        })
        .collect();
    let mut safe = replaced.trim().to_owned();
    if ends_in_number_word(&safe)
        && let Some(space) = safe.rfind(' ')
    {
        safe.replace_range(space..=space, "_");
    }
    if safe.is_empty() {
        safe.push_str("[unknown]");
    }
    if safe.starts_with('#') {
        safe.insert(0, '_');
    }
    Cow::Owned(safe)
}

/// Control characters, and the two that no XML file may contain.
fn is_unprintable(character: char) -> bool {
    character.is_control() || character == '\u{fffe}' || character == '\u{ffff}'
}

fn ends_in_number_word(name: &str) -> bool {
    name.rsplit_once(' ').is_some_and(|(_, word)| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_line_are_changed_and_others_are_not() {
        for (name, safe) in [
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            ("core::array::<[u8; 8]>::map", "core::array::<[u8: 8]>::map"),
            ("two\nlines\tand tabs", "two lines and tabs"),
            ("  spaces ", "spaces"),
            ("Interpreter 12", "Interpreter_12"),
            ("a 1 2.5", "a 1_2.5"),
            ("12", "12"),
            ("f(int) 0x12", "f(int) 0x12"),
            ("# comment", "_# comment"),
            ("", "[unknown]"),
            (" \n", "[unknown]"),
            ("größe 3", "größe_3"),
            ("a\u{ffff}b\u{1b}[0m", "a b [0m"),
        ] {
            assert_eq!(safe_name(name), safe);
        }
    }

    #[test]
    fn modules_are_known_by_their_file_name_without_brackets_or_deleted() {
        assert_eq!(module_name("/usr/lib/libc.so.6"), "libc.so.6");
        assert_eq!(module_name("/tmp/x (deleted)"), "x");
        assert_eq!(module_name("[vdso]"), "vdso");
        assert_eq!(module_name("[kernel.kallsyms]"), "kernel.kallsyms");
        assert_eq!(module_name(""), "");
    }
}
