//! Which language runtimes a process has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spanflame_symbols::process_memory::ProcessMemory;
use spanflame_symbols::script::markers::Marked;
use spanflame_symbols::script::{MappedObject, NotRead, Runtime, ScriptRuntime};
use spanflame_symbols::{hotspot, python, v8};

/// A language runtime of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuntimeOfProcess {
    /// Which, if it is one whose frames can be read.
    pub runtime: Option<Runtime>,
    /// `CPython`, `Node.js (V8)`, `Java (HotSpot)`, or one whose frames are not read: `Ruby`, `PHP`, `.NET`.
    pub name: String,
    /// As far as it is known, else empty.
    pub version: String,
    /// Why stacks show the runtime's own frames and not the program's; `None` if they show the program's.
    pub not_read: Option<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct FoundRuntimes {
    /// Those whose frames can be read.
    pub runtimes: Vec<Arc<dyn ScriptRuntime>>,
    /// All of them.
    pub about: Vec<RuntimeOfProcess>,
    /// Whether to look again a moment later: something is not set up yet.
    pub again: bool,
}

/// As users know it.
const fn display_name(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Python => "CPython",
        Runtime::V8 => "Node.js (V8)",
        Runtime::Hotspot => "Java (HotSpot)",
    }
}

/// Looks for the runtimes that symbols of the mapped objects promise. Reads memory of the process, which may wait.
#[must_use]
pub fn find_runtimes(
    wanted: &[Marked],
    objects: &[MappedObject],
    memory: &dyn ProcessMemory,
) -> FoundRuntimes {
    let mut found = FoundRuntimes::default();
    for marked in wanted {
        let runtime = match marked {
            Marked::Read(runtime) => *runtime,
            Marked::NotRead(name) => {
                found.about.push(RuntimeOfProcess {
                    runtime: None,
                    name: (*name).to_owned(),
                    version: String::new(),
                    not_read: Some(
                        "this runtime's frames are not supported; native frames are shown".to_owned(),
                    ),
                });
                continue;
            }
        };
        // Memory of processes may hold anything. Should it bring a mistake of ours to light, frames stay native.
        let looked = catch_unwind(AssertUnwindSafe(|| look_for(runtime, objects, memory)));
        let mut tell = |version: &str, not_read: Option<String>| {
            let (name, version) = (display_name(runtime).to_owned(), version.to_owned());
            found.about.push(RuntimeOfProcess { runtime: Some(runtime), name, version, not_read });
        };
        match looked {
            Ok(Ok(Some(there))) => {
                tell(there.version(), None);
                found.runtimes.push(there);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error @ NotRead::NotYet { .. })) => {
                tell("", Some(error.to_string()));
                found.again = true;
            }
            Ok(Err(error @ NotRead::Unsupported { .. })) => {
                let NotRead::Unsupported { version, .. } = &error else { continue };
                tell(version, Some(error.to_string()));
            }
            Err(_) => {
                tracing::error!(
                    "a runtime could not be read, which is a mistake of spanflame; please report it"
                );
                tell("", Some("reading it failed; please report this".to_owned()));
            }
        }
    }
    found
}

type Looked = Result<Option<Arc<dyn ScriptRuntime>>, NotRead>;

fn look_for(runtime: Runtime, objects: &[MappedObject], memory: &dyn ProcessMemory) -> Looked {
    match runtime {
        Runtime::Python => python::find(objects, memory),
        Runtime::V8 => v8::find(objects, memory),
        Runtime::Hotspot => hotspot::find(objects, memory),
    }
}
