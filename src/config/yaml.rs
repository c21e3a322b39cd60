//! YAML text → a tree in which every key and every value knows where it stands.
//!
//! The subset that a configuration needs: one document of mappings with plain keys, sequences and scalars in
//! any style. Refused, each with its line: anchors and aliases (which is how a small file becomes a huge
//! tree), tags, keys that are no text, a key twice, several documents. Scalars stay text; what they mean is
//! decided by the key's type (`value.rs`), so `version: 1.10` or `country: no` hold no surprises.
//!
//! Bounded: [`MAX_BYTES`] of text, [`MAX_NODES`] values, [`MAX_DEPTH`] levels. The parser is pulled event by
//! event and never calls itself, so depth costs no stack.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::error::{Position, quoted_key};

/// The largest text that is read; the annotated example has a fiftieth of it.
pub(super) const MAX_BYTES: usize = 512 << 10;
/// Values of a document, those in sequences included.
pub(super) const MAX_NODES: usize = 20_000;
/// Levels of nesting; the deepest key has five.
pub(super) const MAX_DEPTH: usize = 16;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, `~` or `null`, not in quotes.
    Null,
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// What could not be substituted, and has been reported.
    Failed,
}

impl Content {
    /// Whether anything in it stands in the file itself, and not in variables. Calls itself as deep as the
    /// tree is.
    pub(super) fn is_literal(&self) -> bool {
        match self {
            Self::Scalar(scalar) => scalar.substituted_in.is_none(),
            Self::Sequence(items) => items.iter().any(|item| item.content.is_literal()),
            Self::Mapping(entries) => entries.iter().any(|entry| entry.value.content.is_literal()),
            Self::Null | Self::Failed => false,
        }
    }
}

/// A scalar as it is read and as it is written: the two differ once variables have been put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// What stands in the file, if variables were substituted: messages show this and not their values.
    pub(super) substituted_in: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) value: Node,
}

/// What is wrong with the text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlError {
    pub(super) position: Position,
    pub(super) message: String,
}

/// The mapping at the top of `text` (empty for an empty document), and errors that did not keep the rest
/// from being read.
///
/// # Errors
/// The first error after which nothing more can be told.
pub(super) fn parse(text: &str) -> Result<(Vec<Entry>, Vec<YamlError>), YamlError> {
    let mut tree = Tree::default();
    let mut parser = Parser::new_from_str(text);
    loop {
        let (event, span) = match parser.next_event() {
            None => break,
            Some(Ok(pair)) => pair,
            Some(Err(error)) => return Err(syntax_error(&error)),
        };
        if matches!(event, Event::StreamEnd) {
            break;
        }
        tree.take(event, position_of(&span.start))?;
    }
    match tree.root {
        None | Some(Node { content: Content::Null, .. }) => Ok((Vec::new(), tree.errors)),
        Some(Node { content: Content::Mapping(entries), .. }) => Ok((entries, tree.errors)),
        Some(Node { position, .. }) => Err(YamlError {
            position,
            message: "a configuration is made of `key: value` lines; this is something else".to_owned(),
        }),
    }
}

fn position_of(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

fn syntax_error(error: &ScanError) -> YamlError {
    YamlError { position: position_of(error.marker()), message: format!("no valid YAML: {}", error.info()) }
}

/// A mapping or sequence that is not closed yet.
struct Open {
    position: Position,
    container: Container,
}

enum Container {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(String, Position)> },
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    errors: Vec<YamlError>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, position: Position) -> Result<(), YamlError> {
        let refuse = |message: &str| Err(YamlError { position, message: message.to_owned() });
        match &event {
            Event::Alias(_) => return refuse("aliases (`*name`) are not read; write the value out"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if *anchor != 0 =>
            {
                return refuse("anchors (`&name`) are not read; write the value out where it is used");
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return refuse("tags (`!name`) are not read; a value's type is that of its key");
            }
            _ => {}
        }
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return refuse("a second document begins here; a configuration is one");
                }
                Ok(())
            }
            Event::MappingStart(..) => {
                self.begin(position, Container::Mapping { entries: Vec::new(), key: None })
            }
            Event::SequenceStart(..) => self.begin(position, Container::Sequence(Vec::new())),
            Event::MappingEnd | Event::SequenceEnd => self.end(),
            Event::Scalar(text, style, ..) => {
                let is_null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let content = if is_null && !self.expects_key() {
                    Content::Null
                } else {
                    Content::Scalar(Scalar { text: text.into_owned(), substituted_in: None })
                };
                self.count(position)?;
                self.place(Node { position, content })
            }
            Event::Alias(_) | Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { container: Container::Mapping { key: None, .. }, .. }))
    }

    fn count(&mut self, position: Position) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(YamlError { position, message: format!("more than {MAX_NODES} values") });
        }
        Ok(())
    }

    fn begin(&mut self, position: Position, container: Container) -> Result<(), YamlError> {
        self.count(position)?;
        if self.expects_key() {
            return Err(YamlError { position, message: "a key must be plain text".to_owned() });
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError { position, message: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        self.open.push(Open { position, container });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(Open { position, container }) = self.open.pop() else { return Ok(()) };
        let content = match container {
            Container::Sequence(items) => Content::Sequence(items),
            Container::Mapping { entries, .. } => Content::Mapping(entries),
        };
        self.place(Node { position, content })
    }

    /// Puts a finished value where it belongs: it is a key, a key's value, an item, or all there is.
    fn place(&mut self, node: Node) -> Result<(), YamlError> {
        let Some(Open { container, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match container {
            Container::Sequence(items) => items.push(node),
            Container::Mapping { entries, key } => match (key.take(), node.content) {
                (Some((name, position)), content) => {
                    let value = Node { position: node.position, content };
                    match entries.iter().find(|entry| entry.key == name) {
                        Some(first) => self.errors.push(YamlError {
                            position,
                            message: format!(
                                "{} stands here a second time; the first is in line {}",
                                quoted_key(&name),
                                first.position.line
                            ),
                        }),
                        None => entries.push(Entry { key: name, position, value }),
                    }
                }
                (None, Content::Scalar(scalar)) => *key = Some((scalar.text, node.position)),
                (None, _) => {
                    return Err(YamlError {
                        position: node.position,
                        message: "a key must be plain text".to_owned(),
                    });
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalar(text: &str) -> Content {
        Content::Scalar(Scalar { text: text.to_owned(), substituted_in: None })
    }

    fn refused(text: &str) -> (usize, usize, String) {
        let error = parse(text).expect_err(text);
        (error.position.line, error.position.column, error.message)
    }

    #[test]
    fn keys_and_values_know_their_line_and_column() {
        let (entries, errors) =
            parse("# head\notlp:\n  endpoint: \"a:1\"\n  headers: {x: y}\nlist:\n- ü: 1\n").expect("YAML");
        assert!(errors.is_empty());
        let otlp = &entries[0];
        assert_eq!((otlp.key.as_str(), otlp.position), ("otlp", Position { line: 2, column: 1 }));
        let Content::Mapping(inner) = &otlp.value.content else { panic!("{otlp:?}") };
        assert_eq!(inner[0].position, Position { line: 3, column: 3 });
        assert_eq!(inner[0].value.position, Position { line: 3, column: 13 });
        assert_eq!(inner[0].value.content, scalar("a:1"));
        let Content::Mapping(headers) = &inner[1].value.content else { panic!("{inner:?}") };
        assert_eq!((headers[0].key.as_str(), headers[0].position.column), ("x", 13));
        let Content::Sequence(items) = &entries[1].value.content else { panic!("{entries:?}") };
        let Content::Mapping(item) = &items[0].content else { panic!("{items:?}") };
        assert_eq!(item[0].value.position, Position { line: 6, column: 6 }, "columns are characters");
    }

    #[test]
    fn null_is_null_only_without_quotes_and_never_as_a_key() {
        let (entries, _) = parse("a:\nb: ~\nc: null\nd: \"null\"\ne: ''\n~: 1\n").expect("YAML");
        let contents: Vec<&Content> = entries.iter().map(|entry| &entry.value.content).collect();
        assert_eq!(contents[..3], [&Content::Null, &Content::Null, &Content::Null]);
        assert_eq!(contents[3..5], [&scalar("null"), &scalar("")]);
        assert_eq!(entries[5].key, "~");
    }

    #[test]
    fn empty_documents_are_empty_configurations() {
        for text in ["", "\n", "# nothing but a comment\n", "---\n", "~\n", "\u{feff}"] {
            assert_eq!(parse(text), Ok((Vec::new(), Vec::new())), "{text:?}");
        }
    }

    #[test]
    fn a_key_twice_names_both_lines_and_the_rest_is_still_read() {
        let (entries, errors) = parse("a: 1\nb: 2\na: 3\nc: 4\n").expect("YAML");
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].value.content, scalar("1"));
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].position, Position { line: 3, column: 1 });
        assert!(errors[0].message.contains("line 1"), "{errors:?}");
    }

    #[test]
    fn alias_bombs_are_refused_at_their_first_anchor() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n";
        let (line, _, message) = refused(bomb);
        assert_eq!(line, 1);
        assert!(message.contains("anchors"), "{message}");
        assert!(refused("a: *missing\n").2.contains("no valid YAML"), "an alias of nothing");
    }

    #[test]
    fn tags_second_documents_lists_at_the_top_and_keys_that_are_no_text_are_refused_with_their_line() {
        for (text, line, part) in [
            ("a: 1\nb: !!str 2\n", 2, "tags"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("- a\n- b\n", 1, "key: value"),
            ("just text\n", 1, "key: value"),
            ("? [a, b]\n: 1\n", 1, "plain text"),
            ("a: 1\n\tb: 2\n", 2, "no valid YAML"),
            ("a: [1, 2\n", 2, "no valid YAML"),
            ("a: \"open\n", 1, "no valid YAML"),
        ] {
            let (at, _, message) = refused(text);
            assert!(message.contains(part), "{text:?}: {message}");
            assert!(at.abs_diff(line) <= 1, "{text:?}: line {at}");
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let deep = |levels: usize| format!("a: {}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(MAX_DEPTH - 1)).is_ok());
        assert!(refused(&deep(MAX_DEPTH)).2.contains("deeper"));
        assert!(refused(&deep(100_000)).2.contains("recursion limit"), "the parser's own, 255");
        let nested: String = (0..MAX_DEPTH + 1).map(|level| format!("{}k:\n", " ".repeat(level))).collect();
        assert!(refused(&format!("{nested}{}x: 1\n", " ".repeat(MAX_DEPTH + 1))).2.contains("deeper"));
        let fits: String = (0..MAX_DEPTH - 1).map(|level| format!("{}k:\n", " ".repeat(level))).collect();
        assert!(parse(&format!("{fits}{}x: 1\n", " ".repeat(MAX_DEPTH - 1))).is_ok());
        assert!(refused(&format!("a: [{}]", "1,".repeat(MAX_NODES))).2.contains("more than"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn arbitrary_text_neither_panics_nor_exceeds_its_bounds(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn text_made_of_what_yaml_is_made_of_neither_panics_nor_exceeds_its_bounds(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", "b: ", "- ", "? ", ": ", "[", "]", "{", "}", ",", "\n", "\n  ", "\n    ", "\t", "&x ", "*x",
                    "!!str ", "|", ">-", "\n---\n", "\n...\n", "\"", "'", "#", "%TAG ! x\n", "\\u", "\\x4", "\0", "\r",
                    "\u{85}", "\u{2028}", "\u{feff}", "~", "<<: ", "@", "`", "0x1",
                ]),
                0..200,
            )
        ) {
            if let Ok((entries, _)) = parse(&parts.concat()) {
                prop_assert!(entries.len() <= MAX_NODES);
            }
        }
    }
}
