//! What following requests has come to: events of sockets, spans and their parents, stamped samples, losses.

use super::{Page, Value};
use crate::kernel::{GoCounters, HeaderCounters, ProbeRefusal};
use crate::metrics::{Family, Kind};
use crate::model::Unstamped;
use crate::trace::exchange::Discarded;
use crate::trace::{KEPT_FOR, TlsStatus, TracerStatus, Unreadable};

/// Adds the families.
pub(super) fn add(page: &mut Page, tracer: &TracerStatus) {
    let (socket, spans) = (&tracer.socket, &tracer.spans);
    page.counter("socket_events", "Events of sockets that the kernel side sent", socket.events);
    page.counter("socket_bytes", "Bytes that followed sockets moved", socket.bytes);
    page.gauge("connections_followed", "Connections that are followed", tracer.connections as u64);
    page.add(
        Kind::Counter,
        "socket_unexplained_bytes",
        "Bytes that no system call moved: io_uring, from a moment after its first ring on",
        |family| {
            family
                .labelled(&[("direction", "in")], socket.unexplained_in_bytes)
                .labelled(&[("direction", "out")], socket.unexplained_out_bytes)
        },
    );
    let help = "… by the processes that did so most lately";
    page.add(Kind::Gauge, "socket_unexplained_process_bytes", help, |family| {
        tracer.unexplained.iter().fold(family, |family, process| {
            let pid = process.pid.to_string();
            let labels =
                |direction| [("pid", pid.as_str()), ("service", &process.service), ("direction", direction)];
            family.labelled(&labels("in"), process.in_bytes).labelled(&labels("out"), process.out_bytes)
        })
    });
    page.add(Kind::Counter, "requests_followed", "Requests that have ended, kept or not", |family| {
        family
            .labelled(&[("kind", "server")], spans.server_requests)
            .labelled(&[("kind", "client")], spans.client_requests)
    });
    page.counter("requests_excluded", "Requests left out by path or protocol", spans.excluded);
    let help = "Requests whose trace is not kept, as decided by their parent, the configured share, or the limit of spans a second";
    page.add(Kind::Counter, "requests_not_sampled", help, |family| {
        family
            .labelled(&[("by", "parent")], spans.not_sampled.parent)
            .labelled(&[("by", "share")], spans.not_sampled.share)
            .labelled(&[("by", "limit")], spans.not_sampled.limit)
    });
    let help = "Spans kept although their trace is beyond the limit of spans a second, by why";
    page.add(Kind::Counter, "spans_kept_beyond_limit", help, |family| {
        KEPT_FOR.iter().fold(family, |family, &reason| {
            let count = spans.kept_late.get(reason).copied().unwrap_or_default();
            family.labelled(&[("reason", reason)], count)
        })
    });
    let help = "Traces beyond that limit in which something was slow or failed, and that found no room";
    page.counter("traces_worth_keeping_left_out", help, spans.not_kept_late);
    let help = "Share of the traces that nobody else decides on, of the configured share, that is kept within the limit of spans a second";
    page.gauge("trace_share_within_limit", help, Value::Number(spans.share));
    page.add(Kind::Counter, "requests_discarded", "What was no request after all, by why", |family| {
        Discarded::ALL.iter().fold(family, |family, (reason, name)| {
            let count = spans.discarded.get(reason).copied().unwrap_or_default();
            family.labelled(&[("reason", name)], count)
        })
    });
    let help = "Requests without a route because their service has too many";
    page.counter("requests_without_route", help, spans.without_route);
    add_tls(page, &tracer.tls);
    add_probes(page, tracer);
    add_go(page, &tracer.go);
    page.add(
        Kind::Counter,
        "tracing_failures",
        "What could not be done while requests were followed",
        |family| {
            family
                .labelled(&[("what", "change_capture")], tracer.failures.captures)
                .labelled(&[("what", "sweep_connections")], tracer.failures.sweeps)
                .labelled(&[("what", "publish_context")], tracer.failures.published)
                .labelled(&[("what", "change_share")], tracer.failures.bounds)
        },
    );
    let help = "Spans that began, by the evidence for their parent or the reason why there is none";
    page.add(Kind::Counter, "span_parents", help, |family| {
        let mut parents: Vec<_> = spans.parents.iter().collect();
        parents.sort_unstable();
        let add = |family: Family, (&evidence, &count): (&&str, &u64)| {
            family.labelled(&[("evidence", evidence)], count)
        };
        parents.into_iter().fold(family, add)
    });
    let help = "Contexts of requests in TCP's header; stray ones came without the beginning of a request";
    page.add(Kind::Counter, "tcp_contexts", help, |family| {
        family
            .labelled(&[("direction", "sent")], socket.contexts_sent)
            .labelled(&[("direction", "received")], socket.contexts_received)
            .labelled(&[("direction", "stray")], socket.contexts_stray)
    });
    let help = "Contexts received in TCP's header on connections whose other end is followed too, by whether both agree";
    page.add(Kind::Counter, "tcp_contexts_compared", help, |family| {
        family
            .labelled(&[("result", "right")], spans.tcp_contexts_right)
            .labelled(&[("result", "contradicted")], spans.tcp_contexts_contradicted)
            .labelled(&[("result", "sent_as_another_trace")], spans.tcp_contexts_of_other_traces)
    });
    add_headers(page, &tracer.headers);
    let help =
        "Requests that other profilers were told of once their ids were known, by the map otel/traces_ctx_v1";
    page.counter("requests_published", help, tracer.published_requests);
    let help = "Requests that other profilers were not told of, since too many were open at a time";
    page.counter("requests_unpublished", help, tracer.unpublished_requests);
    page.counter("samples_stamped", "Samples that say in which span they were taken", tracer.stamped_samples);
    page.add(Kind::Counter, "samples_unstamped", "Samples in a request that do not, by why", |family| {
        Unstamped::ALL.iter().fold(family, |family, (reason, name)| {
            let count = tracer.unstamped_samples.get(reason).copied().unwrap_or_default();
            family.labelled(&[("reason", name)], count)
        })
    });
    page.gauge("requests_known", "Requests that samples can be in", tracer.known_requests as u64);
    page.gauge(
        "tracing_map_memory_bytes",
        "Kernel memory of the maps for requests",
        Value::from(tracer.map_bytes),
    );
}

/// Executables of programs with probes.
fn add_probes(page: &mut Page, tracer: &TracerStatus) {
    page.add(Kind::Gauge, "programs_probed", "Executables with probes, by what those are for", |family| {
        tracer.programs.iter().fold(family, |family, (purpose, status)| {
            family.labelled(&[("purpose", purpose)], status.files.len() as u64)
        })
    });
    let help = "Executables that could not be given probes, by what those are for and by why";
    page.add(Kind::Counter, "programs_refused", help, |family| {
        tracer.programs.iter().fold(family, |family, (purpose, status)| {
            ProbeRefusal::ALL.iter().fold(family, |family, (reason, name)| {
                let count = status.refusals.get(reason).copied().unwrap_or_default();
                family.labelled(&[("purpose", purpose), ("reason", name)], count)
            })
        })
    });
}

/// Contexts that were to go out in the heads of requests.
fn add_headers(page: &mut Page, headers: &HeaderCounters) {
    let help = "Requests whose context went out in a header of HTTP/1, too, or why it did not; none where headers are not \
                inserted";
    page.add(Kind::Counter, "http_header_contexts", help, |family| {
        family
            .labelled(&[("outcome", "inserted")], headers.inserted)
            .labelled(&[("outcome", "connection_not_ready")], headers.left_connection)
            .labelled(&[("outcome", "other_context")], headers.left_context)
            .labelled(&[("outcome", "head_not_whole")], headers.left_head)
            .labelled(&[("outcome", "first_line")], headers.left_line)
            .labelled(&[("outcome", "memory_unreadable")], headers.left_late)
            .labelled(&[("outcome", "changed")], headers.left_changed)
            .labelled(&[("outcome", "unacknowledged")], headers.left_unacknowledged)
            .labelled(&[("outcome", "no_room")], headers.left_no_room)
            .labelled(&[("outcome", "failed")], headers.failed)
    });
    let help = "Connections that were made ready for headers of HTTP/1, or could not be";
    page.add(Kind::Counter, "http_header_connections", help, |family| {
        family
            .labelled(&[("outcome", "ready")], headers.connections)
            .labelled(&[("outcome", "refused")], headers.lost_connection)
    });
}

/// What goes through TLS libraries.
fn add_tls(page: &mut Page, tls: &TlsStatus) {
    let counters = &tls.counters;
    page.gauge(
        "tls_libraries_followed",
        "Files whose TLS functions are followed",
        tls.probes.files.len() as u64,
    );
    page.add(Kind::Counter, "tls_libraries_refused", "Files that could not be followed, by why", |family| {
        ProbeRefusal::ALL.iter().fold(family, |family, (reason, name)| {
            let count = tls.probes.refusals.get(reason).copied().unwrap_or_default();
            family.labelled(&[("reason", name)], count)
        })
    });
    page.counter(
        "tls_processes_not_looked_at",
        "Questions for the TLS libraries of processes that found no room to wait",
        tls.not_looked_at,
    );
    page.add(Kind::Counter, "tls_calls", "Calls of TLS libraries that moved plain bytes", |family| {
        family
            .labelled(&[("direction", "in")], counters.reads)
            .labelled(&[("direction", "out")], counters.writes)
    });
    page.counter("tls_plain_bytes", "Plain bytes that TLS libraries showed", counters.bytes);
    page.add(
        Kind::Counter,
        "tls_objects",
        "Objects of TLS libraries: known to be for a connection, known no more because that was contradicted, or \
         found to be for another one",
        |family| {
            family
                .labelled(&[("event", "bound")], counters.bound)
                .labelled(&[("event", "contradicted")], counters.contradicted)
                .labelled(&[("event", "moved")], counters.moved)
        },
    );
    let help = "Connections that begin as TLS and of which nothing could be read, by why";
    page.add(Kind::Counter, "connections_unreadable", help, |family| {
        Unreadable::ALL.iter().fold(family, |family, (reason, name)| {
            let count = tls.unreadable.get(reason).copied().unwrap_or_default();
            family.labelled(&[("reason", name)], count)
        })
    });
}

/// What goes from goroutine to goroutine.
fn add_go(page: &mut Page, go: &GoCounters) {
    let help = "Requests of Go programs that one goroutine hands to another: answered by a goroutine of their own, or \
                asked by one and written by another";
    page.add(Kind::Counter, "go_requests", help, |family| {
        family.labelled(&[("event", "answered")], go.handlers).labelled(&[("event", "asked")], go.askers)
    });
    page.counter(
        "go_goroutines_inherited",
        "Goroutines found to work for the request of the one that began them, where they asked or answered",
        go.inherited,
    );
}

/// What was lost, by stage and reason.
pub(super) fn losses(tracer: &TracerStatus) -> Vec<(&'static str, &'static str, u64)> {
    let (socket, tls) = (&tracer.socket, &tracer.tls.counters);
    vec![
        ("sockets", "ring_buffer_full", socket.lost_ring_full),
        ("sockets", "no_scratch_memory", socket.lost_no_scratch),
        ("sockets", "no_thread_memory", socket.lost_no_thread),
        ("sockets", "too_many_connections", socket.lost_connection),
        ("sockets", "no_cookie", socket.lost_no_cookie),
        ("sockets", "memory_unreadable", socket.lost_unreadable),
        ("sockets", "32_bit_program", socket.lost_32_bit),
        ("sockets", "unsupported_protocol", socket.lost_protocol),
        ("sockets", "no_room_for_request", socket.lost_request),
        ("sockets", "request_of_event_loop", socket.event_loop),
        ("sockets", "after_the_end", socket.after_end),
        ("sockets", "malformed_event", socket.malformed),
        ("sockets", "not_understood", tracer.failures.events),
        ("connections", "too_many", tracer.forgotten_connections),
        ("tls", "connection_unknown", tls.lost_unbound),
        ("tls", "connection_not_followed", tls.lost_gone),
        ("tls", "no_scratch_memory", tls.lost_no_scratch),
        ("tls", "no_thread_memory", tls.lost_no_thread),
        ("tls", "too_deep", tls.lost_depth),
        ("tls", "beginning_unseen", tls.lost_return),
        ("tls", "no_room_for_object", tls.lost_no_room),
        ("go", "connection_unknown", tracer.go.lost_connection),
    ]
}
