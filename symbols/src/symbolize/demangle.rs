//! Names as linkers see them → names as people wrote them.
//!
//! Rust (legacy `_ZN…17h…E`, whose hash is dropped, and v0 `_R…`) and Itanium C++ (`_Z…`, with
//! parameter lists, as `llvm-symbolizer --demangle` prints them). What a compiler appended to make a
//! clone (`.cold`, `.constprop.0`) stays visible in LLVM's form, ` (.cold)`; a symbol version
//! (`@@GLIBC_2.14`) does not.
//!
//! A mangled name may stand for an exponentially longer one (substitutions of substitutions), so
//! both demanglers write into a bounded buffer; a name that overflows it stays mangled.

use std::fmt;

use cpp_demangle::{DemangleOptions, ParseOptions};

/// Longest mangled name that is looked at.
const MAX_MANGLED_BYTES: usize = 32 << 10;
/// Longest demangled name.
const MAX_DEMANGLED_BYTES: usize = 64 << 10;
/// Nesting at which a C++ name is given up: the demangler recurses on our stack.
const MAX_CPP_DEPTH: u32 = 160;

/// The name for people, if `mangled` is one that says more when it is taken apart.
#[must_use]
pub fn demangle(mangled: &str) -> Option<String> {
    if mangled.len() > MAX_MANGLED_BYTES {
        return None;
    }
    let (unversioned, was_versioned) = match mangled.find('@') {
        Some(at) if at > 0 => (mangled.get(..at)?, true),
        _ => (mangled, false),
    };
    let demangled = demangle_rust(unversioned).or_else(|| demangle_cpp(unversioned));
    // `_ZN17h0536142789abcdefE` is a hash and no path.
    let demangled = demangled.filter(|name| !name.is_empty());
    if demangled.is_none() && was_versioned {
        return Some(unversioned.to_owned());
    }
    demangled
}

fn demangle_rust(name: &str) -> Option<String> {
    if !name.starts_with("_R") && !has_legacy_rust_hash(name) {
        return None;
    }
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut text = BoundedText::default();
    fmt::Write::write_fmt(&mut text, format_args!("{demangled:#}")).ok()?;
    Some(text.0)
}

/// Whether the path of a `_ZN` name ends in the element `17h` + 16 hexadecimal digits, by which rustc's
/// legacy names differ from C++ ones. Dots stand inside of elements (`core..fmt`) and before suffixes.
fn has_legacy_rust_hash(name: &str) -> bool {
    let Some(path) = name.strip_prefix("_ZN") else { return false };
    path.match_indices("17h").any(|(at, _)| {
        let Some((hash, after)) = path.get(at + 3..).and_then(|rest| rest.split_at_checked(16)) else {
            return false;
        };
        let Some(suffix) = after.strip_prefix('E') else { return false };
        hash.bytes().all(|digit| digit.is_ascii_hexdigit()) && (suffix.is_empty() || suffix.starts_with('.'))
    })
}

fn demangle_cpp(name: &str) -> Option<String> {
    if !name.starts_with("_Z") {
        return None;
    }
    // The demangler knows clone suffixes in libiberty's form (`[clone .cold]`); ours is LLVM's.
    let (name, suffix) = match name.find('.') {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    };
    let limits = ParseOptions::default().recursion_limit(MAX_CPP_DEPTH);
    let symbol = cpp_demangle::Symbol::new_with_options(name, &limits).ok()?;
    let mut text = BoundedText::default();
    symbol.structured_demangle(&mut text, &DemangleOptions::new().recursion_limit(MAX_CPP_DEPTH)).ok()?;
    let mut demangled = name_thunks_as_llvm(close_templates_as_llvm(&text.0));
    if !suffix.is_empty() {
        demangled.push_str(" (");
        demangled.push_str(suffix);
        demangled.push(')');
    }
    Some(demangled)
}

/// `{virtual override thunk({offset(-16)}, X)}` → `non-virtual thunk to X`.
fn name_thunks_as_llvm(name: String) -> String {
    let thunk = || {
        let inner = name.strip_prefix("{virtual override thunk({")?.strip_suffix(")}")?;
        let (offset, function) = inner.split_once("}, ")?;
        let kind = if offset.starts_with("virtual ") { "virtual" } else { "non-virtual" };
        Some(format!("{kind} thunk to {function}"))
    };
    thunk().unwrap_or(name)
}

/// `vector<vector<int> >` → `vector<vector<int>>`. The space after an operator's name stays.
fn close_templates_as_llvm(name: &str) -> String {
    let mut closed = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("> >") {
        let (before, after) = rest.split_at(at + 1);
        closed.push_str(before);
        let is_operator = ["operator>", "operator->", "operator>>"].iter().any(|end| closed.ends_with(end));
        rest = if is_operator { after } else { after.get(1..).unwrap_or_default() };
    }
    closed.push_str(rest);
    closed
}

#[derive(Default)]
struct BoundedText(String);

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_each_language() {
        let cases = [
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", Some("core::fmt::Formatter::pad")),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.1234", Some("core::fmt::Formatter::pad")),
            ("_ZN4main17hfedcba9876543210E.cold", Some("main.cold")),
            (
                "_ZN71_$LT$core..hash..sip..Hasher$LT$S$GT$$u20$as$u20$core..hash..Hasher$GT$5write17h365c304763ba5568E",
                Some("<core::hash::sip::Hasher<S> as core::hash::Hasher>::write"),
            ),
            (
                "_ZTv0_n24_NSt13basic_ostreamIwSt11char_traitsIwEED1Ev",
                Some(
                    "virtual thunk to std::basic_ostream<wchar_t, std::char_traits<wchar_t>>::~basic_ostream()",
                ),
            ),
            ("_ZThn16_N1A1fEv", Some("non-virtual thunk to A::f()")),
            ("_RNvCs1234_7mycrate3foo", Some("mycrate::foo")),
            ("_ZN3foo3barEv", Some("foo::bar()")),
            ("_ZN3foo3barEi.constprop.0", Some("foo::bar(int) (.constprop.0)")),
            ("_ZN3foo3barEi.part.0.cold", Some("foo::bar(int) (.part.0.cold)")),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                Some("std::vector<int, std::allocator<int>>::push_back(int const&)"),
            ),
            ("memcpy@@GLIBC_2.14", Some("memcpy")),
            ("_ZdlPv@@GLIBCXX_3.4", Some("operator delete(void*)")),
            ("main", None),
            ("", None),
            ("@", None),
            ("_Z", None),
            ("_R", None),
            ("_ZN", None),
            // A C++ namespace that looks almost like a hash.
            ("_ZN17h0123456789abcdegE", Some("h0123456789abcdeg")),
        ];
        for (mangled, expected) in cases {
            assert_eq!(demangle(mangled).as_deref(), expected, "{mangled}");
        }
    }

    #[test]
    fn templates_close_without_spaces_except_after_an_operator() {
        let cases = [
            ("a<b<c<d> > >", "a<b<c<d>>>"),
            ("a<&x::operator> >", "a<&x::operator> >"),
            ("a<&x::operator-> >", "a<&x::operator-> >"),
            ("> >", ">>"),
            ("plain", "plain"),
        ];
        for (gnu, llvm) in cases {
            assert_eq!(close_templates_as_llvm(gnu), llvm);
        }
    }

    #[test]
    fn a_name_of_nothing_but_a_hash_stays_mangled() {
        assert_eq!(demangle("_ZN17h0536142789abcdefE"), None);
    }

    #[test]
    fn a_name_that_expands_exponentially_stays_mangled() {
        // Each substitution names a pair of the one before: 2^40 elements when written out.
        let mut name = String::from("_Z1fSt4pairIiiE");
        for level in 0..40 {
            let seq = if level == 0 { "S_".to_owned() } else { format!("S{}_", base36(level - 1)) };
            name.push_str(&format!("St4pairI{seq}{seq}E"));
        }
        if let Some(text) = demangle(&name) {
            assert!(text.len() <= MAX_DEMANGLED_BYTES);
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_exhausting_the_stack() {
        let name = format!("_Z1f{}i", "P".repeat(30_000));
        assert_eq!(demangle(&name), None);
        let name = format!("_RNvC1a{}", "I".repeat(30_000));
        assert_eq!(demangle(&name), None);
    }

    fn base36(mut number: usize) -> String {
        let mut digits = Vec::new();
        loop {
            digits.push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number % 36]);
            number /= 36;
            if number == 0 {
                break;
            }
        }
        digits.reverse();
        String::from_utf8(digits).unwrap()
    }

    proptest! {
        #[test]
        fn never_panics(tail in "\\PC{0,200}", prefix in "(_Z|_ZN|_R|_RNv|)") {
            let _ = demangle(&format!("{prefix}{tail}"));
        }

        #[test]
        fn never_panics_on_mangled_alphabet(tail in "[A-Za-z0-9_.@$]{0,200}", prefix in "(_Z|_ZN|_R)") {
            let _ = demangle(&format!("{prefix}{tail}"));
        }
    }
}
