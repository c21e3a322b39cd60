//! Columnar flame graphs that the reader in `web/` is tested with: the files in `web/testdata` are what
//! is written today, each beside the same tree as JSON. After a change that is meant,
//! `SPANFLAME_WRITE_TESTDATA=1 cargo test --test columnar_files` writes them anew.

#[allow(dead_code, reason = "shared with the tests of formats")]
mod convert_support;

use std::fs;
use std::path::{Path, PathBuf};

use convert_support::one_of_everything;
use spanflame::export::flame_tree::{TreeOptions, merge};
use spanflame::export::{self, Format, columnar, flame_json};
use spanflame::ingest::{self, IngestError};
use spanflame::model::{Function, Profile, ValueType};

fn folded(text: &str) -> Profile {
    ingest::read(text.as_bytes(), Format::Folded, &ingest::Options::default()).expect("valid")
}

/// Every shape a reader could stumble over, with how many nodes it may have.
fn profiles() -> Vec<(&'static str, Profile, Option<usize>)> {
    let empty = Profile { value_types: vec![ValueType::new("cpu", "nanoseconds")], ..Profile::default() };
    let recursive = folded(
        "srv;main;f;g;f;g;f 4\nsrv;main;f;g 2\nsrv;main;f 1\nsrv;main;g;f;g 8\nsrv;other 16\nworker;main;f 32\n",
    );
    let large_values = folded(
        "srv;main;a 9007199254740000\nsrv;main;b 127\nsrv;main;c 128\nsrv;main;größe_[j] 16384\nsrv;main;k_[k] 1\n",
    );
    let mut approximate = folded("srv;run_[j];order_[i] 3\nsrv;run_[j];price_[i] 2\nsrv;run_[j];tax_[i] 1\n");
    for name in ["order", "price"] {
        let function =
            approximate.functions.iter().position(|function| function.name == name).expect("it is there");
        approximate.functions[function].system_name = Function::APPROXIMATE.to_owned();
    }
    let deep = folded(&format!("srv;{} 3\nsrv;f;f 1\n", vec!["f"; 3_000].join(";")));
    vec![
        ("empty", empty, None),
        ("everything", one_of_everything(), None),
        ("smaller", recursive.clone(), Some(10)),
        ("recursive", recursive, None),
        ("large_values", large_values, None),
        ("deep", deep, None),
        ("approximate", approximate, None),
    ]
}

#[test]
fn the_files_that_the_browsers_reader_is_tested_with_are_what_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/testdata");
    let renew = std::env::var_os("SPANFLAME_WRITE_TESTDATA").is_some();
    for (name, profile, max_nodes) in profiles() {
        let tree = merge(
            &profile,
            &TreeOptions {
                value: profile.default_value,
                group_by: if name == "empty" { vec![] } else { vec!["comm".into()] },
                max_nodes,
                ..TreeOptions::default()
            },
        )
        .expect(name);
        let mut columns = Vec::new();
        columnar::write_tree(&profile, &tree, profile.default_value, &mut columns).expect(name);
        if max_nodes.is_none() {
            let mut by_command = Vec::new();
            export::write(&profile, Format::Columnar, &mut by_command, &export::Options::default())
                .expect(name);
            assert_eq!(columns, by_command, "{name}: the command groups by process");
        }
        let mut json = Vec::new();
        flame_json::write_tree(&tree, &serde_json::Map::new(), &mut json).expect(name);
        json.push(b'\n');
        for (ending, bytes) in [("columnar", columns), ("json", json)] {
            let path: PathBuf = directory.join(format!("{name}.{ending}"));
            if renew {
                fs::create_dir_all(&directory).expect("created");
                fs::write(&path, &bytes).expect("written");
            }
            let known = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(known == bytes, "{}: differs from what is written now", path.display());
        }
    }
}

#[test]
fn a_columnar_file_is_recognised_and_refused_with_what_to_read_instead() {
    let mut bytes = Vec::new();
    export::write(&one_of_everything(), Format::Columnar, &mut bytes, &export::Options::default())
        .expect("memory takes it");
    let options = ingest::Options::default();
    for result in [ingest::read_any(&bytes, &options), ingest::read(&bytes, Format::Columnar, &options)] {
        assert!(matches!(result, Err(IngestError::MergedTree)));
    }
}
