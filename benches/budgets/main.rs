//! `make bench`: the budgets, measured and printed beside their bounds.
//!
//! Comes in: the release binary through its command line, load programs, the symbols crate, peers.
//! Goes out: a table for people on standard output and the same figures as JSON in a file. Never: a
//! verdict by exit code. A machine that is busy with something else misses budgets without anybody
//! having broken anything, so these figures are read by people; medians, with the least and the
//! greatest value beside them.
//!
//! ```text
//! cargo bench --bench budgets -- [--quick] [--runs N] [--json FILE] [SECTION…]
//! ```

mod agent_cost;
mod bpf_cost;
mod comparison;
mod ebpf_peer;
mod machine;
mod measured_process;
mod new_process;
mod perf;
mod recorder;
mod report;
mod runtimes;
mod server;
mod simulated_truth;
mod start;
mod symbolization;
mod unwind_tables;
mod verdicts;
mod window_store;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use machine::Machine;
use measured_process::RunTimeCounted;
use report::Section;
use workload::{Company, Deep};

/// What every section measures with.
struct Context {
    runs: usize,
    quick: bool,
    processors: usize,
    deep: Deep,
    company: Company,
    scratch: tempfile::TempDir,
    /// An unwind-table cache that an earlier recording has filled.
    warm_cache: PathBuf,
    rows_alive: Option<u64>,
}

impl Context {
    fn prepare(options: &Options) -> Result<Self> {
        let scratch = tempfile::tempdir().context("no folder for temporary files")?;
        let warm_cache = scratch.path().join("cache");
        std::fs::create_dir(&warm_cache)?;
        let company = Company::start()?;
        // Node and the JVM map their libraries while they start; a table that comes in later would
        // be part of what is measured.
        std::thread::sleep(std::time::Duration::from_secs(3));
        Ok(Self {
            runs: options.runs,
            quick: options.quick,
            processors: machine::processors(),
            deep: Deep::build()?,
            company,
            scratch,
            warm_cache,
            rows_alive: None,
        })
    }

    /// Seconds of a recording, fewer when it must be quick.
    fn seconds(&self, usual: u32) -> u32 {
        if self.quick { usual.div_ceil(3) } else { usual }
    }

    fn company_names(&mut self) -> String {
        self.company.names()
    }

    /// Unwind rows of everything that is alive; counted once.
    fn rows_alive(&mut self) -> u64 {
        *self.rows_alive.get_or_insert_with(unwind_tables::rows_of_living_processes)
    }

    fn fill_cache(&self) -> Result<()> {
        let _load = self.deep.start(45, self.processors)?;
        let output = self.scratch.path().join("warm-up.folded");
        recorder::Recording { frequency_hz: 99, seconds: 3, cache: &self.warm_cache, output }.run()?;
        Ok(())
    }
}

/// A section: its name on the command line and what runs it.
type NamedSection = (&'static str, fn(&mut Context) -> Section);

const SECTIONS: [NamedSection; 13] = [
    ("tables", unwind_tables::section),
    ("symbols", symbolization::section),
    ("bpf", bpf_cost::section),
    ("agent", agent_cost::section),
    ("runtimes", runtimes::section),
    ("start", start::section),
    ("exec", new_process::section),
    ("perf", perf::section),
    ("peer", ebpf_peer::section),
    ("store", window_store::section),
    ("server", server::section),
    ("verdicts", verdicts::section),
    ("compare", comparison::section),
];

struct Options {
    runs: usize,
    quick: bool,
    json: PathBuf,
    chosen: Vec<String>,
}

impl Options {
    fn parse() -> Result<Self> {
        let json = workload::build_folder()?.join("budgets.json");
        let mut options = Self { runs: 3, quick: false, json, chosen: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {} // cargo's own
                "--quick" => (options.quick, options.runs) = (true, 1),
                "--runs" => {
                    options.runs = arguments.next().context("--runs N")?.parse().context("--runs N")?;
                }
                "--json" => options.json = arguments.next().context("--json FILE")?.into(),
                name if SECTIONS.iter().any(|(known, _)| *known == name) => options.chosen.push(argument),
                other => {
                    let names = SECTIONS.map(|(name, _)| name).join(" ");
                    bail!("{other}: not an option, and not a section; sections are {names}")
                }
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|argument| argument == unwind_tables::CHILD_ARGUMENT) {
        let path = arguments.next().context("--build-table PATH")?;
        return unwind_tables::build_one(Path::new(&path));
    }
    let options = Options::parse()?;
    let machine = Machine::look();
    machine.print();
    let _run_time_counted = RunTimeCounted::turn_on()?;
    let mut context = Context::prepare(&options)?;
    let wanted = |name: &str| options.chosen.is_empty() || options.chosen.iter().any(|chosen| chosen == name);
    if SECTIONS.iter().any(|(name, _)| {
        !matches!(*name, "tables" | "symbols" | "store" | "verdicts" | "compare") && wanted(name)
    }) {
        context.fill_cache().context("the first recording, which fills the cache, failed")?;
    }

    let mut sections = Vec::new();
    for (name, section) in SECTIONS {
        if wanted(name) {
            let section = section(&mut context);
            section.print();
            sections.push(section);
        }
    }
    let (mut met, mut missed, mut unknown) = (0, 0, 0);
    for section in &sections {
        let (section_met, section_missed, section_unknown) = section.verdicts();
        met += section_met;
        missed += section_missed;
        unknown += section_unknown;
    }
    let sections: Vec<_> = sections.iter().map(Section::json).collect();
    let report = serde_json::json!({"machine": machine.json(), "runs": context.runs, "sections": sections});
    std::fs::write(&options.json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", options.json.display()))?;
    println!(
        "\n{met} budgets met, {missed} missed, {unknown} not measured; figures in {}",
        options.json.display()
    );
    Ok(())
}
