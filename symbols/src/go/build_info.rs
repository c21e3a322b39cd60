//! What a Go executable says of how it was built: the version of Go, its own module, and the modules it uses.
//!
//! It stands in the *build info* that every Go linker since 1.18 writes in this form (debug/buildinfo of the Go
//! sources): the magic bytes, the pointer size, flags of which bit 1 says that strings follow at offset 32, and
//! there two strings, each a length as a varint and its text. The first is the version, the second tells of
//! modules, a line each (`modinfo`, runtime/debug/mod.go), between two marks of 16 bytes:
//!
//! ```text
//! path\tcommand's package    mod\tmodule\tversion\tsum    dep\tmodule\tversion\tsum    =>\treplacement\tversion\tsum
//! ```

use super::scan;
use crate::{ObjectError, ObjectFile};

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const HEADER_BYTES: usize = 32;
const FLAG_STRINGS_INLINE: u8 = 2;
/// Longest version that is read; development versions carry a commit and a date.
const MAX_VERSION_BYTES: usize = 256;
/// What is read of the text about modules: a program that uses a thousand has 100 kB.
const MAX_MODULES_BYTES: usize = 1 << 20;
/// Bytes of each mark around it.
const MARK_BYTES: usize = 16;
/// Build info is aligned so.
const ALIGNMENT: usize = 16;

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BuildInfo {
    /// `go1.22.12`.
    pub version: String,
    modules: String,
}

impl BuildInfo {
    /// Of an executable; `None` if it is not a Go program.
    pub(super) fn read(object: &ObjectFile) -> Result<Option<Self>, ObjectError> {
        let bytes = (HEADER_BYTES + 2 + MAX_VERSION_BYTES) as u64;
        if let Some(section) = object.section_header(".go.buildinfo").filter(|header| header.has_contents()) {
            let most = section.bytes.clamp(bytes, (bytes as usize + MAX_MODULES_BYTES) as u64);
            return Ok(parse(&object.read_loaded(section.address, most)?));
        }
        if !object.section_headers().is_empty() {
            return Ok(None);
        }
        let data = object.segments().iter().filter(|segment| !segment.executable);
        let place = scan::segments(object, data, bytes, |begin, window| {
            Ok(window.windows(HEADER_BYTES).enumerate().step_by(ALIGNMENT / 2).find_map(|(at, header)| {
                if !header.starts_with(MAGIC) {
                    return None;
                }
                window.get(at..).and_then(parse).and_then(|_| begin.checked_add(at as u64))
            }))
        })?;
        let Some(place) = place else { return Ok(None) };
        Ok(parse(&object.read_loaded(place, bytes + MAX_MODULES_BYTES as u64)?))
    }

    /// 22 of `go1.22.12`, `go1.22rc1` and `go1.22-custom X:experiment`.
    pub(super) fn minor_version(&self) -> Option<u32> {
        minor_version(&self.version)
    }

    /// The path of the module that the command is of.
    pub(super) fn own_module(&self) -> Option<&str> {
        self.lines("mod").next().map(|(module, _)| module).filter(|module| !module.is_empty())
    }

    /// The version of a module that is linked in: `v1.83.0`. `None` if it is not there, or replaced by another.
    pub(super) fn version_of(&self, module: &str) -> Option<&str> {
        let mut lines = self.modules.lines();
        let line = lines.find(|line| {
            let mut fields = line.split('\t');
            matches!(fields.next(), Some("dep" | "mod")) && fields.next() == Some(module)
        })?;
        if lines.next().is_some_and(|next| next.starts_with("=>\t")) {
            return None;
        }
        line.split('\t').nth(2)
    }

    fn lines(&self, kind: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.modules.lines().filter_map(move |line| {
            let mut fields = line.split('\t');
            (fields.next() == Some(kind))
                .then(|| (fields.next().unwrap_or_default(), fields.next().unwrap_or_default()))
        })
    }
}

fn parse(bytes: &[u8]) -> Option<BuildInfo> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    if !header.starts_with(MAGIC) || header.get(15)? & FLAG_STRINGS_INLINE == 0 {
        return None;
    }
    let (version, rest) = string(rest, MAX_VERSION_BYTES)?;
    let version = std::str::from_utf8(version).ok()?;
    if !version.starts_with("go") && !version.starts_with("devel") {
        return None;
    }
    // What is wrong with the modules does not make it another program.
    let modules = string(rest, MAX_MODULES_BYTES).and_then(|(modules, _)| {
        let inner = modules.get(MARK_BYTES..modules.len().checked_sub(MARK_BYTES)?)?;
        std::str::from_utf8(inner).ok()
    });
    Some(BuildInfo { version: version.to_owned(), modules: modules.unwrap_or_default().to_owned() })
}

/// A string behind its length, and what follows it.
fn string(bytes: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let (mut length, mut rest) = (0_usize, bytes);
    for shift in [0, 7, 14, 21] {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if length <= most { rest.split_at_checked(length) } else { None };
        }
    }
    None
}

pub(super) fn minor_version(version: &str) -> Option<u32> {
    let minor = version.strip_prefix("go1.")?;
    let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
    minor.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build_info(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[8, flags]);
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(rest);
        bytes
    }

    fn version(bytes: &[u8]) -> Option<String> {
        parse(bytes).map(|info| info.version)
    }

    #[test]
    fn a_version_is_read_with_its_length() {
        assert_eq!(version(&build_info(2, b"\x08go1.22.1tail")).as_deref(), Some("go1.22.1"));
        let long = format!("go1.27-devel_{}", "x".repeat(150));
        let mut rest = vec![(long.len() & 0x7f) as u8 | 0x80, (long.len() >> 7) as u8];
        rest.extend_from_slice(long.as_bytes());
        assert_eq!(version(&build_info(2, &rest)), Some(long));
    }

    #[test]
    fn damaged_build_info_is_none() {
        let sound = build_info(2, b"\x08go1.22.1");
        assert!(version(&sound).is_some());
        for length in 0..sound.len() {
            assert_eq!(version(&sound[..length]), None, "cut to {length} bytes");
        }
        assert_eq!(version(&build_info(0, b"\x08go1.22.1")), None, "pointers, as to Go 1.17");
        assert_eq!(version(&build_info(2, b"\xff\xff")), None, "a length over all bounds");
        assert_eq!(version(&build_info(2, b"\x02\xff\xff")), None, "no text");
        assert_eq!(version(&build_info(2, b"\x04rust")), None);
    }

    #[test]
    fn modules_are_read_and_one_that_is_replaced_has_no_version() {
        let modules = "path\texample.org/shop/cmd\nmod\texample.org/shop\t(devel)\t\n\
                       dep\tgoogle.golang.org/grpc\tv1.83.0\th1:x=\n\
                       dep\tgolang.org/x/net\tv0.57.0\n=>\t../net\t(devel)\t\n";
        let mut rest = b"\x08go1.22.1".to_vec();
        let length = modules.len() + 2 * MARK_BYTES;
        rest.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
        rest.extend([b'<'; MARK_BYTES]);
        rest.extend(modules.bytes());
        rest.extend([b'>'; MARK_BYTES]);
        let sound = build_info(2, &rest);
        let info = parse(&sound).expect("sound");
        assert_eq!(info.own_module(), Some("example.org/shop"));
        assert_eq!(info.version_of("google.golang.org/grpc"), Some("v1.83.0"));
        assert_eq!(info.version_of("golang.org/x/net"), None, "whatever is in its place");
        assert_eq!(info.version_of("golang.org/x"), None);
        for cut in HEADER_BYTES + 9..sound.len() {
            let cut_short = parse(&sound[..cut]).expect("the version is there");
            assert_eq!(cut_short.own_module(), None, "cut to {cut} bytes");
        }
    }

    #[test]
    fn a_minor_version_is_found_in_whatever_follows_it() {
        for (version, minor) in [
            ("go1.22.12", Some(22)),
            ("go1.18", Some(18)),
            ("go1.26rc1", Some(26)),
            ("go1.25-custom X:nodwarf5", Some(25)),
            ("devel +abc", None),
            ("go2.1", None),
            ("go1.", None),
        ] {
            assert_eq!(minor_version(version), minor, "{version}");
        }
    }
}
