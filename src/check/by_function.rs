//! What is said of each function, for those who show functions: the frames of a flame graph.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::FunctionKey;
use super::comparison::{Comparison, Level, Line, Origin, Subject};
use super::costs::module_path;
use crate::model::Profile;

/// A function that something is said of.
#[derive(Debug, Clone)]
pub struct FunctionLines<'a> {
    /// Who it is.
    pub subject: &'a Subject,
    /// Under which identities profiles have it: its own, those that it had before, and those of functions that
    /// are counted with it.
    pub keys: Vec<FunctionKey>,
    /// What is said of it by itself.
    pub own: Option<&'a Line>,
    /// What is said of it with all that it calls. None if that is (nearly) all that ran, if one side alone has it,
    /// if it is as good as its own cost, and if it is too small.
    pub inclusive: Option<&'a Line>,
}

/// The functions of a comparison that a line is about, in the order of the lines. Code without a name is no
/// function, and is left out.
#[must_use]
pub fn by_function(comparison: &Comparison) -> Vec<FunctionLines<'_>> {
    let mut functions: Vec<FunctionLines<'_>> = Vec::new();
    let mut by_key: HashMap<&FunctionKey, usize> = HashMap::new();
    for line in &comparison.lines {
        if !matches!(line.level, Level::FunctionSelf | Level::FunctionInclusive) {
            continue;
        }
        for subject in std::iter::once(&line.subject).chain(&line.same_as) {
            let Some(key) = subject.key.as_ref().filter(|key| *key.name != *FunctionKey::UNNAMED) else {
                continue;
            };
            let at = *by_key.entry(key).or_insert_with(|| {
                let keys = vec![key.clone()];
                functions.push(FunctionLines { subject, keys, own: None, inclusive: None });
                functions.len() - 1
            });
            let Some(function) = functions.get_mut(at) else { continue };
            match line.level {
                Level::FunctionSelf => function.own = Some(line),
                _ => function.inclusive = Some(line),
            }
            // The origin is that of the line's own subject.
            if std::ptr::eq(subject, &line.subject) {
                function.add_keys(line.origin.as_ref());
            }
        }
    }
    for function in &mut functions {
        function.add_modules(&comparison.renamed_modules);
    }
    functions
}

impl FunctionLines<'_> {
    fn add_keys(&mut self, origin: Option<&Origin>) {
        let others = match origin {
            Some(Origin::Renamed { from }) => std::slice::from_ref(from),
            Some(Origin::Inlined { functions } | Origin::Regrouped { functions }) => functions.as_slice(),
            None => &[],
        };
        for key in others {
            if !self.keys.contains(key) {
                self.keys.push(key.clone());
            }
        }
    }

    /// The names that its module had before.
    fn add_modules(&mut self, renamed: &[(String, String)]) {
        for (before, now) in renamed {
            let earlier = self.keys.iter().filter(|key| *key.module == **now);
            let earlier: Vec<FunctionKey> = earlier
                .map(|key| FunctionKey { name: Arc::clone(&key.name), module: before.as_str().into() })
                .collect();
            self.keys.extend(earlier);
        }
    }
}

/// As what flame graphs of these profiles show functions: name and path of the object, as they are there, of those
/// with these identities.
#[must_use]
pub fn shown_names(
    profiles: &[&Profile],
    wanted: &HashSet<&FunctionKey>,
) -> HashMap<FunctionKey, BTreeSet<ShownName>> {
    let mut names: HashMap<FunctionKey, BTreeSet<ShownName>> = HashMap::new();
    for profile in profiles {
        let mut met: HashSet<(u32, Option<u32>)> = HashSet::new();
        for location in &profile.locations {
            for frame in &location.frames {
                if !met.insert((frame.function, location.mapping)) {
                    continue;
                }
                let Some(function) = profile.functions.get(frame.function as usize) else { continue };
                let key = FunctionKey::new(&function.name, module_path(profile, location));
                if wanted.contains(&key) {
                    let mapping = location.mapping.and_then(|index| profile.mappings.get(index as usize));
                    let module = mapping.map_or_else(String::new, |mapping| mapping.path.clone());
                    names.entry(key).or_default().insert(ShownName { name: function.name.clone(), module });
                }
            }
        }
    }
    names
}

/// See [`shown_names`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShownName {
    /// The function's name.
    pub name: String,
    /// Path of the object.
    pub module: String,
}

#[cfg(test)]
mod tests {
    use super::super::test_sides::side;
    use super::super::{Policy, Verdict, compare};
    use super::*;

    #[test]
    fn a_function_has_its_lines_its_earlier_names_and_those_that_share_its_cost() {
        let base = side(
            "base",
            1,
            &[
                ("main;serve;parse", 3000.0),
                ("main;serve;old_name;leaf", 2000.0),
                ("main;other", 3000.0),
                ("main;rest", 2000.0),
            ],
        );
        let new = side(
            "new",
            2,
            &[
                ("main;serve;parse", 6000.0),
                ("main;serve;new_name;leaf", 2000.0),
                ("main;other", 3000.0),
                ("main;rest", 2000.0),
            ],
        );
        let comparison = compare(&base, &new, &Policy::default()).unwrap();
        let functions = by_function(&comparison);
        let of = |name: &str| functions.iter().find(|function| function.subject.name == name);
        let parse = of("parse").expect("it is judged");
        assert_eq!(parse.own.unwrap().verdict, Verdict::Regressed);
        assert_eq!(parse.keys.len(), 1);
        let serve = of("serve").expect("it is judged");
        assert!(serve.own.is_none(), "it has nothing of its own");
        assert_eq!(serve.inclusive.unwrap().verdict, Verdict::Regressed);
        let renamed = of("new_name").expect("it is judged");
        assert!(renamed.keys.contains(&FunctionKey::new("old_name", "app")), "{renamed:?}");
        for (index, function) in functions.iter().enumerate() {
            assert!(function.own.is_some() || function.inclusive.is_some());
            let again =
                functions.iter().skip(index + 1).any(|other| other.subject.key == function.subject.key);
            assert!(!again, "{} stands there twice", function.subject.name);
        }
    }

    #[test]
    fn frames_of_a_program_of_another_version_are_found_by_their_earlier_module() {
        let of = |module: &str, seed| {
            let frame = |name: &str| format!("{name}@{module}");
            let (one, two) = (frame("one"), frame("two"));
            side("side", seed, &[(&one, 5000.0), (&two, 5000.0)])
        };
        let comparison = compare(&of("app-1.2", 1), &of("app-1.3", 2), &Policy::default()).unwrap();
        let functions = by_function(&comparison);
        let one = functions.iter().find(|function| function.subject.name == "one").expect("it is judged");
        let modules: Vec<&str> = one.keys.iter().map(|key| &*key.module).collect();
        assert_eq!(modules, ["app-1.3", "app-1.2"]);
    }
}
