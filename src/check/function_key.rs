//! Which function of one build is which function of another.
//!
//! Left out of names, as far as compilers put it there:
//!
//! | | |
//! |---|---|
//! | Rust | `::h0123456789abcdef` of legacy names, `[0123456789abcdef]` of crates, ordinals of `{closure#0}` |
//! | C, C++ | `.constprop.0 .isra.0 .part.0 .cold .lto_priv.0 .llvm.123 .clone.0` and the like, `[clone .cold]`, ordinals of `{lambda()#1}`, `'lambda1'`, `$_0` |
//! | Go | ordinals of `.func1`, `.gowrap1`, `.deferwrap1`, and of `.1` below them, `-fm` |
//! | Java | ordinals of `lambda$main$0`, addresses and ordinals of `$$Lambda`, of `LambdaForm$MH/0x…`, of `GeneratedMethodAccessor12` |
//!
//! Two functions whose names become one this way are counted together. What has no name at all is one function
//! for each module: addresses differ from build to build.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::export::frame_text::module_name;

/// What two builds of a program have in common about a function: its demangled name without what a compiler
/// counts or hashes anew (hashes, ordinals of closures, suffixes of clones), and its module without a version.
/// Neither file nor line, which move with every edit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// The name.
    pub name: Arc<str>,
    /// File name of the object.
    pub module: Arc<str>,
}

impl FunctionKey {
    /// The name of all functions of a module that have none.
    pub const UNNAMED: &'static str = "[no name]";

    /// The identity of a function of this name in the object of this path.
    #[must_use]
    pub fn new(name: &str, module_path: &str) -> Self {
        Self { name: stable_name_or_none(name).into(), module: stable_module(module_path).into() }
    }
}

/// The name of a function's identity.
pub(super) fn stable_name_or_none(name: &str) -> Cow<'_, str> {
    if name.is_empty() { Cow::Borrowed(FunctionKey::UNNAMED) } else { stable_name(name) }
}

/// The file name without the version of a library: `libz.so.1.3.1` is `libz.so`.
#[must_use]
pub fn stable_module(path: &str) -> String {
    let name = module_name(path);
    match name.split_once(".so.") {
        Some((library, version)) if version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            format!("{library}.so")
        }
        _ => name.to_owned(),
    }
}

/// The name without what compilers count and hash. Linear in its length.
#[must_use]
pub fn stable_name(name: &str) -> Cow<'_, str> {
    let name = without_clone_suffixes(name);
    let mut at = 0;
    // Of what comes before `at`; the name's own beginning as long as nothing was left out.
    let mut stable = Cow::Borrowed("");
    while let Some(rest) = name.get(at..).filter(|rest| !rest.is_empty()) {
        // Most of a name is nothing of that sort.
        let plain = rest.bytes().position(begins_something_counted).unwrap_or(rest.len());
        let left_out = rest.get(plain..).and_then(|rest| {
            keep(&mut stable, name, at..at + plain);
            counted(rest, &stable)
        });
        at += plain;
        if let Some((kept, used)) = left_out {
            stable.to_mut().push_str(kept);
            at += used;
        } else if let Some(character) = name.get(at..).and_then(|rest| rest.chars().next()) {
            keep(&mut stable, name, at..at + character.len_utf8());
            at += character.len_utf8();
        }
    }
    stable
}

/// Adds a part of a name to what is kept of the name before it.
fn keep<'a>(stable: &mut Cow<'a, str>, name: &'a str, part: Range<usize>) {
    match stable {
        Cow::Borrowed(before) => *before = name.get(..part.end).unwrap_or(before),
        Cow::Owned(before) => before.push_str(name.get(part).unwrap_or_default()),
    }
}

/// Whether [`counted`] may find anything that begins so.
fn begins_something_counted(byte: u8) -> bool {
    matches!(byte, b':' | b'[' | b'#' | b'\'' | b'$' | b'.' | b'l' | b'/' | b'+' | b'G' | b' ')
}

/// If something that a compiler counted begins here: what is kept of it, and how long it is.
fn counted<'a>(rest: &'a str, before: &str) -> Option<(&'a str, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let hexadecimal = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let ends_word = |text: &str| !text.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    let after = |used: usize| rest.get(used..).unwrap_or_default();

    // ::h0123456789abcdef
    if let Some(hash) = rest.strip_prefix("::h")
        && hexadecimal(hash) == 16
        && ends_word(after(19))
    {
        return Some(("", 19));
    }
    // core[0123456789abcdef]
    if let Some(hash) = rest.strip_prefix('[')
        && before.ends_with(|last: char| last.is_alphanumeric() || last == '_')
        && (8..=16).contains(&hexadecimal(hash))
        && after(1 + hexadecimal(hash)).starts_with(']')
    {
        return Some(("", hexadecimal(hash) + 2));
    }
    // {closure#0} {lambda(int)#1}
    if let Some(ordinal) = rest.strip_prefix('#')
        && digits(ordinal) > 0
        && after(1 + digits(ordinal)).starts_with('}')
    {
        return Some(("", 1 + digits(ordinal)));
    }
    // 'lambda1'
    if let Some(ordinal) = rest.strip_prefix("'lambda")
        && digits(ordinal) > 0
        && after(7 + digits(ordinal)).starts_with('\'')
    {
        return Some(("'lambda", 7 + digits(ordinal)));
    }
    // $_0
    if let Some(ordinal) = rest.strip_prefix("$_")
        && digits(ordinal) > 0
        && ends_word(after(2 + digits(ordinal)))
    {
        return Some(("$_", 2 + digits(ordinal)));
    }
    // main.func1 main.func1.2 main.gowrap3
    for word in [".func", ".gowrap", ".deferwrap"] {
        if let Some(ordinal) = rest.strip_prefix(word)
            && digits(ordinal) > 0
        {
            let mut used = word.len() + digits(ordinal);
            while let Some(deeper) = after(used).strip_prefix('.').map(digits).filter(|&count| count > 0) {
                used += 1 + deeper;
            }
            if ends_word(after(used)) {
                return Some((word, used));
            }
        }
    }
    // lambda$main$0
    if let Some(lambda) = rest.strip_prefix("lambda$")
        && !before.ends_with(char::is_alphanumeric)
    {
        let word = lambda.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let ordinal = lambda.get(word..)?.strip_prefix('$')?;
        if digits(ordinal) > 0 && ends_word(ordinal.get(digits(ordinal)..)?) {
            let used = "lambda$".len() + word + 1;
            return Some((rest.get(..used)?, used + digits(ordinal)));
        }
    }
    // $$Lambda$14/0x00007f1234 $$Lambda/0x… $$Lambda$14.get
    if let Some(lambda) = rest.strip_prefix("$$Lambda") {
        let mut used = "$$Lambda".len();
        if let Some(ordinal) = lambda.strip_prefix('$') {
            used += 1 + digits(ordinal);
        }
        return Some(("$$Lambda", used + address(after(used))));
    }
    // LambdaForm$MH/0x00007f12 and any other hidden class
    let hidden = address(rest);
    if hidden > 0 {
        return Some(("", hidden));
    }
    for word in ["GeneratedMethodAccessor", "GeneratedConstructorAccessor"] {
        if let Some(ordinal) = rest.strip_prefix(word)
            && digits(ordinal) > 0
        {
            return Some((word, word.len() + digits(ordinal)));
        }
    }
    // operator()() [clone .cold]
    if let Some(clone) = rest.strip_prefix(" [clone ") {
        return clone.find(']').map(|end| ("", " [clone ".len() + end + 1));
    }
    None
}

/// The length of `/0x00007f1234abcdef`, or of the same with a `.` or `+` before it, as hidden classes have it.
fn address(text: &str) -> usize {
    let Some(digits) = ["/0x", "+0x", ".0x"].iter().find_map(|start| text.strip_prefix(start)) else {
        return 0;
    };
    let count = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    if count >= 8 { 3 + count } else { 0 }
}

/// The name before the suffixes that GCC and LLVM give to copies and parts of a function.
fn without_clone_suffixes(name: &str) -> &str {
    const WORDS: [&str; 12] = [
        "constprop",
        "isra",
        "part",
        "cold",
        "lto_priv",
        "llvm",
        "clone",
        "localalias",
        "hot",
        "unlikely",
        "warm",
        "specialized",
    ];
    let mut end = name.strip_suffix("-fm").unwrap_or(name);
    loop {
        // Numbers belong to the word before them.
        let mut shorter = end;
        while let Some((before, number)) = shorter.rsplit_once('.') {
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                break;
            }
            shorter = before;
        }
        match shorter.rsplit_once('.') {
            Some((before, word)) if WORDS.contains(&word) && !before.is_empty() => end = before,
            _ => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_compilers_count_and_hash_is_left_out_and_nothing_else() {
        for (name, stable) in [
            ("app::parse::h0123456789abcdef", "app::parse"),
            ("<app::T as core::fmt::Debug>::fmt::hfedcba9876543210", "<app::T as core::fmt::Debug>::fmt"),
            ("app::run::{{closure}}::h0123456789abcdef", "app::run::{{closure}}"),
            ("core[f1a2b3c4d5e6f708]::iter::map::<u8>", "core::iter::map::<u8>"),
            ("app::run::{closure#3}", "app::run::{closure}"),
            ("app::run::{closure#0}::{closure#12}", "app::run::{closure}::{closure}"),
            ("parse.constprop.0", "parse"),
            ("parse.isra.0.cold", "parse"),
            ("parse.part.12.lto_priv.3", "parse"),
            ("parse(int) [clone .constprop.0] [clone .cold]", "parse(int)"),
            ("parse.llvm.1234567890123", "parse"),
            ("f()::{lambda(int)#1}::operator()(int) const", "f()::{lambda(int)}::operator()(int) const"),
            ("f()::'lambda2'(int)::operator()(int) const", "f()::'lambda'(int)::operator()(int) const"),
            ("f()::$_0::operator()() const", "f()::$_::operator()() const"),
            ("main.main.func1", "main.main.func"),
            ("main.main.func1.2.3", "main.main.func"),
            ("main.(*T).Run.gowrap1", "main.(*T).Run.gowrap"),
            ("main.(*T).Run-fm", "main.(*T).Run"),
            ("main.function1", "main.function1"),
            ("Main.lambda$run$12", "Main.lambda$run$"),
            ("Main$$Lambda$14/0x00007f1234abcd00.apply", "Main$$Lambda.apply"),
            ("Main$$Lambda/0x00007f1234abcd00.apply", "Main$$Lambda.apply"),
            ("java.lang.invoke.LambdaForm$MH/0x000001801000.invoke", "java.lang.invoke.LambdaForm$MH.invoke"),
            (
                "jdk.internal.reflect.GeneratedMethodAccessor7.invoke",
                "jdk.internal.reflect.GeneratedMethodAccessor.invoke",
            ),
            // Names that look like it and are not.
            ("crc32", "crc32"),
            ("sha256_block", "sha256_block"),
            ("tables[12]", "tables[12]"),
            ("std::array<int, 12>::at", "std::array<int, 12>::at"),
            ("utf8::h1", "utf8::h1"),
            ("operator[]", "operator[]"),
            ("array::<[u8; 4]>::map", "array::<[u8; 4]>::map"),
            ("libc.part", "libc"),
            ("größe.func1", "größe.func"),
            ("a.b.c", "a.b.c"),
            (".cold", ".cold"),
        ] {
            assert_eq!(stable_name(name), stable, "{name}");
        }
    }

    #[test]
    fn libraries_lose_their_version_and_addresses_their_numbers() {
        assert_eq!(stable_module("/usr/lib/libz.so.1.3.1"), "libz.so");
        assert_eq!(stable_module("/usr/lib/libc.so.6 (deleted)"), "libc.so");
        assert_eq!(stable_module("/opt/app.so.new"), "app.so.new");
        assert_eq!(stable_module("[kernel.kallsyms]"), "kernel.kallsyms");
        let unnamed = FunctionKey::new("", "/usr/lib/libz.so.1");
        assert_eq!((&*unnamed.name, &*unnamed.module), (FunctionKey::UNNAMED, "libz.so"));
    }

    proptest! {
        #[test]
        fn any_name_has_a_key_and_the_key_is_its_own(name in "\\PC{0,40}", pieces in proptest::collection::vec(
            prop_oneof![Just(".func1"), Just("::h0123456789abcdef"), Just("#1}"), Just("$$Lambda"), Just("/0x"),
                Just("lambda$a$1"), Just(" [clone "), Just("ß"), Just(".cold.0"), Just("[abcdef01]")], 0..6)) {
            let name = format!("{name}{}", pieces.concat());
            prop_assert!(stable_name(&name).len() <= name.len());
            for (at, character) in name.char_indices() {
                let byte = character.to_string().bytes().next().unwrap_or_default();
                if !begins_something_counted(byte) {
                    prop_assert_eq!(counted(&name[at..], &name[..at]), None, "{}", character);
                }
            }
        }
    }
}
