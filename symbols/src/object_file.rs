//! An ELF file that was opened once: its segments, sections and identity.
//!
//! Read are 64-bit little-endian files for x86-64 and arm64 (System V gABI, chapters 4 and 5). What
//! the kernel needs to run a file is required to be sound: file header and program headers. The
//! section table is a convenience of tools: where it is missing, stripped off or nonsense, the object
//! is used without sections. Segments are not required to lie in the file, since those of a separate
//! debug file do not; reading outside of the file is an error when it is tried.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compressed_section;
use crate::identity;
use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::{BuildId, ElfAddress, FileOffset};

/// Largest file that is looked into.
pub const MAX_OBJECT_BYTES: u64 = 4 << 30;

/// Largest section that is read whole, decompressed. Debug information and symbol tables are not.
pub const MAX_SECTION_BYTES: u64 = 512 << 20;
/// Largest `.eh_frame` or `.debug_frame` that is read. Chromium's has 18 MB, that of `ClickHouse` 30 MB.
pub const MAX_FRAME_SECTION_BYTES: u64 = 128 << 20;

const MAX_SECTIONS: u64 = 1 << 18;
const MAX_PROGRAM_HEADERS: u64 = 1 << 16;
const MAX_SECTION_NAMES_BYTES: u64 = 16 << 20;

const ELF_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
pub(crate) const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;
/// `e_phnum`: the number stands in section 0.
const PN_XNUM: u64 = 0xffff;
/// `e_shstrndx`: the index stands in section 0.
const SHN_XINDEX: u64 = 0xffff;
pub(crate) const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
pub(crate) const SHF_COMPRESSED: u64 = 0x800;

/// Why a file could not be used as an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Reading failed.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not an ELF file of this machine, or one with impossible contents.
    #[error("{path} is not a usable ELF file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Over a size limit.
    #[error("{path}: {what} is over the limit of {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The part that is too large.
        what: String,
        /// The limit, bytes.
        limit: u64,
    },
}

/// The processor an object's code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// `EM_X86_64`.
    X86_64,
    /// `EM_AARCH64`.
    Aarch64,
}

/// A `PT_LOAD` segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: FileOffset,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Where it is linked.
    pub address: ElfAddress,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Whether it is executable.
    pub executable: bool,
}

/// One entry of the section table, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionHeader {
    name_offset: u32,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Where it is linked; 0 if it is not loaded.
    pub address: ElfAddress,
    /// Where it starts in the file.
    pub offset: FileOffset,
    /// Bytes in the file (compressed, if it is), or in memory for a section without contents.
    pub bytes: u64,
    /// `sh_link`.
    pub link: u32,
}

impl SectionHeader {
    /// Whether it has contents in the file; the code of a separate debug file has none.
    #[must_use]
    pub fn has_contents(&self) -> bool {
        self.kind != SHT_NOBITS
    }
}

/// A section that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Where it is linked.
    pub address: ElfAddress,
    /// Its contents.
    pub data: Vec<u8>,
}

/// Where an object's bytes are.
#[derive(Debug)]
pub(crate) enum Contents {
    /// In an open file.
    File(File),
    /// In memory.
    Memory(Vec<u8>),
}

impl Contents {
    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Memory(all) => {
                let begin = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let end = begin.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(all.get(begin..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// One entry of the program header table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) alignment: u64,
}

/// An opened ELF file. Reads with `pread`, never through a mapping of the file: a file that is cut
/// short while it is looked at must be an error, not a SIGBUS.
#[derive(Debug)]
pub struct ObjectFile {
    path: PathBuf,
    contents: Arc<Contents>,
    file_bytes: u64,
    machine: Machine,
    entry: ElfAddress,
    build_id: BuildId,
    segments: Vec<Segment>,
    eh_frame_header: Option<(ElfAddress, u64)>,
    sections: Vec<SectionHeader>,
    section_names: Vec<u8>,
}

impl ObjectFile {
    /// Reads headers and identity of an open file. `path` is for people only.
    ///
    /// # Errors
    /// [`ObjectError`] if it cannot be read or is no usable ELF file.
    pub fn new(file: File, path: &Path) -> Result<Self, ObjectError> {
        let metadata = file.metadata().map_err(|source| ObjectError::Io { path: path.to_owned(), source })?;
        if !metadata.is_file() {
            return Err(malformed(path, "it is not a regular file"));
        }
        let file_bytes = metadata.len();
        Self::parse(Contents::File(file), file_bytes, path)
    }

    /// The same for contents in memory (vDSO, tests).
    ///
    /// # Errors
    /// As [`ObjectFile::new`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, ObjectError> {
        let file_bytes = bytes.len() as u64;
        Self::parse(Contents::Memory(bytes), file_bytes, path)
    }

    fn parse(contents: Contents, file_bytes: u64, path: &Path) -> Result<Self, ObjectError> {
        if file_bytes > MAX_OBJECT_BYTES {
            let path = path.to_owned();
            return Err(ObjectError::TooLarge { path, what: "the file".to_owned(), limit: MAX_OBJECT_BYTES });
        }
        let mut object = Self {
            path: path.to_owned(),
            contents: Arc::new(contents),
            file_bytes,
            machine: Machine::X86_64,
            entry: ElfAddress(0),
            build_id: BuildId::Hash([0; 20]),
            segments: Vec::new(),
            eh_frame_header: None,
            sections: Vec::new(),
            section_names: Vec::new(),
        };
        if file_bytes < ELF_HEADER_BYTES {
            return Err(malformed(path, "it is shorter than an ELF header"));
        }
        let elf_header = object.read_file(FileOffset(0), ELF_HEADER_BYTES)?;
        object.entry = ElfAddress(u64_at(&elf_header, 0x18).unwrap_or(0));
        object.machine = machine_of(&elf_header).map_err(|reason| malformed(path, reason))?;
        let program_headers = object.read_program_headers(&elf_header)?;
        for header in &program_headers {
            match header.kind {
                PT_LOAD => object.segments.push(Segment {
                    offset: FileOffset(header.offset),
                    file_bytes: header.file_bytes,
                    address: ElfAddress(header.address),
                    memory_bytes: header.memory_bytes,
                    executable: header.flags & PF_X != 0,
                }),
                PT_GNU_EH_FRAME => {
                    object.eh_frame_header = Some((ElfAddress(header.address), header.file_bytes));
                }
                _ => {}
            }
        }
        if let Some((sections, section_names)) = object.read_section_table(&elf_header) {
            object.sections = sections;
            object.section_names = section_names;
        }
        object.build_id = identity::of_object(&object, &elf_header, &program_headers)?;
        Ok(object)
    }

    /// The path it was opened by, as the process sees it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file; `None` for contents in memory.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        match &*self.contents {
            Contents::File(file) => Some(file),
            Contents::Memory(_) => None,
        }
    }

    /// Bytes of the file when it was opened.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The processor its code is for.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// What identifies the contents.
    #[must_use]
    pub fn build_id(&self) -> &BuildId {
        &self.build_id
    }

    /// Where the program or the loader begins (`e_entry`); 0 for most libraries.
    #[must_use]
    pub fn entry(&self) -> ElfAddress {
        self.entry
    }

    /// The `PT_LOAD` segments in file order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Address and bytes of `.eh_frame_hdr` by `PT_GNU_EH_FRAME`, which outlives the section table.
    #[must_use]
    pub fn eh_frame_header(&self) -> Option<(ElfAddress, u64)> {
        self.eh_frame_header
    }

    /// The section table, empty if there is no usable one.
    #[must_use]
    pub fn section_headers(&self) -> &[SectionHeader] {
        &self.sections
    }

    /// The name of a section; empty if it has none.
    #[must_use]
    pub fn section_name(&self, header: &SectionHeader) -> &[u8] {
        let begin = usize::try_from(header.name_offset).unwrap_or(usize::MAX);
        let rest = self.section_names.get(begin..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The first section of this name.
    #[must_use]
    pub fn section_header(&self, name: &str) -> Option<&SectionHeader> {
        self.sections.iter().find(|header| {
            // A comparison that stops at the first difference: names may be megabytes long.
            let begin = usize::try_from(header.name_offset).unwrap_or(usize::MAX);
            let candidate = self.section_names.get(begin..).unwrap_or_default();
            candidate.starts_with(name.as_bytes()) && matches!(candidate.get(name.len()), None | Some(0))
        })
    }

    /// The ELF address that file offset `offset` is loaded at, preferring executable segments.
    /// Accepts the page-rounded offsets that mappings have.
    #[must_use]
    pub fn elf_address(&self, offset: FileOffset) -> Option<ElfAddress> {
        // Executable before exact: the mapping of a text segment that begins within a page starts at an
        // offset that lies exactly in the read-only segment before it (lld, mold). Exact before rounded:
        // of segments that share a page of the file, rounding alone would answer for the wrong one.
        for executable in [true, false] {
            for rounded_bytes in [1, self.page_bytes()] {
                for segment in self.segments.iter().filter(|segment| segment.executable == executable) {
                    let begin = segment.offset.0 - segment.offset.0 % rounded_bytes;
                    let end = segment.offset.0.saturating_add(segment.file_bytes);
                    let end = end.checked_next_multiple_of(rounded_bytes).unwrap_or(end);
                    if segment.file_bytes > 0 && (begin..end).contains(&offset.0) {
                        let address = segment.address.0.wrapping_sub(segment.offset.0);
                        return Some(ElfAddress(address.wrapping_add(offset.0)));
                    }
                }
            }
        }
        None
    }

    /// What mappings are rounded to: arm64 kernels have pages of up to 64 KiB.
    fn page_bytes(&self) -> u64 {
        match self.machine {
            Machine::X86_64 => 4 << 10,
            Machine::Aarch64 => 64 << 10,
        }
    }

    /// Contents of a section, decompressed; `None` if there is none of this name, or it has no
    /// contents in this file.
    ///
    /// # Errors
    /// [`ObjectError`] if it lies outside of the file or is over its size limit.
    pub fn section(&self, name: &str) -> Result<Option<Section>, ObjectError> {
        match self.section_header(name) {
            Some(header) if header.has_contents() => self.read_section(header).map(Some),
            _ => Ok(None),
        }
    }

    /// Contents of a section by its header, decompressed.
    ///
    /// # Errors
    /// [`ObjectError`] if it lies outside of the file or is over its size limit.
    pub fn read_section(&self, header: &SectionHeader) -> Result<Section, ObjectError> {
        let name =
            String::from_utf8_lossy(self.section_name(header).get(..64).unwrap_or(self.section_name(header)));
        let limit = match name.as_ref() {
            ".eh_frame" | ".debug_frame" => MAX_FRAME_SECTION_BYTES,
            _ => MAX_SECTION_BYTES,
        };
        if header.bytes > limit {
            return Err(self.too_large(format!("section {name}"), limit));
        }
        if !header.has_contents() {
            return Err(malformed(&self.path, format!("section {name} has no contents in this file")));
        }
        let stored = self.read_file(header.offset, header.bytes)?;
        if header.flags & SHF_COMPRESSED == 0 {
            return Ok(Section { address: header.address, data: stored });
        }
        match compressed_section::decompress(&stored, limit) {
            Ok(data) => Ok(Section { address: header.address, data }),
            Err(compressed_section::DecompressError::TooLarge) => {
                Err(self.too_large(format!("section {name}, decompressed,"), limit))
            }
            Err(compressed_section::DecompressError::Malformed(reason)) => {
                Err(malformed(&self.path, format!("section {name}: {reason}")))
            }
        }
    }

    /// Reads `bytes` bytes of the file. Allocates no more than the file has.
    ///
    /// # Errors
    /// [`ObjectError::Malformed`] if the range is not wholly in the file, [`ObjectError::Io`] if it
    /// cannot be read.
    pub fn read_file(&self, offset: FileOffset, bytes: u64) -> Result<Vec<u8>, ObjectError> {
        let end = offset.0.checked_add(bytes).filter(|end| *end <= self.file_bytes);
        let (Some(_), Ok(length)) = (end, usize::try_from(bytes)) else {
            let reason = format!("{bytes} bytes at {offset} are outside of its {} bytes", self.file_bytes);
            return Err(malformed(&self.path, reason));
        };
        let mut data = vec![0; length];
        self.contents.read_exact_at(&mut data, offset.0).map_err(|source| self.io(source))?;
        Ok(data)
    }

    /// The bytes of the file, to be read later and independently of this.
    pub(crate) fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents)
    }

    /// Reads up to `max_bytes` bytes that are loaded at `address`, fewer at the end of what its
    /// segment has in the file. For objects without sections.
    ///
    /// # Errors
    /// [`ObjectError::Malformed`] if no segment holds the address, [`ObjectError::Io`].
    pub fn read_loaded(&self, address: ElfAddress, max_bytes: u64) -> Result<Vec<u8>, ObjectError> {
        let (offset, bytes) = self.loaded_range(address, max_bytes)?;
        self.read_file(offset, bytes)
    }

    /// Where in the file up to `max_bytes` bytes are that are loaded at `address`, and how many.
    ///
    /// # Errors
    /// [`ObjectError::Malformed`] if no segment holds the address.
    pub(crate) fn loaded_range(
        &self,
        address: ElfAddress,
        max_bytes: u64,
    ) -> Result<(FileOffset, u64), ObjectError> {
        for segment in &self.segments {
            let Some(skipped) = address.checked_sub(segment.address) else { continue };
            let Some(available) = segment.file_bytes.checked_sub(skipped).filter(|bytes| *bytes > 0) else {
                continue;
            };
            let Some(offset) = segment.offset.checked_add(skipped) else { continue };
            let in_file = self.file_bytes.saturating_sub(offset.0);
            return Ok((offset, available.min(max_bytes).min(in_file)));
        }
        Err(malformed(&self.path, format!("no segment is loaded at {address}")))
    }

    fn read_program_headers(&self, elf_header: &[u8]) -> Result<Vec<ProgramHeader>, ObjectError> {
        let damaged = || malformed(&self.path, "its program headers are outside of the file");
        let table_offset = u64_at(elf_header, 0x20).ok_or_else(damaged)?;
        let entry_bytes = u16_at(elf_header, 0x36).map(u64::from).ok_or_else(damaged)?;
        let mut count = u16_at(elf_header, 0x38).map(u64::from).ok_or_else(damaged)?;
        if count == PN_XNUM {
            count = self.first_section(elf_header).and_then(|raw| u32_at(&raw, 0x2c)).map_or(0, u64::from);
        }
        if count == 0 {
            return Err(malformed(&self.path, "it has no program headers (an object file not linked yet?)"));
        }
        if entry_bytes != PROGRAM_HEADER_BYTES || count > MAX_PROGRAM_HEADERS {
            return Err(malformed(&self.path, format!("{count} program headers of {entry_bytes} bytes")));
        }
        let table =
            self.read_file(FileOffset(table_offset), count * entry_bytes).map_err(|error| match error {
                ObjectError::Malformed { .. } => damaged(),
                other => other,
            })?;
        let mut headers = Vec::new();
        for raw in table.chunks_exact(PROGRAM_HEADER_BYTES as usize) {
            headers.push(ProgramHeader::parse(raw).ok_or_else(damaged)?);
        }
        Ok(headers)
    }

    fn first_section(&self, elf_header: &[u8]) -> Option<Vec<u8>> {
        let table_offset = u64_at(elf_header, 0x28).filter(|offset| *offset != 0)?;
        self.read_file(FileOffset(table_offset), SECTION_HEADER_BYTES).ok()
    }

    /// The section table with its names, or `None` if there is no usable one.
    fn read_section_table(&self, elf_header: &[u8]) -> Option<(Vec<SectionHeader>, Vec<u8>)> {
        let first = self.first_section(elf_header)?;
        let table_offset = u64_at(elf_header, 0x28)?;
        let entry_bytes = u64::from(u16_at(elf_header, 0x3a)?);
        let mut count = u64::from(u16_at(elf_header, 0x3c)?);
        let mut names_index = u64::from(u16_at(elf_header, 0x3e)?);
        if count == 0 {
            count = u64_at(&first, 0x20)?;
        }
        if names_index == SHN_XINDEX {
            names_index = u64::from(u32_at(&first, 0x28)?);
        }
        if entry_bytes != SECTION_HEADER_BYTES || count == 0 || count > MAX_SECTIONS {
            return None;
        }
        let table = self.read_file(FileOffset(table_offset), count * entry_bytes).ok()?;
        let mut headers = Vec::new();
        for raw in table.chunks_exact(SECTION_HEADER_BYTES as usize) {
            headers.push(SectionHeader {
                name_offset: u32_at(raw, 0x00)?,
                kind: u32_at(raw, 0x04)?,
                flags: u64_at(raw, 0x08)?,
                address: ElfAddress(u64_at(raw, 0x10)?),
                offset: FileOffset(u64_at(raw, 0x18)?),
                bytes: u64_at(raw, 0x20)?,
                link: u32_at(raw, 0x28)?,
            });
        }
        let names = headers.get(usize::try_from(names_index).ok()?)?;
        if !names.has_contents() || names.bytes > MAX_SECTION_NAMES_BYTES {
            return None;
        }
        let section_names = self.read_file(names.offset, names.bytes).ok()?;
        Some((headers, section_names))
    }

    fn io(&self, source: io::Error) -> ObjectError {
        ObjectError::Io { path: self.path.clone(), source }
    }

    fn too_large(&self, what: String, limit: u64) -> ObjectError {
        ObjectError::TooLarge { path: self.path.clone(), what, limit }
    }
}

impl ProgramHeader {
    fn parse(raw: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(raw, 0x00)?,
            flags: u32_at(raw, 0x04)?,
            offset: u64_at(raw, 0x08)?,
            address: u64_at(raw, 0x10)?,
            file_bytes: u64_at(raw, 0x20)?,
            memory_bytes: u64_at(raw, 0x28)?,
            alignment: u64_at(raw, 0x30)?,
        })
    }
}

fn machine_of(elf_header: &[u8]) -> Result<Machine, String> {
    const EM_X86_64: u16 = 62;
    const EM_AARCH64: u16 = 183;
    if elf_header.get(..4) != Some(b"\x7fELF") {
        return Err("it does not begin with the ELF magic".to_owned());
    }
    if elf_header.get(4..7) != Some(&[2, 1, 1]) {
        return Err("only 64-bit little-endian ELF of version 1 is read".to_owned());
    }
    match u16_at(elf_header, 0x10) {
        Some(ET_EXEC | ET_DYN) => {}
        kind => return Err(format!("its type {} is neither executable nor shared", kind.unwrap_or(0))),
    }
    match u16_at(elf_header, 0x12) {
        Some(EM_X86_64) => Ok(Machine::X86_64),
        Some(EM_AARCH64) => Ok(Machine::Aarch64),
        machine => Err(format!("machine {} is neither x86-64 nor AArch64", machine.unwrap_or(0))),
    }
}

fn malformed(path: &Path, reason: impl Into<String>) -> ObjectError {
    ObjectError::Malformed { path: path.to_owned(), reason: reason.into() }
}
