//! The socket part of `bpf/spanflame.h` in Rust, from the BTF of the compiled socket programs.

use std::mem::{offset_of, size_of};

use libbpf_rs::MapHandle;

use super::KernelError;
use super::abi::Plain;
use super::bpf_object::sum_counter;
use crate::model::socket::Moved;

/// The socket programs, as an ELF object.
pub(super) static SOCKET_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/socket.bpf.o"));

/// The programs at places in Go programs, as an ELF object.
pub(super) static GO_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/go.bpf.o"));

/// The programs at crypto/tls of Go programs, as an ELF object.
pub(super) static GO_TLS_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/go_tls.bpf.o"));

#[allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, dead_code, missing_docs)]
#[allow(non_camel_case_types, non_snake_case, unused_imports)]
#[rustfmt::skip]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/socket.skel.rs"));
}

pub(super) use skeleton::types::{
    sf_capture, sf_data_flag, sf_direction, sf_ending, sf_endpoint, sf_event_loop, sf_go_counter,
    sf_go_process, sf_header_counter, sf_outgoing_context, sf_propagation, sf_publishing, sf_role,
    sf_socket_amended, sf_socket_config, sf_socket_counter, sf_socket_data, sf_socket_ended, sf_socket_event,
    sf_socket_event_type, sf_socket_new_code, sf_socket_opened, sf_socket_shut_down, sf_socket_stream,
    sf_tls_counter, sf_tls_function,
};

/// Of a process: where its goroutines begin that work for who began them.
pub(super) use skeleton::types::sf_go_code as GoCode;

/// Set in the numbers of UNIX sockets; `SF_CONNECTION_UNIX`.
pub(super) const CONNECTION_UNIX: u64 = 1 << 63;

/// The network namespace of a connection, out of its value in the map `connections`.
pub(super) fn network_namespace_of(connection: &[u8]) -> Option<u32> {
    let begin = offset_of!(skeleton::types::sf_connection, network_namespace);
    connection.get(begin..begin + size_of::<u32>())?.try_into().ok().map(u32::from_ne_bytes)
}

/// The connection of a value of the map `tls_pairs`, its first member (`struct sf_tls_pair`).
pub(super) fn connection_of_tls_pair(pair: &[u8]) -> Option<[u8; 8]> {
    pair.first_chunk().copied()
}

/// The process of a key of the map `go_reads` (`struct sf_goroutine_key`).
pub(super) fn process_of_goroutine(key: &[u8]) -> Option<u32> {
    key.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Says in its value that a connection's socket is in the map of those that take headers.
#[cfg(test)]
pub(super) fn take_headers(connection: &mut [u8]) {
    let begin = offset_of!(skeleton::types::sf_connection, takes_headers);
    connection[begin..begin + size_of::<u16>()].copy_from_slice(&1_u16.to_ne_bytes());
}

/// What it has moved, out of the same.
pub(super) fn moved_over(connection: &[u8]) -> Option<Moved> {
    let words = |begin: usize| {
        let word =
            |at: usize| connection.get(at..at + size_of::<u64>())?.try_into().ok().map(u64::from_ne_bytes);
        Some((word(begin)?, word(begin + size_of::<u64>())?))
    };
    let flag = offset_of!(skeleton::types::sf_connection, is_decrypted);
    let flag = connection.get(flag..flag + size_of::<u32>())?;
    let is_decrypted = flag.iter().any(|&byte| byte != 0);
    let (in_bytes, out_bytes) = words(match is_decrypted {
        true => offset_of!(skeleton::types::sf_connection, plain_position),
        false => offset_of!(skeleton::types::sf_connection, position),
    })?;
    Some(Moved { is_decrypted, in_bytes, out_bytes })
}

/// The programs on TLS libraries, as an ELF object.
pub(super) static TLS_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tls.bpf.o"));

/// Scratches of the programs on TLS libraries beyond one a CPU; `SF_SPARE_SCRATCHES`.
pub(super) const SPARE_SCRATCHES: u32 = 4;

/// Words of the map `excluded_ports`: one bit a port.
pub(super) const PORT_WORDS: usize = (1 << 16) / 64;

// SAFETY: integers only; the assert below shows that no padding lies between or behind them.
unsafe impl Plain for sf_socket_config {}
// SAFETY: as above.
unsafe impl Plain for sf_go_process {}
// SAFETY: as above.
unsafe impl Plain for GoCode {}
// SAFETY: as above.
unsafe impl Plain for sf_propagation {}
// SAFETY: as above.
unsafe impl Plain for sf_outgoing_context {}
// SAFETY: as above.
unsafe impl Plain for sf_publishing {}

const _: () = {
    assert!(size_of::<sf_socket_config>() == 16);
    assert!(size_of::<sf_go_process>() == 64);
    assert!(size_of::<GoCode>() == 16 * 160);
    assert!(size_of::<sf_propagation>() == 16);
    assert!(size_of::<sf_outgoing_context>() == 40);
    assert!(size_of::<sf_publishing>() == 8);
    // What an event is sent with begins where its fixed part ends.
    assert!(offset_of!(sf_socket_data, bytes) == 128);
    assert!(size_of::<sf_socket_event>() == 40);
};

/// The counters of the programs for Go, in the order of `enum sf_go_counter`, summed over CPUs.
pub(super) fn go_counters(
    map: &MapHandle,
) -> Result<[u64; sf_go_counter::SF_GO_COUNTERS.0 as usize], KernelError> {
    let mut counters = [0; sf_go_counter::SF_GO_COUNTERS.0 as usize];
    for (index, counter) in (0_u32..).zip(&mut counters) {
        *counter = sum_counter(map, index, "the programs for Go")?;
    }
    Ok(counters)
}
