//! `spanflame doctor` as its users see it: as root, as nobody, for a process, and for one that is gone.
//! Oracles are the kernel's own files and file descriptors, `readelf`, and `stat`.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

type TestResult = Result<(), Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_spanflame");

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn doctor(arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(BINARY).arg("doctor").args(arguments).output()?)
}

fn json(output: &Output) -> Result<Value, Box<dyn Error>> {
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn ability<'report>(report: &'report Value, name: &str) -> Result<&'report Value, Box<dyn Error>> {
    report["abilities"]
        .as_array()
        .and_then(|abilities| abilities.iter().find(|ability| ability["name"] == name))
        .ok_or_else(|| format!("no ability {name} in {report}").into())
}

/// A copy that another user can reach: the build folder may lie below a closed home.
fn copy_for_everyone(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let copy = folder.join("spanflame");
    copy_program(BINARY, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// Ends a child, by its own id, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `spawn()` returns once the child executes the program; its loader maps libraries after that.
fn wait_until_mapped(child: &Running, library: &str) -> TestResult {
    let path = format!("/proc/{}/maps", child.0.id());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fs::read_to_string(&path)?.lines().any(|line| line.contains(" r-xp ") && line.contains(library)) {
        if Instant::now() > deadline {
            return Err(format!("{library} is not mapped: {}", fs::read_to_string(&path)?).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// By another process: a child of a test beside this one could inherit our descriptor, and the kernel
/// runs no file that is open for writing.
fn copy_program(from: &str, to: &Path) -> std::io::Result<()> {
    let status = Command::new("cp").arg(from).arg(to).status()?;
    status.success().then_some(()).ok_or_else(|| std::io::Error::other(format!("cp {from}")))
}

#[test]
fn report_has_every_key_of_the_interface_and_agrees_with_its_summary_and_exit_code() -> TestResult {
    let output = doctor(&["--json"])?;
    let report = json(&output)?;
    assert_eq!(report["kernel"], fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    let abilities = report["abilities"].as_array().ok_or("abilities is an array")?;
    let mut counts = [0_u64; 3];
    let mut obstacles = Vec::new();
    for ability in abilities {
        for key in ["name", "detail", "cost", "remedy"] {
            assert!(ability[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {ability}");
        }
        match ability["state"].as_str() {
            Some("present") => counts[0] += 1,
            Some("missing") => counts[1] += 1,
            Some("unknown") => counts[2] += 1,
            other => return Err(format!("state {other:?}").into()),
        }
        if ability["required"] == true && ability["state"] == "missing" {
            obstacles.push(ability["name"].clone());
        }
    }
    let summary = &report["summary"];
    assert_eq!(summary["present"], counts[0]);
    assert_eq!(summary["missing"], counts[1]);
    assert_eq!(summary["unknown"], counts[2]);
    assert_eq!(summary["obstacles"], Value::Array(obstacles.clone()));
    assert_eq!(summary["can_record"], obstacles.is_empty());
    assert_eq!(output.status.code(), Some(i32::from(!obstacles.is_empty())));
    Ok(())
}

#[test]
fn answers_agree_with_what_the_kernel_shows_elsewhere() -> TestResult {
    let report = json(&doctor(&["--json"])?)?;
    let is_present = |name: &str| Ok::<_, Box<dyn Error>>(ability(&report, name)?["state"] == "present");
    assert_eq!(is_present("btf")?, fs::File::open("/sys/kernel/btf/vmlinux").is_ok());
    if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        assert!(!is_present("kprobes")?, "no kprobes without their event source");
    }
    if !Path::new("/sys/bus/event_source/devices/cpu").exists() && cfg!(target_arch = "x86_64") {
        assert!(!is_present("hardware_cycles")?, "no cycles without a PMU");
    }
    let mounts = fs::read_to_string("/proc/mounts")?;
    assert_eq!(is_present("cgroup2")?, mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")));
    let capabilities = fs::read_to_string("/proc/self/status")?;
    let effective = capabilities
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or("no CapEff")?;
    assert_eq!(is_present("cap_sys_ptrace")?, effective >> 19 & 1 == 1);
    for setting in report["settings"].as_array().ok_or("settings is an array")? {
        if setting["name"] == "kernel.perf_event_paranoid" {
            let value = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
            assert_eq!(setting["value"], value.trim());
        }
    }
    Ok(())
}

#[test]
fn table_names_what_is_missing_with_cost_and_remedy() -> TestResult {
    let report = json(&doctor(&["--json"])?)?;
    let text = String::from_utf8(doctor(&[])?.stdout)?;
    for ability in report["abilities"].as_array().ok_or("abilities is an array")? {
        let name = ability["name"].as_str().unwrap_or_default();
        let line = text.lines().find(|line| line.split_whitespace().any(|word| word == name));
        let line = line.ok_or_else(|| format!("{name} is not in the table"))?;
        assert!(line.starts_with(ability["state"].as_str().unwrap_or("?")), "{line}");
        if ability["state"] != "present" {
            assert!(text.contains(ability["cost"].as_str().unwrap_or("?")), "cost of {name}");
            assert!(text.contains(ability["remedy"].as_str().unwrap_or("?")), "remedy of {name}");
        }
    }
    Ok(())
}

#[test]
fn nobody_gets_a_whole_report_that_says_what_is_not_permitted_and_exit_code_1() -> TestResult {
    if !is_root() {
        println!("skipped: only root can become nobody");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let copy = copy_for_everyone(folder.path())?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy)
        .args(["doctor", "--json"])
        .output()?;
    let report = json(&output)?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["user_id"], 65534);
    assert_eq!(report["summary"]["can_record"], false);
    assert_eq!(ability(&report, "bpf_load")?["state"], "missing");
    assert_eq!(ability(&report, "cap_bpf")?["state"], "missing");
    // libbpf's probe for a helper answers "supported" to a user who may not ask.
    assert_eq!(ability(&report, "bpf_loop")?["state"], "unknown");
    assert_eq!(ability(&report, "ring_buffer")?["state"], "unknown");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("bpf_load"), "{message}");
    assert!(!message.contains("libbpf"), "refused attempts are no noise: {message}");
    Ok(())
}

#[test]
fn a_process_shows_its_objects_with_build_ids_and_rows() -> TestResult {
    let child = Running(Command::new("sleep").arg("60").stdout(Stdio::null()).spawn()?);
    let pid = child.0.id().to_string();
    wait_until_mapped(&child, "libc.")?;
    let report = json(&doctor(&["--json", "--pid", &pid])?)?;
    let process = &report["process"];
    assert_eq!(process["command"], "sleep");
    let executable = fs::read_link(format!("/proc/{pid}/exe"))?;
    assert_eq!(process["executable"], executable.to_str().unwrap_or_default());
    let objects = process["objects"].as_array().ok_or("objects is an array")?;
    let object = |path: &str| {
        objects.iter().find(|object| object["path"].as_str().is_some_and(|found| found.contains(path)))
    };

    let own = object(executable.to_str().unwrap_or("?")).ok_or("the executable is among the objects")?;
    let notes = Command::new("readelf").arg("--notes").arg(&executable).output()?;
    let notes = String::from_utf8_lossy(&notes.stdout).into_owned();
    let build_id = notes
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "))
        .ok_or("readelf shows no build id")?;
    assert_eq!(own["build_id"], build_id.trim());
    assert!(own["unwind"]["rows"].as_u64().is_some_and(|rows| rows > 10), "{own}");
    assert_eq!(own["unwind"]["sources"][0], ".eh_frame");

    let libc = object("libc.so").or_else(|| object("libc-")).ok_or("libc is among the objects")?;
    assert!(libc["unwind"]["rows"].as_u64().is_some_and(|rows| rows > 1000), "{libc}");
    assert!(libc["symbols"].as_array().is_some_and(|sources| sources.contains(&"dynsym".into())), "{libc}");
    if is_root() {
        let vdso = object("[vdso]").ok_or("the vDSO is among the objects")?;
        assert!(vdso["unwind"]["rows"].as_u64().is_some_and(|rows| rows > 0), "{vdso}");
    }
    Ok(())
}

#[test]
fn the_deleted_executable_of_a_process_is_still_read() -> TestResult {
    if !is_root() {
        println!("skipped: a deleted executable can only be opened through map_files, which needs root");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("sleeper");
    copy_program("/usr/bin/sleep", &copy)?;
    let child = Running(Command::new(&copy).arg("60").spawn()?);
    fs::remove_file(&copy)?;
    let report = json(&doctor(&["--json", "--pid", &child.0.id().to_string()])?)?;
    let objects = report["process"]["objects"].as_array().ok_or("objects is an array")?;
    let deleted = objects
        .iter()
        .find(|object| object["path"].as_str().is_some_and(|path| path.contains("sleeper")))
        .ok_or("the deleted executable is among the objects")?;
    assert!(deleted["build_id"].is_string() && deleted["unwind"]["rows"].as_u64() > Some(10), "{deleted}");
    Ok(())
}

#[test]
fn another_users_process_is_reported_as_hidden_with_the_reason() -> TestResult {
    if !is_root() {
        println!("skipped: only root can become nobody");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let copy = copy_for_everyone(folder.path())?;
    let child = Running(Command::new("sleep").arg("60").spawn()?);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy)
        .args(["doctor", "--json", "--pid", &child.0.id().to_string()])
        .output()?;
    let process = json(&output)?["process"].take();
    assert!(
        process["reason"].as_str().is_some_and(|reason| reason.contains("Permission denied")),
        "{process}"
    );
    assert_eq!(process["objects"].as_array().map(Vec::len), Some(0));
    Ok(())
}

#[test]
fn a_process_that_does_not_exist_is_a_usage_error_and_nothing_is_printed() -> TestResult {
    let mut child = Command::new("true").spawn()?;
    let pid = child.id().to_string();
    child.wait()?;
    let output = doctor(&["--pid", &pid])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&pid));
    for wrong in ["0", "-1", "x", "99999999999"] {
        let output = doctor(&[&format!("--pid={wrong}")])?;
        assert_eq!(output.status.code(), Some(2), "--pid={wrong}");
    }
    Ok(())
}

#[test]
fn a_full_disk_on_standard_output_is_exit_code_5() -> TestResult {
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let status = Command::new(BINARY).arg("doctor").stdout(full).stderr(Stdio::null()).status()?;
    assert_eq!(status.code(), Some(5));
    Ok(())
}
