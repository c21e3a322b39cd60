//! The contexts of requests, on their way to other hosts and to other profilers.

#[cfg(test)]
use std::os::fd::BorrowedFd;

#[cfg(test)]
use libbpf_rs::{MapCore, MapFlags};

use super::SocketTracer;
use super::listing::Listed;
use crate::kernel::KernelError;
use crate::kernel::context_propagation::ContextPropagation;
use crate::kernel::http_header::{self, HeaderCounters, HttpHeaders};
#[cfg(test)]
use crate::kernel::socket_abi;
use crate::model::{RequestKey, SpanId, Stamp};

impl SocketTracer {
    /// From now on the context of a request whose trace is settled and kept goes out in TCP's header, unless one
    /// stands in the payload; and is received there. `bound` decides on traces that nobody has decided on: it
    /// keeps those whose lower 63 bits are below.
    ///
    /// # Errors
    /// What the kernel refused: it takes cgroup v2, and `CAP_NET_ADMIN`.
    pub fn propagate_contexts(&mut self, bound: u64) -> Result<(), KernelError> {
        let propagation = ContextPropagation::start(&self.socket)?;
        propagation.keep_below(bound, false)?;
        let mut refused = Listed::default();
        Self::list_with(&propagation.old_connections()?, "ask_of_old_connections", &mut refused)?;
        if !refused.connections.is_empty() {
            tracing::info!(
                "{} connections that are older than this program do not pass contexts on: that takes Linux 6.12",
                refused.connections.len()
            );
        }
        self.propagation = Some(propagation);
        Ok(())
    }

    /// From now on such a context also goes out as a header of the request, where it is one of HTTP/1 in plain text
    /// on a connection that a program of this host makes from now on, and has none. `bound` as before. First the
    /// kernel is tried, on a connection of our own, which takes less than a second.
    ///
    /// # Errors
    /// [`KernelError::Unfit`] if the kernel would harm programs; else what it refused. Contexts go on as before then.
    pub fn insert_headers(&mut self, bound: u64) -> Result<(), KernelError> {
        let Some(propagation) = &self.propagation else {
            return Err(KernelError::Option {
                option: "headers",
                value: "inserted".to_owned(),
                expected: "contexts have to go out in TCP's header first",
            });
        };
        http_header::self_test()?;
        let mut headers = HttpHeaders::load(&self.socket)?;
        headers.start()?;
        propagation.keep_below(bound, true)?;
        self.headers = Some(headers);
        Ok(())
    }

    /// Decides anew on traces that nobody has decided on, if contexts are propagated.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    pub fn keep_contexts_below(&self, bound: u64) -> Result<(), KernelError> {
        let inserts_headers = self.headers.is_some();
        self.propagation.as_ref().map_or(Ok(()), |propagation| propagation.keep_below(bound, inserts_headers))
    }

    /// Has headers put in on this one connection, of which `socket` is the client's end; whatever the kernel does to
    /// it otherwise.
    #[cfg(test)]
    pub(in crate::kernel) fn insert_headers_on(
        &mut self,
        socket: BorrowedFd<'_>,
        bound: u64,
    ) -> Result<(), KernelError> {
        if self.headers.is_none() {
            self.headers = Some(HttpHeaders::load(&self.socket)?);
        }
        let cookie = rustix::net::sockopt::socket_cookie(socket).expect("a socket").to_ne_bytes();
        let mut value = self
            .connections
            .lookup(&cookie, MapFlags::ANY)
            .expect("readable")
            .expect("it was connected while the tracer ran");
        socket_abi::take_headers(&mut value);
        self.connections.update(&cookie, &value, MapFlags::ANY).expect("it fits");
        if let Some(headers) = &self.headers {
            headers.enter(&cookie, socket)?;
        }
        self.propagation.as_ref().map_or(Ok(()), |propagation| propagation.keep_below(bound, true))
    }

    /// What has become of headers so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn header_counters(&self) -> Result<HeaderCounters, KernelError> {
        HeaderCounters::read(&self.socket)
    }

    /// Whether other profilers are told which request a thread is at.
    #[must_use]
    pub fn publishes_contexts(&self) -> bool {
        self.published.is_some()
    }

    /// From now on they are told of a request that comes with a context which says that it is sampled as soon as it is
    /// read, or not before [`SocketTracer::publish_contexts`].
    ///
    /// # Errors
    /// If the kernel cannot be told.
    pub fn publish_contexts_at_once(&self, at_once: bool) -> Result<(), KernelError> {
        self.published.as_ref().map_or(Ok(()), |published| published.set_at_once(at_once))
    }

    /// Tells them of requests that are open and whose ids will stay, as far as threads are at them and have not begun to
    /// answer. Returns which those are. One look at every thread of the host.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn publish_contexts(&self, requests: &[(RequestKey, Stamp)]) -> Result<Vec<RequestKey>, KernelError> {
        self.published.as_ref().map_or(Ok(Vec::new()), |published| published.publish(requests))
    }

    /// A request is over which this thread has read: they are told so, if the thread has not seen to that.
    pub fn withdraw_context(&self, pid: u32, tid: u32, span_id: SpanId) {
        if let Some(published) = &self.published {
            published.withdraw(pid, tid, span_id);
        }
    }
}
