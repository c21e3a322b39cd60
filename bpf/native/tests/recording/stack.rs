//! The machine stack of a thread: its registers, and of the unwind tables what a walk of it needs.
//!
//! A recording has `registers` (rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 … r15, pc), `mapping` (begin, end, bias,
//! number of the object or `jit`), `row` (object, ELF address, `struct sf_unwind_rule`; in force for one byte),
//! `range` (object, begin, end, rule), `rbx` (an object whose rules track rbx) and `walk` (the words that the walk
//! gave). Of tables that have hundreds of thousands of rows it has those which that walk came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use spanflame_symbols::process_memory::{ProcessMemory, Unreadable};
use spanflame_symbols::unwind::layout::{PAGE_BYTES, cfa};
use spanflame_symbols::unwind::{Row, UnwindRule, UnwindTable};
use spanflame_symbols::{ElfAddress, ObjectFile};
use spanflame_unwind_native::{Image, MappingKind, ObjectState, Registers, Walk, Walker, register};

use super::{ExecutableMapping, bytes_of, digits_of, hex};

/// The place of an object's number in a word.
const OBJECT_SHIFT: u32 = 48;
const ADDRESS_MASK: u64 = (1 << OBJECT_SHIFT) - 1;

/// Of an object: its rules at addresses, or over ranges.
#[derive(Debug, Clone, Default)]
struct Rules {
    rows: BTreeMap<u64, UnwindRule>,
    ranges: Vec<(Range<u64>, UnwindRule)>,
    tracks_rbx: bool,
}

/// What a walk needs besides memory.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    registers: Registers,
    mappings: Vec<(u64, u64, u64, MappingKind)>,
    objects: Vec<Rules>,
    /// What the walk gave, as it was recorded.
    pub walked: Vec<u64>,
}

/// Memory whose stack is read word by word: what the walk fetches of it ahead is not to be recorded, since the program's
/// environment lies there too.
pub struct StackByWords<'a> {
    memory: &'a dyn ProcessMemory,
    stack: Range<u64>,
}

impl ProcessMemory for StackByWords<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        if self.stack.contains(&address) && into.len() > size_of::<u64>() {
            return Err(Unreadable { address, bytes: into.len() });
        }
        self.memory.read(address, into)
    }
}

/// A thread in a system call, with the whole tables of everything that is mapped there.
pub struct LiveStack {
    registers: Registers,
    mappings: Vec<(u64, u64, u64, MappingKind)>,
    tables: Vec<Option<UnwindTable>>,
    stack: Range<u64>,
}

impl LiveStack {
    /// Of a thread that waits in a system call.
    pub fn of(thread: u32, executable: &[ExecutableMapping]) -> Self {
        let mut files: Vec<Arc<ObjectFile>> = Vec::new();
        let mut mappings = Vec::new();
        for mapping in executable {
            let (bias, kind) = match &mapping.content {
                Ok(object) => {
                    let known = files.iter().position(|file| Arc::ptr_eq(file, &object.file));
                    let index = known.unwrap_or_else(|| {
                        files.push(Arc::clone(&object.file));
                        files.len() - 1
                    });
                    (object.bias.0, MappingKind::Object(index as u32 + 1))
                }
                // The kernel's own pages; nothing of them is on these stacks.
                Err(name) if name.starts_with("[v") => continue,
                Err(_) => (0, MappingKind::Jit),
            };
            mappings.push((mapping.begin, mapping.end, bias, kind));
        }
        let tables = files.iter().map(|file| UnwindTable::build(file).ok()).collect();
        let registers = registers_of(thread);
        let stack = mapping_of(thread, registers.general[usize::from(register::RSP)]);
        Self { registers, mappings, tables, stack }
    }

    pub fn walk(&self, set: impl FnOnce(&mut Image), memory: &dyn ProcessMemory) -> Walk {
        let mut image = Image::new();
        for table in &self.tables {
            match table {
                Some(table) => image.add_object(table, tracks_rbx(table)),
                None => image.add_object_in_state(ObjectState::NoInformation),
            };
        }
        walk(image, &self.mappings, &self.registers, set, memory)
    }

    /// Its process's memory, to be recorded.
    pub fn by_words<'a>(&self, memory: &'a dyn ProcessMemory) -> StackByWords<'a> {
        StackByWords { memory, stack: self.stack.clone() }
    }

    /// What a walk came to. `runtime_code`: where its object's table leaves it to a runtime.
    pub fn visited(&self, walk: &Walk, runtime_code: Option<&Range<u64>>) -> Stack {
        let mut stack = Stack {
            registers: self.registers,
            objects: vec![Rules::default(); self.tables.len()],
            walked: walk.frames.clone(),
            ..Stack::default()
        };
        for (index, word) in walk.frames.iter().enumerate() {
            let object = word >> OBJECT_SHIFT;
            let Some(table) = self.table(object) else { continue };
            let rules = &mut stack.objects[object as usize - 1];
            rules.tracks_rbx = tracks_rbx(table);
            // The leaf's word is that of its `syscall` instruction, its rule that of the one behind.
            let address = (word & ADDRESS_MASK) + u64::from(index == 0);
            let rule = table.find(ElfAddress(address));
            if rule.cfa != cfa::RUNTIME {
                rules.rows.insert(address, rule);
                continue;
            }
            let range = runtime_code.expect("no runtime has code in an object");
            assert!(range.contains(&address), "{address:x} is not in {range:x?}");
            let of_last = table.find(ElfAddress(range.end - 1));
            assert_eq!((table.find(ElfAddress(range.start)), of_last), (rule, rule));
            rules.ranges = vec![(range.clone(), rule)];
        }
        let is_visited = |&&(begin, end, bias, kind): &&(u64, u64, u64, MappingKind)| match kind {
            MappingKind::Object(object) => {
                let rules = &stack.objects[object as usize - 1];
                let holds = |address: u64| (begin..end).contains(&address.wrapping_add(bias));
                rules.rows.keys().any(|address| holds(*address))
                    || rules.ranges.iter().any(|(range, _)| holds(range.start) || holds(range.end - 1))
            }
            _ => {
                let codes = walk.frames.iter().copied().filter(|word| word >> OBJECT_SHIFT == 0);
                let mut all = codes.chain(walk.scripts.iter().map(|script| script.address));
                all.any(|address| (begin..end).contains(&address))
            }
        };
        stack.mappings = self.mappings.iter().filter(is_visited).copied().collect();
        stack
    }

    fn table(&self, object: u64) -> Option<&UnwindTable> {
        self.tables.get(usize::try_from(object).ok()?.checked_sub(1)?)?.as_ref()
    }
}

impl Stack {
    pub fn walk(&self, set: impl FnOnce(&mut Image), memory: &dyn ProcessMemory) -> Walk {
        let mut image = Image::new();
        for rules in &self.objects {
            let rows = rules.rows();
            if rows.is_empty() {
                image.add_object_in_state(ObjectState::NoInformation);
            } else {
                image.add_object(&UnwindTable::from_rows(&rows).expect("they fit"), rules.tracks_rbx);
            }
        }
        walk(image, &self.mappings, &self.registers, set, memory)
    }

    pub fn write(&self, text: &mut String) {
        let _ = write!(text, "registers");
        for register in self.registers.general.iter().chain([&self.registers.pc]) {
            let _ = write!(text, " {register:x}");
        }
        text.push('\n');
        for (begin, end, bias, kind) in &self.mappings {
            let kind = match kind {
                MappingKind::Object(object) => format!("{object:x}"),
                _ => "jit".to_owned(),
            };
            let _ = writeln!(text, "mapping {begin:x} {end:x} {bias:x} {kind}");
        }
        for (index, rules) in self.objects.iter().enumerate() {
            let object = index + 1;
            if rules.tracks_rbx {
                let _ = writeln!(text, "rbx {object:x}");
            }
            for (address, rule) in &rules.rows {
                let _ = writeln!(text, "row {object:x} {address:x} {}", digits_of(&rule.to_bytes()));
            }
            for (range, rule) in &rules.ranges {
                let (begin, end) = (range.start, range.end);
                let _ = writeln!(text, "range {object:x} {begin:x} {end:x} {}", digits_of(&rule.to_bytes()));
            }
        }
        let _ = write!(text, "walk");
        for word in &self.walked {
            let _ = write!(text, " {word:x}");
        }
        text.push('\n');
    }

    /// The other way: whether a line was one of a stack.
    pub fn read(&mut self, (word, rest): (&str, &str)) -> bool {
        let words: Vec<&str> = rest.split(' ').collect();
        match word {
            "registers" => {
                let values: Vec<u64> = words.iter().map(|word| hex(word)).collect();
                self.registers.general.copy_from_slice(&values[..16]);
                self.registers.pc = values[16];
            }
            "mapping" => {
                let kind = match words[3] {
                    "jit" => MappingKind::Jit,
                    object => MappingKind::Object(hex(object) as u32),
                };
                self.mappings.push((hex(words[0]), hex(words[1]), hex(words[2]), kind));
            }
            "rbx" => self.rules(words[0]).tracks_rbx = true,
            "row" => {
                self.rules(words[0]).rows.insert(hex(words[1]), rule_of(words[2]));
            }
            "range" => {
                let range = hex(words[1])..hex(words[2]);
                self.rules(words[0]).ranges.push((range, rule_of(words[3])));
            }
            "walk" => self.walked = words.iter().map(|word| hex(word)).collect(),
            _ => return false,
        }
        true
    }

    fn rules(&mut self, object: &str) -> &mut Rules {
        let object = hex(object) as usize;
        if self.objects.len() < object {
            self.objects.resize(object, Rules::default());
        }
        &mut self.objects[object - 1]
    }
}

impl Rules {
    fn rows(&self) -> Vec<Row> {
        let mut rows = BTreeMap::new();
        for (address, rule) in &self.rows {
            rows.insert(*address, *rule);
            rows.entry(address + 1).or_insert(UnwindRule::NONE);
        }
        // A row's end lies before the row that begins there.
        for (address, rule) in &self.rows {
            rows.insert(*address, *rule);
        }
        for (range, rule) in &self.ranges {
            rows.insert(range.start, *rule);
            rows.entry(range.end).or_insert(UnwindRule::NONE);
        }
        rows.into_iter().map(|(address, rule)| Row { address: ElfAddress(address), rule }).collect()
    }
}

fn rule_of(digits: &str) -> UnwindRule {
    UnwindRule::from_bytes(&bytes_of(digits), 0).expect("16 bytes")
}

fn walk(
    mut image: Image,
    mappings: &[(u64, u64, u64, MappingKind)],
    registers: &Registers,
    set: impl FnOnce(&mut Image),
    memory: &dyn ProcessMemory,
) -> Walk {
    image.set_mappings(mappings);
    image.in_syscall = true;
    set(&mut image);
    let mut walker = Walker::default();
    let walk = walker.walk_in(&image, registers, memory);
    let again = walker.walk_in(&image, registers, memory);
    assert_eq!(again.frames, walk.frames, "rules are remembered");
    assert_eq!((again.outcome, again.scripts), (walk.outcome, walk.scripts.clone()));
    walk
}

/// As `src/kernel/tables.rs` tells it of a table.
fn tracks_rbx(table: &UnwindTable) -> bool {
    let begin = table.directory_pages as usize * PAGE_BYTES;
    let rules = &table.pages[begin..begin + table.rule_pages as usize * PAGE_BYTES];
    let mut rules = rules.chunks(16).map(|bytes| UnwindRule::from_bytes(bytes, 0).expect("16 bytes"));
    rules.any(|rule| [cfa::REGISTER, cfa::DEREF].contains(&rule.cfa) && rule.cfa_register == register::RBX)
}

/// The mapping that holds an address.
fn mapping_of(thread: u32, address: u64) -> Range<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{thread}/maps")).expect("its mappings");
    let mut ranges = maps.lines().map(|line| {
        let (begin, rest) = line.split_once('-').expect("a range");
        hex(begin)..hex(rest.split(' ').next().expect("its end"))
    });
    ranges.find(|range| range.contains(&address)).expect("a stack")
}

/// The registers of a thread that waits, which is held for a moment (`ptrace(2)`); its system call goes on after.
fn registers_of(thread: u32) -> Registers {
    let thread = libc::pid_t::try_from(thread).expect("a thread");
    // SAFETY: all zeros is a value of it.
    let mut user: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: of a process of ours; `user` is what PTRACE_GETREGS fills in.
    unsafe {
        let done = libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing);
        assert_eq!(done, 0, "it can be traced: {}", std::io::Error::last_os_error());
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing), 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
        assert!(libc::WIFSTOPPED(status));
        assert_eq!(libc::ptrace(libc::PTRACE_GETREGS, thread, nothing, &raw mut user), 0);
        assert_eq!(libc::ptrace(libc::PTRACE_DETACH, thread, nothing, nothing), 0);
    }
    let general = [
        user.rax, user.rdx, user.rcx, user.rbx, user.rsi, user.rdi, user.rbp, user.rsp, user.r8, user.r9,
        user.r10, user.r11, user.r12, user.r13, user.r14, user.r15,
    ];
    Registers { general, pc: user.rip }
}
