//! What the table in `schema.rs` is made of: sections, their keys, and the walk over both.
//!
//! `section!` writes, for each section, the struct that the rest of the program reads and the list of its
//! members that everything else here goes over: reading, environment names, listings, comparison.

use super::value::Value;

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// By a reload (`SIGHUP`, `POST /admin/reload`).
    Reload,
    /// When `spanflame serve` starts the next time.
    Restart,
    /// Never yet: the part that reads it is being built. Accepted so that configurations can be written.
    NotYet,
}

/// What is known of a key beside its type.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyFacts {
    /// Lines of the doc comment in the table, each with its leading space.
    pub(super) documentation: &'static [&'static str],
    pub(super) effect: Effect,
    /// At most one: what the annotated example shows where the default is to have none.
    pub(super) examples: &'static [&'static str],
}

/// A member of a section.
pub(super) struct Member<'s> {
    pub(super) name: &'static str,
    pub(super) kind: MemberKind<'s>,
}

pub(super) enum MemberKind<'s> {
    Section(&'s mut dyn Section),
    Key(&'s mut dyn Value, KeyFacts),
}

/// A mapping of the configuration file.
pub(super) trait Section {
    /// Lines of the doc comment in the table.
    fn documentation(&self) -> &'static [&'static str];
    /// Keys first, then sections, in the table's order.
    fn members(&mut self) -> Vec<Member<'_>>;
}

/// A key with its path.
pub(super) struct Key<'s> {
    pub(super) path: String,
    pub(super) value: &'s mut dyn Value,
    pub(super) facts: KeyFacts,
}

/// All keys below `section`, in the table's order.
pub(super) fn all_keys(section: &mut dyn Section) -> Vec<Key<'_>> {
    let mut keys = Vec::new();
    collect_keys(section, "", &mut keys);
    keys
}

/// Calls itself as deep as the table is.
fn collect_keys<'s>(section: &'s mut dyn Section, path: &str, keys: &mut Vec<Key<'s>>) {
    for member in section.members() {
        let path = join(path, member.name);
        match member.kind {
            MemberKind::Section(inner) => collect_keys(inner, &path, keys),
            MemberKind::Key(value, facts) => keys.push(Key { path, value, facts }),
        }
    }
}

/// The path of `name` in the section at `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A section: `keys { /// documentation \n name: Type = default, Effect; }` and, optionally after the
/// effect, `example "text"`; then `sections { name: Type; }`.
macro_rules! section {
    (
        $(#[doc = $section_line:literal])*
        pub struct $section:ident {
            keys { $(
                $(#[doc = $line:literal])*
                $key:ident: $type:ty = $default:expr, $effect:ident $(, example $example:literal)?;
            )* }
            sections { $( $inner:ident: $inner_type:ty; )* }
        }
    ) => {
        $(#[doc = $section_line])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $section {
            $( $(#[doc = $line])* pub $key: $type, )*
            $( #[doc = concat!("The section `", stringify!($inner), "`.")] pub $inner: $inner_type, )*
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $( $key: $default, )* $( $inner: <$inner_type>::default(), )* }
            }
        }

        impl $crate::config::section::Section for $section {
            fn documentation(&self) -> &'static [&'static str] {
                &[$($section_line),*]
            }

            fn members(&mut self) -> Vec<$crate::config::section::Member<'_>> {
                use $crate::config::section::{Member, MemberKind};
                vec![
                    $( Member {
                        name: stringify!($key),
                        kind: MemberKind::Key(
                            &mut self.$key,
                            $crate::config::section::KeyFacts {
                                documentation: &[$($line),*],
                                effect: $crate::config::section::Effect::$effect,
                                examples: &[$($example),*],
                            },
                        ),
                    }, )*
                    $( Member { name: stringify!($inner), kind: MemberKind::Section(&mut self.$inner) }, )*
                ]
            }
        }
    };
}
pub(super) use section;
