//! Folded stacks as INTERFACE.md gives them: `comm`, then frames root to leaf; `_[k]` kernel,
//! `_[i]` inlined, `_[j]` JIT; an unnamed address reads `[module+0xoff]`.

/// What sort of frame a suffix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Native,
    Kernel,
    Inlined,
    Jit,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub name: String,
    pub kind: Kind,
}

impl Frame {
    fn parse(text: &str) -> Self {
        for (suffix, kind) in [("_[k]", Kind::Kernel), ("_[i]", Kind::Inlined), ("_[j]", Kind::Jit)] {
            if let Some(name) = text.strip_suffix(suffix) {
                return Self { name: name.to_owned(), kind };
            }
        }
        Self { name: text.to_owned(), kind: Kind::Native }
    }

    /// Whether this is the function `name`. Parameters, return types of templates, symbol versions
    /// and Rust's hashes do not count, nor do namespaces that `name` leaves out.
    pub fn is(&self, name: &str) -> bool {
        let own = plain_name(&self.name);
        own == name
            || own.strip_suffix(name).is_some_and(|before| before.ends_with("::") || before.ends_with(' '))
    }

    /// Whether the address had no name.
    pub fn is_unnamed(&self) -> bool {
        self.name.starts_with('[')
    }
}

/// A name without parameters, symbol version and Rust's legacy hash.
pub fn plain_name(name: &str) -> &str {
    // Parameters open after a name; `main.(*T).run` of Go and `(anonymous namespace)::f` do not.
    let opens_parameters = |&(at, _): &(usize, &str)| {
        name[..at]
            .chars()
            .next_back()
            .is_some_and(|before| before.is_alphanumeric() || "_>])".contains(before))
    };
    let name = name.match_indices('(').find(opens_parameters).map_or(name, |(at, _)| &name[..at]);
    let name = name.split_once('@').map_or(name, |(before, _)| before);
    match name.rsplit_once("::h") {
        Some((before, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            before
        }
        _ => name,
    }
}

/// A stack and how often it was seen.
#[derive(Debug, Clone)]
pub struct Stack {
    pub comm: String,
    /// Root to leaf.
    pub frames: Vec<Frame>,
    pub count: u64,
}

impl Stack {
    /// Whether a function is anywhere on the stack.
    pub fn has(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.is(name))
    }

    /// Frames that the program called: neither inlined nor of the kernel, root to leaf.
    pub fn called(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(|frame| matches!(frame.kind, Kind::Native | Kind::Jit))
    }

    /// All frames for messages, repetitions in one.
    pub fn describe(&self) -> String {
        let mut text = format!("{}:", self.comm);
        for run in self.frames.chunk_by(|left, right| left == right) {
            text.push_str(&format!(" → {}", run[0].name));
            if run.len() > 1 {
                text.push_str(&format!(" (×{})", run.len()));
            }
        }
        format!("{text}, {} samples", self.count)
    }

    /// Whether the called frames start with `root` and hold `path` in order with nothing between.
    pub fn has_path(&self, root: &str, path: &[&str]) -> bool {
        let called: Vec<&Frame> = self.called().collect();
        let starts_at_root = called.first().is_some_and(|frame| frame.is(root));
        let window = |frames: &[&Frame]| frames.iter().zip(path).all(|(frame, name)| frame.is(name));
        starts_at_root && called.windows(path.len()).any(window)
    }

    /// Whether all kernel frames are on the leaf side of all others.
    pub fn kernel_is_at_the_leaf(&self) -> bool {
        let mut in_kernel = false;
        for frame in &self.frames {
            // The kernel's own inlined frames carry `_[i]`: they say nothing about the side.
            match frame.kind {
                Kind::Kernel => in_kernel = true,
                Kind::Native | Kind::Jit if in_kernel => return false,
                _ => {}
            }
        }
        true
    }
}

/// All stacks of a file.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    pub stacks: Vec<Stack>,
}

impl Folded {
    /// Reads folded text; anything malformed is a failure of the writer.
    pub fn parse(text: &str) -> Self {
        let stacks = text.lines().map(|line| {
            let (frames, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no count in {line:?}"));
            let count = count.parse().unwrap_or_else(|_| panic!("no count in {line:?}"));
            let mut parts = frames.split(';');
            let comm = parts.next().unwrap_or_default().to_owned();
            Stack { comm, frames: parts.map(Frame::parse).collect(), count }
        });
        Self { stacks: stacks.collect() }
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.count).sum()
    }

    /// Samples of the stacks that `wanted` chooses.
    pub fn count(&self, wanted: impl Fn(&Stack) -> bool) -> u64 {
        self.stacks.iter().filter(|stack| wanted(stack)).map(|stack| stack.count).sum()
    }

    /// Samples with a function anywhere on the stack.
    pub fn inclusive(&self, name: &str) -> u64 {
        self.count(|stack| stack.has(name))
    }

    /// The most frequent stacks, for messages.
    pub fn most_frequent(&self, wanted: impl Fn(&Stack) -> bool, at_most: usize) -> String {
        let mut chosen: Vec<&Stack> = self.stacks.iter().filter(|stack| wanted(stack)).collect();
        chosen.sort_by_key(|stack| std::cmp::Reverse(stack.count));
        chosen.iter().take(at_most).map(|stack| format!("  {}\n", stack.describe())).collect()
    }
}

/// `part` of `whole` in percent, 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[test]
fn a_name_is_recognised_without_parameters_hash_and_namespace() {
    let is = |text: &str, name: &str| Frame::parse(text).is(name);
    assert!(is("fixture::burn_sixty(unsigned long)", "fixture::burn_sixty"));
    assert!(is("fixture::burn_sixty(unsigned long)", "burn_sixty"));
    assert!(is("shares_rust::burn_ten::h0123456789abcdef", "burn_ten"));
    assert!(is("clock_gettime@@GLIBC_2.17", "clock_gettime"));
    assert!(is("main.(*T).run", "main.(*T).run"));
    assert!(is("(anonymous namespace)::f(int)", "f"));
    assert!(!is("not_burn_ten", "burn_ten"));
    assert!(!is("[libc.so.6+0x27249]", "libc.so.6"));
}
