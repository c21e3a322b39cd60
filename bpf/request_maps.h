/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who is at which request. The socket programs write it; the sampler, and later every program that takes
 * a stack, looks the current thread or goroutine up and writes nothing.
 */
#ifndef SF_REQUEST_MAPS_H
#define SF_REQUEST_MAPS_H

#include <bpf/bpf_helpers.h>

#include "spanflame.h"
#include "vmlinux.h"

/* A write between its beginning and its return. */
struct sf_pending_write {
	__u64 connection; /* 0: there is none */
	__u64 position;
	__u64 length;
	__u64 time_ns;
	__u32 state; /* enum sf_pending_state */
	__u32 padding;
};

enum sf_pending_state {
	SF_PENDING_SENT = 1,   /* its event is out, its place in the stream is taken */
	SF_PENDING_SILENT = 2, /* its place is taken, nobody wants its event */
	SF_PENDING_UNREAD = 3, /* its memory could not be read yet; no place is taken */
};

/* What a thread does. */
struct sf_thread {
	__u64 request;     /* that it has read and not left since, 0: none */
	__u64 connection;  /* that it has read a request from last */
	__u32 is_answered; /* something has been written there since */
	__u32 serves_many; /* it is an event loop: see socket/requests.h */
	struct sf_pending_write pending;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sf_thread);
} threads SEC(".maps");

struct sf_goroutine_key {
	__u64 goroutine;
	__u32 tgid;
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_GOROUTINES);
	__type(key, struct sf_goroutine_key);
	__type(value, __u64); /* request */
} goroutines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_go_process);
} go_processes SEC(".maps");

/*
 * The goroutine that a thread runs, or runs the scheduler for; 0: none, or unknown. m.curg is the user's
 * goroutine also while the thread is on its system or signal stack, where g is another one.
 */
static __always_inline __u64 sf_goroutine_of(const struct sf_go_process *go, struct task_struct *task)
{
	__u64 g = 0, m = 0, current_g = 0, goroutine = 0;

	if (bpf_probe_read_user(&g, sizeof(g), (void *)(task->thread.fsbase + (__s64)go->tls_offset)) || !g)
		return 0;
	if (bpf_probe_read_user(&m, sizeof(m), (void *)(g + go->g_m)) || !m)
		return 0;
	if (bpf_probe_read_user(&current_g, sizeof(current_g), (void *)(m + go->m_curg)) || !current_g)
		return 0;
	if (bpf_probe_read_user(&goroutine, sizeof(goroutine), (void *)(current_g + go->g_goid)))
		return 0;
	return goroutine;
}

/* The request that a goroutine has open; 0: none. */
static __always_inline __u64 sf_goroutine_request(__u32 tgid, __u64 goroutine)
{
	struct sf_goroutine_key key = {.goroutine = goroutine, .tgid = tgid};
	const __u64 *request;

	if (!goroutine)
		return 0;
	request = bpf_map_lookup_elem(&goroutines, &key);
	return request ? *request : 0;
}

/* The request that the current task has open; 0: none. For programs that take stacks. */
static __always_inline __u64 sf_current_request(struct task_struct *task, __u32 tgid)
{
	const struct sf_go_process *go = bpf_map_lookup_elem(&go_processes, &tgid);
	const struct sf_thread *thread;

	if (go)
		return sf_goroutine_request(tgid, sf_goroutine_of(go, task));
	thread = bpf_task_storage_get(&threads, task, NULL, 0);
	return thread ? thread->request : 0;
}

#endif /* SF_REQUEST_MAPS_H */
