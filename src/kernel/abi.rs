//! The types of `bpf/spanflame.h` in Rust, from the BTF of the compiled sampler.
//!
//! Whatever is also declared by hand elsewhere (the symbols crate's unwind-table layout, the model's
//! outcomes) is compared here when the binary is compiled.

use std::mem::{offset_of, size_of};

use spanflame_symbols::unwind::layout;

use crate::model::{Outcome, ScriptEnd};

/// The sampler, as an ELF object.
pub(super) static SAMPLE_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample.bpf.o"));
/// The sampler without the unwinders of V8 and HotSpot, as an ELF object.
pub(super) static SMALL_SAMPLE_OBJECT: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/sample_small.bpf.o"));
/// The maps of what is known of processes, as an ELF object without programs.
pub(super) static PROCESS_MAPS_OBJECT: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/process_maps.bpf.o"));
/// The life-cycle programs, as an ELF object.
pub(super) static LIFECYCLE_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lifecycle.bpf.o"));

#[allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, dead_code, missing_docs)]
#[allow(non_camel_case_types, non_snake_case, unused_imports)]
#[rustfmt::skip]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/sample.skel.rs"));
}

use skeleton::types::{
    sf_cfa, sf_directory_entry, sf_leaf, sf_limit, sf_outcome, sf_return_address, sf_saved_fp,
    sf_script_outcome, sf_unwind_rule,
};
pub(super) use skeleton::types::{
    sf_config, sf_counter, sf_event_type, sf_label, sf_mapping, sf_mapping_kind, sf_object, sf_object_flag,
    sf_object_state, sf_process, sf_process_flag, sf_runtime, sf_sample, sf_sample_flag, sf_script_flag,
    sf_script_frame, sf_shared_context, sf_target, sf_words, sf_words_kind,
};

/// The sampler's variable `agent_tgid`, out of the value of its map `.bss`.
pub(super) fn agent_tgid(bss: &[u8]) -> Option<u32> {
    let begin = offset_of!(skeleton::types::bss, agent_tgid);
    bss.get(begin..begin + size_of::<u32>())?.try_into().ok().map(u32::from_ne_bytes)
}

/// Bytes of a page of unwind tables.
pub(super) const PAGE_BYTES: usize = sf_limit::SF_LIMIT_PAGE_BYTES.0 as usize;
/// Pages of a slab.
pub(super) const SLAB_PAGES: u32 = sf_limit::SF_LIMIT_SLAB_PAGES.0;
/// Slabs there can be.
pub(super) const MAX_SLABS: u32 = sf_limit::SF_LIMIT_SLABS.0;
/// The object of a user frame that stands for a script frame.
pub(super) const FRAME_SCRIPT: u32 = sf_limit::SF_LIMIT_FRAME_SCRIPT.0;
/// Mappings of a page.
pub(super) const MAPPINGS_PER_PAGE: usize = sf_limit::SF_LIMIT_MAPPINGS_PER_PAGE.0 as usize;
/// Mappings of a process.
pub(super) const MAX_MAPPINGS: usize = sf_limit::SF_LIMIT_MAPPINGS.0 as usize;
/// Entries of the map `objects`.
pub(super) const OBJECT_SLOTS: u32 = sf_limit::SF_LIMIT_OBJECT_SLOTS.0;
/// Entries of the maps `processes` and `targets`.
pub(super) const MAX_PROCESSES: u32 = sf_limit::SF_LIMIT_PROCESSES.0;

const _: () = {
    assert!(PAGE_BYTES == layout::PAGE_BYTES);
    assert!(sf_limit::SF_LIMIT_CHUNK_BITS.0 == layout::CHUNK_BITS);
    assert!(sf_limit::SF_LIMIT_LEAF_ROWS.0 as usize == layout::LEAF_ROWS);
    assert!(sf_limit::SF_LIMIT_RULES_PER_PAGE.0 as usize == layout::RULES_PER_PAGE);
    assert!(sf_limit::SF_LIMIT_DIRECTORY_PER_PAGE.0 as usize == layout::DIRECTORY_PER_PAGE);

    assert!(size_of::<sf_unwind_rule>() == size_of::<layout::UnwindRule>());
    assert!(offset_of!(sf_unwind_rule, cfa) == offset_of!(layout::UnwindRule, cfa));
    assert!(offset_of!(sf_unwind_rule, cfa_register) == offset_of!(layout::UnwindRule, cfa_register));
    assert!(offset_of!(sf_unwind_rule, frame_pointer) == offset_of!(layout::UnwindRule, frame_pointer));
    assert!(offset_of!(sf_unwind_rule, return_address) == offset_of!(layout::UnwindRule, return_address));
    assert!(offset_of!(sf_unwind_rule, cfa_offset) == offset_of!(layout::UnwindRule, cfa_offset));
    assert!(offset_of!(sf_unwind_rule, cfa_addend) == offset_of!(layout::UnwindRule, cfa_addend));
    assert!(offset_of!(sf_unwind_rule, fp_offset) == offset_of!(layout::UnwindRule, fp_offset));
    assert!(offset_of!(sf_unwind_rule, rbx_offset) == offset_of!(layout::UnwindRule, rbx_offset));
    assert!(size_of::<sf_unwind_rule>() * layout::RULES_PER_PAGE == PAGE_BYTES);

    assert!(size_of::<sf_directory_entry>() == size_of::<layout::DirectoryEntry>());
    assert!(offset_of!(sf_directory_entry, leaf) == offset_of!(layout::DirectoryEntry, leaf));
    assert!(offset_of!(sf_directory_entry, first) == offset_of!(layout::DirectoryEntry, first));
    assert!(offset_of!(sf_directory_entry, count) == offset_of!(layout::DirectoryEntry, count));
    assert!(size_of::<sf_directory_entry>() * layout::DIRECTORY_PER_PAGE == PAGE_BYTES);

    // A leaf is all its addresses, then all its rule numbers; packing relies on that order.
    assert!(size_of::<sf_leaf>() == PAGE_BYTES);
    assert!(offset_of!(sf_leaf, pc) == 0);
    assert!(offset_of!(sf_leaf, rule) == 2 * layout::LEAF_ROWS);
    assert!(size_of::<sf_mapping>() * MAPPINGS_PER_PAGE == PAGE_BYTES);

    assert!(sf_cfa::SF_CFA_NONE.0 == layout::cfa::NONE as u32);
    assert!(sf_cfa::SF_CFA_REGISTER.0 == layout::cfa::REGISTER as u32);
    assert!(sf_cfa::SF_CFA_DEREF.0 == layout::cfa::DEREF as u32);
    assert!(sf_cfa::SF_CFA_PLT.0 == layout::cfa::PLT as u32);
    assert!(sf_cfa::SF_CFA_SIGNAL.0 == layout::cfa::SIGNAL as u32);
    assert!(sf_cfa::SF_CFA_FRAME_POINTER.0 == layout::cfa::FRAME_POINTER as u32);
    assert!(sf_cfa::SF_CFA_END.0 == layout::cfa::END as u32);
    assert!(sf_cfa::SF_CFA_UNSUPPORTED.0 == layout::cfa::UNSUPPORTED as u32);
    assert!(sf_cfa::SF_CFA_RUNTIME.0 == layout::cfa::RUNTIME as u32);
    assert!(sf_saved_fp::SF_FP_SAME.0 == layout::saved_fp::SAME as u32);
    assert!(sf_saved_fp::SF_FP_AT_CFA.0 == layout::saved_fp::AT_CFA as u32);
    assert!(sf_saved_fp::SF_FP_AT_FP.0 == layout::saved_fp::AT_FP as u32);
    assert!(sf_saved_fp::SF_FP_UNKNOWN.0 == layout::saved_fp::UNKNOWN as u32);
    assert!(sf_return_address::SF_RA_AT_CFA.0 == layout::return_address::AT_CFA as u32);
    assert!(sf_return_address::SF_RA_IN_REGISTER.0 == layout::return_address::IN_REGISTER as u32);

    assert!(sf_script_outcome::SF_SCRIPT_OUTCOMES.0 as usize == ScriptEnd::ALL.len());
    assert!(sf_script_outcome::SF_SCRIPT_NONE.0 == ScriptEnd::None as u32);
    assert!(sf_script_outcome::SF_SCRIPT_COMPLETE.0 == ScriptEnd::Complete as u32);
    assert!(sf_script_outcome::SF_SCRIPT_NO_THREAD_STATE.0 == ScriptEnd::NoThreadState as u32);
    assert!(sf_script_outcome::SF_SCRIPT_UNREADABLE.0 == ScriptEnd::Unreadable as u32);
    assert!(sf_script_outcome::SF_SCRIPT_INCONSISTENT.0 == ScriptEnd::Inconsistent as u32);
    assert!(sf_script_outcome::SF_SCRIPT_TRUNCATED.0 == ScriptEnd::Truncated as u32);
    assert!(sf_script_outcome::SF_SCRIPT_UNSUPPORTED.0 == ScriptEnd::Unsupported as u32);

    assert!(sf_outcome::SF_OUTCOMES.0 as usize == Outcome::ALL.len());
    assert!(sf_outcome::SF_OUTCOME_NO_USER.0 == Outcome::NoUser as u32);
    assert!(sf_outcome::SF_OUTCOME_UNKNOWN_PROCESS.0 == Outcome::UnknownProcess as u32);
    assert!(sf_outcome::SF_OUTCOME_UNKNOWN_MAPPING.0 == Outcome::UnknownMapping as u32);
    assert!(sf_outcome::SF_OUTCOME_TABLE_PENDING.0 == Outcome::TablePending as u32);
    assert!(sf_outcome::SF_OUTCOME_NO_TABLE.0 == Outcome::NoTable as u32);
    assert!(sf_outcome::SF_OUTCOME_NO_RULE.0 == Outcome::NoRule as u32);
    assert!(sf_outcome::SF_OUTCOME_UNSUPPORTED_RULE.0 == Outcome::UnsupportedRule as u32);
    assert!(sf_outcome::SF_OUTCOME_STACK_UNREADABLE.0 == Outcome::StackUnreadable as u32);
    assert!(sf_outcome::SF_OUTCOME_REGISTER_LOST.0 == Outcome::RegisterLost as u32);
    assert!(sf_outcome::SF_OUTCOME_STACK_NOT_RISING.0 == Outcome::StackNotRising as u32);
    assert!(sf_outcome::SF_OUTCOME_FRAME_POINTER_END.0 == Outcome::FramePointerEnd as u32);
    assert!(sf_outcome::SF_OUTCOME_TRUNCATED.0 == Outcome::Truncated as u32);
    assert!(sf_outcome::SF_OUTCOME_NO_REGISTERS.0 == Outcome::NoRegisters as u32);
    assert!(sf_outcome::SF_OUTCOME_UPROBE_RETURN.0 == Outcome::UprobeReturn as u32);
};

/// A type that is nothing but integers, without padding, so that its memory is its wire format.
///
/// # Safety
/// Implement it only for such types.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers only; the asserts below show that no padding lies between or behind them.
unsafe impl Plain for sf_config {}
// SAFETY: as above.
unsafe impl Plain for sf_mapping {}
// SAFETY: as above.
unsafe impl Plain for sf_process {}
// SAFETY: as above.
unsafe impl Plain for sf_target {}
// SAFETY: as above.
unsafe impl Plain for sf_words {}

const _: () = {
    assert!(size_of::<sf_config>() == 24);
    assert!(size_of::<sf_mapping>() == 32);
    assert!(size_of::<sf_process>() == 32);
    assert!(size_of::<sf_target>() == 4);
    assert!(size_of::<sf_words>() == 32);
};

/// The bytes of a value, as the kernel wants them.
pub(super) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` promises that every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}
