//! The configuration file: its bytes, and its entries into the sections they belong to.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::{Place, Position, Problem, Problems, key_word, quoted_key};
use super::schema::NOT_HERE;
use super::section::{MemberKind, Section, join};
use super::sources::Origins;
use super::suggest;
use super::yaml::{self, Content, Entry};

/// A file that was read.
pub(super) struct FileText {
    pub(super) text: String,
    /// Whether every user of this machine can read it too.
    pub(super) is_readable_by_all: bool,
}

/// Reads a file; `-` is standard input.
pub(super) fn read_file(path: &Path) -> Result<FileText, Problem> {
    let problem = |message: String| Problem {
        place: Place::File { path: path.to_owned(), position: None },
        key: String::new(),
        message,
    };
    let limit = yaml::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let mut is_readable_by_all = false;
    let result = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| {
            let metadata = file.metadata()?;
            is_readable_by_all = metadata.is_file() && metadata.mode() & 0o004 != 0;
            file.take(limit).read_to_end(&mut bytes)
        })
    };
    result.map_err(|error| problem(format!("cannot be read: {error}")))?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err(problem(format!(
            "is larger than {} KiB, so it is no configuration",
            yaml::MAX_BYTES >> 10
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let right = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = right.iter().filter(|&&byte| byte == b'\n').count() + 1;
        problem(format!("is not UTF-8 in line {line}"))
    })?;
    Ok(FileText { text, is_readable_by_all })
}

/// Puts the entries of a file into the sections they belong to.
pub(super) struct FileReading<'a> {
    pub(super) place: &'a dyn Fn(Position) -> Place,
    /// The paths of all keys, to find the one that was meant.
    pub(super) paths: Vec<String>,
    pub(super) origins: &'a mut Origins,
    pub(super) problems: &'a mut Problems,
    pub(super) failed: &'a mut Vec<String>,
    /// Keys whose secrets stand in the file itself.
    pub(super) literal_secrets: Vec<String>,
}

impl FileReading<'_> {
    /// Calls itself as deep as the table is.
    pub(super) fn section(&mut self, section: &mut dyn Section, path: &str, entries: &[Entry]) {
        for entry in entries {
            let mut members = section.members();
            let Some(index) = members.iter().position(|member| member.name == entry.key) else {
                let siblings: Vec<&str> = members.iter().map(|member| member.name).collect();
                self.unknown(path, entry, &siblings);
                continue;
            };
            let member = members.swap_remove(index);
            let path = join(path, member.name);
            match member.kind {
                MemberKind::Section(inner) => match &entry.value.content {
                    Content::Mapping(entries) => self.section(inner, &path, entries),
                    // A section of which every key is commented out.
                    Content::Null | Content::Failed => {}
                    Content::Scalar(_) | Content::Sequence(_) => {
                        let names: Vec<&str> = inner.members().iter().map(|member| member.name).collect();
                        let message = format!("is a section: its keys stand below it ({})", names.join(", "));
                        self.wrong(entry.value.position, &path, message);
                    }
                },
                MemberKind::Key(value, _) => match value.set_from_node(&entry.value) {
                    Ok(()) => {
                        if value.is_secret() && entry.value.content.is_literal() {
                            self.literal_secrets.push(path.clone());
                        }
                        self.origins.set(path, (self.place)(entry.position));
                    }
                    Err(faults) => {
                        for fault in faults {
                            // Where nothing stands, the key is what there is to point at.
                            let is_null = entry.value.content == Content::Null;
                            let position = if is_null { entry.position } else { fault.position };
                            self.wrong(position, &path, fault.message);
                        }
                        self.failed.push(path);
                    }
                },
            }
        }
    }

    fn wrong(&mut self, position: Position, path: &str, message: String) {
        let place = (self.place)(position);
        self.problems.add(|| Problem { place, key: path.to_owned(), message });
    }

    fn unknown(&mut self, path: &str, entry: &Entry, siblings: &[&str]) {
        let place = (self.place)(entry.position);
        let paths = &self.paths;
        self.problems.add(|| Problem {
            place,
            key: path.to_owned(),
            message: explain_unknown(path, &entry.key, siblings, paths),
        });
    }
}

/// What to say about the key `name` that the section at `path` does not have.
fn explain_unknown(path: &str, name: &str, siblings: &[&str], paths: &[String]) -> String {
    let full = join(path, name);
    if let Some((_, explanation)) = NOT_HERE.iter().find(|(known, _)| *known == full) {
        return format!("{} {explanation}", quoted_key(name));
    }
    let unknown = format!("unknown key {}", quoted_key(name));
    let name = key_word(name);
    if let Some(nearest) = suggest::nearest(name, siblings.iter().copied()) {
        return format!("{unknown}; did you mean `{nearest}`?");
    }
    // Right name, wrong place: `listen` at the top.
    let elsewhere = |path: &&String| path.rsplit('.').next().is_some_and(|last| last == name);
    if let Some(right) = paths.iter().find(elsewhere) {
        return format!("{unknown}; did you mean `{right}`?");
    }
    // A section that went one level astray: `profiling:` at the top.
    let inside = |path: &&String| path.split('.').rev().skip(1).any(|part| part == name);
    if let Some(right) = paths.iter().find(inside).and_then(|path| path.split_once(&format!("{name}."))) {
        return format!("{unknown}; did you mean `{}{name}`?", right.0);
    }
    let here = if path.is_empty() { "at the top".to_owned() } else { format!("in `{path}`") };
    format!("{unknown}; {here} there are {}", siblings.join(", "))
}
