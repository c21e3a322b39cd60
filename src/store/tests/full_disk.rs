//! A disk that is full, and then is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::canonical::canonical;
use super::round_trip::all_of;
use super::synthetic::{Host, window};
use super::{MIDNIGHT_NS, open};
use crate::model::Profile;
use crate::store::{StoreError, WindowStore};

const HOST: Host =
    Host { services: 8, threads_each: 4, samples: 40, functions: 1 << 24, depth: 12, long_names: 200 };

/// A small file system in memory, which goes with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self, String> {
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| format!("mount cannot be run: {error}"))?;
        if output.status.success() {
            Ok(Self(at.to_owned()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_windows_as_a_whole_and_takes_them_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let _disk = match SmallDisk::mount(folder.path()) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("skipped: no small disk can be mounted: {reason}"),
    };
    let ballast = folder.path().join("ballast");
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    let store = open(&folder.path().join("store"));
    let mut written: Vec<Profile> = Vec::new();
    let mut failures = 0;
    for number in 0..400 {
        let window = window(HOST, number);
        match store.write_window(&window) {
            Ok(()) => written.push(window),
            Err(StoreError::DiskFull { .. }) => failures += 1,
            Err(error) => panic!("window {number}: {error}"),
        }
        if failures == 3 {
            break;
        }
    }
    assert_eq!(failures, 3, "{:?}", store.statistics());
    let full = store.statistics();
    assert_eq!((full.windows_failed, full.windows), (3, written.len() as u64));
    assert!(full.last_write_error.unwrap().contains("disk is full"));
    let look_at = |windows: &[Profile]| {
        for window in windows {
            let answer = store.profile(&all_of(window, "cpu")).unwrap();
            assert!(canonical(&answer.profile) == canonical(window));
        }
    };
    look_at(&written);

    fs::remove_file(&ballast).unwrap();
    for number in 1000..1004 {
        let window = window(HOST, number);
        store.write_window(&window).unwrap();
        written.push(window);
    }
    look_at(&written);
    let recovered = store.statistics();
    assert_eq!((recovered.windows, recovered.last_write_error), (written.len() as u64, None));
    assert_eq!(recovered.set_aside, []);
    assert_eq!(recovered.oldest_unix_ns, MIDNIGHT_NS);
}
