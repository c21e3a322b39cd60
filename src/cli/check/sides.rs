//! Sides that were recorded earlier: folders and files, or what a server keeps.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::server::KeptSide;
use crate::check::stretches::{Windows, stretch_count};
use crate::check::{GrowingRun, Run, RunFacts, Side, Wanted};
use crate::cli::CommandError;
use crate::export::Format;
use crate::ingest;

/// What is said on the command line of a side, or a part of it.
pub(super) type SideSource = PathBuf;

/// A greater file is not one of facts.
const MAX_FACTS_BYTES: u64 = 1 << 20;

/// A part of a side.
enum Part {
    Files(Vec<PathBuf>),
    Kept(KeptSide),
}

impl Part {
    fn files(&self) -> &[PathBuf] {
        match self {
            Self::Files(paths) => paths,
            Self::Kept(_) => &[],
        }
    }

    fn kept(&self) -> Option<&KeptSide> {
        match self {
            Self::Files(_) => None,
            Self::Kept(side) => Some(side),
        }
    }
}

/// Reads both sides: of a folder all profiles in the order of their names, of a file itself, of a URL what a server
/// keeps.
///
/// # Errors
/// [`CommandError::Usage`] for what is not there or holds no profile, before anything is read; [`CommandError::Failed`]
/// for what cannot be read.
pub(super) fn read(
    base: &[SideSource],
    new: &[SideSource],
    wanted: Wanted<'_>,
) -> Result<(Side, Side), CommandError> {
    let (base_parts, new_parts) = (parts("base", base)?, parts("new", new)?);
    let with_machines = are_of_several_hosts(&base_parts, &new_parts);
    let windows: Vec<Windows> = base_parts
        .iter()
        .chain(&new_parts)
        .filter_map(Part::kept)
        .map(KeptSide::windows)
        .collect::<Result<_, _>>()?;
    let runs_each = stretch_count(&windows);
    let mut windows = windows.iter();
    // Of both sides at once, so that no CPU waits for the last profile of the first one.
    let files = base_parts.iter().chain(&new_parts).flat_map(Part::files).cloned().collect::<Vec<_>>();
    let mut of_files = read_all(&files, wanted)?.into_iter();
    let mut side = |label: &str, sources: &[SideSource], parts: Vec<Part>| {
        let name = match (sources, parts.as_slice()) {
            ([_], [Part::Kept(side)]) => side.name().to_owned(),
            ([one], _) => one.display().to_string(),
            _ => label.to_owned(),
        };
        let mut runs = Vec::new();
        for part in parts {
            match part {
                Part::Files(paths) => runs.extend(of_files.by_ref().take(paths.len())),
                Part::Kept(side) => {
                    // There is one for each.
                    let Some(windows) = windows.next() else { continue };
                    runs.extend(side.runs(windows, runs_each, wanted, with_machines)?);
                }
            }
        }
        Ok::<Side, CommandError>(Side { label: name, runs })
    };
    Ok((side("base", base, base_parts)?, side("new", new, new_parts)?))
}

/// Whether servers are to be asked for what they run on: where all was recorded by servers, and not by the same one. A
/// server that keeps what others sent to it does not know where that was recorded.
fn are_of_several_hosts(base: &[Part], new: &[Part]) -> bool {
    let mut first = None;
    let mut are_several = false;
    for part in base.iter().chain(new) {
        let Part::Kept(side) = part else { return false };
        if !side.is_of_its_host() {
            return false;
        }
        are_several |= first.get_or_insert(side).base() != side.base();
    }
    are_several
}

/// What is to be read.
fn parts(label: &str, sources: &[SideSource]) -> Result<Vec<Part>, CommandError> {
    let mut parts = Vec::new();
    let mut profiles = Vec::new();
    for source in sources {
        if let Some(side) = KeptSide::of(label, source)? {
            // Runs are in the order in which they are given.
            parts.push(Part::Files(std::mem::take(&mut profiles)));
            parts.push(Part::Kept(side));
            continue;
        }
        let metadata = fs::metadata(source)
            .with_context(|| {
                format!(
                    "--{label} {}: cannot be read; give a folder of profiles, profiles, or http://SERVER/?service=…",
                    source.display()
                )
            })
            .map_err(CommandError::Usage)?;
        if !metadata.is_dir() {
            profiles.push(source.clone());
            continue;
        }
        let found = profiles_in(source).with_context(|| format!("--{label} {}", source.display()))?;
        if found.is_empty() {
            return Err(CommandError::Usage(anyhow!(
                "--{label} {}: there is no profile in it; `check run --keep DIR` writes DIR/base and DIR/new",
                source.display()
            )));
        }
        profiles.extend(found);
    }
    let mut known = HashSet::new();
    for profile in parts.iter().flat_map(Part::files).chain(&profiles) {
        let place = fs::canonicalize(profile).unwrap_or_else(|_| profile.clone());
        if !known.insert(place) {
            return Err(CommandError::Usage(anyhow!(
                "--{label} {}: is given twice; each profile is one run, and of one run nothing is known of noise",
                profile.display()
            )));
        }
    }
    parts.push(Part::Files(profiles));
    parts.retain(|part| !matches!(part, Part::Files(paths) if paths.is_empty()));
    let kept = parts.iter().filter(|part| part.kept().is_some()).count();
    if kept > 0 && kept < parts.len() {
        return Err(CommandError::Usage(anyhow!(
            "--{label}: profiles and what a server has kept are not runs of one kind, and vary differently: give one or \
             the other"
        )));
    }
    Ok(parts)
}

/// The profiles of a folder by their endings, in the order of their names. JSON is no profile if a profile of another
/// ending has its name: it is that run's facts, or something that another tool wrote of it.
fn profiles_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()?
        .into_iter()
        .filter(|path| path.is_file() && !is_hidden(path))
        .filter(|path| Format::from_path(path).is_ok_and(|format| ingest::cannot_be_read(format).is_none()))
        .collect();
    paths.sort();
    let facts: Vec<PathBuf> =
        paths.iter().filter_map(|path| facts_path(path).filter(|facts| facts != path)).collect();
    paths.retain(|path| !facts.contains(path));
    Ok(paths)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Where the facts of a profile stand: `run-01.json` of `run-01.pb.gz` and of `run-01.speedscope.json`.
fn facts_path(profile: &Path) -> Option<PathBuf> {
    let name = profile.file_name()?.to_str()?;
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let stem = stem.strip_suffix(".speedscope").unwrap_or(stem);
    Some(profile.with_file_name(format!("{stem}.json")))
}

/// Reads profiles on all CPUs: reading takes longer than everything that comes after it.
fn read_all(paths: &[PathBuf], wanted: Wanted<'_>) -> Result<Vec<Run>, CommandError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(paths.len()).max(1);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut read: Vec<(usize, anyhow::Result<Run>)> = std::thread::scope(|scope| {
        let worker = || {
            let mut read = Vec::new();
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(path) = paths.get(index) else { return read };
                read.push((index, read_run(path, wanted)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    read.sort_by_key(|(index, _)| *index);
    if read.len() < paths.len() {
        return Err(CommandError::Failed(anyhow!(
            "a profile could not be read: this is a fault of spanflame's"
        )));
    }
    let runs: anyhow::Result<Vec<Run>> = read.into_iter().map(|(_, run)| run).collect();
    runs.map_err(CommandError::Failed)
}

fn read_run(path: &Path, wanted: Wanted<'_>) -> anyhow::Result<Run> {
    let name = path.display().to_string();
    let mut growing = GrowingRun::new(&name, wanted);
    ingest::visit_file(path, &ingest::Options::default(), &mut growing)?;
    let facts = match facts_path(path).filter(|facts| facts != path && facts.is_file()) {
        Some(facts) => read_facts(&facts).with_context(|| {
            format!("{}: is beside a profile, and not what `check run --keep` writes there", facts.display())
        })?,
        None => None,
    };
    Ok(growing.finish(facts.unwrap_or_default())?)
}

/// The facts of a file, if that is what it has.
fn read_facts(path: &Path) -> anyhow::Result<Option<RunFacts>> {
    let mut text = String::new();
    let mut file = fs::File::open(path)?;
    let is_whole = file.metadata()?.len() <= MAX_FACTS_BYTES;
    let facts = if is_whole {
        file.by_ref().take(MAX_FACTS_BYTES).read_to_string(&mut text)?;
        RunFacts::of_json(&text)?
    } else {
        None
    };
    if facts.is_none() {
        tracing::warn!(
            "{}: is beside a profile and has its name, but holds something else than the facts of a run: it is left \
             alone, and nothing is known of that run",
            path.display()
        );
    }
    Ok(facts)
}
