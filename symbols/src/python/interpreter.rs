//! An interpreter in a process: found by its symbols, its layout checked against what runs.

use std::ops::Range;
use std::sync::Arc;

use super::debug_offsets::{self, Unusable};
use super::layout::{Layout, flag};
use super::symbols::FoundSymbol;
use super::{code, evaluation, symbols};
use crate::little_endian::u64_at;
use crate::process_memory::ProcessMemory;
use crate::script::{MappedObject, NotRead, Refusal, Runtime, ScriptFrame, ScriptFunction, ScriptRuntime};
use crate::{ElfAddress, ObjectFile, ProcessAddress};

const NAME: &str = "CPython";
const NAMES: [&str; 10] = [
    "_PyRuntime",
    "PyCode_Type",
    "_PyEval_EvalFrameDefault",
    "Py_Version",
    "PyIter_Send",
    "PyFrame_GetBack",
    "PyCode_NewWithPosOnlyArgs",
    "_PyEval_EvalFrameDefault.cold",
    "_PyEval_EvalFrameDefault.cold.0",
    "_PyEval_EvalFrameDefault.cold.1",
];
const RUNTIME: usize = 0;
const CODE_TYPE: usize = 1;
const EVALUATION: usize = 2;
const VERSION: usize = 3;
/// New in 3.10, in 3.9 and in 3.8: what tells versions that have no `Py_Version`.
const SINCE_TEN: usize = 4;
const SINCE_NINE: usize = 5;
const SINCE_EIGHT: usize = 6;
const COLD: [usize; 3] = [7, 8, 9];

const NEWEST_MINOR: u8 = 14;
const LEVEL_CANDIDATE: u32 = 0xc;
const MAX_THREADS: usize = 4096;
/// How often a process that runs is looked at again when what was read cannot be.
const ATTEMPTS: usize = 8;
const MAX_READ_ONLY_BYTES: u64 = 64 << 20;

/// `CPython` in a process.
#[derive(Debug)]
pub struct Interpreter {
    version: String,
    layout: Layout,
    object: Option<Arc<ObjectFile>>,
    evaluation: Vec<Range<u64>>,
}

/// Where an interpreter is in a process, before it is known what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterpreterPlace {
    /// `_PyRuntime`.
    pub runtime: ProcessAddress,
    /// `PyCode_Type`.
    pub code_type: Option<ProcessAddress>,
    /// `Py_Version`, which 3.11 and later have.
    pub version: Option<ProcessAddress>,
    /// Before: minor and micro version, as far as the object file tells them.
    pub told: Option<(u8, Option<u8>)>,
}

impl Interpreter {
    /// Looks for one.
    ///
    /// # Errors
    /// [`NotRead`].
    pub fn find(objects: &[MappedObject], memory: &dyn ProcessMemory) -> Result<Option<Self>, NotRead> {
        for object in objects {
            let found = symbols::find(&object.file, &NAMES);
            let Some(place) = InterpreterPlace::of_symbols(object, &found) else { continue };
            let Some(function) = found.iter().find(|symbol| symbol.name == EVALUATION) else { continue };
            let range =
                |symbol: &FoundSymbol| symbol.address.0..symbol.address.0.saturating_add(symbol.bytes.max(1));
            let cold: Vec<Range<u64>> =
                found.iter().filter(|symbol| COLD.contains(&symbol.name)).map(range).collect();
            let mut interpreter = Self::read(&place, memory)?;
            interpreter.evaluation = evaluation::ranges(&object.file, range(function), &cold);
            interpreter.object = Some(Arc::clone(&object.file));
            return Ok(Some(interpreter));
        }
        Ok(None)
    }

    /// The one at a place. No address is of its evaluation function.
    ///
    /// # Errors
    /// [`NotRead`].
    pub fn read(place: &InterpreterPlace, memory: &dyn ProcessMemory) -> Result<Self, NotRead> {
        let (layout, version) = place.read(memory)?;
        Ok(Self { version, layout, object: None, evaluation: Vec::new() })
    }

    /// Where the code of its evaluation function is in its object.
    #[must_use]
    pub fn evaluation(&self) -> &[Range<u64>] {
        &self.evaluation
    }
}

impl ScriptRuntime for Interpreter {
    fn runtime(&self) -> Runtime {
        Runtime::Python
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn layout(&self) -> Vec<u8> {
        self.layout.bytes()
    }

    fn name(&self, frame: &ScriptFrame, memory: &dyn ProcessMemory) -> Result<Vec<ScriptFunction>, Refusal> {
        code::name_frame(&self.layout, frame, memory)
    }

    fn is_evaluation(&self, object: &Arc<ObjectFile>, address: ElfAddress) -> bool {
        let Some(own) = &self.object else { return false };
        (Arc::ptr_eq(object, own) || object.build_id() == own.build_id())
            && self.evaluation.iter().any(|range| range.contains(&address.0))
    }
}

fn not_yet(what: impl Into<String>) -> NotRead {
    NotRead::NotYet { runtime: NAME, what: what.into() }
}

fn unsupported(version: &str, what: impl Into<String>) -> NotRead {
    NotRead::Unsupported { runtime: NAME, version: version.to_owned(), what: what.into() }
}

impl InterpreterPlace {
    /// The place of the interpreter that is in this object, if one is.
    #[must_use]
    pub fn find(object: &MappedObject) -> Option<Self> {
        Self::of_symbols(object, &symbols::find(&object.file, &NAMES))
    }

    fn of_symbols(object: &MappedObject, found: &[FoundSymbol]) -> Option<Self> {
        let address = |name: usize| {
            let symbol = found.iter().find(|symbol| symbol.name == name)?;
            Some(object.bias.to_process(symbol.address))
        };
        let told = [(SINCE_TEN, 10), (SINCE_NINE, 9), (SINCE_EIGHT, 8)]
            .into_iter()
            .find_map(|(name, minor)| address(name).map(|_| minor));
        let version = address(VERSION);
        Some(Self {
            runtime: address(RUNTIME)?,
            code_type: address(CODE_TYPE),
            version,
            told: if version.is_none() {
                told.map(|minor| (minor, micro_version(&object.file, minor)))
            } else {
                None
            },
        })
    }

    fn read(&self, memory: &dyn ProcessMemory) -> Result<(Layout, String), NotRead> {
        let (hex, version) = self.read_version(memory)?;
        let minor = (hex >> 16 & 0xff) as u8;
        if hex >> 24 != 3 || minor > NEWEST_MINOR {
            return Err(unsupported(&version, "its layout is not known"));
        }
        if self.version.is_some() && hex >> 4 & 0xf < LEVEL_CANDIDATE {
            return Err(unsupported(&version, "layouts of alpha and beta releases are not known"));
        }
        let Some(ProcessAddress(code_type)) = self.code_type else {
            return Err(unsupported(&version, "it has no symbol PyCode_Type"));
        };
        let mut layout = if minor >= 13 {
            self.read_debug_offsets(memory, hex, &version)?
        } else {
            Layout::of_minor_version(minor).ok_or_else(|| unsupported(&version, "its layout is not known"))?
        };
        layout.version = hex;
        layout.code_type = code_type;
        layout.interpreters_head = (self.runtime.0)
            .checked_add(layout.runtime_interpreters_head)
            .ok_or_else(|| unsupported(&version, "_PyRuntime lies at the end of memory"))?;
        check_code_type(&layout, memory, &version)?;
        let mut failed = String::new();
        for _ in 0..ATTEMPTS {
            match check_threads(&layout, memory) {
                Ok(()) => return Ok((layout, version)),
                Err(what) => failed = what,
            }
        }
        Err(not_yet(failed))
    }

    /// `PY_VERSION_HEX`, and the version as users know it.
    fn read_version(&self, memory: &dyn ProcessMemory) -> Result<(u32, String), NotRead> {
        if let Some(ProcessAddress(address)) = self.version {
            let hex = memory.u32_at(address).map_err(|unreadable| not_yet(unreadable.to_string()))?;
            return Ok((hex, version_text(hex)));
        }
        let Some((minor, micro)) = self.told else {
            return Err(unsupported("before 3.8", "only 3.8 to 3.14 are"));
        };
        let hex = 0x0300_0000 | u32::from(minor) << 16 | u32::from(micro.unwrap_or(0)) << 8;
        Ok((hex, micro.map_or_else(|| format!("3.{minor}"), |micro| format!("3.{minor}.{micro}"))))
    }

    fn read_debug_offsets(
        &self,
        memory: &dyn ProcessMemory,
        hex: u32,
        version: &str,
    ) -> Result<Layout, NotRead> {
        let mut table = vec![0; debug_offsets::TABLE_BYTES];
        memory.read(self.runtime.0, &mut table).map_err(|unreadable| not_yet(unreadable.to_string()))?;
        debug_offsets::read(&table, hex).map_err(|unusable| match unusable {
            Unusable::NoCookie => not_yet("_PyRuntime does not begin with _Py_DebugOffsets"),
            Unusable::FreeThreaded => unsupported(version, "a free-threaded build"),
            Unusable::Version => unsupported(version, "the form of its _Py_DebugOffsets is not known"),
            Unusable::Nonsense => unsupported(version, "its _Py_DebugOffsets say what cannot be"),
        })
    }
}

/// Before 3.11 it is said only by a text among the constants: the one that ends with a version (linkers make texts with
/// the same end one). None if there are several.
fn micro_version(object: &ObjectFile, minor: u8) -> Option<u8> {
    let header = object.section_header(".rodata").filter(|header| header.bytes <= MAX_READ_ONLY_BYTES)?;
    let constants = object.read_section(header).ok()?.data;
    let begin = format!("3.{minor}.");
    let mut found = None;
    for at in find_all(&constants, begin.as_bytes()) {
        let is_within = at
            .checked_sub(1)
            .and_then(|before| constants.get(before))
            .is_some_and(|before| before.is_ascii_digit() || *before == b'.');
        let text = constants.get(at + begin.len()..).unwrap_or_default();
        let digits = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let micro =
            std::str::from_utf8(digits).ok().and_then(|digits| digits.trim_end_matches('+').parse().ok());
        match (micro, found) {
            _ if is_within => {}
            (Some(micro), Some(other)) if micro != other => return None,
            (Some(micro), _) => found = Some(micro),
            (None, _) => {}
        }
    }
    found
}

fn find_all<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = wanted.first();
    (bytes.windows(wanted.len().max(1)).enumerate())
        .filter(move |(_, window)| window.first() == first && *window == wanted)
        .map(|(at, _)| at)
}

/// `PY_VERSION_HEX` as users know it: 0x030d00c2 is 3.13.0rc2.
fn version_text(hex: u32) -> String {
    let [major, minor, micro, level] = hex.to_be_bytes();
    let serial = level & 0xf;
    let suffix = match level >> 4 {
        0xa => format!("a{serial}"),
        0xb => format!("b{serial}"),
        0xc => format!("rc{serial}"),
        _ => String::new(),
    };
    format!("{major}.{minor}.{micro}{suffix}")
}

/// `PyCode_Type` is a type of this name, and its objects have the expected size.
fn check_code_type(layout: &Layout, memory: &dyn ProcessMemory, version: &str) -> Result<(), NotRead> {
    let word = |address: u64, offset: u16| {
        let address = address.wrapping_add(u64::from(offset));
        memory.u64_at(address).map_err(|unreadable| not_yet(unreadable.to_string()))
    };
    let name = word(layout.code_type, layout.type_name)?;
    let mut text = [0; 5];
    memory.read(name, &mut text).map_err(|_| not_yet("PyCode_Type has no name"))?;
    if &text != b"code\0" {
        return Err(not_yet("PyCode_Type is not set up"));
    }
    let bytes = word(layout.code_type, layout.type_basic_bytes)?;
    if bytes != layout.code_basic_bytes {
        let what = format!("a code object has {bytes} bytes instead of {}", layout.code_basic_bytes);
        return Err(unsupported(version, what));
    }
    Ok(())
}

/// Interpreters and threads are linked as they have to be, and the innermost frame of one is of a code object.
fn check_threads(layout: &Layout, memory: &dyn ProcessMemory) -> Result<(), String> {
    let word = |address: u64, offset: u64| {
        memory.u64_at(address.wrapping_add(offset)).map_err(|unreadable| unreadable.to_string())
    };
    let mut interpreter = word(layout.interpreters_head, 0)?;
    if interpreter == 0 {
        return Err("there is no interpreter yet".to_owned());
    }
    let mut looked_at = 0;
    while interpreter != 0 {
        let mut thread = word(interpreter, u64::from(layout.interpreter_threads))?;
        while thread != 0 {
            looked_at += 1;
            if looked_at > MAX_THREADS {
                return Err("its list of threads has no end".to_owned());
            }
            if word(thread, u64::from(layout.thread_interpreter))? != interpreter {
                return Err("a thread does not belong to its interpreter".to_owned());
            }
            if has_frame(layout, memory, thread)? {
                return Ok(());
            }
            thread = word(thread, u64::from(layout.thread_next))?;
        }
        looked_at += 1;
        interpreter = word(interpreter, u64::from(layout.interpreter_next))?;
    }
    Err("no thread runs Python".to_owned())
}

/// Whether a thread's frames lead to a code object.
fn has_frame(layout: &Layout, memory: &dyn ProcessMemory, thread: u64) -> Result<bool, String> {
    const BETWEEN: usize = 4;
    let word = |address: u64, offset: u16| {
        (memory.u64_at(address.wrapping_add(u64::from(offset)))).map_err(|unreadable| unreadable.to_string())
    };
    let mut frame = word(thread, layout.thread_frame)?;
    if frame != 0 && layout.flags & flag::INDIRECT_FRAME != 0 {
        frame = word(frame, layout.cframe_frame)?;
    }
    // Frames without a function may come first.
    for _ in 0..BETWEEN {
        if frame == 0 {
            return Ok(false);
        }
        let code = word(frame, layout.frame_code)? & !7;
        let mut object = vec![0; usize::from(layout.code_bytes)];
        if code != 0 && memory.read(code, &mut object).is_ok() && u64_at(&object, 8) == Some(layout.code_type)
        {
            return Ok(true);
        }
        if layout.flags & flag::OWNED_ENTRY == 0 {
            return Err("a frame has no code object".to_owned());
        }
        frame = word(frame, layout.frame_previous)?;
    }
    Err("frames lead to no code object".to_owned())
}
