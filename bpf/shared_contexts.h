/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The map in which tracers tell profilers in which span each thread is: pinned as otel/traces_ctx_v1 below a BPF file
 * system, LRU hash, thread → trace id and span id. OpenTelemetry's eBPF instrumentation (OBI) writes it, its
 * profiler reads it (devdocs/trace-profile-correlation.md of the former). Whoever writes an entry takes it out again.
 *
 * Which map that is can change while we run. So the sampler finds it in a slot that user space fills
 * (src/kernel/shared_contexts.rs); while it is empty, a sample pays for an inlined look at an array.
 */
#ifndef SF_SHARED_CONTEXTS_H
#define SF_SHARED_CONTEXTS_H

#include <bpf/bpf_helpers.h>

#include "spanflame.h"
#include "vmlinux.h"

/*
 * With types, as those have that others make: Linux 6.1 takes a map with types for another kind than one without
 * (see table_maps.h).
 */
struct sf_traces_ctx {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_SHARED_CONTEXTS);
	__type(key, __u64); /* tgid in the upper half, thread id in the lower, initial pid namespace */
	__type(value, struct sf_shared_context);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct sf_traces_ctx);
} others_contexts SEC(".maps");

/* Notes in the sample what another tracer says of its thread. Whether it says anything. */
static __always_inline bool sf_take_shared_context(__u64 pid_tgid, struct sf_sample *sample)
{
	const struct sf_shared_context *context;
	__u32 zero = 0;
	void *contexts = bpf_map_lookup_elem(&others_contexts, &zero);

	if (!contexts)
		return false;
	context = bpf_map_lookup_elem(contexts, &pid_tgid);
	if (!context)
		return false;
	__builtin_memcpy(sample->said_trace_id, context->trace_id, sizeof(sample->said_trace_id));
	__builtin_memcpy(sample->said_span_id, context->span_id, sizeof(sample->said_span_id));
	return true;
}

#endif /* SF_SHARED_CONTEXTS_H */
