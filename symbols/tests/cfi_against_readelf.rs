//! Tables against binutils: 10,000 random addresses of each of several large objects, and every
//! address at which a rule needs a DWARF expression, have the CFA rule, the return-address rule and the
//! place of the saved rbp that `readelf --debug-dump=frames-interp` prints; what an expression says is
//! taken from `readelf --debug-dump=frames`. Nothing of the parser or the evaluator is shared.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spanflame_symbols::unwind::layout::{cfa, return_address, saved_fp};
use spanflame_symbols::unwind::{UnwindRule, UnwindTable};
use spanflame_symbols::{ElfAddress, ObjectFile};

const RANDOM_ADDRESSES: usize = 10_000;

/// DWARF numbers of the registers, as readelf names them.
const REGISTERS: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// A row as readelf prints it.
#[derive(Debug, Clone, Default)]
struct PrintedRow {
    address: u64,
    cfa: String,
    rbp: Option<String>,
    rbx: Option<String>,
    return_address: String,
}

#[derive(Debug, Default)]
struct PrintedFde {
    begin: u64,
    end: u64,
    is_signal_frame: bool,
    rows: Vec<PrintedRow>,
}

/// Expressions in force from an address on: of the CFA, of rbp.
type Expressions = (u64, Option<String>, Option<String>);

fn readelf(option: &str, path: &Path) -> Option<impl Iterator<Item = String>> {
    let output = Command::new("readelf")
        .args(["--wide", option])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(BufReader::new(output.stdout?).lines().map_while(Result::ok))
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

/// `pc=BEGIN..END` and `cie=OFFSET` of a line that begins an FDE.
fn fde_of(line: &str) -> Option<(u64, u64, u64)> {
    if !line.contains(" FDE ") {
        return None;
    }
    let cie = line.split("cie=").nth(1)?.split(' ').next()?;
    let (begin, end) = line.split("pc=").nth(1)?.split_once("..")?;
    Some((hexadecimal(begin), hexadecimal(end.trim()), hexadecimal(cie)))
}

fn printed_fdes(path: &Path) -> Option<Vec<PrintedFde>> {
    let mut fdes: Vec<PrintedFde> = Vec::new();
    let mut cies: HashMap<u64, (bool, PrintedRow)> = HashMap::new();
    let mut in_cie = None;
    let mut columns: Vec<String> = Vec::new();
    for line in readelf("--debug-dump=frames-interp", path)? {
        if let Some((begin, end, cie)) = fde_of(&line) {
            let (is_signal_frame, initial) = cies.get(&cie).cloned().unwrap_or_default();
            let rows = vec![PrintedRow { address: begin, ..initial }];
            fdes.push(PrintedFde { begin, end, is_signal_frame, rows });
            in_cie = None;
        } else if line.contains(" CIE ") {
            let offset = hexadecimal(line.split(' ').next()?);
            let augmentation = line.split('"').nth(1)?.to_owned();
            cies.insert(offset, (augmentation.contains('S'), PrintedRow::default()));
            in_cie = Some(offset);
        } else if line.trim_start().starts_with("LOC ") {
            columns = line.split_whitespace().map(str::to_owned).collect();
        } else if line.len() > 17
            && line.as_bytes()[16] == b' '
            && line.as_bytes()[..16].iter().all(u8::is_ascii_hexdigit)
        {
            // A register as place of another prints as `r5 (rdi)`: the name is left out.
            let cells: Vec<&str> = line.split_whitespace().filter(|cell| !cell.starts_with('(')).collect();
            assert_eq!(cells.len(), columns.len(), "{line}");
            let cell = |name: &str| {
                let position = columns.iter().position(|column| column == name)?;
                Some(cells[position].to_owned())
            };
            let row = PrintedRow {
                address: hexadecimal(cells[0]),
                cfa: cell("CFA")?,
                rbp: cell("rbp"),
                rbx: cell("rbx"),
                return_address: cell("ra")?,
            };
            match in_cie.and_then(|offset| cies.get_mut(&offset)) {
                Some((_, initial)) => *initial = row,
                None => {
                    let rows = &mut fdes.last_mut()?.rows;
                    // The first printed row replaces the CIE's.
                    rows.retain(|earlier| earlier.address != row.address);
                    rows.push(row);
                }
            }
        }
    }
    fdes.retain(|fde| fde.begin < fde.end);
    fdes.sort_by_key(|fde| fde.begin);
    Some(fdes)
}

/// Addresses from which on expressions are in force, in the order of the addresses.
fn printed_expressions(path: &Path) -> Option<Vec<Expressions>> {
    let mut found: Vec<Expressions> = Vec::new();
    let mut current: Expressions = (0, None, None);
    let mut remembered = Vec::new();
    let mut cies: HashMap<u64, Expressions> = HashMap::new();
    let mut in_cie = None;
    for line in readelf("--debug-dump=frames", path)? {
        let text = line.trim();
        if let Some((begin, _, cie)) = fde_of(&line) {
            current = cies.get(&cie).cloned().unwrap_or_default();
            current.0 = begin;
            in_cie = None;
            remembered.clear();
        } else if line.contains(" CIE ") {
            current = (0, None, None);
            in_cie = Some(hexadecimal(line.split(' ').next()?));
        } else if let Some(address) =
            text.split(" to ").nth(1).filter(|_| text.starts_with("DW_CFA_advance_loc"))
        {
            current.0 = hexadecimal(address);
        } else if let Some(expression) = text.strip_prefix("DW_CFA_def_cfa_expression ") {
            current.1 = Some(expression.trim_matches(['(', ')']).to_owned());
        } else if let Some(expression) = text.strip_prefix("DW_CFA_expression: r6 (rbp) ") {
            current.2 = Some(expression.trim_matches(['(', ')']).to_owned());
        } else if text == "DW_CFA_remember_state" {
            remembered.push(current.clone());
        } else if text == "DW_CFA_restore_state" {
            let address = current.0;
            current = remembered.pop()?;
            current.0 = address;
        } else {
            continue;
        }
        match in_cie {
            Some(offset) => {
                cies.insert(offset, current.clone());
            }
            None if current.1.is_some() || current.2.is_some() => {
                found.retain_last_different(&current);
            }
            None => {}
        }
    }
    found.sort_by_key(|expressions| expressions.0);
    Some(found)
}

trait RetainLast {
    fn retain_last_different(&mut self, current: &Expressions);
}

impl RetainLast for Vec<Expressions> {
    /// The last word about an address counts.
    fn retain_last_different(&mut self, current: &Expressions) {
        if self.last().is_some_and(|last| last.0 == current.0) {
            self.pop();
        }
        self.push(current.clone());
    }
}

/// `DW_OP_breg7 (rsp): 40; DW_OP_deref` → [("breg7", 40), ("deref", 0)].
fn operations(expression: &str) -> Vec<(String, i64)> {
    expression
        .split(';')
        .map(|operation| {
            let operation = operation.trim().trim_start_matches("DW_OP_");
            let name = operation.split([' ', ':']).next().unwrap_or_default().to_owned();
            let number = operation.split(": ").nth(1).and_then(|number| number.trim().parse().ok());
            (name, number.unwrap_or(0))
        })
        .collect()
}

/// The rule that what readelf printed comes to.
fn expected_rule(
    fde: &PrintedFde,
    row: &PrintedRow,
    expressions: &[Expressions],
    address: u64,
    follows_rbx: bool,
) -> UnwindRule {
    if row.return_address == "u" {
        return UnwindRule { cfa: cfa::END, ..UnwindRule::NONE };
    }
    let unsupported = UnwindRule { cfa: cfa::UNSUPPORTED, ..UnwindRule::NONE };
    let in_force = expressions
        .get(expressions.partition_point(|expressions| expressions.0 <= address).wrapping_sub(1))
        .filter(|expressions| expressions.0 >= fde.begin);
    let mut rule = UnwindRule::NONE;
    if row.cfa == "exp" {
        let Some((_, Some(text), _)) = in_force else { panic!("no expression for {address:#x}") };
        let operations = operations(text);
        let named: Vec<(&str, i64)> =
            operations.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        let (base, offset) = named[0];
        let register: u8 = base.strip_prefix("breg").unwrap().parse().unwrap();
        rule.cfa_register = register;
        rule.cfa_offset = i32::try_from(offset).unwrap();
        match named.as_slice() {
            [("breg7", 160), ("deref", _)] if fde.is_signal_frame => {
                return UnwindRule { cfa: cfa::SIGNAL, ..UnwindRule::NONE };
            }
            [_, ("deref", _)] => rule.cfa = cfa::DEREF,
            [_, ("deref", _), ("plus_uconst", addend)] => {
                rule.cfa = cfa::DEREF;
                rule.cfa_addend = i32::try_from(*addend).unwrap();
            }
            [
                ("breg7", _),
                ("breg16", 0),
                ("lit15", _),
                ("and", _),
                (pushed_from, _),
                ("ge", _),
                ("lit3", _),
                ("shl", _),
                ("plus", _),
            ] => {
                rule.cfa = cfa::PLT;
                rule.cfa_addend = pushed_from.strip_prefix("lit").unwrap().parse().unwrap();
            }
            _ => return unsupported,
        }
    } else {
        let (name, offset) = row.cfa.split_at(row.cfa.find(['+', '-']).unwrap());
        rule.cfa = cfa::REGISTER;
        rule.cfa_register = REGISTERS.iter().position(|register| *register == name).unwrap() as u8;
        rule.cfa_offset = offset.parse().unwrap();
    }
    match row.return_address.as_str() {
        "c-8" => {}
        other if other.starts_with('r') => {
            let register: u8 = other[1..].parse().unwrap();
            rule.return_address = return_address::IN_REGISTER | register << 4;
        }
        _ => return unsupported,
    }
    match row.rbp.as_deref() {
        None | Some("u" | "s") => {}
        Some("exp") => {
            let text = in_force.and_then(|expressions| expressions.2.as_deref()).unwrap_or_default();
            match operations(text).as_slice() {
                [(base, offset)] if base == "breg6" => {
                    rule.frame_pointer = saved_fp::AT_FP;
                    rule.fp_offset = i16::try_from(*offset).unwrap();
                }
                _ => rule.frame_pointer = saved_fp::UNKNOWN,
            }
        }
        Some(place) => match place.strip_prefix('c').and_then(|offset| offset.parse().ok()) {
            Some(offset) => {
                rule.frame_pointer = saved_fp::AT_CFA;
                rule.fp_offset = offset;
            }
            None => rule.frame_pointer = saved_fp::UNKNOWN,
        },
    }
    if follows_rbx {
        match row.rbx.as_deref() {
            None | Some("u" | "s") => {}
            Some(place) => match place.strip_prefix('c').and_then(|offset| offset.parse().ok()) {
                // A rule cannot say that rbx is at the CFA itself (longjmp of ld.so, whose CFA is the
                // jmp_buf), nor that it is in a register.
                Some(0) | None => return unsupported,
                Some(offset) => rule.rbx_offset = offset,
            },
        }
    }
    rule
}

/// xorshift64: the same addresses in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Compares one object; prints figures. Returns whether it was there.
fn compare(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        println!("skipped: {} is not there", path.display());
        return false;
    };
    let object = ObjectFile::new(file, path).unwrap();
    assert!(object.section(".debug_frame").unwrap().is_none(), "readelf would print two sections");
    let table = UnwindTable::build(&object).unwrap();
    let Some(fdes) = printed_fdes(path) else {
        println!("skipped: readelf is not there");
        return false;
    };
    let expressions = printed_expressions(path).unwrap();

    let code: Vec<_> = object.segments().iter().filter(|segment| segment.executable).collect();
    let code_bytes = code.iter().map(|segment| segment.file_bytes).sum();
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let mut addresses = Vec::new();
    while addresses.len() < RANDOM_ADDRESSES {
        let mut offset = random.below(code_bytes);
        for segment in &code {
            if offset < segment.file_bytes {
                addresses.push(segment.address.0 + offset);
                break;
            }
            offset -= segment.file_bytes;
        }
    }
    addresses.push(object.entry().0);
    addresses.extend(expressions.iter().map(|expressions| expressions.0));

    // rbx is told only by tables of objects that base a CFA on it.
    let follows_rbx = fdes.iter().flat_map(|fde| &fde.rows).any(|row| row.cfa.starts_with("rbx"));
    let mut kinds = [0u32; 9];
    let mut disagreements = Vec::new();
    for address in &addresses {
        let found = table.find(ElfAddress(*address));
        let fde = fdes.get(fdes.partition_point(|fde| fde.begin <= *address).wrapping_sub(1));
        let expected = match fde.filter(|fde| *address < fde.end) {
            Some(fde) => {
                let row = fde.rows.iter().rev().find(|row| row.address <= *address).unwrap();
                expected_rule(fde, row, &expressions, *address, follows_rbx)
            }
            // Ours alone: the entry point is the outermost frame though nothing says so.
            None if object.entry().0 != 0 && (object.entry().0..object.entry().0 + 64).contains(address) => {
                UnwindRule { cfa: cfa::END, ..UnwindRule::NONE }
            }
            // Ours alone as well: V8's builtins, of which nothing is said.
            None if found.cfa == cfa::RUNTIME => found,
            None => UnwindRule::NONE,
        };
        kinds[usize::from(found.cfa)] += 1;
        if found != expected {
            disagreements.push((format!("{address:#x}"), expected, found));
        }
    }
    println!(
        "{}: {} addresses, {} with expressions, rbx {follows_rbx}, {} disagree; none {}, register {}, deref {}, PLT {}, signal {}, \
         end {}, unsupported {}",
        path.display(),
        addresses.len(),
        expressions.len(),
        disagreements.len(),
        kinds[usize::from(cfa::NONE)],
        kinds[usize::from(cfa::REGISTER)],
        kinds[usize::from(cfa::DEREF)],
        kinds[usize::from(cfa::PLT)],
        kinds[usize::from(cfa::SIGNAL)],
        kinds[usize::from(cfa::END)],
        kinds[usize::from(cfa::UNSUPPORTED)],
    );
    assert!(
        disagreements.is_empty(),
        "{}: {:#?}",
        path.display(),
        &disagreements[..disagreements.len().min(5)]
    );
    true
}

fn first_line(command: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(command).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    PathBuf::from(text.lines().next().unwrap_or_default())
}

#[test]
fn random_addresses_have_the_rules_readelf_prints() {
    let paths = [
        PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
        PathBuf::from("/lib/x86_64-linux-gnu/libstdc++.so.6"),
        PathBuf::from("/lib/x86_64-linux-gnu/libcrypto.so.3"),
        PathBuf::from("/lib64/ld-linux-x86-64.so.2"),
        first_line("which", &["node"]),
        PathBuf::from("/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so"),
        PathBuf::from("/usr/bin/python3.11"),
        first_line("gcc", &["-print-prog-name=cc1"]),
    ];
    let compared = paths.iter().filter(|path| compare(path)).count();
    println!("{compared} of {} objects compared", paths.len());
    assert!(compared >= 3, "only {compared} objects are there");
}
