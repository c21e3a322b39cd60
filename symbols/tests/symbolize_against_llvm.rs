//! Names, files and lines at random addresses, against `llvm-symbolizer --inlines`.
//!
//! The same seed gives the same addresses every time. Disagreements are sorted into classes, each with a
//! check of its own that proves it from the object's symbol table; what is in no class fails the test.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};
use spanflame_symbols::symbolize::{Symbol, Symbolizer};
use spanflame_symbols::{ElfAddress, ObjectFile};

const ADDRESSES: usize = 1000;

/// `splitmix64` (Steele, Lea, Flood 2014): enough to pick addresses, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OracleFrame {
    name: String,
    file: String,
    line: u32,
}

/// One whose answers can be compared: 14 repeats folders in paths (`./iconv/./iconv/x.c`) and counts inlined frames
/// otherwise.
fn llvm_symbolizer() -> Option<&'static str> {
    const OLDEST: u32 = 15;
    ["llvm-symbolizer-19", "llvm-symbolizer"].into_iter().find(|name| {
        let Ok(output) = Command::new(name).arg("--version").output() else { return false };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version =
            said.split_once("LLVM version ").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        version.is_some_and(|version: u32| version >= OLDEST)
    })
}

fn ask_llvm(tool: &str, object: &Path, addresses: &[ElfAddress], demangle: bool) -> Vec<Vec<OracleFrame>> {
    let mut child = Command::new(tool)
        .arg(format!("--obj={}", object.display()))
        .args(["--inlines", "--output-style=LLVM", if demangle { "--demangle" } else { "--no-demangle" }])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let questions: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(questions.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Vec<OracleFrame>> = text
        .split_terminator("\n\n")
        .map(|answer| {
            let lines: Vec<&str> = answer.lines().collect();
            lines.chunks_exact(2).map(|pair| oracle_frame(pair[0], pair[1])).collect()
        })
        .collect();
    assert_eq!(answers.len(), addresses.len(), "{object:?}: one answer for each address");
    answers
}

fn oracle_frame(name: &str, location: &str) -> OracleFrame {
    // FILE:LINE:COLUMN, or FILE:LINE for a symbol without lines.
    let unknown = |text: &str| if text == "??" { String::new() } else { text.to_owned() };
    let mut parts = location.rsplitn(3, ':');
    let (last, middle, first) = (parts.next().unwrap(), parts.next().unwrap_or(""), parts.next());
    let (file, line) = match first {
        Some(file) => (file, middle),
        None => (middle, last),
    };
    OracleFrame { name: unknown(name), file: unknown(file), line: line.parse().unwrap_or(0) }
}

fn ours(symbol: &Symbol, demangled: bool) -> Vec<OracleFrame> {
    let Ok(frames) = symbol else {
        return vec![OracleFrame { name: String::new(), file: String::new(), line: 0 }];
    };
    frames
        .iter()
        .map(|frame| OracleFrame {
            name: if demangled || frame.system_name.is_empty() {
                frame.name.clone()
            } else {
                frame.system_name.clone()
            },
            file: frame.file.clone(),
            line: frame.line,
        })
        .collect()
}

/// Every symbol of an object and of its debug file: address, size, name.
struct Symbols {
    symbols: Vec<(u64, u64, String)>,
    files: Vec<String>,
}

impl Symbols {
    fn read(paths: &[PathBuf]) -> Self {
        let (mut symbols, mut files) = (Vec::new(), Vec::new());
        for path in paths {
            let bytes = std::fs::read(path).unwrap();
            let file: ElfFile64 = ElfFile64::parse(&*bytes).unwrap();
            for symbol in file.symbols().chain(file.dynamic_symbols()) {
                if symbol.kind() == object::SymbolKind::File {
                    files.push(symbol.name().unwrap_or("").to_owned());
                } else if !symbol.is_undefined() {
                    symbols.push((symbol.address(), symbol.size(), symbol.name().unwrap_or("").to_owned()));
                }
            }
        }
        Self { symbols, files }
    }

    fn named<'a>(&'a self, name: &'a str, address: u64) -> impl Iterator<Item = (u64, u64)> + 'a {
        let named = self.symbols.iter().filter(move |(begin, _, symbol)| symbol == name && *begin <= address);
        named.map(|(begin, bytes, _)| (*begin, *bytes))
    }

    fn are_aliases(&self, a: &str, b: &str, address: u64) -> bool {
        let covers = |(begin, bytes): &(u64, u64)| address < begin + bytes || *bytes == 0;
        self.named(a, address)
            .filter(covers)
            .any(|(begin, _)| self.named(b, address).filter(covers).any(|(other, _)| other == begin))
    }

    fn is_file(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }

    fn is_unsized(&self, name: &str, address: u64) -> bool {
        self.named(name, address).any(|(_, bytes)| bytes == 0)
    }

    fn covers_with_size(&self, name: &str, address: u64) -> bool {
        self.named(name, address).any(|(begin, bytes)| address < begin + bytes)
    }
}

/// Why a difference is none, or a better answer of ours; `None` if it is unexplained.
fn explain(
    ours: &[OracleFrame],
    theirs: &[OracleFrame],
    symbols: &Symbols,
    address: u64,
) -> Option<&'static str> {
    let (our_last, their_last) = (ours.last()?, theirs.last()?);
    let (our_name, their_name) = (our_last.name.as_str(), their_last.name.as_str());
    let only_outermost_name_differs = ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(a, b)| (&a.file, a.line) == (&b.file, b.line))
        && ours.iter().zip(theirs).rev().skip(1).all(|(a, b)| a.name == b.name);
    if only_outermost_name_differs {
        if their_name.split('@').next() == Some(our_name) || our_name.split('@').next() == Some(their_name) {
            return Some("symbol version");
        }
        if symbols.are_aliases(our_name, their_name, address) {
            return Some("another name of the same code");
        }
        if symbols.covers_with_size(our_name, address) && symbols.is_unsized(their_name, address) {
            return Some("LLVM names a label inside of a function");
        }
        if symbols.covers_with_size(our_name, address) && their_name.is_empty() {
            return Some("LLVM does not look past a smaller symbol before the address");
        }
        if our_name.is_empty() && symbols.is_unsized(their_name, address) {
            return Some("LLVM extends a symbol without size into another function");
        }
        if symbols.covers_with_size(our_name, address)
            && our_name.strip_prefix(their_name).is_some_and(|suffix| suffix.starts_with('.'))
        {
            return Some("LLVM does not look for the clone's name in the debug file's symbol table");
        }
        if our_name.ends_with("@plt") {
            return Some("LLVM does not name this PLT stub");
        }
    }
    let names_are_equal =
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.name == b.name);
    if names_are_equal && our_name.is_empty() && ours.len() == 1 && our_last.file.is_empty() {
        return Some("padding, which has a line and no function");
    }
    if names_are_equal
        && our_last.file.is_empty()
        && symbols.is_file(&their_last.file)
        && their_last.line == 0
    {
        return Some("LLVM knows the file of a local symbol from the symbol table");
    }
    None
}

#[derive(Default)]
struct Tally {
    equal: usize,
    both_unknown: usize,
    explained: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
    demangled_alike: usize,
    demangled_differently: Vec<String>,
}

fn compare(tool: &str, path: &Path, debug_files: &[PathBuf], seed: u64) -> Tally {
    let object = Arc::new(ObjectFile::new(std::fs::File::open(path).unwrap(), path).unwrap());
    let text = *object.section_header(".text").unwrap();
    let mut random = Random(seed);
    let addresses: Vec<ElfAddress> =
        (0..ADDRESSES).map(|_| ElfAddress(text.address.0 + random.below(text.bytes))).collect();
    let mut symbolizer = Symbolizer::new();
    let start = std::time::Instant::now();
    let answers = symbolizer.object(&object, &addresses);
    let cold = start.elapsed();
    let start = std::time::Instant::now();
    assert_eq!(symbolizer.object(&object, &addresses), answers);
    let warm = start.elapsed();
    let theirs = ask_llvm(tool, path, &addresses, false);
    let theirs_demangled = ask_llvm(tool, path, &addresses, true);
    let mut symbol_files = vec![path.to_owned()];
    symbol_files.extend_from_slice(debug_files);
    let symbols = Symbols::read(&symbol_files);
    let mut tally = Tally::default();
    for (index, (answer, oracle)) in answers.iter().zip(&theirs).enumerate() {
        let raw = ours(answer, false);
        if raw == *oracle {
            tally.equal += 1;
            tally.both_unknown += usize::from(answer.is_err());
        } else if let Some(class) = explain(&raw, oracle, &symbols, addresses[index].0) {
            *tally.explained.entry(class).or_default() += 1;
        } else {
            tally
                .unexplained
                .push(format!("{}\n    ours   {raw:?}\n    theirs {oracle:?}", addresses[index]));
        }
        if raw == *oracle {
            for (mine, other) in ours(answer, true).iter().zip(&theirs_demangled[index]) {
                if mine.name == other.name {
                    tally.demangled_alike += 1;
                } else {
                    tally.demangled_differently.push(format!("{}\n    {}", mine.name, other.name));
                }
            }
        }
    }
    let stats = symbolizer.stats();
    println!(
        "{}: {} equal ({} unknown to both), explained {:?}, {} unexplained; demangled {} alike, {} not; \
         cold {:.0}/s warm {:.0}/s, {} KiB held",
        path.display(),
        tally.equal,
        tally.both_unknown,
        tally.explained,
        tally.unexplained.len(),
        tally.demangled_alike,
        tally.demangled_differently.len(),
        ADDRESSES as f64 / cold.as_secs_f64(),
        ADDRESSES as f64 / warm.as_secs_f64(),
        stats.memory_bytes / 1024,
    );
    for line in tally.unexplained.iter().take(8) {
        println!("  unexplained {line}");
    }
    for line in tally.demangled_differently.iter().take(8) {
        println!("  demangled   {line}");
    }
    tally
}

const C_SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *left, *right; unsigned key; };
static inline unsigned mix(unsigned x) { x ^= x >> 16; x *= 0x7feb352dU; x ^= x >> 15; return x; }
static inline unsigned twice(unsigned x) { return mix(mix(x) + 1); }
static unsigned depth(const struct node *n) {
    if (!n) return 0;
    unsigned l = depth(n->left), r = depth(n->right);
    return 1 + (l > r ? l : r);
}
static struct node *insert(struct node *n, unsigned key) {
    if (!n) { n = calloc(1, sizeof *n); if (!n) abort(); n->key = key; return n; }
    if (key < n->key) n->left = insert(n->left, key); else n->right = insert(n->right, key);
    return n;
}
__attribute__((noinline, cold)) static void complain(const char *what) { fprintf(stderr, "%s\n", what); exit(1); }
__attribute__((noinline)) unsigned checksum(const char *text) {
    unsigned sum = 0;
    for (size_t i = 0; i < strlen(text); i++) sum = twice(sum + (unsigned char)text[i]);
    if (sum == 42) complain("what a sum");
    return sum;
}
static int compare(const void *a, const void *b) { unsigned x = *(const unsigned *)a, y = *(const unsigned *)b; return x < y ? -1 : x > y; }
int main(int argc, char **argv) {
    struct node *root = 0;
    unsigned keys[64];
    for (unsigned i = 0; i < 64; i++) { keys[i] = twice(i + (unsigned)argc); root = insert(root, keys[i]); }
    qsort(keys, 64, sizeof keys[0], compare);
    printf("%u %u %u\n", depth(root), checksum(argv[0]), keys[0]);
    return 0;
}
"#;

const CPP_SOURCE: &str = r#"
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <vector>
namespace shapes {
struct Shape { virtual ~Shape() = default; virtual double area() const = 0; };
template <typename T> struct Rectangle : Shape {
    T width, height;
    Rectangle(T w, T h) : width(w), height(h) {}
    double area() const override { return static_cast<double>(width) * height; }
};
namespace { double scale(double x) { return x * 1.5 + 2; } struct Local { std::string text; int operator()(int x) const { return x + (int)text.size(); } }; }
template <typename F> double sum(const std::vector<std::unique_ptr<Shape>> &all, F f) {
    double total = 0;
    for (const auto &shape : all) total += f(scale(shape->area()));
    return total;
}
}
int main(int argc, char **argv) {
    std::vector<std::unique_ptr<shapes::Shape>> all;
    for (int i = 0; i < argc + 5; i++) {
        if (i % 2) all.push_back(std::make_unique<shapes::Rectangle<int>>(i, argc));
        else all.push_back(std::make_unique<shapes::Rectangle<double>>(i * 0.5, argc));
    }
    std::map<std::string, std::vector<int>> words;
    std::regex pattern("([a-z]+)([0-9]*)");
    for (int i = 0; i < argc; i++) {
        std::smatch match;
        std::string text = argv[i];
        if (std::regex_search(text, match, pattern)) words[match[1]].push_back((int)match[2].length());
    }
    std::function<int(int)> f = shapes::Local{argv[0]};
    try { if (f(argc) == 7) throw std::runtime_error("seven"); } catch (const std::exception &e) { std::cerr << e.what(); }
    std::vector<std::string> sorted(argv, argv + argc);
    std::sort(sorted.begin(), sorted.end(), [](const auto &a, const auto &b) { return a.size() < b.size(); });
    std::cout << shapes::sum(all, [](double x) { return x * x; }) << words.size() << sorted.front() << '\n';
}
"#;

const RUST_SOURCE: &str = r#"
use std::collections::{BTreeMap, HashMap};
trait Shape { fn area(&self) -> f64; }
struct Square<T>(T);
impl Shape for Square<f64> { fn area(&self) -> f64 { self.0 * self.0 } }
impl Shape for Square<u32> { fn area(&self) -> f64 { f64::from(self.0) } }
#[inline(never)]
fn count(words: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in words { *counts.entry(word.to_lowercase()).or_insert(0) += word.chars().filter(|c| c.is_alphabetic()).count(); }
    counts
}
fn main() {
    let words: Vec<String> = std::env::args().chain(["a b".into(), "Xyz".into()]).collect();
    let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Square(1.5)), Box::new(Square(words.len() as u32))];
    let mut sorted: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (word, n) in count(&words) { sorted.entry(n).or_default().push(word); }
    let total: f64 = shapes.iter().map(|shape| shape.area()).sum();
    println!("{total} {sorted:?} {:?}", words.join(",").parse::<f64>());
}
"#;

fn build(
    folder: &Path,
    compiler: &str,
    source_name: &str,
    source: &str,
    arguments: &[&str],
) -> Option<PathBuf> {
    let source_path = folder.join(source_name);
    std::fs::write(&source_path, source).unwrap();
    let output = folder.join(format!("{source_name}.{compiler}.out"));
    let built = Command::new(compiler).args(arguments).arg(&source_path).arg("-o").arg(&output).output();
    match built {
        Ok(built) if built.status.success() => Some(output),
        Ok(built) => panic!("{compiler}: {}", String::from_utf8_lossy(&built.stderr)),
        Err(_) => {
            println!("skipped: no {compiler}");
            None
        }
    }
}

fn assert_explained(name: &Path, tally: &Tally) {
    assert!(
        tally.unexplained.is_empty(),
        "{}: {} of {ADDRESSES} answers differ for no known reason, e.g. {}",
        name.display(),
        tally.unexplained.len(),
        tally.unexplained[0]
    );
}

#[test]
fn compiled_fixtures_agree_in_function_file_and_line() {
    let Some(tool) = llvm_symbolizer() else {
        println!("skipped: no llvm-symbolizer of LLVM 15 or later");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let builds = [
        build(folder.path(), "gcc", "c.c", C_SOURCE, &["-O2", "-g", "-fomit-frame-pointer"]),
        build(folder.path(), "clang-19", "c.c", C_SOURCE, &["-O2", "-g"]),
        build(folder.path(), "gcc", "c4.c", C_SOURCE, &["-O2", "-gdwarf-4", "-gz"]),
        build(folder.path(), "g++", "cpp.cc", CPP_SOURCE, &["-O2", "-g", "-std=c++17"]),
        build(folder.path(), "rustc", "rust.rs", RUST_SOURCE, &["-O", "-g"]),
    ];
    for (index, path) in builds.iter().flatten().enumerate() {
        let tally = compare(tool, path, &[], 0x5eed + index as u64);
        assert_explained(path, &tally);
        // Names differ where LLVM demangles Rust as if it were C++, and by the gaps that `demangle` names.
        let demangled = tally.demangled_alike + tally.demangled_differently.len();
        assert!(
            tally.demangled_alike * 10 > demangled * 9,
            "{}: {} of {demangled}",
            path.display(),
            tally.demangled_alike
        );
        let explained: usize = tally.explained.values().sum();
        assert!(tally.equal > explained, "{}: {} equal, {explained} not", path.display(), tally.equal);
    }
}

#[test]
fn system_binaries_agree_in_function_file_and_line() {
    let Some(tool) = llvm_symbolizer() else {
        println!("skipped: no llvm-symbolizer of LLVM 15 or later");
        return;
    };
    let candidates = [
        "/bin/bash",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/bin/python3.11",
        "/usr/bin/gdb",
        "/usr/bin/perf",
        "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    ];
    let mut compared = 0;
    for (index, path) in candidates.into_iter().map(Path::new).enumerate() {
        if !path.exists() {
            println!("skipped: no {}", path.display());
            continue;
        }
        let debug_files: Vec<PathBuf> = debug_file_of(path).into_iter().collect();
        let tally = compare(tool, path, &debug_files, 0x5eed + index as u64);
        assert_explained(path, &tally);
        compared += 1;
    }
    assert!(compared >= 2, "too few of the usual binaries are here");
}

fn debug_file_of(path: &Path) -> Option<PathBuf> {
    let object = ObjectFile::new(std::fs::File::open(path).ok()?, path).ok()?;
    let hex = object.build_id().to_hex();
    let debug_file =
        PathBuf::from(format!("/usr/lib/debug/.build-id/{}/{}.debug", hex.get(..2)?, hex.get(2..)?));
    debug_file.exists().then_some(debug_file)
}

#[test]
fn what_was_stripped_off_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build(folder.path(), "gcc", "c.c", C_SOURCE, &["-O2", "-g"]) else { return };
    let whole = read(&path);
    let text = *whole.section_header(".text").unwrap();
    let addresses: Vec<ElfAddress> = (0..text.bytes).map(|at| ElfAddress(text.address.0 + at)).collect();
    let expected = Symbolizer::new().object(&whole, &addresses);

    // With a debug link and no build id: proven by CRC.
    let debug_path = folder.path().join("c.debug");
    let stripped_path = folder.path().join("stripped");
    let link = format!("--add-gnu-debuglink={}", debug_path.display());
    objcopy(&["--only-keep-debug", "--remove-section=.note.gnu.build-id"], &path, &debug_path);
    objcopy(&["--strip-all", "--remove-section=.note.gnu.build-id", &link], &path, &stripped_path);
    let stripped = read(&stripped_path);
    assert_eq!(Symbolizer::new().object(&stripped, &addresses), expected);

    // Also through a process's root, which here is our own.
    let by_process = Symbolizer::new().object_of_process(Some(std::process::id()), &stripped, &addresses);
    assert_eq!(by_process, expected);

    // A file of that name with other contents is not believed.
    let mut bytes = std::fs::read(&debug_path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&debug_path, bytes).unwrap();
    let answers = Symbolizer::new().object(&stripped, &addresses);
    assert!(answers.iter().flatten().flatten().all(|frame| frame.line == 0 && frame.name != "checksum"));
    assert!(answers.iter().any(Result::is_err));
}

#[test]
fn go_and_c_of_one_program_are_named_each_from_its_own_tables() {
    let folder = tempfile::tempdir().unwrap();
    let source = "package main\n\n/*\n#include <stdlib.h>\nstatic int twice(int x) { return 2 * abs(x); }\n\
        int __attribute__((noinline)) burn(int x) { return twice(x) + 1; }\n*/\nimport \"C\"\n\n\
        func main() { println(C.burn(3)) }\n";
    let (source_path, output) = (folder.path().join("main.go"), folder.path().join("main"));
    std::fs::write(&source_path, source).unwrap();
    let mut go = Command::new("go");
    go.arg("build").arg("-o").arg(&output).arg(&source_path).current_dir(folder.path());
    match go.output() {
        Ok(built) if built.status.success() => {}
        _ => {
            println!("skipped: no go with cgo");
            return;
        }
    }
    let object = read(&output);
    let symbols = Symbols::read(std::slice::from_ref(&output));
    let mut symbolizer = Symbolizer::new();
    for (name, file) in [("main.main", "main.go"), ("runtime.schedule", "proc.go"), ("burn", "main.go")] {
        let (begin, _) = symbols.symbols.iter().find(|s| s.2 == name).map(|s| (s.0, s.1)).unwrap();
        let answer = &symbolizer.object(&object, &[ElfAddress(begin)])[0];
        let outermost = answer.as_ref().unwrap().last().unwrap();
        assert_eq!(outermost.name, name);
        assert!(outermost.file.ends_with(file) && outermost.line > 0, "{outermost:?}");
    }
}

#[test]
fn functions_of_gnu_debugdata_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build(folder.path(), "gcc", "c.c", C_SOURCE, &["-O2"]) else { return };
    let mini = folder.path().join("mini");
    objcopy(&["--only-keep-debug"], &path, &mini);
    if !Command::new("xz").arg(&mini).status().is_ok_and(|status| status.success()) {
        println!("skipped: no xz");
        return;
    }
    let packed = folder.path().join("mini.xz");
    let with = folder.path().join("with");
    let section = format!("--add-section=.gnu_debugdata={}", packed.display());
    objcopy(&["--strip-all", &section], &path, &with);
    let whole = read(&path);
    let object = read(&with);
    assert!(object.section_header(".symtab").is_none());
    let text = *whole.section_header(".text").unwrap();
    let addresses: Vec<ElfAddress> = (0..text.bytes).map(|at| ElfAddress(text.address.0 + at)).collect();
    let expected = Symbolizer::new().object(&whole, &addresses);
    assert!(expected.iter().flatten().flatten().any(|frame| frame.name == "checksum"));
    assert_eq!(Symbolizer::new().object(&object, &addresses), expected);
}

#[test]
fn plt_stubs_are_named_after_the_function_they_lead_to() {
    let folder = tempfile::tempdir().unwrap();
    for flags in
        [&["-O2", "-Wl,-z,lazy"][..], &["-O2", "-fcf-protection=full", "-Wl,-z,ibtplt"], &["-O2", "-no-pie"]]
    {
        let Some(path) = build(folder.path(), "gcc", "c.c", C_SOURCE, flags) else { return };
        let object = read(&path);
        let mut names = Vec::new();
        for section in [".plt", ".plt.sec"] {
            let Some(header) = object.section_header(section) else { continue };
            let addresses: Vec<ElfAddress> =
                (0..header.bytes).map(|at| ElfAddress(header.address.0 + at)).collect();
            for symbol in Symbolizer::new().object(&object, &addresses) {
                names.extend(symbol.into_iter().flatten().map(|frame| frame.name));
            }
        }
        names.sort();
        names.dedup();
        for function in ["qsort@plt", "calloc@plt", "strlen@plt"] {
            assert!(names.iter().any(|name| name == function), "{flags:?}: {function} not in {names:?}");
        }
    }
}

#[test]
fn damaged_dwarf_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build(folder.path(), "gcc", "c.c", C_SOURCE, &["-O2", "-g"]) else { return };
    let bytes = std::fs::read(&path).unwrap();
    let object = read(&path);
    let text = *object.section_header(".text").unwrap();
    let addresses: Vec<ElfAddress> =
        (0..text.bytes).step_by(16).map(|at| ElfAddress(text.address.0 + at)).collect();
    let mut random = Random(7);
    for round in 0..300 {
        let mut damaged = bytes.clone();
        let name = [".debug_info", ".debug_abbrev", ".debug_line", ".debug_rnglists", ".symtab"][round % 5];
        let header = object.section_header(name).unwrap();
        for _ in 0..=random.below(8) {
            let at = header.offset.0 + random.below(header.bytes);
            damaged[at as usize] = random.below(256) as u8;
        }
        let damaged = Arc::new(ObjectFile::from_bytes(damaged, &path).unwrap());
        assert_eq!(Symbolizer::new().object(&damaged, &addresses).len(), addresses.len());
    }
    for cut in 1..40 {
        let damaged = bytes[..bytes.len() * cut / 40].to_vec();
        if let Ok(damaged) = ObjectFile::from_bytes(damaged, &path) {
            Symbolizer::new().object(&Arc::new(damaged), &addresses);
        }
    }
}

fn read(path: &Path) -> Arc<ObjectFile> {
    Arc::new(ObjectFile::new(std::fs::File::open(path).unwrap(), path).unwrap())
}

fn objcopy(arguments: &[&str], from: &Path, to: &Path) {
    let done = Command::new("objcopy").args(arguments).arg(from).arg(to).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
