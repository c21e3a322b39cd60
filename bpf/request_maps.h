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

/* Whether a thread is an event loop, and what it says of itself: see socket/requests.h. */
enum sf_serves_many {
	SF_SERVES_ONE = 0,
	SF_SERVES_MANY = 1,
	SF_SERVES_PROMPTLY = 2, /* it handles each event to its end */
	SF_SERVES_IN_TURNS = 3, /* when it goes on to something else is seen */
};

/* What a thread does. */
struct sf_thread {
	__u64 request;      /* that it has read and not left since, 0: none */
	__u64 connection;   /* that it has read a request from last */
	__u32 is_answered;  /* something has been written there since */
	__u32 serves_many;  /* enum sf_serves_many */
	__u32 is_published; /* there is an entry for it, see socket/publishing.h */
	__u32 padding;
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

/*
 * What a goroutine is at, and which of the goroutines that it begins it has begun since.
 *
 * Ids are given once in the life of a process, in batches of 16 to each processor (runtime.newproc1). So when a
 * request opens, these ids are still to be given: what the processor at hand has left of its batch, and all
 * behind the last batch of any. A goroutine with another id may be older than the request, and
 * that is not found out.
 */
struct sf_goroutine {
	__u64 request;
	__u64 left_from; /* ids that its processor had left, [left_from, left_to) */
	__u64 left_to;
	__u64 given;      /* the last id that any processor had been given; ~0: unknown */
	__u64 connection; /* that the request came from, where that carries many; else 0 */
	__u32 stream;
	__u32 is_fresh; /* the goroutine was begun for this request: so were all that it begins */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_GOROUTINES);
	__type(key, struct sf_goroutine_key);
	__type(value, struct sf_goroutine);
} goroutines SEC(".maps");

/* Goroutines that are about to send an HTTP/2 request, by another one that they begin. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_GO_SENDERS);
	__type(key, struct sf_goroutine_key);
	__type(value, struct sf_goroutine);
} go_http2_senders SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_go_process);
} go_processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_go_code);
} go_code SEC(".maps");

/* Where the goroutine is that a thread runs. */
struct sf_running {
	__u64 g;
};

/*
 * The goroutine that a thread runs, or runs the scheduler for; 0: none, or unknown. What the thread's own storage
 * calls g is mostly that. On its system or signal stack it is another one, without an id (runtime.allocm, malg: only
 * newproc1 and the threads that C brings give ids); then m.curg is the user's.
 */
static __always_inline __u64 sf_find_goroutine(const struct sf_go_process *go, struct task_struct *task,
					       struct sf_running *running)
{
	__u64 g = 0, m = 0, goroutine = 0;

	running->g = 0;
	if (bpf_probe_read_user(&g, sizeof(g), (void *)(task->thread.fsbase + (__s64)go->tls_offset)) || !g)
		return 0;
	if (bpf_probe_read_user(&goroutine, sizeof(goroutine), (void *)(g + go->g_goid)))
		return 0;
	if (goroutine) {
		running->g = g;
		return goroutine;
	}
	if (bpf_probe_read_user(&m, sizeof(m), (void *)(g + go->g_m)) || !m)
		return 0;
	if (bpf_probe_read_user(&running->g, sizeof(running->g), (void *)(m + go->m_curg)) || !running->g)
		return 0;
	if (bpf_probe_read_user(&goroutine, sizeof(goroutine), (void *)(running->g + go->g_goid)))
		return 0;
	return goroutine;
}

static __always_inline __u64 sf_goroutine_of(const struct sf_go_process *go, struct task_struct *task)
{
	struct sf_running running;

	return sf_find_goroutine(go, task, &running);
}

/* Notes which ids are still to be given to goroutines. Called by the goroutine's own thread. */
static __always_inline void sf_note_ids(const struct sf_go_process *go, const struct sf_running *running,
					struct sf_goroutine *noted)
{
	__u64 m = 0, p = 0, next = 0, end = 0, given = 0;

	noted->left_from = 0;
	noted->left_to = 0;
	noted->given = ~0ULL;
	if (go->goroutine_ids && !bpf_probe_read_user(&given, sizeof(given), (void *)go->goroutine_ids) &&
	    given)
		noted->given = given;
	if (bpf_probe_read_user(&m, sizeof(m), (void *)(running->g + go->g_m)) || !m)
		return;
	/* m.p, m.nextp, m.oldp: within a system call the thread may have given its processor back. */
	if (bpf_probe_read_user(&p, sizeof(p), (void *)(m + go->m_p)))
		return;
	if (!p && bpf_probe_read_user(&p, sizeof(p), (void *)(m + go->m_p + 16)))
		return;
	if (!p)
		return;
	/* The end first: should another thread have the processor and begin a new batch, nothing is left. */
	if (bpf_probe_read_user(&end, sizeof(end), (void *)(p + go->p_goidcache + 8)) ||
	    bpf_probe_read_user(&next, sizeof(next), (void *)(p + go->p_goidcache)))
		return;
	if (next < end && end - next <= 16) {
		noted->left_from = next;
		noted->left_to = end;
	}
}

/* Whether a goroutine was surely begun since that was noted of the one that began it. */
static __always_inline bool sf_is_begun_since(const struct sf_goroutine *noted, __u64 goroutine)
{
	return noted->is_fresh || goroutine > noted->given ||
	       (goroutine >= noted->left_from && goroutine < noted->left_to);
}

/* Whether some code is in ranges that are in order. */
static __always_inline bool sf_is_within(const struct sf_go_code *code, __u32 from, __u32 to, __u64 pc)
{
	__u32 end = to;
	int step;

	/* The first range that ends behind the code. */
	for (step = 0; step < SF_MAX_GO_CODE_RANGES_LOG2; step++) {
		__u32 middle = (from + to) / 2;

		/* Linux 6.1 forgets the limit where the compiler compares something else than the index. */
		barrier_var(middle);
		if (from >= to || middle >= SF_MAX_GO_CODE_RANGES)
			break;
		if (code->ranges[middle].end <= pc)
			from = middle + 1;
		else
			to = middle;
	}
	barrier_var(from);
	return from < end && from < SF_MAX_GO_CODE_RANGES && code->ranges[from].begin <= pc &&
	       pc < code->ranges[from].end;
}

/*
 * The request that the goroutine which began this one has open, if this one works for it: it was surely begun
 * since that request opened, and begins in code that works for who begins it. Reads user memory, writes
 * nothing.
 */
static __noinline __u64 sf_inherited_request(__u32 tgid, __u64 g, __u64 goroutine)
{
	const struct sf_go_process *go = bpf_map_lookup_elem(&go_processes, &tgid);
	struct sf_goroutine_key key = {.tgid = tgid};
	const struct sf_goroutine *parent;
	const struct sf_go_code *code;
	__u64 start_pc = 0;
	__u32 senders, ranges;

	if (!go || !g || !go->g_parent_goid || !go->code_ranges)
		return 0;
	if (bpf_probe_read_user(&key.goroutine, sizeof(key.goroutine), (void *)(g + go->g_parent_goid)) ||
	    !key.goroutine)
		return 0;
	if (bpf_probe_read_user(&start_pc, sizeof(start_pc), (void *)(g + go->g_start_pc)))
		return 0;
	senders = go->http2_sender_ranges;
	ranges = go->code_ranges;
	code = bpf_map_lookup_elem(&go_code, &tgid);
	if (!code)
		return 0;
	if (sf_is_within(code, 0, senders, start_pc)) {
		parent = bpf_map_lookup_elem(&go_http2_senders, &key);
		return parent && sf_is_begun_since(parent, goroutine) ? parent->request : 0;
	}
	parent = bpf_map_lookup_elem(&goroutines, &key);
	if (!parent || !sf_is_begun_since(parent, goroutine))
		return 0;
	return sf_is_within(code, senders, ranges, start_pc) ? parent->request : 0;
}

/*
 * Notes that a goroutine works for the request of the one that began it: so do those that it begins. Not for
 * programs that may interrupt others.
 */
static __always_inline int sf_note_inherited(__u32 tgid, __u64 goroutine, __u64 request)
{
	struct sf_goroutine_key key = {.goroutine = goroutine, .tgid = tgid};
	struct sf_goroutine noted = {.request = request, .is_fresh = 1};

	return bpf_map_update_elem(&goroutines, &key, &noted, BPF_NOEXIST);
}

/* The request that a goroutine has opened, or is known to work for; 0: none. */
static __always_inline __u64 sf_noted_request(__u32 tgid, __u64 goroutine)
{
	struct sf_goroutine_key key = {.goroutine = goroutine, .tgid = tgid};
	const struct sf_goroutine *noted = goroutine ? bpf_map_lookup_elem(&goroutines, &key) : NULL;

	return noted ? noted->request : 0;
}

/* The request that a goroutine is at, its own or an inherited one; 0: none. */
static __always_inline __u64 sf_goroutine_request(__u32 tgid, __u64 g, __u64 goroutine)
{
	__u64 noted = sf_noted_request(tgid, goroutine);

	return noted || !goroutine ? noted : sf_inherited_request(tgid, g, goroutine);
}

/* The request that the current task has open; 0: none. For programs that take stacks. */
static __always_inline __u64 sf_current_request(struct task_struct *task, __u32 tgid)
{
	const struct sf_go_process *go = bpf_map_lookup_elem(&go_processes, &tgid);
	const struct sf_thread *thread;

	if (go) {
		struct sf_running running;
		__u64 goroutine = sf_find_goroutine(go, task, &running);

		return sf_goroutine_request(tgid, running.g, goroutine);
	}
	thread = bpf_task_storage_get(&threads, task, NULL, 0);
	return thread ? thread->request : 0;
}

#endif /* SF_REQUEST_MAPS_H */
