//! The network namespaces of this host's processes, and how to be in one for a moment.
//!
//! The kernel's socket iterators list the sockets of the namespace of whoever makes them (`bpf_iter_init_seq_net`
//! in `fs/proc/proc_net.c`), so each namespace is to be asked by itself.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace.
#[derive(Debug)]
pub(super) struct NetworkNamespace {
    /// Its descriptor.
    pub(super) file: File,
    /// Its inode number, by which the kernel side names it.
    pub(super) inode: u64,
}

/// One for each namespace that a process is in, our own first. O(processes).
///
/// # Errors
/// If our own cannot be opened. Those of processes that end meanwhile are left out.
pub(super) fn of_all_processes() -> std::io::Result<Vec<NetworkNamespace>> {
    let own = File::open("/proc/self/ns/net")?;
    let own_inode = own.metadata()?.ino();
    let mut others = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = entry.path().join("ns/net");
        let Ok(inode) = std::fs::metadata(&path).map(|found| found.ino()) else { continue };
        if inode != own_inode
            && !others.contains_key(&inode)
            && let Ok(file) = File::open(&path)
        {
            others.insert(inode, NetworkNamespace { file, inode });
        }
    }
    let own = NetworkNamespace { file: own, inode: own_inode };
    Ok(std::iter::once(own).chain(others.into_values()).collect())
}

/// Does something in a namespace, on a thread of its own, since a thread that could not return would be in
/// the wrong one for ever.
///
/// # Errors
/// If it cannot be entered: that takes `CAP_SYS_ADMIN`. Else what `work` returns.
pub(super) fn within<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> std::io::Result<T> {
    let enter_and_work = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned());
        let failed = |_| Err(std::io::Error::other("the thread in the namespace has failed"));
        thread.spawn_scoped(scope, enter_and_work)?.join().unwrap_or_else(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_comes_first_and_each_once() {
        let namespaces = of_all_processes().expect("there is one");
        let own = std::fs::metadata("/proc/self/ns/net").expect("it is there").ino();
        assert_eq!(namespaces.first().map(|first| first.inode), Some(own));
        let mut inodes: Vec<u64> = namespaces.iter().map(|namespace| namespace.inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), namespaces.len());
    }
}
