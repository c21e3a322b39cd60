//! What sort of code a frame is, from what files say about it.

use crate::model::FrameKind;

/// Where the kernel's half of the address space begins on x86-64 and arm64.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// The one page in that half that is user code.
const VSYSCALL: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;

/// From the mapping's path and the address: pprof has no other way to say it. perf's converter names
/// the kernel `[kernel.kallsyms]_text`, its modules `[name]`, which are recognised by address.
pub(super) fn of_address(mapping_path: &str, address: u64) -> FrameKind {
    if mapping_path.starts_with("[kernel") || mapping_path.starts_with("[guest.kernel") {
        return FrameKind::Kernel;
    }
    if address >= KERNEL_HALF && !VSYSCALL.contains(&address) {
        return FrameKind::Kernel;
    }
    let file = mapping_path.rsplit('/').next().unwrap_or(mapping_path);
    let perf_map = file.strip_prefix("perf-").and_then(|rest| rest.strip_suffix(".map"));
    let of_perf_map = perf_map.is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    if of_perf_map || file.starts_with("jitted-") {
        return FrameKind::Jit;
    }
    let of_no_file = FrameKind::ALL.into_iter().find(|kind| kind.mapping_path() == Some(mapping_path));
    of_no_file.unwrap_or_default()
}

/// From OpenTelemetry's `profile.frame.type` and the mapping's path, where ours says whether a runtime's code is
/// compiled; that of others counts as compiled. Interpreters that the model has no sort of its own for (Ruby,
/// Perl, PHP) count as native.
pub(super) fn of_frame_type(frame_type: &str, mapping_path: &str) -> FrameKind {
    let by_path = FrameKind::ALL.into_iter().find(|kind| kind.mapping_path() == Some(mapping_path));
    if let Some(kind) = by_path.filter(|kind| kind.frame_type() == frame_type) {
        return kind;
    }
    match frame_type {
        "kernel" => FrameKind::Kernel,
        "cpython" => FrameKind::Python,
        "v8js" => FrameKind::V8Jit,
        "jvm" => FrameKind::JvmJit,
        "jit" | "dotnet" | "beam" => FrameKind::Jit,
        _ => FrameKind::Native,
    }
}

/// A frame of text alone: what its suffix says, and the name without it.
pub(super) struct SuffixedName<'a> {
    pub(super) name: &'a str,
    pub(super) kind: FrameKind,
    pub(super) inlined: bool,
}

/// Takes `_[k]`, `_[j]`, `_[i]` or `_[w]` (a waker's stack) off a name.
pub(super) fn of_suffix(text: &str) -> SuffixedName<'_> {
    for (suffix, kind, inlined) in [
        ("_[k]", FrameKind::Kernel, false),
        ("_[j]", FrameKind::Jit, false),
        ("_[i]", FrameKind::Native, true),
        ("_[w]", FrameKind::Kernel, false),
    ] {
        if let Some(name) = text.strip_suffix(suffix)
            && !name.is_empty()
        {
            return SuffixedName { name, kind, inlined };
        }
    }
    SuffixedName { name: text, kind: FrameKind::Native, inlined: false }
}

/// Module and address of a frame that reads `[module+0xoff]`.
pub(super) fn unnamed(name: &str) -> Option<(&str, u64)> {
    let inner = name.strip_prefix('[')?.strip_suffix(']')?;
    let (module, digits) = inner.rsplit_once("+0x")?;
    if module.is_empty() || digits.is_empty() || digits.starts_with('+') {
        return None;
    }
    Some((module, u64::from_str_radix(digits, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_or_the_half_of_the_address_space_tells_the_kernel() {
        for (path, address, kind) in [
            ("[kernel.kallsyms]", 0xffff_ffff_8100_0000, FrameKind::Kernel),
            ("[kernel.kallsyms]_text", 0x10, FrameKind::Kernel),
            ("[nf_tables]", 0xffff_ffff_c000_0000, FrameKind::Kernel),
            ("", 0xffff_8000_0000_0000, FrameKind::Kernel),
            ("", 0x7fff_ffff_ffff, FrameKind::Native),
            ("[vsyscall]", 0xffff_ffff_ff60_0010, FrameKind::Native),
            ("[vdso]", 0x7ffd_0000_0010, FrameKind::Native),
            ("[jit]", 1, FrameKind::Jit),
            ("/tmp/perf-12.map", 1, FrameKind::Jit),
            ("/tmp/perf-x.map", 1, FrameKind::Native),
            ("/home/x/jitted-12-3.so", 1, FrameKind::Jit),
            ("/usr/lib/libc.so.6", 1, FrameKind::Native),
        ] {
            assert_eq!(of_address(path, address), kind, "{path} {address:#x}");
        }
    }

    #[test]
    fn unnamed_frames_are_recognised_and_lookalikes_are_not() {
        assert_eq!(unnamed("[libc.so.6+0x1f]"), Some(("libc.so.6", 0x1f)));
        assert_eq!(unnamed("[a+0x1+0x2]"), Some(("a+0x1", 2)));
        for name in
            ["[]", "[+0x1]", "[a+0x]", "[a+0xg]", "[a+0x11112222333344445]", "[a]", "a+0x1", "[a+0x+1]"]
        {
            assert_eq!(unnamed(name), None, "{name}");
        }
    }
}
