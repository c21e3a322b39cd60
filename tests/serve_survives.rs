//! What happens to a server that people leave running: it is killed, its disk fills up, its clock is set
//! back. What was kept stays, what is lost is counted, and it goes on by itself.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use support::program::{Program, fixture_command};
use support::server::{Request, Server};
use support::{await_event, seconds};

/// Fast sampling, so that there is much to lose.
const FAST: &str = "agent: {profiling: {sample_rate: 199}}\n";

/// All samples that the server knows of.
fn samples(server: &Server) -> u64 {
    let services = server.get("/api/v1/services?from=-1h").expect(200).json();
    let services = services["services"].as_array().expect("a list").clone();
    services.iter().map(|service| service["samples"].as_u64().expect("a number")).sum()
}

/// A number without pattern, for moments.
fn any_number() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::from(now.subsec_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}

#[test]
fn a_server_that_is_killed_twenty_times_loses_at_most_its_open_window() {
    needs!();
    let _load = Program::start_ready(&mut fixture_command(&["shares", "600", "1"]));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let data = folder.path().join("data");
    let mut kept = 0;
    for round in 0..seconds(20, 60) {
        let server = Server::start_on(&data, FAST);
        let before = samples(&server);
        assert!(before >= kept, "round {round}: {kept} samples were kept and {before} are left");
        // Windows are written as fast as they can be while the moment to die comes.
        let stored = AtomicU64::new(before);
        let (address, moment) = (server.address, Duration::from_millis(50 + any_number() % 700));
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| {
                while let Ok(flushed) = Request::post("/admin/flush", "").send(address) {
                    assert_eq!(flushed.status, 200, "{}", flushed.text());
                    let Ok(services) = Request::get("/api/v1/services?from=-1h").send(address) else {
                        return;
                    };
                    let services = services.json();
                    let services = services["services"].as_array().expect("a list").clone();
                    let sum = services.iter().filter_map(|service| service["samples"].as_u64()).sum();
                    stored.fetch_max(sum, Ordering::Relaxed);
                }
            });
            std::thread::sleep(moment);
            assert!(!server.log().contains("broken"), "round {round}: {}", server.log());
            server.kill();
            flushing.join().expect("it ends with the server");
        });
        kept = stored.into_inner();
    }
    let server = Server::start_on(&data, FAST);
    assert!(samples(&server) >= kept && kept > 0, "{kept} samples were kept");
    let set_aside: Vec<_> = std::fs::read_dir(&data)
        .expect("the data folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("broken"))
        .collect();
    assert!(set_aside.is_empty(), "{set_aside:?}");
}

/// A small file system of its own.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The value of a metric, summed over its labels.
fn metric(server: &Server, name: &str, wanted_labels: &str) -> f64 {
    let page = server.get("/metrics").expect(200).text();
    page.lines()
        .filter(|line| line.starts_with(name) && line.contains(wanted_labels))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_full_disk_is_counted_and_the_server_goes_on_and_recovers_by_itself() {
    needs!();
    let Some(disk) = SmallDisk::mount(6) else {
        return support::skip("a file system cannot be mounted here");
    };
    let _load = Program::start_ready(&mut fixture_command(&["shares", "600", "1"]));
    let server = Server::start_on(&disk.path().join("data"), FAST);
    server.post("/admin/flush", "").expect(200);
    let kept = samples(&server);
    let filler = disk.path().join("filler");
    // Until not a byte goes any more.
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", &format!("of={}", filler.display())])
        .stderr(std::process::Stdio::null())
        .status();
    await_event("a window that cannot be kept", Duration::from_secs(30), || {
        let flushed = server.post("/admin/flush", "");
        assert!([200, 503].contains(&flushed.status), "{}", flushed.text());
        (flushed.status == 503 && metric(&server, "spanflame_losses_total", "stage=\"store\"") > 0.0)
            .then_some(())
    });
    assert_eq!(server.get("/healthz").status, 200);
    assert!(samples(&server) >= kept, "what was kept is still there");
    std::fs::remove_file(&filler).expect("it is ours");
    let begin = Instant::now();
    await_event("windows that are kept again", Duration::from_secs(60), || {
        let flushed = server.post("/admin/flush", "");
        (flushed.status == 200 && samples(&server) > kept).then_some(())
    });
    assert!(begin.elapsed() < Duration::from_secs(60));
}
