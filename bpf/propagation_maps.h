/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Contexts on their way from one end of a connection to the other in an option of TCP's header. What the
 * socket programs learn from payload, and what the socket-option programs carry, meets here.
 */
#ifndef SF_PROPAGATION_MAPS_H
#define SF_PROPAGATION_MAPS_H

#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "spanflame.h"
#include "vmlinux.h"

struct sf_context {
	unsigned char trace_id[16];
	unsigned char span_id[8]; /* of the client */
};

/* Of the request that a connection's client has written last. It goes with the segment that begins it. */
struct sf_outgoing_context {
	struct sf_context context;
	__u32 sequence;  /* number of the request's first byte */
	__u32 insert_at; /* where in its head a header is to be put; 0: nowhere, or that has been done */
	__u64 begin;     /* its first bytes */
};

/* Of the last segment, or of several one after another, that came with one. */
struct sf_incoming_context {
	struct sf_context context;
	__u32 sequence; /* number of its first byte */
	__u32 end;      /* … after its last */
};

/* Contexts are on their way for as long as a request takes to arrive; the oldest are forgotten. */
#define SF_MAX_CONTEXTS 16384

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_CONTEXTS);
	__type(key, __u64); /* connection */
	__type(value, struct sf_outgoing_context);
} outgoing_contexts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_CONTEXTS);
	__type(key, __u64); /* connection */
	__type(value, struct sf_incoming_context);
} incoming_contexts SEC(".maps");

#define SF_MAX_OPEN_TRACES 65536

/* Traces of requests that others may join: it is known which trace it is, and it is sampled. */
struct sf_trace_id {
	unsigned char bytes[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_OPEN_TRACES);
	__type(key, __u64); /* request */
	__type(value, struct sf_trace_id);
} settled_traces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sf_propagation);
} propagation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SF_HEADER_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} header_counters SEC(".maps");

static __always_inline void sf_count_header(__u32 counter)
{
	sf_add_to_counter(&header_counters, counter, 1);
}

#endif /* SF_PROPAGATION_MAPS_H */
