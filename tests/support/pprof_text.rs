//! A pprof file as `go tool pprof -raw` prints it: the reader of the format's own makers.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `go tool pprof` with no home, no fetching and these arguments.
pub fn go_tool_pprof(arguments: &[&str], file: &Path) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory");
    Command::new("go")
        .args(["tool", "pprof", "-symbolize=none"])
        .args(arguments)
        .arg(file)
        .env("PPROF_TMPDIR", home.path())
        .env("PPROF_BINARY_PATH", home.path())
        .env("GOFLAGS", "-mod=mod")
        .output()
        .expect("go is installed")
}

/// One location: an address with its functions, innermost inlined first.
#[derive(Debug, Clone, Default)]
pub struct Location {
    /// Number of its mapping, if it has one.
    pub mapping: Option<u64>,
    pub functions: Vec<String>,
}

/// One sample.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub values: Vec<i64>,
    /// Location ids, leaf first.
    pub locations: Vec<u64>,
    /// Text and number labels alike, as text.
    pub labels: HashMap<String, String>,
}

/// The parts of a profile that tests look at.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// `samples/count` and so on, in the order of the values; the default one is `default_type`.
    pub value_types: Vec<String>,
    pub default_type: Option<String>,
    pub period: Option<i64>,
    pub samples: Vec<Sample>,
    pub locations: HashMap<u64, Location>,
    /// The lines of the mappings: file and build id.
    pub mappings: HashMap<u64, String>,
}

impl Profile {
    /// Reads a `.pb.gz` file; fails if pprof says anything on standard error.
    pub fn read(file: &Path) -> Self {
        let output = go_tool_pprof(&["-raw"], file);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "go tool pprof -raw: {stderr}");
        assert_eq!(stderr.trim(), "", "go tool pprof warns");
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let mut section = "";
        let mut last_location = 0;
        for line in text.lines() {
            match line {
                "Samples:" | "Locations" | "Mappings" => {
                    section = line;
                    continue;
                }
                _ => {}
            }
            match section {
                "" => {
                    if let Some(period) = line.strip_prefix("Period: ") {
                        profile.period = period.trim().parse().ok();
                    }
                }
                "Samples:" if profile.value_types.is_empty() => {
                    for name in line.split_whitespace() {
                        let plain = name.trim_end_matches("[dflt]");
                        if plain != name {
                            profile.default_type = Some(plain.to_owned());
                        }
                        profile.value_types.push(plain.to_owned());
                    }
                }
                "Samples:" if line.starts_with("                ") && line.contains(":[") => {
                    let sample = profile.samples.last_mut().expect("labels follow a sample");
                    parse_labels(line.trim(), &mut sample.labels);
                }
                "Samples:" => {
                    let (values, locations) = line.split_once(':').unwrap_or((line, ""));
                    profile.samples.push(Sample {
                        values: values
                            .split_whitespace()
                            .map(|value| value.parse().expect("a value"))
                            .collect(),
                        locations: locations
                            .split_whitespace()
                            .map(|id| id.parse().expect("an id"))
                            .collect(),
                        labels: HashMap::new(),
                    });
                }
                "Locations" => {
                    let function = match line.split_once(": 0x") {
                        Some((id, rest)) if id.trim().bytes().all(|byte| byte.is_ascii_digit()) => {
                            last_location = id.trim().parse().expect("an id");
                            let location: &mut Location = profile.locations.entry(last_location).or_default();
                            let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
                            match rest
                                .strip_prefix("M=")
                                .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
                            {
                                Some((mapping, rest)) => {
                                    location.mapping = mapping.parse().ok();
                                    rest
                                }
                                None => rest,
                            }
                        }
                        _ => line,
                    };
                    // NAME FILE:LINE:COLUMN s=START; a name may hold blanks.
                    let name = function.trim().rsplit_once(" s=").map(|(before, _)| before);
                    if let Some((name, _)) = name.and_then(|before| before.rsplit_once(' ')) {
                        let location = profile.locations.entry(last_location).or_default();
                        location.functions.push(name.to_owned());
                    }
                }
                _ => {
                    if let Some((id, rest)) = line.split_once(": ") {
                        profile.mappings.insert(id.trim().parse().expect("an id"), rest.to_owned());
                    }
                }
            }
        }
        profile
    }

    /// The sum of one value type over all samples.
    pub fn total(&self, value_type: &str) -> i64 {
        let index = self.value_types.iter().position(|name| name == value_type);
        let index = index.unwrap_or_else(|| panic!("no {value_type} in {:?}", self.value_types));
        self.samples.iter().map(|sample| sample.values[index]).sum()
    }
}

/// `key:[value] key:[value]`.
fn parse_labels(line: &str, labels: &mut HashMap<String, String>) {
    let mut rest = line;
    while let Some((key, after)) = rest.split_once(":[") {
        let Some((value, after)) = after.split_once(']') else { return };
        // A number stands before its unit, which for labels that have none is the key.
        let key = key.trim();
        let value = value.strip_suffix(key).map_or(value, str::trim_end);
        labels.insert(key.to_owned(), value.to_owned());
        rest = after;
    }
}

#[test]
fn raw_text_is_read_with_labels_inlined_functions_and_names_with_blanks() {
    let text = "PeriodType: cpu nanoseconds\nPeriod: 1003009\nSamples:\nsamples/count cpu/nanoseconds[dflt]\n          \
                3    3009027: 1 2 \n                comm:[a b] unwind:[no_rule]\n                pid:[12] tid:[13]\nLocations\n     \
                1: 0x10 M=1 std::vector<int, a> f /x y.c:3:0 s=0\n             main /x.c:9:0 s=0\n     2: 0x20 M=1 \nMappings\n\
                1: 0x0/0x100/0x0 /bin/x abcd [FN]\n";
    let profile = Profile::parse(text);
    assert_eq!(profile.period, Some(1_003_009));
    assert_eq!(profile.default_type.as_deref(), Some("cpu/nanoseconds"));
    assert_eq!(profile.total("samples/count"), 3);
    assert_eq!(profile.samples[0].locations, [1, 2]);
    assert_eq!(profile.samples[0].labels["comm"], "a b");
    assert_eq!(profile.samples[0].labels["tid"], "13");
    assert_eq!(profile.locations[&1].functions.len(), 2);
    assert_eq!(profile.locations[&1].mapping, Some(1));
    assert!(profile.locations[&2].functions.is_empty());
    assert_eq!(profile.mappings.len(), 1);
}
