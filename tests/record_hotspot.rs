//! A user profiles Java programs whose shares are known, under every JDK that is supported: interpreted, compiled by
//! either compiler with inlining, with C and stubs of the virtual machine below, in virtual threads, and while classes
//! come and go.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::folded::{Folded, Stack, percent};
use support::program::Program;
use support::{quiet_cores, recording, seconds};

const BURNERS: [(&str, f64); 3] =
    [("Shares.burnSixty", 60.0), ("Shares.burnThirty", 30.0), ("Shares.burnTen", 10.0)];

/// A JDK, and what starts a program of it.
struct Jdk {
    version: u32,
    command: Vec<String>,
}

impl Jdk {
    /// That of this machine, or of a Debian suite.
    fn find(version: u32) -> Result<Self, String> {
        let installed = match version {
            17 => Some("/usr/lib/jvm/java-17-openjdk-amd64/bin/java"),
            25 => Some("/usr/lib/jvm/temurin-25-jdk-amd64/bin/java"),
            _ => None,
        };
        if let Some(java) = installed.filter(|java| Path::new(java).exists()) {
            return Ok(Self { version, command: vec![java.to_owned()] });
        }
        let suite = if version == 11 { "bullseye" } else { "trixie" };
        let runtimes = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/runtimes");
        let output = Command::new(runtimes.join("debian.sh"))
            .args([suite, &format!("openjdk-{version}-jdk-headless")])
            .output()
            .map_err(|error| format!("debian.sh: {error}"))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(format!("JDK {version} is not to be had: {}", reason.trim()));
        }
        let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let classes = classes()?;
        Ok(Self {
            version,
            command: vec![
                runtimes.join("in_root.sh").display().to_string(),
                root,
                "--bind".to_owned(),
                classes.display().to_string(),
                format!("/usr/lib/jvm/java-{version}-openjdk-amd64/bin/java"),
            ],
        })
    }

    /// Starts the fixture.
    fn start(&self, options: &[&str], mode: &str) -> Program {
        let (program, arguments) = self.command.split_first().expect("a program");
        let classes = classes().expect("the fixture is built");
        let mut command = Command::new(program);
        command.args(arguments).args(["-Xmx64m", "-cp"]).arg(classes).args(options);
        command.args(["Shares", "90", mode]);
        Program::start_ready(&mut command)
    }
}

/// Where the compiled fixture is.
fn classes() -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hotspot");
    let classes = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures/java");
    let _lock = support::locked("java-fixtures.lock");
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let newest = ["Shares.java", "Churned0000.java"].iter().filter_map(|name| modified(&sources.join(name)));
    if modified(&classes.join("Churned0000.class")) > newest.max() {
        return Ok(classes);
    }
    let output = Command::new("javac")
        .args(["--release", "11", "-g", "-d"])
        .arg(&classes)
        .args([sources.join("Shares.java"), sources.join("Churned0000.java")])
        .output()
        .map_err(|error| format!("javac: {error}"))?;
    if output.status.success() {
        Ok(classes)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The JDK, or a skipped test.
macro_rules! jdk {
    ($version:expr) => {{
        needs!("javac");
        match Jdk::find($version) {
            Ok(jdk) => jdk,
            Err(reason) => return support::skip(&reason),
        }
    }};
}

/// Whether a stack is of the fixture's worker: threads of the virtual machine begin in C++ and never call Java, the
/// main thread waits. What has no frame that tells is counted as the worker's.
fn is_worker(stack: &Stack) -> bool {
    let is_of_machine = stack.has("thread_native_entry") && !stack.has("JavaCalls::call_helper");
    !is_of_machine && !stack.has("JavaMain") && !stack.has("Shares.churn")
}

/// Java's part of a stack: the named methods of the fixture, root to leaf.
fn methods(stack: &Stack) -> Vec<&str> {
    let own = stack.frames.iter().map(|frame| support::folded::plain_name(&frame.name));
    own.filter_map(|name| name.strip_prefix("Shares.")).filter(|name| !name.starts_with("lambda$")).collect()
}

/// 60, 30 and 10 %, whole stacks, and nothing that the source does not say.
fn check_shares(folded: &Folded, what: &str, at_least: u64) {
    let samples = folded.count(is_worker);
    assert!(samples >= at_least, "{what}: only {samples} samples of the worker");
    let with_java = folded.count(|stack| is_worker(stack) && stack.has("Shares.serveRequests"));
    assert!(
        percent(with_java, samples) >= 98.0,
        "{what}: {with_java} of {samples} stacks have Java's frames; others:\n{}",
        folded.most_frequent(|stack| is_worker(stack) && !stack.has("Shares.serveRequests"), 8)
    );
    let burner_of = |stack: &Stack| BURNERS.iter().find(|(name, _)| stack.has(name)).map(|&(name, _)| name);
    let in_burners = folded.count(|stack| is_worker(stack) && burner_of(stack).is_some());
    assert!(
        percent(in_burners, samples) >= 90.0,
        "{what}: {in_burners} of {samples} in a burner; others:\n{}",
        folded.most_frequent(|stack| is_worker(stack) && burner_of(stack).is_none(), 8)
    );
    for (name, expected) in BURNERS {
        let share = percent(folded.count(|stack| is_worker(stack) && stack.has(name)), in_burners);
        assert!((share - expected).abs() <= 3.0, "{what}: {name} has {share:.1} %, {expected} % is right");
    }
    let paths = ["burnSixty", "burnThirty", "burnTen"]
        .map(|burner| ["serveRequests", "handleRequest", burner, "mix"].map(str::to_owned));
    let is_right = |stack: &Stack| {
        let methods = methods(stack);
        paths.iter().any(|path| !methods.is_empty() && methods.iter().eq(path.iter().take(methods.len())))
    };
    let wrong =
        folded.count(|stack| is_worker(stack) && stack.has("Shares.serveRequests") && !is_right(stack));
    assert_eq!(
        wrong,
        0,
        "{what}: not as the source has it:\n{}",
        folded.most_frequent(|stack| is_worker(stack) && !is_right(stack), 8)
    );
}

fn check(version: u32, options: &[&str]) {
    let jdk = jdk!(version);
    let _quiet = quiet_cores();
    let program = jdk.start(options, "shares");
    let recording = recording::record_pid(program.pid, seconds(4, 10));
    check_shares(&recording.folded(), &format!("JDK {version} {options:?}"), 250 * seconds(4, 10));
}

#[test]
fn jdk_11() {
    check(11, &[]);
}

#[test]
fn jdk_17() {
    check(17, &[]);
}

#[test]
fn jdk_21() {
    check(21, &[]);
}

#[test]
fn jdk_25() {
    check(25, &[]);
}

#[test]
fn interpreted_only() {
    for version in [11, 17, 21, 25] {
        check(version, &["-Xint"]);
    }
}

#[test]
fn compiled_by_c1_only() {
    for version in [11, 17, 21, 25] {
        check(version, &["-XX:TieredStopAtLevel=1"]);
    }
}

#[test]
fn inlined_by_c2_with_debug_information_everywhere() {
    for version in [11, 17, 21, 25] {
        check(version, &["-XX:+UnlockDiagnosticVMOptions", "-XX:+DebugNonSafepoints"]);
    }
}

#[test]
fn without_inlining_and_with_one_code_heap() {
    for version in [11, 17, 21, 25] {
        check(version, &["-XX:-Inline", "-XX:-SegmentedCodeCache"]);
    }
}

#[test]
fn c_and_stubs_stand_below_the_method_that_called_them() {
    for version in [11, 17, 21, 25] {
        let jdk = jdk!(version);
        let _quiet = quiet_cores();
        let program = jdk.start(&[], "native");
        let folded = recording::record_pid(program.pid, seconds(4, 10)).folded();
        let samples = folded.count(is_worker);
        let is_called =
            |stack: &Stack| is_worker(stack) && (stack.has("Shares.compress") || stack.has("Shares.digest"));
        let called = folded.count(is_called);
        assert!(
            percent(called, samples) >= 98.0,
            "JDK {}: {called} of {samples}; others:\n{}",
            jdk.version,
            folded.most_frequent(|stack| is_worker(stack) && !is_called(stack), 8)
        );
        let in_zlib = folded.count(|stack| {
            let at = |name: &str| stack.frames.iter().position(|frame| frame.is(name));
            let native = stack.frames.iter().rposition(|frame| {
                frame.kind == support::folded::Kind::Native
                    && (frame.name.contains("deflate") || frame.name.contains("libz"))
            });
            at("java.util.zip.Deflater.deflateBytesBytes") < native && at("Shares.compress").is_some()
        });
        assert!(
            in_zlib > samples / 20,
            "JDK {}: {in_zlib} of {samples} in zlib; there are:\n{}",
            jdk.version,
            folded.most_frequent(is_worker, 8)
        );
    }
}

#[test]
fn virtual_threads_to_the_end_of_their_carriers_stack() {
    for version in [21, 25] {
        let jdk = jdk!(version);
        let _quiet = quiet_cores();
        let program = jdk.start(&[], "virtual");
        let folded = recording::record_pid(program.pid, seconds(4, 10)).folded();
        let in_burners = folded.count(|stack| BURNERS.iter().any(|(name, _)| stack.has(name)));
        assert!(in_burners > 100 * seconds(4, 10), "JDK {version}: {}", folded.most_frequent(|_| true, 5));
        for (name, expected) in BURNERS {
            let share = percent(folded.inclusive(name), in_burners);
            assert!((share - expected).abs() <= 3.0, "JDK {version}: {name} has {share:.1} %");
        }
        let whole =
            folded.count(|stack| stack.has("Shares.serveVirtually") && stack.has("thread_native_entry"));
        assert!(
            percent(whole, in_burners) >= 95.0,
            "JDK {version}: {}",
            folded.most_frequent(|stack| !stack.has("thread_native_entry"), 5)
        );
    }
}

#[test]
fn names_are_right_or_refused_while_classes_come_and_go() {
    for version in [11, 17, 21, 25] {
        let jdk = jdk!(version);
        let _quiet = quiet_cores();
        let program = jdk.start(&["-XX:MaxMetaspaceSize=24m"], "churn");
        let folded = recording::record_pid(program.pid, seconds(5, 20)).folded();
        check_shares(&folded, &format!("JDK {version} with churn"), 50 * seconds(5, 20));
        // Every class does the same little work, once. A class that gets the samples of others was taken for them.
        let mut samples: BTreeMap<&str, u64> = BTreeMap::new();
        let mut wrong = 0;
        for stack in folded.stacks.iter().filter(|stack| stack.has("Shares.churn")) {
            let churned: Vec<&str> = stack
                .frames
                .iter()
                .filter_map(|frame| support::folded::plain_name(&frame.name).strip_prefix("Churned"))
                .filter_map(|name| name.split('.').next())
                .collect();
            let Some(first) = churned.first() else { continue };
            wrong += u64::from(churned.iter().any(|name| name != first));
            *samples.entry(first).or_default() += stack.count;
        }
        assert_eq!(wrong, 0, "JDK {version}: methods of two such classes on one stack");
        let all: u64 = samples.values().sum();
        let most = samples.values().max().copied().unwrap_or(0);
        assert!(samples.len() >= 5, "JDK {version}: {samples:?}");
        let mean = all / samples.len() as u64;
        assert!(
            most <= 6 * mean + 20,
            "JDK {version}: {most} samples of one class, {mean} of each: {samples:?}"
        );
    }
}
