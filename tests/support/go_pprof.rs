//! `go tool pprof` as a reader of URLs: the program that `/debug/pprof/` is for.

use std::process::{Command, Output};

/// Runs it on a URL with these arguments, with no home of its own.
pub fn fetch(arguments: &[&str], url: &str) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory");
    Command::new("go")
        .args(["tool", "pprof"])
        .args(arguments)
        .arg(url)
        .env("PPROF_TMPDIR", home.path())
        .env("PPROF_BINARY_PATH", home.path())
        .env("GOFLAGS", "-mod=mod")
        .output()
        .expect("go is installed")
}

/// What `-top` prints of a URL, with all functions and in nanoseconds.
#[derive(Debug)]
pub struct Top {
    /// The total of the value that is shown.
    pub total: i64,
    /// Name, flat and cumulative.
    pub functions: Vec<(String, i64, i64)>,
    pub stderr: String,
}

impl Top {
    /// Fails if the tool does.
    pub fn fetch(arguments: &[&str], url: &str) -> Self {
        let all = ["-top", "-unit=nanoseconds", "-nodecount=1000000", "-nodefraction=0", "-edgefraction=0"];
        let output = fetch(&[&all[..], arguments].concat(), url);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "go tool pprof {url}: {stderr}");
        Self::parse(&String::from_utf8_lossy(&output.stdout), stderr)
    }

    fn parse(text: &str, stderr: String) -> Self {
        let number = |text: &str| text.trim_end_matches("ns").parse::<i64>().ok();
        let mut top = Self { total: 0, functions: Vec::new(), stderr };
        for line in text.lines() {
            // Showing nodes accounting for 10ns, 100% of 10ns total
            if let Some(before) = line.strip_suffix(" total")
                && line.starts_with("Showing nodes")
            {
                top.total = before.rsplit(' ').next().and_then(number).expect("a total");
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [flat, _, _, cumulative, _, name @ ..] = fields.as_slice()
                && let (Some(flat), Some(cumulative)) = (number(flat), number(cumulative))
            {
                top.functions.push((name.join(" "), flat, cumulative));
            }
        }
        top
    }

    /// The cumulative value of a function.
    pub fn cumulative(&self, function: &str) -> i64 {
        let of = |(name, _, cumulative): &(String, i64, i64)| (name == function).then_some(*cumulative);
        self.functions.iter().find_map(of).unwrap_or(0)
    }
}

#[test]
fn the_table_is_read_with_its_total() {
    let text = "File: shares\nType: cpu\nDuration: 3s, Total samples = 30000000000ns (99%)\n\
                Showing nodes accounting for 30000000000ns, 100% of 30000000000ns total\n      \
                flat  flat%   sum%        cum   cum%\n 18000000000ns 60.00% 60.00% 19000000000ns 63.3%  burn_sixty (inline)\n\
                \x20        0     0%   100% 30000000000ns   100%  main\n";
    let top = Top::parse(text, String::new());
    assert_eq!(top.total, 30_000_000_000);
    assert_eq!(top.cumulative("main"), 30_000_000_000);
    assert_eq!(top.functions[0], ("burn_sixty (inline)".to_owned(), 18_000_000_000, 19_000_000_000));
}
