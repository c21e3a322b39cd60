//! A Go executable with any build info and any functions of the names that are looked for: its version, its
//! goroutines and where it works on requests. Whatever its code is, a probe lies in it, and ranges do not overlap.
#![no_main]

mod go_executable;

use arbitrary::Arbitrary;
use go_executable::{MODULE_DATA, TABLE, TEXT, contents_offset, elf, module_data};
use libfuzzer_sys::fuzz_target;
use spanflame_symbols::ObjectFile;
use spanflame_symbols::go::{GoProgram, GoRequestCode, MAX_CODE_RANGES};

const BUILD_INFO: u64 = 0x70_0000;

const NAMES: [&str; 16] = [
    "net/http.(*persistConn).roundTrip",
    "net/http.(*http2ClientConn).RoundTrip",
    "net/http.(*http2ClientConn).roundTrip",
    "net/http.(*http2serverConn).runHandler",
    "golang.org/x/net/http2.(*ClientConn).RoundTrip",
    "golang.org/x/net/http2.(*serverConn).runHandler",
    "google.golang.org/grpc.(*Server).handleStream",
    "google.golang.org/grpc/internal/transport.(*http2Client).createHeaderFields",
    "google.golang.org/grpc/internal/transport.(*loopyWriter).writeHeader",
    "crypto/tls.(*Conn).Read",
    "crypto/tls.(*Conn).Write",
    "main.handle.func1",
    "example.org/a/b.serve",
    "sync.(*WaitGroup).Go.func1",
    "golang.org/x/sync/errgroup.(*Group).Go.func1",
    "net/http.(*http2clientStream).doRequest",
];

#[derive(Arbitrary, Debug)]
enum Name {
    Known(u8),
    /// With something behind it.
    Longer(u8, Vec<u8>),
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Modules {
    /// The command's own module, and gRPC in such a version.
    Usual {
        own: u8,
        grpc: u8,
        is_replaced: bool,
    },
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Version {
    Minor(u8),
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Input {
    version: Version,
    modules: Modules,
    /// Whatever length is said.
    lengths: Option<(u16, u16)>,
    functions: Vec<(Name, Vec<u8>)>,
}

fn name_of(name: &Name) -> Vec<u8> {
    let known = |which: u8| NAMES[usize::from(which) % NAMES.len()].as_bytes().to_vec();
    let mut name = match name {
        Name::Known(which) => known(*which),
        Name::Longer(which, more) => [known(*which), more.clone()].concat(),
        Name::Any(name) => name.clone(),
    };
    name.retain(|&byte| byte != 0);
    name.truncate(200);
    name
}

fn string(bytes: &mut Vec<u8>, text: &[u8], said: Option<u16>) {
    let mut length = said.map_or(text.len(), usize::from);
    while length >= 0x80 {
        bytes.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(text);
}

fn build_info(input: &Input) -> Vec<u8> {
    let mut bytes = b"\xff Go buildinf:\x08\x02".to_vec();
    bytes.resize(32, 0);
    let version = match &input.version {
        Version::Minor(minor) => format!("go1.{}", 16 + minor % 12).into_bytes(),
        Version::Any(any) => any.clone(),
    };
    string(&mut bytes, &version, input.lengths.map(|lengths| lengths.0));
    let text = match &input.modules {
        Modules::Usual { own, grpc, is_replaced } => {
            let own = ["example.org/a", "main", "", "google.golang.org/grpc"][usize::from(*own) % 4];
            let replaced = if *is_replaced { "=>\texample.org/fork\tv1.0.0\t\n" } else { "" };
            format!("path\t{own}/b\nmod\t{own}\t(devel)\t\ndep\tgoogle.golang.org/grpc\tv1.{grpc}.0\th1:x=\n{replaced}")
                .into_bytes()
        }
        Modules::Any(any) => any.clone(),
    };
    string(
        &mut bytes,
        &[&[b'<'; 16], text.as_slice(), &[b'>'; 16]].concat(),
        input.lengths.map(|lengths| lengths.1),
    );
    // Behind it are other data.
    bytes.resize(bytes.len() + 512, 0);
    bytes
}

/// The text, and its pclntab as Go 1.20 and later write it, without lines.
fn text_and_table(functions: &[(Name, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    const RECORD_BYTES: u32 = 44;
    const HEADER_BYTES: usize = 72;
    let (mut text, mut names) = (Vec::new(), vec![0]);
    let (mut entries, mut records) = (Vec::new(), Vec::new());
    let count = functions.len() as u32;
    for (index, (name, code)) in functions.iter().enumerate() {
        let entry = text.len() as u32;
        entries.extend([entry, count * 8 + 4 + index as u32 * RECORD_BYTES]);
        records.extend([entry, names.len() as u32, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        names.extend(name_of(name));
        names.push(0);
        text.extend(code.iter().take(2048));
        // None is empty.
        text.push(0xc3);
    }
    entries.push(text.len() as u32);
    let at = HEADER_BYTES + names.len();
    let mut table = 0xffff_fff1_u32.to_le_bytes().to_vec();
    table.extend([0, 0, 1, 8]);
    for word in [count as usize, 1, 0, HEADER_BYTES, at, at + 4, at + 8, at + 12] {
        table.extend((word as u64).to_le_bytes());
    }
    table.extend(names);
    // A unit, a file without a name, and pc tables of which nobody has any.
    table.extend([0; 12]);
    table.extend(entries.iter().chain(&records).flat_map(|word: &u32| word.to_le_bytes()));
    (text, table)
}

fuzz_target!(|input: Input| {
    let functions = input.functions.get(..input.functions.len().min(300)).unwrap_or_default();
    if functions.is_empty() {
        return;
    }
    let (text, table) = text_and_table(functions);
    let (data, _) = module_data(&table, false);
    let info = build_info(&input);
    let bytes = elf(&[(TEXT, 5, &text), (TABLE, 4, &table), (MODULE_DATA, 6, &data), (BUILD_INFO, 6, &info)]);
    let object = ObjectFile::from_bytes(bytes, "fuzz".as_ref()).expect("an ELF file");
    let _ = GoProgram::read(&object);
    let is_usual = matches!(input.version, Version::Minor(minor) if (2..=10).contains(&(minor % 12)));
    let Ok(Some(code)) = GoRequestCode::read(&object) else {
        // Of a version that is known, with a table that is whole, it is understood.
        assert!(!is_usual || input.lengths.is_some());
        return;
    };
    let (begin, end) = (TEXT, TEXT + text.len() as u64);
    let in_file = contents_offset(4)..contents_offset(4) + text.len() as u64;
    for probe in &code.probes {
        assert!(in_file.contains(&probe.at.0), "{probe:?}");
    }
    assert!(code.probes.is_sorted_by_key(|probe| probe.at));
    assert!(code.own.len() <= MAX_CODE_RANGES);
    for ranges in [&code.own, &code.http2_senders] {
        assert!(ranges.is_sorted_by(|one, next| one.end < next.begin), "{ranges:?}");
        assert!(
            ranges
                .iter()
                .all(|range| begin <= range.begin.0 && range.begin < range.end && range.end.0 <= end)
        );
    }
});
