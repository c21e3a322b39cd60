//! What tells an object of HotSpot from another one at its address, computed as `bpf/unwind/hotspot.h` does.

use super::layout::Layout;
use crate::little_endian::{u16_at, u64_at};
use crate::process_memory::{ProcessMemory, Unreadable};
use crate::script::Refusal;

/// Bytes of a `ConstMethod` that are looked at.
pub(super) const CONST_METHOD_READ_BYTES: usize = 64;

const fn hash(hash: u64, value: u64) -> u64 {
    let hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

/// 0 stands for what could not be read at the sample.
const fn finish(hash: u64) -> u32 {
    let identity = (hash >> 32) as u32;
    if identity == 0 { 1 } else { identity }
}

/// Of a stub: its name's address and its size.
pub(super) const fn of_stub(name: u64, bytes: u32) -> u32 {
    finish(hash(name, bytes as u64))
}

/// Of a compiled method.
pub(super) const fn of_nmethod(method: u64, compile_id: u32, entry_bci: u32) -> u32 {
    finish(hash(hash(method, compile_id as u64), entry_bci as u64))
}

/// A method as it is now: what its identity was computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MethodIdentity {
    pub(super) const_method: u64,
    pub(super) const_method_bytes: [u8; CONST_METHOD_READ_BYTES],
    pub(super) constants: u64,
    pub(super) holder: u64,
    pub(super) holder_name: u64,
    pub(super) identity: u32,
}

impl MethodIdentity {
    /// Reads a method.
    pub(super) fn read(layout: &Layout, method: u64, memory: &dyn ProcessMemory) -> Result<Self, Refusal> {
        let kernel = &layout.kernel;
        let at = |base: u64, offset: u16| {
            base.checked_add(u64::from(offset)).ok_or(Unreadable { address: base, bytes: 8 })
        };
        if method == 0 || method & 7 != 0 {
            return Err(Refusal::Malformed);
        }
        let const_method = memory.u64_at(at(method, kernel.method_const_method)?)?;
        if const_method == 0 || const_method & 7 != 0 {
            return Err(Refusal::Malformed);
        }
        let mut bytes = [0; CONST_METHOD_READ_BYTES];
        memory.read(const_method, &mut bytes)?;
        let word = |offset: u16| u64_at(&bytes, usize::from(offset)).ok_or(Refusal::Malformed);
        let half = |offset: u16| u16_at(&bytes, usize::from(offset)).map(u64::from).ok_or(Refusal::Malformed);
        let constants = word(kernel.const_method_constants)?;
        let holder = memory.u64_at(at(constants, kernel.constants_holder)?)?;
        let holder_name = memory.u64_at(at(holder, kernel.klass_name)?)?;
        let symbol = memory.u64_at(holder_name)? & kernel.symbol_mask;
        let place = half(kernel.const_method_code_size)? << 48
            | half(kernel.const_method_name_index)? << 32
            | half(kernel.const_method_signature_index)? << 16
            | half(kernel.const_method_idnum)?;
        let value =
            [place, holder, holder_name, symbol].into_iter().fold(hash(const_method, constants), hash);
        Ok(Self {
            const_method,
            const_method_bytes: bytes,
            constants,
            holder,
            holder_name,
            identity: finish(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_of_what_an_identity_is_made_of_is_lost() {
        let identity = of_nmethod(0x7f00_1000, 17, u32::MAX);
        assert_ne!(identity, of_nmethod(0x7f00_1000, 18, u32::MAX), "compiled again");
        assert_ne!(identity, of_nmethod(0x7f00_1000, 17, 4), "on-stack replacement counts on its own");
        assert_ne!(identity, of_nmethod(0x7f00_1008, 17, u32::MAX));
        assert_ne!(of_stub(0x1000, 64), of_stub(0x1000, 128));
        assert_ne!(of_stub(0, 0), 0, "0 stands for what was not read");
    }
}
