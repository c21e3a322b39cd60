//! A user profiles Debian's programs under load, as they are shipped, without frame pointers: at
//! least 99.5 % of the user stacks are complete.

mod support;

use std::process::{Command, Stdio};

use support::folded::percent;
use support::program::{Program, children_of, command_line};
use support::{quiet_cores, recording, seconds, servers, skip};

/// Records the processes and looks at the executable with this file name.
fn assert_complete(pids: &[u32], file_name: &str) {
    let recording = recording::record_pids(pids, seconds(4, 10));
    let stats = recording.stats();
    let (samples, complete) = stats.of_executable(file_name);
    assert!(
        samples >= 200,
        "{samples} samples in {file_name} say nothing about its stacks: {:?}",
        stats.executables
    );
    let share = percent(complete, samples);
    // The figure is worth reading when all is well, too (`cargo test -- --nocapture`).
    println!("{file_name}: {complete} of {samples} complete, {share:.2} %; {:?}", stats.stacks.incomplete);
    // Stripped programs have no `_start`: their outermost frame is an address of their own.
    let own = format!("[{file_name}+");
    let reaches_a_root = |frame: &support::folded::Frame| {
        ["_start", "clone", "start_thread", own.as_str()].iter().any(|root| frame.name.contains(root))
    };
    let broken =
        recording.folded().most_frequent(|stack| !stack.called().next().is_some_and(reaches_a_root), 8);
    assert!(
        share >= 99.5,
        "{file_name}: {complete} of {samples} stacks are complete, {share:.2} %; incomplete: {:?}\n{broken}",
        stats.stacks.incomplete
    );
}

/// Starts a program with no input and nowhere to write.
fn start(command: &mut Command) -> Program {
    Program::start(command.stderr(Stdio::null()))
}

/// What a process has used of CPU time in its own code, in ticks of 10 ms.
fn user_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    // utime is the 14th field of proc(5)'s stat, the 12th after the name.
    rest.split_whitespace().nth(11)?.parse().ok()
}

/// Waits until a process has used some CPU time, so that it is past its start.
fn await_work(pid: u32) {
    support::await_event("the program works", std::time::Duration::from_secs(20), || {
        user_ticks(pid).filter(|ticks| *ticks >= 20)
    });
}

#[test]
fn redis_under_redis_benchmark() {
    needs!("redis-server", "redis-benchmark");
    let _quiet = quiet_cores();
    let server = servers::redis();
    let _load = servers::redis_load(&server);
    await_work(server.program.pid);
    // Debian's redis-server is a link to redis-check-rdb, which is what is mapped.
    let executable = std::fs::read_link(format!("/proc/{}/exe", server.program.pid)).expect("it runs");
    let file_name = executable.file_name().and_then(std::ffi::OsStr::to_str).expect("a name");
    assert_complete(&[server.program.pid], file_name);
}

#[test]
fn nginx_under_wrk() {
    needs!("nginx", "wrk");
    let _quiet = quiet_cores();
    let server = servers::nginx();
    let _load = servers::nginx_load(&server);
    let workers = support::program::children_of(server.program.pid);
    assert_eq!(workers.len(), 2, "two workers");
    workers.iter().for_each(|&pid| await_work(pid));
    assert_complete(&workers, "nginx");
}

#[test]
fn postgresql_under_pgbench() {
    needs!("setpriv");
    let Some(programs) = servers::postgres_programs() else {
        return skip("PostgreSQL is not installed");
    };
    let _quiet = quiet_cores();
    let server = servers::postgres(&programs);
    let (_load, backends) = servers::postgres_load(&programs, &server);
    await_work(backends[0]);
    assert_complete(&backends, "postgres");
}

/// The path of gcc's compiler proper.
fn cc1() -> Option<String> {
    let output = Command::new("gcc").arg("-print-prog-name=cc1").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    path.starts_with('/').then_some(path)
}

#[test]
fn cc1_compiling_a_large_file() {
    needs!("gcc");
    let Some(cc1) = cc1() else { return skip("gcc has no cc1") };
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = directory.path().join("large.c");
    let mut text = String::new();
    for number in 0..4000 {
        use std::fmt::Write;
        let _ = writeln!(
            text,
            "double f{number}(double *v, int n) {{ double s = {number}; for (int i = 0; i < n; i++) {{ \
             if (v[i] > s) s += v[i] * {number}.5; else v[i] -= s / (i + 1); switch (i % 7) {{ case 0: s *= 2; break; \
             case 3: s -= v[n - i - 1]; break; default: s += i; }} }} return s; }}"
        );
    }
    std::fs::write(&source, text).expect("it is ours");
    let compiler = start(Command::new(&cc1).args(["-quiet", "-O2", "-o", "/dev/null"]).arg(&source));
    await_work(compiler.pid);
    assert_complete(&[compiler.pid], "cc1");
}

#[test]
fn xz_compressing() {
    needs!("xz");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    // Some of this test's own machine code, again and again, xored so that it does not repeat.
    let own = std::fs::read(std::env::current_exe().expect("a path")).expect("it can be read");
    let mut bytes = Vec::new();
    for key in 1u8..12 {
        bytes.extend(own.iter().take(6 << 20).map(|byte| byte ^ key));
    }
    std::fs::write(&data, bytes).expect("it is ours");
    let program = start(Command::new("xz").args(["-9e", "-T1", "--keep", "--stdout"]).arg(&data));
    await_work(program.pid);
    assert_complete(&[program.pid], "xz");
}

#[test]
fn python3_native_frames() {
    // Debian's, which is optimised and stripped; others in PATH are somebody's own build.
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return skip("/usr/bin/python3 is not installed");
    }
    needs!();
    let _quiet = quiet_cores();
    let script = "import json, re, time\n\
                  end = time.monotonic() + 60\n\
                  while time.monotonic() < end:\n    \
                      rows = [{'n': i, 't': 'x' * (i % 50)} for i in range(300)]\n    \
                      text = json.dumps(sorted(rows, key=lambda row: row['t']), indent=1)\n    \
                      sum(len(word) for word in re.findall(r'[a-z]+', text)); json.loads(text)\n";
    let program = start(Command::new("/usr/bin/python3").args(["-c", script]));
    await_work(program.pid);
    let executable = std::fs::read_link(format!("/proc/{}/exe", program.pid)).expect("it runs");
    assert_complete(
        &[program.pid],
        executable.file_name().and_then(std::ffi::OsStr::to_str).expect("a name"),
    );
}

#[test]
fn openssl_speed() {
    needs!("openssl");
    let _quiet = quiet_cores();
    for algorithm in ["rsa2048", "sha256", "aes-256-gcm", "ed25519"] {
        let mut command = Command::new("openssl");
        command.args(["speed", "-seconds", "10"]);
        // Ciphers through their provider, as programs use them.
        if algorithm == "aes-256-gcm" {
            command.arg("-evp");
        }
        let program = start(command.arg(algorithm));
        await_work(program.pid);
        assert_complete(&[program.pid], "openssl");
    }
}

/// The processes that draw pages: below the browser, as children of the process that forks such.
fn renderers_of(pid: u32) -> Vec<u32> {
    let below = children_of(pid).into_iter();
    below
        .flat_map(|child| {
            if command_line(child).contains("--type=renderer") { vec![child] } else { renderers_of(child) }
        })
        .collect()
}

#[test]
fn chromium_laying_out_a_page_by_its_frame_pointers() {
    // Debian's, and its executable proper: /usr/bin/chromium is a shell script.
    const CHROMIUM: &str = "/usr/lib/chromium/chromium";
    if !std::path::Path::new(CHROMIUM).exists() {
        return skip("Debian's chromium is not installed");
    }
    needs!();
    let _quiet = quiet_cores();
    let folder = tempfile::tempdir().expect("a folder");
    let page = "data:text/html,<body><script>let n=0;setInterval(()=>{let h='';\
                for(let i=0;i<3000;i++)h+='<p>word '+(n++)+'</p>';\
                document.body.innerHTML=h;document.body.offsetHeight;},0)</script>";
    let program = start(
        Command::new(CHROMIUM)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .args(["--remote-debugging-port=0", page]),
    );
    // One waits for a page to come. That of ours is past its start after a second of work.
    let renderer = support::await_event("Chromium draws", std::time::Duration::from_secs(60), || {
        renderers_of(program.pid).into_iter().find(|pid| user_ticks(*pid).is_some_and(|ticks| ticks >= 100))
    });
    assert_complete(&[renderer], "chromium");
}
