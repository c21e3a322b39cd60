//! Where a function's file is in the project, as its host wants to know it.

use std::path::Path;

/// Turns paths of debug information into paths below the project's folder.
#[derive(Debug, Clone, Default)]
pub struct SourcePaths {
    /// `--source-map FROM=TO`: the first whose FROM a path begins with applies.
    pub maps: Vec<(String, String)>,
    /// The top folder of the git work tree, without a slash at its end.
    pub work_tree: Option<String>,
}

impl SourcePaths {
    /// The path below the project's folder; none if it is not in there (a library, another machine's folder). One that
    /// is relative already may be of anybody's project: it is ours if there is such a file. Where a name leads into the
    /// project by a link, as compilers write it that were called there, the file is looked at.
    #[must_use]
    pub fn relative(&self, file: &str) -> Option<String> {
        let mapped = self.mapped(file);
        let path = mapped.as_deref().unwrap_or(file);
        let Some(tree) = self.work_tree.as_deref() else {
            return if path.starts_with('/') { None } else { normal(path) };
        };
        if !path.starts_with('/') {
            let relative = normal(path)?;
            return (mapped.is_some() || Path::new(tree).join(&relative).exists()).then_some(relative);
        }
        let below = |path: &str| path.strip_prefix(tree)?.strip_prefix('/').and_then(normal);
        below(path).or_else(|| {
            let there = std::fs::canonicalize(path).ok()?;
            below(there.to_str()?)
        })
    }

    /// What a path is by the first of the maps that it begins with: a whole folder's name, and not a part of one.
    fn mapped(&self, file: &str) -> Option<String> {
        self.maps.iter().find_map(|(from, to)| {
            let rest = file.strip_prefix(from.as_str())?;
            let is_whole = rest.is_empty() || rest.starts_with('/') || from.ends_with('/');
            // To nothing: below the work tree, and not at the root of all.
            let rest = if to.is_empty() { rest.trim_start_matches('/') } else { rest };
            is_whole.then(|| format!("{to}{rest}"))
        })
    }
}

/// A path below a folder without what leads nowhere; none if it leads out of the folder, or is the folder.
fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_work_tree_or_none() {
        let paths = SourcePaths {
            maps: vec![
                ("/build/worker/".to_owned(), "/home/me/app/".to_owned()),
                ("app/".to_owned(), "src/".to_owned()),
                ("/ci".to_owned(), ".".to_owned()),
                ("/gone".to_owned(), String::new()),
            ],
            work_tree: Some("/home/me/app".to_owned()),
        };
        let cases = [
            ("/home/me/app/src/main.c", Some("src/main.c")),
            ("/build/worker/src/main.c", Some("src/main.c")),
            ("app/main.go", Some("src/main.go")),
            ("/ci/src/a b.c", Some("src/a b.c")),
            ("/circle/src/a.c", None),
            ("/ci/../x.c", None),
            ("/gone/x.c", Some("x.c")),
            ("/home/me/app/../other/x.c", None),
            ("/home/me/app", None),
            ("./src/../lib/x.c", None),
            ("/home/me/application/x.c", None),
            ("/usr/include/x.h", None),
            ("../x.c", None),
            ("", None),
        ];
        for (file, expected) in cases {
            assert_eq!(paths.relative(file).as_deref(), expected, "{file}");
        }
    }

    #[test]
    fn a_relative_path_is_the_projects_if_there_is_such_a_file() {
        let tree = tempfile::tempdir().expect("a folder");
        std::fs::write(tree.path().join("main.c"), "").expect("written");
        let work_tree = Some(tree.path().to_string_lossy().into_owned());
        let paths = SourcePaths { work_tree, ..SourcePaths::default() };
        assert_eq!(paths.relative("./src/../main.c").as_deref(), Some("main.c"));
        assert_eq!(paths.relative("sysdeps/nptl/libc_start_call_main.h"), None);
        assert_eq!(
            SourcePaths::default().relative("a/./b.c").as_deref(),
            Some("a/b.c"),
            "nothing is known of it"
        );
    }

    #[test]
    fn a_path_through_a_link_is_the_projects() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("it is there").join("work tree");
        std::fs::create_dir_all(real.join("src")).expect("made");
        std::fs::write(real.join("src/main.c"), "").expect("written");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let paths = SourcePaths { work_tree: Some(real.display().to_string()), ..SourcePaths::default() };
        for path in [link.join("src/main.c"), real.join("../work tree/src/./main.c")] {
            assert_eq!(
                paths.relative(&path.display().to_string()).as_deref(),
                Some("src/main.c"),
                "{path:?}"
            );
        }
        assert_eq!(paths.relative(&link.join("src/other.c").display().to_string()), None, "there is none");
        assert_eq!(paths.relative("/usr/bin/env"), None);
    }
}
