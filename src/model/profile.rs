//! A symbolized profile: the one form that recording produces, that every exporter writes and that
//! every importer reads.
//!
//! Tables are interned and refer to each other by index, as pprof and OTLP profiles do. A
//! [`Location`] is an address with the functions that are inlined there; a stack is a run of
//! locations, leaf first; a [`Sample`] gives a stack, labels and one value for each
//! [`Profile::value_types`].

use std::hash::Hash;

use foldhash::quality::RandomState;
use indexmap::IndexSet;

use super::slices::Slices;

/// What a value counts, in which unit (`samples`/`count`, `cpu`/`nanoseconds`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValueType {
    /// What is measured.
    pub kind: String,
    /// Its unit.
    pub unit: String,
}

impl ValueType {
    /// A value type from its two names.
    #[must_use]
    pub fn new(kind: &str, unit: &str) -> Self {
        Self { kind: kind.to_owned(), unit: unit.to_owned() }
    }
}

/// What sort of code a location is, which decides its suffix in folded stacks and its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FrameKind {
    /// Compiled code of an object file.
    #[default]
    Native,
    /// The kernel or one of its modules.
    Kernel,
    /// Code that a runtime generated.
    Jit,
    /// A function of a Python program.
    Python,
    /// A function of a JavaScript program that is interpreted.
    V8,
    /// … that was compiled.
    V8Jit,
    /// A method of a Java program that is interpreted.
    Jvm,
    /// … that was compiled.
    JvmJit,
}

impl FrameKind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Native, Self::Kernel, Self::Jit, Self::Python, Self::V8, Self::V8Jit, Self::Jvm, Self::JvmJit];

    /// The path of the mapping that stands for such code where it is of no file. It is how pprof can tell them
    /// apart.
    #[must_use]
    pub const fn mapping_path(self) -> Option<&'static str> {
        match self {
            Self::Native => None,
            Self::Kernel => Some("[kernel.kallsyms]"),
            Self::Jit => Some("[jit]"),
            Self::Python => Some("[cpython]"),
            Self::V8 => Some("[v8js]"),
            Self::V8Jit => Some("[v8js jit]"),
            Self::Jvm => Some("[jvm]"),
            Self::JvmJit => Some("[jvm jit]"),
        }
    }

    /// OpenTelemetry's `profile.frame.type`.
    #[must_use]
    pub const fn frame_type(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kernel => "kernel",
            Self::Jit => "jit",
            Self::Python => "cpython",
            Self::V8 | Self::V8Jit => "v8js",
            Self::Jvm | Self::JvmJit => "jvm",
        }
    }
}

/// An object that was mapped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Mapping {
    /// Lowest ELF address of its executable segment.
    pub start: u64,
    /// End of that segment, exclusive.
    pub limit: u64,
    /// File offset of `start`.
    pub file_offset: u64,
    /// Path as the process sees it, or `[kernel.kallsyms]`, `[vdso]`, `[jit]`.
    pub path: String,
    /// Build id in lower-case hex, empty if there is none.
    pub build_id: String,
    /// Whether function names were looked for, as far as they could be found: true for every mapping
    /// that spanflame records. If it is false, readers such as `go tool pprof` look for them
    /// themselves, on their own machine, and complain when they find no such file.
    pub has_functions: bool,
    /// Whether the locations carry file names, as far as the object has them.
    pub has_filenames: bool,
    /// Whether they carry line numbers, as far as the object has them.
    pub has_line_numbers: bool,
    /// Whether inlined frames were looked for.
    pub has_inline_frames: bool,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Function {
    /// Demangled name.
    pub name: String,
    /// Name as the object has it, if that differs from `name`; else empty.
    pub system_name: String,
    /// Source file, empty if unknown.
    pub file: String,
    /// Line of the function's first line, 0 if unknown.
    pub start_line: u32,
}

impl Function {
    /// The system name of a function of a script of which the runtime's records do not say whether it was there at the
    /// very instruction, only that it was at the nearest one before: no field of any format says so.
    pub const APPROXIMATE: &'static str = "[approximate]";

    /// Whether that is so.
    #[must_use]
    pub fn is_approximate(&self) -> bool {
        self.system_name == Self::APPROXIMATE
    }
}

/// A function at a line: one frame as a person counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Index in [`Profile::functions`].
    pub function: u32,
    /// Line, 0 if unknown.
    pub line: u32,
}

/// An address of the program, with the functions found there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Location {
    /// Index in [`Profile::mappings`], if the address lies in a known one.
    pub mapping: Option<u32>,
    /// ELF address in the mapping, kernel address, or process address for JIT and unknown code.
    pub address: u64,
    /// What sort of code this is.
    pub kind: FrameKind,
    /// Innermost inlined function first; the last is the function that the machine code belongs to.
    /// Empty if the address could not be named: it is then shown as `[module+0xoff]`.
    pub frames: Vec<Frame>,
}

/// Index of a stack in [`Profile::stacks`].
pub type StackId = u32;

/// A label's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelValue {
    /// Text.
    Text(String),
    /// A number (`pid`, `tid`).
    Number(i64),
}

/// Label of the revision that a program was built of.
pub const GIT_SHA: &str = "git_sha";
/// What OpenTelemetry calls it (semantic conventions 1.38, resource/vcs).
pub const GIT_SHA_ATTRIBUTE: &str = "vcs.ref.head.revision";

/// A key and a value on a sample.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// `pid`, `tid`, `comm`, `thread_name`, `service`, `container_id`, `git_sha`, `unwind`, `trace_id`, `span_id`.
    pub key: String,
    /// Its value.
    pub value: LabelValue,
}

impl Label {
    /// A label with text.
    #[must_use]
    pub fn text(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), value: LabelValue::Text(value.to_owned()) }
    }

    /// A label with a number.
    #[must_use]
    pub fn number(key: &str, value: i64) -> Self {
        Self { key: key.to_owned(), value: LabelValue::Number(value) }
    }
}

/// A stack with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Index in [`Profile::stacks`].
    pub stack: StackId,
    /// Index in [`Profile::label_sets`].
    pub labels: u32,
    /// One value for each of [`Profile::value_types`].
    pub values: Vec<i64>,
}

/// A set of samples with everything needed to show them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// What the values of a sample are; `samples`/`count` first, then the time.
    pub value_types: Vec<ValueType>,
    /// Index in `value_types` of the one to show when nobody asks for another.
    pub default_value: usize,
    /// What was sampled, and how far apart, e.g. `cpu`/`nanoseconds` every 10,101,010.
    pub period_type: Option<ValueType>,
    /// See `period_type`.
    pub period: i64,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length, nanoseconds.
    pub duration_ns: u64,
    /// Objects; the main executable first when one process was asked for.
    pub mappings: Vec<Mapping>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Locations.
    pub locations: Vec<Location>,
    /// Stacks: indices in `locations`, leaf first.
    pub stacks: Slices<u32>,
    /// Sets of labels, each sorted by key.
    pub label_sets: Vec<Vec<Label>>,
    /// The samples.
    pub samples: Vec<Sample>,
    /// Free text for the reader (loss counters, the machine).
    pub comments: Vec<String>,
}

impl Profile {
    /// The sum of one value over all samples, held at the ends of `i64`.
    #[must_use]
    pub fn total(&self, value: usize) -> i64 {
        let values = self.samples.iter().filter_map(|sample| sample.values.get(value));
        values.fold(0, |sum, &value| sum.saturating_add(value))
    }

    /// The index of the value type of this name (`cpu`), or of this name and unit (`cpu/nanoseconds`).
    #[must_use]
    pub fn value_index(&self, name: &str) -> Option<usize> {
        self.value_types.iter().position(|value_type| {
            value_type.kind == name
                || name
                    .split_once('/')
                    .is_some_and(|(kind, unit)| value_type.kind == kind && value_type.unit == unit)
        })
    }

    /// Checks that every index leads somewhere and that every sample has one value for each value
    /// type. Linear in the size of the profile. Whoever writes a profile out checks it once and then
    /// follows the indices without a second thought.
    ///
    /// # Errors
    /// The first inconsistency, with the row where it stands.
    pub fn validate(&self) -> Result<(), InvalidProfile> {
        let check = |table, row: usize, target, index: usize, length: usize| {
            if index < length {
                return Ok(());
            }
            Err(InvalidProfile::Dangling { table, row, target, index, length })
        };
        for (row, location) in self.locations.iter().enumerate() {
            if let Some(mapping) = location.mapping {
                check("location", row, "mapping", mapping as usize, self.mappings.len())?;
            }
            for frame in &location.frames {
                check("location", row, "function", frame.function as usize, self.functions.len())?;
            }
        }
        for (row, stack) in self.stacks.iter().enumerate() {
            for &location in stack {
                check("stack", row, "location", location as usize, self.locations.len())?;
            }
        }
        for (row, sample) in self.samples.iter().enumerate() {
            check("sample", row, "stack", sample.stack as usize, self.stacks.len())?;
            check("sample", row, "label set", sample.labels as usize, self.label_sets.len())?;
            if sample.values.len() != self.value_types.len() {
                return Err(InvalidProfile::ValueCount {
                    row,
                    values: sample.values.len(),
                    types: self.value_types.len(),
                });
            }
        }
        if self.value_types.is_empty() {
            return Err(InvalidProfile::NoValueTypes);
        }
        check("profile", 0, "default value type", self.default_value, self.value_types.len())
    }

    /// The text of a sample's label, if it has that label with text.
    #[must_use]
    pub fn label_text(&self, sample: &Sample, key: &str) -> Option<&str> {
        let labels = self.label_sets.get(sample.labels as usize)?;
        labels.iter().find(|label| label.key == key).and_then(|label| match &label.value {
            LabelValue::Text(text) => Some(text.as_str()),
            LabelValue::Number(_) => None,
        })
    }
}

/// Why a [`Profile`] does not hold together: a mistake of the code that built it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfile {
    /// An index leads nowhere.
    #[error("{table} {row} refers to {target} {index}, but there are only {length}")]
    Dangling {
        /// Table of the row that refers.
        table: &'static str,
        /// Its index there.
        row: usize,
        /// What it refers to.
        target: &'static str,
        /// The index that leads nowhere.
        index: usize,
        /// Length of the table it should lead into.
        length: usize,
    },
    /// A sample has too few or too many values.
    #[error("sample {row} has {values} values for {types} value types")]
    ValueCount {
        /// Index of the sample.
        row: usize,
        /// How many values it has.
        values: usize,
        /// How many it should have.
        types: usize,
    },
    /// There is nothing that the samples could count.
    #[error("the profile has no value type")]
    NoValueTypes,
}

/// Gives equal values the same index: the builder's side of every table of [`Profile`].
/// The hash is seeded anew in each process, since names come from programs and files that may mean ill.
#[derive(Debug, Clone)]
pub struct Interner<T> {
    values: IndexSet<T, RandomState>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: IndexSet::default() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of `value`, which is added if it is new.
    pub fn intern(&mut self, value: T) -> u32 {
        let (index, _) = self.values.insert_full(value);
        // 2^32 different values would be hundreds of gigabytes.
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// The value of an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.values.get_index(index as usize)
    }

    /// The values, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The table, in order of index.
    #[must_use]
    pub fn into_values(self) -> Vec<T> {
        self.values.into_iter().collect()
    }
}

impl Interner<String> {
    /// The index of `text`, which is copied if it is new.
    pub fn intern_text(&mut self, text: &str) -> u32 {
        match self.values.get_index_of(text) {
            Some(known) => u32::try_from(known).unwrap_or(u32::MAX),
            None => self.intern(text.to_owned()),
        }
    }
}
