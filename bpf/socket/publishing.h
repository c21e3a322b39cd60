/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Tells other profilers which request a thread is at: the writing side of ../shared_contexts.h.
 *
 * An entry is there while its thread is at a request whose ids are known and will stay, and has not begun to answer.
 * It is made in one of two ways:
 *
 *	at once    by the thread itself, when it reads a request with a context that says it is sampled
 *	later      by publish.bpf.c, of requests that are still open when user space knows their ids
 *
 * and taken out by the thread itself, as soon as it begins to answer or goes on to something else, by its end, and by
 * user space when the request is over and its thread has not noticed (another one has answered). So a profiler never
 * finds a request that a thread has left. Goroutines and event loops have no entries.
 */
#ifndef SF_SOCKET_PUBLISHING_H
#define SF_SOCKET_PUBLISHING_H

#include <bpf/bpf_helpers.h>

#include "../request_maps.h"
#include "../spanflame.h"

/* The shared one, or one of a single entry that nobody uses: user space decides. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_SHARED_CONTEXTS);
	__type(key, __u64); /* thread, as bpf_get_current_pid_tgid has it */
	__type(value, struct sf_shared_context);
} traces_ctx_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sf_publishing);
} publishing SEC(".maps");

static __always_inline void sf_withdraw_context(struct sf_thread *thread)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	thread->is_published = 0;
	bpf_map_delete_elem(&traces_ctx_v1, &pid_tgid);
}

/*
 * The current thread is at this request from now on, 0: at none. publish.bpf.c sets `is_published`, makes the entry
 * and then looks whether the thread is still there; here it is the other way round. An exchange is a full barrier, so
 * one of the two sees the other.
 */
static __always_inline void sf_be_at(struct sf_thread *thread, __u64 request)
{
	__sync_lock_test_and_set(&thread->request, request);
	if (*(volatile __u32 *)&thread->is_published)
		sf_withdraw_context(thread);
}

/* Likewise: the current thread answers the request that it has read last. */
static __always_inline void sf_begin_answer(struct sf_thread *thread)
{
	if (thread->is_answered)
		return;
	__sync_lock_test_and_set(&thread->is_answered, 1);
	if (*(volatile __u32 *)&thread->is_published)
		sf_withdraw_context(thread);
}

/* The current thread has read a request. `is_sampled`: a context that came with it says so. */
static __always_inline void sf_publish_at_once(struct sf_thread *thread, const struct sf_socket_data *data,
					       bool is_sampled, __u64 pid_tgid)
{
	__u32 zero = 0;
	const struct sf_publishing *how = is_sampled ? bpf_map_lookup_elem(&publishing, &zero) : NULL;
	struct sf_shared_context context;

	if (!how || !how->at_once || thread->serves_many || !thread->request)
		return;
	__builtin_memcpy(context.trace_id, data->trace_id, sizeof(context.trace_id));
	__builtin_memcpy(context.span_id, data->span_id, sizeof(context.span_id));
	if (!bpf_map_update_elem(&traces_ctx_v1, &pid_tgid, &context, BPF_ANY))
		thread->is_published = 1;
}

#endif /* SF_SOCKET_PUBLISHING_H */
