//! What the kernel side is told of a process, and what it tells of one.

use libbpf_rs::{MapCore, MapFlags};
use spanflame_symbols::go::{GoRequestCode, GoroutineOffsets};

use super::SocketTracer;
use crate::kernel::bpf_object::find_map;
use crate::kernel::go_probes::code_ranges;
use crate::kernel::socket_abi::{sf_event_loop, sf_go_process};
use crate::kernel::{KernelError, abi};

/// How an event loop is known to go about its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLoop {
    /// It handles each event to its end.
    Prompt,
    /// It says when it has done so with all that came together: [`TurnProbes`](crate::kernel::TurnProbes).
    Turns,
}

impl SocketTracer {
    /// Says that a process is a Go program, and how to find its goroutines. From then on its requests belong
    /// to goroutines and no longer to threads. With its code and what is added to its addresses in this
    /// process, goroutines also work for the requests of those that began them.
    ///
    /// # Errors
    /// If the kernel has no room for another process.
    pub fn set_go_process(
        &self,
        pid: u32,
        offsets: &GoroutineOffsets,
        code: Option<(&GoRequestCode, u64)>,
    ) -> Result<(), KernelError> {
        let cannot = |error| KernelError::bpf(format!("note that process {pid} is a Go program"), error);
        let mut process = sf_go_process {
            tls_offset: offsets.tls_offset,
            g_m: offsets.g_m,
            m_curg: offsets.m_curg,
            g_goid: offsets.g_goid,
            g_parent_goid: offsets.g_parent_goid.unwrap_or(0),
            g_start_pc: offsets.g_start_pc,
            m_p: offsets.m_p,
            p_goidcache: offsets.p_goidcache,
            ..sf_go_process::default()
        };
        if let Some((code, load_bias)) = code {
            let (ranges, senders, all) = code_ranges(code, load_bias);
            process.goroutine_ids = code.goroutine_ids.map_or(0, |at| at.0.wrapping_add(load_bias));
            process.http2_sender_ranges = senders;
            process.code_ranges = all;
            if let Some(grpc) = code.grpc {
                process.grpc_stream_is_pointer = u32::from(grpc.stream_is_pointer);
                process.grpc_stream_id = grpc.stream_id;
                process.grpc_server_conn = grpc.server_conn;
                process.grpc_writer_conn = grpc.writer_conn.unwrap_or(0);
            }
            find_map(&self.socket, "go_code")?
                .update(&pid.to_ne_bytes(), abi::bytes_of(&*ranges), MapFlags::ANY)
                .map_err(cannot)?;
        }
        find_map(&self.socket, "go_processes")?
            .update(&pid.to_ne_bytes(), abi::bytes_of(&process), MapFlags::ANY)
            .map_err(cannot)
    }

    /// Forgets a process that ended or became another program.
    pub fn remove_go_process(&self, pid: u32) {
        for name in ["go_processes", "go_code"] {
            if let Ok(map) = find_map(&self.socket, name) {
                // Not there is fine.
                let _ = map.delete(&pid.to_ne_bytes());
            }
        }
    }

    /// Leaves a process alone until it executes something else or ends, or follows it again.
    ///
    /// # Errors
    /// If the kernel has no room for another one.
    pub fn leave_alone(&self, pid: u32, is_left: bool) -> Result<(), KernelError> {
        let map = find_map(&self.socket, "left_alone")?;
        if !is_left {
            // Not there is fine.
            let _ = map.delete(&pid.to_ne_bytes());
            return Ok(());
        }
        map.update(&pid.to_ne_bytes(), &1_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("leave process {pid} alone"), error))
    }

    /// Says how the event loops of a process go about their work, if that is known.
    ///
    /// # Errors
    /// If the kernel has no room for another one.
    pub fn set_event_loop(&self, pid: u32, event_loop: Option<EventLoop>) -> Result<(), KernelError> {
        let map = find_map(&self.socket, "event_loops")?;
        let how = match event_loop {
            Some(EventLoop::Prompt) => sf_event_loop::SF_EVENT_LOOP_PROMPT,
            Some(EventLoop::Turns) => sf_event_loop::SF_EVENT_LOOP_TURNS,
            None => {
                // Not there is fine.
                let _ = map.delete(&pid.to_ne_bytes());
                return Ok(());
            }
        };
        map.update(&pid.to_ne_bytes(), &how.0.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("note how process {pid} handles events"), error))
    }

    /// Processes that moved bytes of sockets without any system call of those that are looked at (`io_uring`), with
    /// how many they read and wrote so.
    #[must_use]
    pub fn unexplained(&self) -> Vec<(u32, [u64; 2])> {
        let Ok(map) = find_map(&self.socket, "unexplained") else { return Vec::new() };
        let number = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
        let of = |key: Vec<u8>| {
            let value = map.lookup(&key, MapFlags::ANY).ok()??;
            let bytes = [number(value.get(..8)?)?, number(value.get(8..16)?)?];
            Some((u32::from_ne_bytes(key.as_slice().try_into().ok()?), bytes))
        };
        map.keys().filter_map(of).collect()
    }
}
