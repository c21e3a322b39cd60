//! Texts of the virtual machine's symbols, and whether one can be a name at all.
//!
//! Symbols are in *modified UTF-8* (Java Virtual Machine Specification 4.4.7): U+0000 is written in two bytes, and what is
//! beyond U+FFFF as two surrogates of three bytes each. Names of classes and methods are any text but for a few
//! characters (4.2.1, 4.2.2). What is neither was not read from where a name is, and is refused.

/// The text of modified UTF-8; none if it is no such thing.
pub(super) fn decoded(bytes: &[u8]) -> Option<String> {
    if bytes.is_ascii() {
        return (!bytes.contains(&0)).then(|| bytes.iter().copied().map(char::from).collect());
    }
    let mut units: Vec<u16> = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    let continuation =
        |byte: Option<u8>| byte.filter(|byte| byte & 0xc0 == 0x80).map(|byte| u16::from(byte & 0x3f));
    while let Some(first) = rest.next() {
        let unit = match first {
            0x01..=0x7f => u16::from(first),
            0xc0..=0xdf => u16::from(first & 0x1f) << 6 | continuation(rest.next())?,
            0xe0..=0xef => {
                let (second, third) = (continuation(rest.next())?, continuation(rest.next())?);
                u16::from(first & 0xf) << 12 | second << 6 | third
            }
            _ => return None,
        };
        units.push(unit);
    }
    String::from_utf16(&units).ok()
}

/// Whether a method can be called so. Those with angle brackets are the compiler's own.
pub(super) fn is_method(name: &str) -> bool {
    matches!(name, "<init>" | "<clinit>") || (is_unqualified(name) && !name.contains(['<', '>']))
}

/// Whether a class can, as the virtual machine writes it: `com/example/Shop$1`. That of a hidden class ends with an
/// address behind a `+` or `/`.
pub(super) fn is_class(name: &str) -> bool {
    name.split('/').all(is_unqualified)
}

fn is_unqualified(name: &str) -> bool {
    !name.is_empty() && !name.contains(|character: char| ".;[/".contains(character) || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_class_files_have_it() {
        assert_eq!(decoded(b"serveRequests").as_deref(), Some("serveRequests"));
        assert_eq!(decoded("größe".as_bytes()).as_deref(), Some("größe"));
        assert_eq!(decoded("名".as_bytes()).as_deref(), Some("名"));
        // A test of Kotlin's that is called after a party: two surrogates.
        assert_eq!(decoded(b"ends in \xed\xa0\xbc\xed\xbe\x89").as_deref(), Some("ends in 🎉"));
        assert_eq!(decoded(b"a\xc0\x80b").as_deref(), Some("a\0b"));
        assert_eq!(decoded(b"").as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_such_text_is_none() {
        let half_a_pair: &[u8] = b"\xed\xa0\xbc";
        for bytes in
            [b"a\0b".as_slice(), b"\x80", b"\xc3", b"\xe5\x90", b"\xf0\x9f\x8e\x89", b"\xc3\x28", half_a_pair]
        {
            assert_eq!(decoded(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn names_that_can_be_and_names_that_cannot() {
        for name in ["load", "<init>", "<clinit>", "lambda$main$0", "it works, mostly", "größe"] {
            assert!(is_method(name), "{name}");
        }
        for name in ["", "<x>", "a.b", "a/b", "a;", "[a", "a\u{1}b"] {
            assert!(!is_method(name), "{name:?}");
        }
        for name in
            ["Shop", "com/example/Shop$1", "com/example/Shop$$Lambda+0x00007f1234", "a/LambdaForm$MH/0x0008"]
        {
            assert!(is_class(name), "{name}");
        }
        for name in ["", "/", "a//b", "a/", "[Ljava/lang/String;", "a.b", "a\u{7}"] {
            assert!(!is_class(name), "{name:?}");
        }
    }
}
