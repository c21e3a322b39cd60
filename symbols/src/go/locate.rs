//! Finds the pclntab of an executable: by its section, or, when there are no sections, by its header.

use super::pclntab::{Damaged, HEADER_BYTES, Header, Pclntab};
use super::scan;
use crate::paged_bytes::PageSource;
use crate::{BuildId, ElfAddress, ObjectError, ObjectFile};

/// Largest pclntab that is read; that of a large Kubernetes binary has 50 MiB.
const MAX_PCLNTAB_BYTES: u64 = 1 << 30;
/// Names of the section: plain, and in position-independent executables of some versions.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// The pclntab of an object; `None` if it is not a Go executable.
///
/// # Errors
/// [`ObjectError`] if there is one, and it is damaged or cannot be read.
pub(super) fn pclntab(object: &ObjectFile) -> Result<Option<Pclntab>, ObjectError> {
    for name in SECTIONS {
        if let Some(section) = object.section_header(name).filter(|header| header.has_contents()) {
            return read(object, section.address).map(Some);
        }
    }
    // The system's linker puts the pclntab of position-independent executables of older versions
    // into `.data.rel.ro`. Only files that bear marks of Go are searched: others are searched in vain.
    let has_go_section = object.section_headers().iter().any(|header| {
        let name = object.section_name(header);
        name.starts_with(b".go.") || name.starts_with(b".note.go.")
    });
    let may_be_go = has_go_section || matches!(object.build_id(), BuildId::Go(_));
    if !may_be_go && !object.section_headers().is_empty() {
        return Ok(None);
    }
    scan::segments(object, object.segments().iter(), HEADER_BYTES as u64, |begin, window| {
        for (index, bytes) in window.windows(HEADER_BYTES).step_by(8).enumerate() {
            if Header::parse(bytes).is_none() {
                continue;
            }
            // Bytes that look like a header may yet be none: the search goes on then.
            let address = begin.checked_add(8 * index as u64);
            if let Some(table) = address.and_then(|address| read(object, address).ok()) {
                return Ok(Some(table));
            }
        }
        Ok(None)
    })
}

fn read(object: &ObjectFile, address: ElfAddress) -> Result<Pclntab, ObjectError> {
    let damaged = |Damaged(reason)| ObjectError::Malformed {
        path: object.path().to_owned(),
        reason: reason.to_owned(),
    };
    let cut_short = || damaged(Damaged("its pclntab is cut short"));
    let header = object.read_loaded(address, HEADER_BYTES as u64)?;
    let header =
        Header::parse(&header).ok_or_else(|| damaged(Damaged("its pclntab is of an unknown version")))?;
    let (begin, bytes) = header.function_table().ok_or_else(cut_short)?;
    if bytes as u64 > MAX_PCLNTAB_BYTES {
        return Err(too_large(object));
    }
    let function_table = address.checked_add(begin as u64).ok_or_else(cut_short)?;
    let function_table = object.read_loaded(function_table, bytes as u64)?;
    let bytes = header.table_bytes(&function_table).ok_or_else(cut_short)? as u64;
    if bytes > MAX_PCLNTAB_BYTES {
        return Err(too_large(object));
    }
    let (offset, bytes) = object.loaded_range(address, bytes)?;
    Pclntab::new(&PageSource::of_range(object, offset.0, bytes)?, address).map_err(damaged)
}

fn too_large(object: &ObjectFile) -> ObjectError {
    ObjectError::TooLarge {
        path: object.path().to_owned(),
        what: "its pclntab".to_owned(),
        limit: MAX_PCLNTAB_BYTES,
    }
}
