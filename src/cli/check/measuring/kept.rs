//! What `--keep DIR` keeps: `DIR/base/run-01.pb.gz`, `run-01.json` (`check/run_facts.rs`) and `run-01.log`, what the
//! command said; the same in `DIR/new`. Without it, what commands say goes to a temporary folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::order::Which;
use crate::check::RunFacts;
use crate::cli::CommandError;
use crate::export;
use crate::model::Profile;

/// The folder below `--keep`'s for what is measured once more.
pub(in crate::cli::check) const AGAIN: &str = "again";

/// Checks, before anything runs, that all runs could be kept in `folder`, also those that are measured once more. Makes
/// the folder.
///
/// # Errors
/// [`CommandError::Usage`] if it cannot be written, or has runs in it.
pub(in crate::cli::check) fn check_keep(folder: &Path) -> Result<(), CommandError> {
    fs::create_dir_all(folder)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(export::check_writable(&folder.join("run"))?))
        .with_context(|| {
            format!("cannot write in {}: give --keep a folder that can be written", folder.display())
        })
        .map_err(CommandError::Usage)?;
    for part in [folder.to_owned(), folder.join(AGAIN)] {
        for which in [Which::Base, Which::New] {
            check_has_no_runs(&part.join(which.name()))?;
        }
    }
    Ok(())
}

/// Two measurements do not mix.
fn check_has_no_runs(side: &Path) -> Result<(), CommandError> {
    let entries = match fs::read_dir(side) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let message = format!("cannot read {}: give --keep another folder", side.display());
            return Err(CommandError::Usage(anyhow::Error::from(error).context(message)));
        }
    };
    if entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("run-")) {
        return Err(CommandError::Usage(anyhow!(
            "{} has runs in it already: give --keep another folder, or remove it",
            side.display()
        )));
    }
    Ok(())
}

/// See the module. What is temporary goes with it.
pub(super) struct Kept {
    folder: PathBuf,
    is_temporary: bool,
}

impl Kept {
    /// Makes the folders. `part`: below the one that was asked for.
    ///
    /// # Errors
    /// [`CommandError::Usage`] if they cannot be made, or have runs in them: two measurements do not mix.
    pub(super) fn open(keep: Option<&Path>, part: Option<&str>) -> Result<Self, CommandError> {
        let folder = match keep {
            Some(folder) => part.map_or_else(|| folder.to_owned(), |part| folder.join(part)),
            None => temporary_folder()?,
        };
        for which in [Which::Base, Which::New] {
            let side = folder.join(which.name());
            fs::create_dir_all(&side)
                .with_context(|| {
                    format!("cannot make {}: give --keep a folder that can be written", side.display())
                })
                .map_err(CommandError::Usage)?;
            check_has_no_runs(&side)?;
        }
        Ok(Self { folder, is_temporary: keep.is_none() })
    }

    /// Where a run's output goes.
    pub(super) fn output(&self, which: Which, number: Option<u32>) -> PathBuf {
        let name = number.map_or_else(|| "warm-up.log".to_owned(), |number| format!("run-{number:02}.log"));
        self.folder.join(which.name()).join(name)
    }

    /// Keeps a run.
    ///
    /// # Errors
    /// [`CommandError::ExportFailed`].
    pub(super) fn keep(
        &self,
        which: Which,
        number: u32,
        profile: &Profile,
        facts: &RunFacts,
    ) -> Result<(), CommandError> {
        if self.is_temporary {
            return Ok(());
        }
        let side = self.folder.join(which.name());
        let profile_path = side.join(format!("run-{number:02}.pb.gz"));
        let facts_path = side.join(format!("run-{number:02}.json"));
        let json = serde_json::to_string_pretty(facts).map_err(anyhow::Error::from)?;
        let kept = export::write_file(profile, &profile_path).and_then(|()| {
            export::write_with(&facts_path, |writer| Ok(writeln!(writer, "{json}")?)).inspect_err(|_| {
                // Without its facts it would be taken for a run of which nothing is known.
                let _ = fs::remove_file(&profile_path);
            })
        });
        kept.map_err(|error| CommandError::ExportFailed(error.into()))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left in it is in a folder that the system clears.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A new folder that nobody else can look into: what a command says may be secret.
fn temporary_folder() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;

    let parent = std::env::temp_dir();
    for attempt in 0..100_u32 {
        let folder = parent.join(format!("spanflame-check-{}-{attempt}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
        }
    }
    Err(anyhow!("{} is full of folders of the name spanflame-check: remove them", parent.display()))
}
