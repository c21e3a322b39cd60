//! Virtual machines as JDK 17 and 25 lay them out, without tables to read that from: for tests and fuzzers of what reads
//! their memory.

use super::Hotspot;
use super::compressed::Encoding;
use super::layout::{DebugInformation, KernelLayout, Layout, SourceFileIndex};
use crate::script::ScriptRuntime;

/// A virtual machine of JDK 17, or of JDK 25.
#[must_use]
pub fn machine(is_25: bool) -> impl ScriptRuntime {
    Hotspot::of(if is_25 { layout_25() } else { layout_17() })
}

pub(super) fn layout_17() -> Layout {
    Layout {
        kernel: KernelLayout {
            version: 17,
            symbol_mask: !0xffff,
            blob_name: 96,
            blob_bytes: 12,
            blob_code_begin: 32,
            blob_read_bytes: 104,
            nmethod_read_bytes: 352,
            nmethod_method: 112,
            nmethod_compile_id: 304,
            nmethod_entry_bci: 192,
            method_const_method: 8,
            const_method_constants: 8,
            const_method_code_size: 32,
            const_method_name_index: 34,
            const_method_signature_index: 36,
            const_method_idnum: 38,
            const_method_bytes: 48,
            constants_holder: 24,
            klass_name: 24,
            ..KernelLayout::default()
        },
        release: "17.0.17+10".to_owned(),
        encoding: Encoding::WithZero,
        debug: DebugInformation::InBlob {
            scopes_data_begin: 120,
            metadata: 260,
            scopes_pcs: 268,
            dependencies: 272,
        },
        call_stub_return: 0x7f00_0000_0cc8,
        has_debug_everywhere: false,
        constants_bytes: 72,
        constants_count: 60,
        symbol_length: 4,
        symbol_body: 6,
        const_method_words: 24,
        const_method_flags: 28,
        class_methods: 408,
        methods_data: 8,
        source_file: SourceFileIndex::InConstants(54),
    }
}

pub(super) fn layout_25() -> Layout {
    let old = layout_17();
    Layout {
        kernel: KernelLayout {
            version: 25,
            blob_name: 8,
            blob_bytes: 24,
            blob_code_begin: 36,
            blob_is_compact: 1,
            blob_read_bytes: 64,
            nmethod_read_bytes: 224,
            nmethod_method: 80,
            nmethod_compile_id: 212,
            nmethod_entry_bci: 156,
            const_method_code_size: 34,
            const_method_name_index: 36,
            const_method_signature_index: 38,
            const_method_idnum: 40,
            const_method_bytes: 56,
            ..old.kernel
        },
        release: "25.0.1+8".to_owned(),
        encoding: Encoding::WithoutZero,
        debug: DebugInformation::Outside {
            immutable_data: 96,
            immutable_data_bytes: 160,
            mutable_data: 16,
            mutable_data_bytes: 48,
            relocation_bytes: 28,
            scopes_pcs: 196,
            scopes_data: 200,
        },
        class_methods: 400,
        ..old
    }
}
