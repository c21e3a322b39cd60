//! What a person calls a process, from facts that it does not hide.
//!
//! In this order, the first that there is:
//!
//! 1. what the process says itself: `service.name` of the process context that its SDK publishes (OTEP 4719),
//!    `OTEL_SERVICE_NAME`, or `service.name` in `OTEL_RESOURCE_ATTRIBUTES`;
//! 2. the systemd unit whose control group it is in (`/system.slice/shop.service` → `shop`), unless the unit
//!    is one that runs other people's programs (`ssh`, `cron`, a container engine) or lies outside of a
//!    container that the process is in;
//! 3. of a program that an interpreter runs, the script's, module's, jar's or main class's name
//!    (`python3 /srv/app.py` → `app.py`, `java -jar shop.jar` → `shop.jar`);
//! 4. the file name of the executable.
//!
//! Interpreters are known by the names of their executables. A command line that a process has overwritten
//! (`setproctitle`) or that gives the program as text (`-c`, `-e`) names no script.

use std::path::Path;

/// A name longer than this is cut: command lines have no limit worth the name.
const MAX_NAME_BYTES: usize = 200;

/// Units that run programs of others, which are known by names of their own.
const UNITS_OF_OTHERS: [&str; 9] =
    ["atd", "containerd", "cri-o", "cron", "crond", "docker", "podman", "ssh", "sshd"];

/// The systemd unit of a process, without `.service`, from the text of `/proc/PID/cgroup`.
pub(super) fn unit_of_cgroup(cgroup: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(cgroup).ok()?;
    // Of version 1 only systemd's own hierarchy has units.
    let path = text.lines().find_map(|line| {
        let (hierarchy, path) = line.split_once(':')?.1.split_once(':')?;
        (hierarchy.is_empty() || hierarchy == "name=systemd").then_some(path).filter(|path| path.len() > 1)
    })?;
    let mut unit = None;
    for component in path.split('/') {
        match component.strip_suffix(".service") {
            Some(name) => unit = Some(name),
            // What a session or a container has within, no unit outside of it describes.
            None if component.ends_with(".scope") => unit = None,
            None => {}
        }
    }
    let unit = unit?;
    let is_of_others =
        UNITS_OF_OTHERS.contains(&unit) || unit.starts_with("user@") || unit.starts_with("sshd@");
    (!unit.is_empty() && !is_of_others).then(|| cut(unit))
}

/// The script, module, jar or main class that an interpreter runs, from the text of `/proc/PID/cmdline`.
pub(super) fn program_of_interpreter(executable: &Path, command_line: &[u8]) -> Option<String> {
    let interpreter = Interpreter::of(&executable.file_name()?.to_string_lossy())?;
    let text = String::from_utf8_lossy(command_line);
    let mut arguments = text.strip_suffix('\0').unwrap_or(&text).split('\0').skip(1);
    let program = interpreter.program(&mut arguments)?;
    let name = program.trim_end_matches('/').rsplit('/').next().unwrap_or_default().trim();
    let is_readable = !name.is_empty() && !name.chars().any(char::is_control);
    is_readable.then(|| cut(name))
}

fn cut(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

/// How an interpreter's command line names what it runs.
struct Interpreter {
    /// Options whose value is the program (`-m`, `-jar`).
    program_options: &'static [&'static str],
    /// Options that carry the program as text, or make the interpreter do something else.
    text_options: &'static [&'static str],
    /// Options that have their value in the next argument.
    value_options: &'static [&'static str],
    /// Words before the program that are none themselves (`deno run app.ts`).
    commands: &'static [&'static str],
}

const PYTHON: Interpreter = Interpreter {
    program_options: &["-m"],
    text_options: &["-c"],
    value_options: &["-W", "-X", "--check-hash-based-pycs"],
    commands: &[],
};
const NODE: Interpreter = Interpreter {
    program_options: &[],
    text_options: &["-e", "--eval", "-p", "--print", "-pe"],
    value_options: &[
        "-r",
        "--require",
        "--import",
        "--loader",
        "--experimental-loader",
        "-C",
        "--conditions",
        "--title",
    ],
    commands: &["run"],
};
const JAVA: Interpreter = Interpreter {
    program_options: &["-jar", "-m", "--module"],
    text_options: &[],
    value_options: &[
        "-cp",
        "-classpath",
        "--class-path",
        "-p",
        "--module-path",
        "--upgrade-module-path",
        "--add-modules",
        "--add-opens",
        "--add-exports",
        "--add-reads",
        "--patch-module",
        "--enable-native-access",
        "--source",
    ],
    commands: &[],
};
const RUBY: Interpreter = Interpreter {
    program_options: &["-S"],
    text_options: &["-e"],
    value_options: &["-C", "-I", "-r", "-E"],
    commands: &[],
};
const PERL: Interpreter =
    Interpreter { program_options: &[], text_options: &["-e", "-E"], value_options: &["-I"], commands: &[] };
const PHP: Interpreter = Interpreter {
    program_options: &["-f"],
    text_options: &["-r", "-S"],
    value_options: &["-c", "-d", "-t", "-z"],
    commands: &[],
};
const SHELL: Interpreter = Interpreter {
    program_options: &[],
    text_options: &["-c", "-s"],
    value_options: &["-o", "-O"],
    commands: &[],
};

impl Interpreter {
    /// The interpreter that an executable of this file name is.
    fn of(file_name: &str) -> Option<Self> {
        let name = file_name.strip_suffix(" (deleted)").unwrap_or(file_name);
        let bare =
            name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.' || letter == '-');
        match bare {
            "python" | "pypy" => Some(PYTHON),
            "node" | "nodejs" | "deno" | "bun" => Some(NODE),
            "java" => Some(JAVA),
            "ruby" => Some(RUBY),
            "perl" => Some(PERL),
            "php" | "php-cgi" => Some(PHP),
            "bash" | "sh" | "dash" | "zsh" | "ksh" | "busybox" => Some(SHELL),
            // Free-threaded (`python3.13t`) and debug builds.
            _ if name.starts_with("python3") => Some(PYTHON),
            _ => None,
        }
    }

    fn program<'a>(&self, arguments: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
        while let Some(argument) = arguments.next() {
            let (name, joined) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (argument, None),
            };
            if self.program_options.contains(&name) {
                return joined.or_else(|| arguments.next());
            }
            if self.text_options.contains(&name) {
                return None;
            }
            if self.value_options.contains(&name) && joined.is_none() {
                arguments.next();
            } else if argument == "--" {
                return arguments.next();
            } else if !argument.starts_with(['-', '+']) && !self.commands.contains(&argument) {
                return Some(argument);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(executable: &str, arguments: &[&str]) -> Option<String> {
        let mut line = arguments.join("\0").into_bytes();
        line.push(0);
        program_of_interpreter(Path::new(executable), &line)
    }

    #[test]
    fn the_unit_of_a_service_is_its_name() {
        for (cgroup, unit) in [
            ("0::/system.slice/shop.service\n", Some("shop")),
            ("0::/system.slice/shop.service/payload\n", Some("shop")),
            (
                "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n",
                Some("postgresql@15-main"),
            ),
            ("12:cpu:/x\n1:name=systemd:/system.slice/shop.service\n0::/\n", Some("shop")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/player.service\n", Some("player")),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", None),
            ("0::/user.slice/user-1000.slice/user@1000.service\n", None),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            ("0::/system.slice/containerd.service/docker-0123.scope\n", None),
            ("0::/system.slice/cron.service\n", None),
            ("0::/.service\n", None),
            ("0::/\n", None),
            ("memory:/system.slice/shop.service", None),
            ("", None),
        ] {
            assert_eq!(unit_of_cgroup(cgroup.as_bytes()).as_deref(), unit, "{cgroup:?}");
        }
        assert_eq!(unit_of_cgroup(b"0::/\xff.service"), None);
    }

    #[test]
    fn scripts_modules_jars_and_classes_are_what_interpreters_run() {
        for (executable, arguments, name) in [
            ("/usr/bin/python3.11", &["python3", "-u", "/srv/app.py", "--port", "1"][..], Some("app.py")),
            ("/usr/bin/python3.13t", &["python", "-X", "dev", "-m", "http.server"], Some("http.server")),
            ("/usr/bin/python3.11", &["python3", "-c", "import this"], None),
            ("/usr/bin/python3.11", &["python3"], None),
            ("/usr/bin/python3.11", &["/usr/bin/python3", "/usr/bin/gunicorn", "shop:app"], Some("gunicorn")),
            ("/opt/jdk/bin/java", &["java", "-Xmx1g", "-jar", "/srv/shop-1.2.jar"], Some("shop-1.2.jar")),
            (
                "/opt/jdk/bin/java",
                &["java", "-cp", "a:b", "-Dx=y", "com.acme.Shop", "x"],
                Some("com.acme.Shop"),
            ),
            ("/opt/jdk/bin/java", &["java", "--add-opens=java.base/x=ALL", "Main"], Some("Main")),
            (
                "/usr/bin/node",
                &["node", "--max-old-space-size=4096", "-r", "./otel.js", "server.js"],
                Some("server.js"),
            ),
            ("/usr/bin/node", &["node", "-e", "1"], None),
            ("/usr/bin/deno", &["deno", "run", "--allow-net", "main.ts"], Some("main.ts")),
            ("/usr/bin/ruby3.1", &["ruby", "-I", "lib", "bin/puma"], Some("puma")),
            ("/usr/bin/perl", &["perl", "-w", "job.pl"], Some("job.pl")),
            ("/usr/bin/bash", &["bash", "-eu", "/srv/run.sh"], Some("run.sh")),
            ("/usr/bin/bash", &["bash", "-c", "x"], None),
            ("/usr/bin/python3 (deleted)", &["python3", "app.py"], Some("app.py")),
            ("/usr/bin/python3", &["python3", "--", "-odd.py"], Some("-odd.py")),
            ("/usr/sbin/nginx", &["nginx", "app.py"], None),
            ("/usr/bin/python3", &["python3", "/"], None),
            ("/usr/bin/python3", &["python3", "a\nb"], None),
        ] {
            assert_eq!(program(executable, arguments).as_deref(), name, "{executable} {arguments:?}");
        }
    }

    #[test]
    fn endless_names_are_cut_at_a_letter() {
        let long = format!("{}.py", "ä".repeat(500));
        let name = program("/usr/bin/python3", &["python3", &long]).expect("a name");
        assert!(name.len() <= MAX_NAME_BYTES && name.starts_with('ä'));
        assert_eq!(program_of_interpreter(Path::new("/usr/bin/python3"), b""), None);
        assert_eq!(program_of_interpreter(Path::new(""), b"x\0y\0"), None);
    }
}
