//! Writing to a file so that it appears complete or not at all.
//!
//! The bytes go to a file aside, in the same directory, which takes the place of the target when
//! everything is written. Targets that are no regular files (`/dev/stdout`, a pipe, `/dev/null`) are
//! written as they are: a rename would replace the device.
//!
//! Several outputs that belong together ([`write_together`]) are all written aside first, and then take their places; if one
//! cannot, those before it give theirs back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ExportError, Format, Options, write};
use crate::model::Profile;

/// Whether the path names standard output.
#[must_use]
pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

/// Where the bytes of an output go.
enum Destination {
    /// Standard output of this process.
    StandardOutput,
    /// A device, a pipe: opened and written as it is.
    InPlace(PathBuf),
    /// A regular file, or one to be made; never a symbolic link, but what that leads to.
    Aside(PathBuf),
}

fn destination(path: &Path) -> Result<Destination, io::Error> {
    if is_standard_output(path) {
        return Ok(Destination::StandardOutput);
    }
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Ok(metadata) if metadata.is_file() => Ok(Destination::Aside(fs::canonicalize(path)?)),
        Ok(_) => Ok(Destination::InPlace(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "it is a symbolic link that leads nowhere",
                ));
            }
            Ok(Destination::Aside(path.to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// A file beside its target, removed unless it is put in place.
#[derive(Debug)]
struct AsideFile {
    path: PathBuf,
    target: PathBuf,
    place: Place,
}

/// Where the new contents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Aside.
    Aside,
    /// At the target, where there was nothing before.
    New,
    /// At the target; what was there is aside.
    Exchanged,
    /// At the target; what was there is gone.
    Replaced,
}

impl AsideFile {
    fn create(target: &Path) -> Result<(Self, File), io::Error> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // A left-over of an earlier process of the same id is stepped over, never overwritten.
        for _ in 0..100 {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!(".spanflame-{}-{serial}.partial", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok((Self { path, target: target.to_owned(), place: Place::Aside }, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many unfinished .partial files beside it"))
    }

    fn put_in_place(mut self) -> Result<(), io::Error> {
        self.take_mode_of_target()?;
        fs::rename(&self.path, &self.target)?;
        self.place = Place::Replaced;
        Ok(())
    }

    fn take_mode_of_target(&self) -> Result<(), io::Error> {
        match fs::metadata(&self.target) {
            Ok(previous) => fs::set_permissions(&self.path, previous.permissions()),
            Err(_) => Ok(()),
        }
    }

    /// Puts it in place so that [`Self::give_back`] can undo it, where the file system can exchange two files.
    fn exchange(&mut self) -> Result<(), io::Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;

        self.take_mode_of_target()?;
        if fs::symlink_metadata(&self.target).is_err() {
            fs::rename(&self.path, &self.target)?;
            self.place = Place::New;
            return Ok(());
        }
        // An exchange would also take a folder's place, and give it ours.
        if self.target.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => self.place = Place::Exchanged,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::rename(&self.path, &self.target)?;
                self.place = Place::Replaced;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Undoes [`Self::exchange`], as far as it can be.
    fn give_back(&mut self) {
        use rustix::fs::{CWD, RenameFlags, renameat_with};

        let undone = match self.place {
            Place::New => fs::rename(&self.target, &self.path).is_ok(),
            Place::Exchanged => {
                renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::EXCHANGE).is_ok()
            }
            Place::Aside | Place::Replaced => false,
        };
        if undone {
            self.place = Place::Aside;
        }
    }
}

impl Drop for AsideFile {
    fn drop(&mut self) {
        if matches!(self.place, Place::Aside | Place::Exchanged) {
            // Nothing better can be done with a failure: the error that led here is reported.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Checks, before any long work is begun, that [`write_file`] could write here: the directory is
/// there and takes a new file. Leaves nothing behind.
///
/// # Errors
/// [`ExportError::NotWritable`].
pub fn check_writable(path: &Path) -> Result<(), ExportError> {
    let tried = destination(path).and_then(|destination| match destination {
        Destination::StandardOutput => Ok(()),
        // Opening a pipe would wait for its reader; asking for permission does not.
        Destination::InPlace(path) => {
            Ok(rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).map_err(io::Error::from)?)
        }
        Destination::Aside(target) => AsideFile::create(&target).map(drop),
    });
    tried.map_err(|source| ExportError::NotWritable { path: path.to_owned(), source })
}

/// As [`check_writable`] for outputs of [`write_together`], no two of which may be one file.
///
/// # Errors
/// [`ExportError::NotWritable`], [`ExportError::SameFile`].
pub fn check_writable_together(paths: &[&Path]) -> Result<(), ExportError> {
    let mut known: Vec<PathBuf> = Vec::new();
    for path in paths {
        check_writable(path)?;
        let place = match destination(path) {
            Ok(Destination::StandardOutput) => PathBuf::from("-"),
            Ok(Destination::Aside(target)) => absolute(&target),
            // A device takes what several write; what fails is told when it is written.
            Ok(Destination::InPlace(_)) | Err(_) => continue,
        };
        if known.contains(&place) {
            return Err(ExportError::SameFile { path: path.to_path_buf() });
        }
        known.push(place);
    }
    Ok(())
}

/// The one path of a file that need not be there yet, in a folder that is.
fn absolute(target: &Path) -> PathBuf {
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match (fs::canonicalize(folder), target.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => target.to_owned(),
    }
}

/// Writes several outputs, all of them whole or none: each is written aside, and none takes its place before all are.
/// Standard output and devices, which cannot give back what they were given, are written just before that.
///
/// # Errors
/// [`ExportError`]; files that were there before are then as they were. One exception: on a file system that cannot
/// exchange two files, what has taken its place before another one failed to stays.
pub fn write_together(outputs: &[(&Path, Vec<u8>)]) -> Result<(), ExportError> {
    let mut aside: Vec<(&Path, AsideFile)> = Vec::new();
    let mut in_place: Vec<(&Path, &[u8])> = Vec::new();
    for (path, bytes) in outputs {
        let not_writable = |source| ExportError::NotWritable { path: path.to_path_buf(), source };
        let failed = |source| ExportError::Write { path: path.to_path_buf(), source };
        let Destination::Aside(target) = destination(path).map_err(not_writable)? else {
            in_place.push((path, bytes));
            continue;
        };
        let (file_aside, mut file) = AsideFile::create(&target).map_err(not_writable)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        aside.push((path, file_aside));
    }
    for (path, bytes) in in_place {
        write_with(path, |writer| Ok(writer.write_all(bytes)?))?;
    }
    put_in_place_together(&mut aside)
}

fn put_in_place_together(aside: &mut [(&Path, AsideFile)]) -> Result<(), ExportError> {
    for index in 0..aside.len() {
        let Some((path, file)) = aside.get_mut(index) else { break };
        if let Err(source) = file.exchange() {
            let path = path.to_path_buf();
            for (_, earlier) in aside.iter_mut().take(index).rev() {
                earlier.give_back();
            }
            return Err(ExportError::Write { path, source });
        }
    }
    Ok(())
}

/// Writes `profile` to `path` in the format of its ending (see [`Format::from_path`]). The file
/// appears when it is complete; `-` and `/dev/stdout` are standard output.
///
/// # Errors
/// [`ExportError`]; a file that was there before is then as it was.
pub fn write_file(profile: &Profile, path: &Path) -> Result<(), ExportError> {
    write_file_as(profile, path, Format::from_path(path)?, &Options::default())
}

/// As [`write_file`], in a given format and with options. A pprof file whose name ends in `.pb` is
/// written without gzip.
///
/// # Errors
/// [`ExportError`]; a file that was there before is then as it was.
pub fn write_file_as(
    profile: &Profile,
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<(), ExportError> {
    let mut options = options.clone();
    options.uncompressed |= path.as_os_str().as_encoded_bytes().to_ascii_lowercase().ends_with(b".pb");
    write_with(path, |writer| write(profile, format, writer, &options))
}

/// Has `write` write to `path`: the file appears when it is complete; `-` and `/dev/stdout` are standard output.
///
/// # Errors
/// [`ExportError`], that of `write` included; a file that was there before is then as it was.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let not_writable = |source| ExportError::NotWritable { path: path.to_owned(), source };
    let failed = |source| ExportError::Write { path: path.to_owned(), source };
    let told = |error| match error {
        ExportError::Stream(source) => failed(source),
        other => other,
    };
    match destination(path).map_err(not_writable)? {
        Destination::StandardOutput => {
            let mut writer = BufWriter::new(io::stdout().lock());
            write(&mut writer).map_err(told)?;
            writer.flush().map_err(failed)
        }
        Destination::InPlace(device) => {
            let file = OpenOptions::new().write(true).open(device).map_err(not_writable)?;
            let mut writer = BufWriter::new(file);
            write(&mut writer).map_err(told)?;
            writer.flush().map_err(failed)
        }
        Destination::Aside(target) => {
            let (aside, file) = AsideFile::create(&target).map_err(not_writable)?;
            let mut writer = BufWriter::new(file);
            write(&mut writer).map_err(told)?;
            let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
            // Without this a power cut may leave the new name with the contents of neither file.
            file.sync_all().map_err(failed)?;
            aside.put_in_place().map_err(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Sample, ValueType};
    use std::os::unix::fs::PermissionsExt;

    fn one_sample() -> Profile {
        Profile {
            value_types: vec![ValueType::new("samples", "count")],
            stacks: [[]].into(),
            label_sets: vec![vec![]],
            samples: vec![Sample { stack: 0, labels: 0, values: vec![7] }],
            ..Profile::default()
        }
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("the test's directory is readable")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_complete_and_alone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("out.folded");
        check_writable(&path).expect("writable");
        assert!(names_in(directory.path()).is_empty(), "checking leaves nothing behind");
        write_file(&one_sample(), &path).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "[unknown] 7\n");
        assert_eq!(names_in(directory.path()), ["out.folded"]);
    }

    #[test]
    fn a_failure_leaves_the_previous_file_untouched_and_nothing_aside() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("out.folded");
        fs::write(&path, "before").expect("written");
        let mut broken = one_sample();
        broken.samples[0].stack = 9;
        assert!(matches!(write_file(&broken, &path), Err(ExportError::Invalid(_))));
        assert_eq!(fs::read_to_string(&path).expect("readable"), "before");
        assert_eq!(names_in(directory.path()), ["out.folded"]);
    }

    #[test]
    fn a_symbolic_link_stays_one_and_the_mode_of_its_file_is_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("real.folded");
        fs::write(&file, "before").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode set");
        let link = directory.path().join("link.folded");
        std::os::unix::fs::symlink("real.folded", &link).expect("linked");
        write_file(&one_sample(), &link).expect("written");
        assert!(fs::symlink_metadata(&link).expect("link").file_type().is_symlink());
        assert_eq!(fs::read_to_string(&file).expect("readable"), "[unknown] 7\n");
        assert_eq!(fs::metadata(&file).expect("file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn outputs_that_belong_together_are_all_written_or_none() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        let (old, new, last) = (at("old.json"), at("new.xml"), at("last.md"));
        fs::write(&old, "before").expect("written");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).expect("mode set");
        let outputs = [
            (old.as_path(), b"one".to_vec()),
            (new.as_path(), b"two".to_vec()),
            (last.as_path(), b"three".to_vec()),
        ];

        // The last one's place is taken between writing and putting in place.
        let mut aside: Vec<(&Path, AsideFile)> = outputs
            .iter()
            .map(|(path, bytes)| {
                let (aside, mut file) = AsideFile::create(path).expect("a file aside");
                file.write_all(bytes).expect("written");
                (*path, aside)
            })
            .collect();
        fs::create_dir(&last).expect("made");
        let error = put_in_place_together(&mut aside).expect_err("a folder is there");
        assert!(error.to_string().contains("last.md"), "{error}");
        drop(aside);
        assert_eq!(names_in(directory.path()), ["last.md", "old.json"]);
        assert_eq!(fs::read_to_string(&old).expect("readable"), "before");

        assert!(matches!(write_together(&outputs), Err(ExportError::NotWritable { .. })));
        assert_eq!(names_in(directory.path()), ["last.md", "old.json"]);
        assert_eq!(fs::read_to_string(&old).expect("readable"), "before");

        fs::remove_dir(&last).expect("removed");
        write_together(&outputs).expect("written");
        assert_eq!(names_in(directory.path()), ["last.md", "new.xml", "old.json"]);
        for (path, bytes) in &outputs {
            assert_eq!(&fs::read(path).expect("readable"), bytes, "{path:?}");
        }
        assert_eq!(fs::metadata(&old).expect("file").permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn two_names_of_one_file_are_told_before_anything_is_written() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(directory.path().join("sub")).expect("made");
        let (one, other) = (directory.path().join("a.json"), directory.path().join("sub/../a.json"));
        assert!(matches!(check_writable_together(&[&one, &other]), Err(ExportError::SameFile { .. })));
        let standard_output = Path::new("/dev/stdout");
        assert!(matches!(
            check_writable_together(&[Path::new("-"), standard_output]),
            Err(ExportError::SameFile { .. })
        ));
        let nowhere = Path::new("/dev/null");
        assert!(check_writable_together(&[&one, nowhere, nowhere]).is_ok());
        assert_eq!(names_in(directory.path()), ["sub"]);
    }

    #[test]
    fn devices_are_written_in_place() {
        write_file_as(&one_sample(), Path::new("/dev/null"), Format::Pprof, &Options::default())
            .expect("written");
        let still = fs::metadata("/dev/null").expect("there");
        assert!(!still.is_file(), "/dev/null is still a device");
    }

    #[test]
    fn directories_and_missing_directories_are_refused_before_anything_is_written() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for path in [
            directory.path().to_path_buf(),
            directory.path().join("missing/out.svg"),
            directory.path().join("out.svg/"),
        ] {
            assert!(matches!(check_writable(&path), Err(ExportError::NotWritable { .. })), "{path:?}");
            let result = write_file_as(&one_sample(), &path, Format::Folded, &Options::default());
            assert!(matches!(result, Err(ExportError::NotWritable { .. })), "{path:?}");
        }
        assert!(names_in(directory.path()).is_empty());
    }
}
