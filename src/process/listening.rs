//! The TCP ports that processes listen on.
//!
//! A process's descriptors say which sockets it holds (`/proc/PID/fd/N` → `socket:[INODE]`); the tables of
//! its network namespace (`/proc/PID/net/tcp` and `tcp6`) say which of them listen. The tables are read once
//! for each namespace. Columns of a line (`Documentation/networking/proc_net_tcp.rst`): number, local address
//! as `HEX:PORT`, remote address, state (`0A` listens), …, inode in the tenth.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Tables beyond this are cut: some 450,000 sockets.
const MAX_TABLE_BYTES: u64 = 64 << 20;
/// The state of a listening socket, `TCP_LISTEN` of `include/net/tcp_states.h`.
const LISTENS: &str = "0A";

/// Finds listening ports; keeps the tables of namespaces that it has read, so it is made for one survey.
#[derive(Debug, Default)]
pub struct ListeningPorts {
    namespaces: HashMap<PathBuf, HashMap<u64, u16>>,
}

impl ListeningPorts {
    /// The ports that `pid` listens on; none where that may not be read. O(descriptors of the process).
    pub fn of(&mut self, pid: u32) -> BTreeSet<u16> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let Ok(namespace) = std::fs::read_link(folder.join("ns/net")) else { return BTreeSet::new() };
        let ports = self.namespaces.entry(namespace).or_insert_with(|| read_tables(&folder));
        if ports.is_empty() {
            return BTreeSet::new();
        }
        std::fs::read_dir(folder.join("fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|target| ports.get(&inode_of_socket(&target)?).copied())
            .collect()
    }
}

fn inode_of_socket(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn read_tables(folder: &Path) -> HashMap<u64, u16> {
    let mut ports = HashMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let mut text = String::new();
        if let Ok(file) = std::fs::File::open(folder.join(table)) {
            // What had been read until an error is as good as any other moment.
            let _ = std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TABLE_BYTES), &mut text);
        }
        ports.extend(text.lines().skip(1).filter_map(listening_socket));
    }
    ports
}

/// Inode and port of a line, if that socket listens.
fn listening_socket(line: &str) -> Option<(u64, u16)> {
    let mut columns = line.split_ascii_whitespace();
    let local = columns.nth(1)?;
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?.parse().ok()?;
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTENS).then_some((inode, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_and_other_states_are_passed_over() {
        let listens = "   1: 0100007F:4A92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000 100 0 0 10 0";
        assert_eq!(listening_socket(listens), Some((12345, 19090)));
        assert_eq!(listening_socket(&listens.replace(" 0A ", " 01 ")), None);
        let of_ipv6 = "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 77 1 0 100 0 0 10 0";
        assert_eq!(listening_socket(of_ipv6), Some((77, 22)));
        for length in 0..60 {
            assert_eq!(listening_socket(&listens[..length]), None);
        }
    }

    #[test]
    fn this_process_is_found_with_its_listeners_of_both_families() {
        let four = TcpListener::bind("127.0.0.1:0").expect("a port");
        let six = TcpListener::bind("[::1]:0");
        let ports = ListeningPorts::default().of(std::process::id());
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        assert!(ports.contains(&port(&four)), "{ports:?}");
        if let Ok(six) = &six {
            assert!(ports.contains(&port(six)), "{ports:?}");
        }
        drop(four);
        assert!(ListeningPorts::default().of(0).is_empty());
    }
}
