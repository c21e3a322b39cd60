//! Where a function's file is in the project, as its host wants to know it.

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
    /// is relative already may be of anybody's project: it is ours if there is such a file.
    #[must_use]
    pub fn relative(&self, file: &str) -> Option<String> {
        let mapped = self
            .maps
            .iter()
            .find_map(|(from, to)| Some(format!("{to}{}", file.strip_prefix(from.as_str())?)));
        let file = mapped.as_deref().unwrap_or(file);
        let relative =
            match self.work_tree.as_deref().and_then(|tree| file.strip_prefix(tree)?.strip_prefix('/')) {
                Some(inside) => inside,
                None if file.starts_with('/') => return None,
                None => file,
            };
        let mut parts: Vec<&str> = Vec::new();
        for part in relative.split('/') {
            match part {
                "" | "." => {}
                // It leads out of the project.
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        let relative = (!parts.is_empty()).then(|| parts.join("/"))?;
        match &self.work_tree {
            Some(tree) if mapped.is_none() && !file.starts_with('/') => {
                std::path::Path::new(tree).join(&relative).exists().then_some(relative)
            }
            _ => Some(relative),
        }
    }
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
            ],
            work_tree: Some("/home/me/app".to_owned()),
        };
        let cases = [
            ("/home/me/app/src/main.c", Some("src/main.c")),
            ("/build/worker/src/main.c", Some("src/main.c")),
            ("app/main.go", Some("src/main.go")),
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
}
