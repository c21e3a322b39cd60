// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Tells other profilers which request a thread is at, where user space has found out the ids (socket/publishing.h):
 * a look at all threads of the host, whenever there are requests to be told of.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "request_maps.h"
#include "socket/publishing.h"
#include "spanflame.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

#define PF_EXITING 0x00000004 /* linux/sched.h */

/* Requests that are open and whose ids will stay. Written by user space for each look. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_FINAL_CONTEXTS);
	__type(key, __u64); /* request */
	__type(value, struct sf_shared_context);
} final_contexts SEC(".maps");

static __always_inline void sf_withdraw_of(struct sf_thread *thread, __u64 pid_tgid)
{
	thread->is_published = 0;
	bpf_map_delete_elem(&traces_ctx_v1, &pid_tgid);
}

/* Whether the thread is at a request and nothing speaks against telling it. */
static __always_inline bool sf_is_at_work(const volatile struct sf_thread *thread, __u64 request)
{
	return thread->request == request && !thread->is_answered && !thread->serves_many;
}

/* Lists the requests that are told of from now on. While nothing is to be published, takes all entries out. */
SEC("iter/task")
int publish_contexts(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	const struct sf_shared_context *final;
	const struct sf_publishing *how;
	struct sf_shared_context context;
	struct sf_thread *thread;
	__u64 pid_tgid, request;
	__u32 zero = 0;

	if (!task)
		return 0;
	thread = bpf_task_storage_get(&threads, task, NULL, 0);
	how = bpf_map_lookup_elem(&publishing, &zero);
	if (!thread || !how)
		return 0;
	pid_tgid = (__u64)task->tgid << 32 | (__u32)task->pid;
	if (!how->is_on) {
		if (thread->is_published)
			sf_withdraw_of(thread, pid_tgid);
		return 0;
	}
	request = *(volatile __u64 *)&thread->request;
	if (!request || thread->is_published || !sf_is_at_work(thread, request))
		return 0;
	final = bpf_map_lookup_elem(&final_contexts, &request);
	if (!final)
		return 0;
	context = *final;
	__sync_lock_test_and_set(&thread->is_published, 1);
	if (bpf_map_update_elem(&traces_ctx_v1, &pid_tgid, &context, BPF_ANY) ||
	    !sf_is_at_work(thread, request) || task->flags & PF_EXITING) {
		sf_withdraw_of(thread, pid_tgid);
		return 0;
	}
	bpf_seq_write(ctx->meta->seq, &request, sizeof(request));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_thread_exit, struct task_struct *task)
{
	struct sf_thread *thread = bpf_task_storage_get(&threads, task, NULL, 0);

	if (thread && thread->is_published)
		sf_withdraw_context(thread);
	return 0;
}
