//! Which methods a place in a compiled method is of: the method itself and what was inlined in it.
//!
//! A compiled method has `PcDesc`s, ordered by their pc, for places that can be asked for: behind calls, at polls and
//! at what may raise an exception; with `-XX:+DebugNonSafepoints` for every instruction. Each leads to a scope in a
//! stream of compressed numbers: offset of the scope that this one is inlined in (0: none), number of its Method among
//! the metadata (from 1 on), bytecode index + 1. An outer scope is written before what is inlined in it.

use super::compressed::Stream;
use super::layout::{DebugInformation, Layout};
use super::methods::Methods;
use crate::little_endian::{u32_at, u64_at};
use crate::process_memory::ProcessMemory;
use crate::script::{Refusal, ScriptFrame, ScriptFunction};

const PC_DESC_BYTES: u64 = 16;
const MAX_PC_DESCS_BYTES: u64 = 16 << 20;
const MAX_STREAM_BYTES: u64 = 64 << 20;
/// `MaxInlineLevel` is 15, but recursive and trivial inlining do not count.
const MAX_SCOPES: usize = 256;
/// Of a scope: three numbers.
const SCOPE_BYTES: u64 = 15;

/// A compiled method's blob as it was read.
pub(super) struct Compiled<'a> {
    pub(super) layout: &'a Layout,
    pub(super) methods: &'a Methods,
    pub(super) blob: u64,
    pub(super) bytes: &'a [u8],
    pub(super) memory: &'a dyn ProcessMemory,
}

/// Where its parts lie: process addresses.
struct Parts {
    code_begin: u64,
    pc_descs: (u64, u64),
    scopes: (u64, u64),
    metadata: (u64, u64),
}

struct PcDesc {
    pc_offset: i32,
    scope: u32,
}

impl Compiled<'_> {
    fn half(&self, offset: u16) -> Result<u64, Refusal> {
        u32_at(self.bytes, usize::from(offset)).map(u64::from).ok_or(Refusal::Malformed)
    }

    fn word(&self, offset: u16) -> Result<u64, Refusal> {
        u64_at(self.bytes, usize::from(offset)).ok_or(Refusal::Malformed)
    }

    fn parts(&self) -> Result<Parts, Refusal> {
        let plus = |address: u64, offset: u64| address.checked_add(offset).ok_or(Refusal::Malformed);
        let kernel = &self.layout.kernel;
        let code_begin = if kernel.blob_is_compact == 0 {
            self.word(kernel.blob_code_begin)?
        } else {
            plus(self.blob, self.half(kernel.blob_code_begin)?)?
        };
        match self.layout.debug {
            DebugInformation::InBlob { scopes_data_begin, metadata, scopes_pcs, dependencies } => {
                let scopes = self.word(scopes_data_begin)?;
                let pc_descs = plus(self.blob, self.half(scopes_pcs)?)?;
                Ok(Parts {
                    code_begin,
                    pc_descs: (pc_descs, plus(self.blob, self.half(dependencies)?)?),
                    scopes: (scopes, pc_descs),
                    metadata: (plus(self.blob, self.half(metadata)?)?, scopes),
                })
            }
            DebugInformation::Outside {
                immutable_data,
                immutable_data_bytes,
                mutable_data,
                mutable_data_bytes,
                relocation_bytes,
                scopes_pcs,
                scopes_data,
            } => {
                let (immutable, mutable) = (self.word(immutable_data)?, self.word(mutable_data)?);
                let scopes = plus(immutable, self.half(scopes_data)?)?;
                Ok(Parts {
                    code_begin,
                    pc_descs: (plus(immutable, self.half(scopes_pcs)?)?, scopes),
                    scopes: (scopes, plus(immutable, self.half(immutable_data_bytes)?)?),
                    metadata: (
                        plus(mutable, self.half(relocation_bytes)?)?,
                        plus(mutable, self.half(mutable_data_bytes)?)?,
                    ),
                })
            }
        }
    }

    /// The functions at a frame's address, innermost first. Empty if there is no record near it.
    pub(super) fn functions(&self, frame: &ScriptFrame) -> Result<Vec<ScriptFunction>, Refusal> {
        let parts = self.parts()?;
        // Records of calls are of the address behind the call; for a leaf the instruction counts that begins at its address,
        // which the first record after that is of.
        let wanted = frame
            .address
            .checked_sub(parts.code_begin)
            .and_then(|offset| i32::try_from(offset).ok()?.checked_add(1))
            .ok_or(Refusal::Malformed)?;
        let descriptors = self.pc_descs(&parts)?;
        let index = descriptors.partition_point(|descriptor| descriptor.pc_offset < wanted);
        let Some(descriptor) = descriptors.get(index) else { return Ok(Vec::new()) };
        let is_exact = self.layout.has_debug_everywhere || (!frame.is_leaf && descriptor.pc_offset == wanted);
        self.scopes(&parts, descriptor.scope, !is_exact)
    }

    fn pc_descs(&self, parts: &Parts) -> Result<Vec<PcDesc>, Refusal> {
        let (begin, end) = parts.pc_descs;
        let bytes = end.checked_sub(begin).ok_or(Refusal::Malformed)?;
        if bytes > MAX_PC_DESCS_BYTES {
            return Err(Refusal::Malformed);
        }
        let mut contents = vec![0; (bytes - bytes % PC_DESC_BYTES) as usize];
        self.memory.read(begin, &mut contents)?;
        let descriptors = contents.chunks_exact(PC_DESC_BYTES as usize).filter_map(|descriptor| {
            Some(PcDesc { pc_offset: u32_at(descriptor, 0)?.cast_signed(), scope: u32_at(descriptor, 4)? })
        });
        // The last one ends the list and is of no place: its offset lies behind all code.
        let mut descriptors: Vec<_> = descriptors.collect();
        descriptors.pop();
        Ok(descriptors)
    }

    fn scopes(
        &self,
        parts: &Parts,
        first: u32,
        is_approximate: bool,
    ) -> Result<Vec<ScriptFunction>, Refusal> {
        let (begin, end) = parts.scopes;
        let stream_bytes = end.checked_sub(begin).ok_or(Refusal::Malformed)?;
        if stream_bytes > MAX_STREAM_BYTES {
            return Err(Refusal::Malformed);
        }
        let mut functions = Vec::new();
        let mut offset = u64::from(first);
        while offset != 0 {
            let left = stream_bytes.checked_sub(offset).ok_or(Refusal::Malformed)?;
            let mut bytes = vec![0; left.min(SCOPE_BYTES) as usize];
            self.memory.read(begin + offset, &mut bytes)?;
            let mut stream = Stream::new(&bytes, self.layout.encoding);
            let (Some(sender), Some(method), Some(bytecode_index)) =
                (stream.unsigned(), stream.unsigned(), stream.unsigned())
            else {
                return Err(Refusal::Malformed);
            };
            // What a scope is inlined in was written before it: no circles.
            if u64::from(sender) >= offset || functions.len() >= MAX_SCOPES {
                return Err(Refusal::Malformed);
            }
            let method = self.metadata(parts, method)?;
            // -1 stands for the method's entry, before its first bytecode.
            let bytecode_index = Some(bytecode_index.saturating_sub(1));
            functions.push(self.methods.read(self.layout, method, self.memory)?.at(
                self.layout,
                bytecode_index,
                is_approximate,
            ));
            offset = u64::from(sender);
        }
        Ok(functions)
    }

    fn metadata(&self, parts: &Parts, number: u32) -> Result<u64, Refusal> {
        let (begin, end) = parts.metadata;
        let offset = u64::from(number).checked_sub(1).ok_or(Refusal::Malformed)? * 8;
        let address =
            begin.checked_add(offset).filter(|at| at.checked_add(8).is_some_and(|last| last <= end));
        Ok(self.memory.u64_at(address.ok_or(Refusal::Malformed)?)?)
    }
}
