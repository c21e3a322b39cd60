/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The way out: the ring buffer, the counters, and the memory in which events are put together. */
#ifndef SF_SOCKET_SEND_H
#define SF_SOCKET_SEND_H

#include <bpf/bpf_helpers.h>

#include "../counters.h"
#include "../request_maps.h"
#include "../spanflame.h"
#include "../vmlinux.h"
#include "connections.h"
#include "syscalls.h"

const volatile struct sf_socket_config config SEC(".rodata.config");

/* The agent's own tgid in the initial pid namespace. Its own sockets are not followed. */
__u32 agent_tgid SEC(".data.agent");

/* Events in the order in which they were finished. Sized by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} socket_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SF_SOCKET_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} socket_counters SEC(".maps");

/* What has become of something that was to be told. */
enum sf_told {
	SF_TOLD_NOTHING = 0, /* not followed */
	SF_TOLD = 1,
	SF_TOLD_SILENT = 2, /* its place in the stream is taken, but nobody wants to see it */
	SF_TOLD_UNREAD = 3, /* nothing is done yet */
};

#define SF_MAX_IOVECS 16

/* How far reading of several buffers has come; see payload.h. In bytes. */
struct sf_walk_of_iovecs {
	__u64 length;
	__u64 wanted; /* of the head */
	__u64 filled;
	__u64 offset;
	__u64 tail_address; /* where the call's bytes end */
	__u64 tail_bytes;
	__u64 failed;
};

/* How far looking at a request's head has come; see heads.h. Not on the stack: the verifier would follow each step. */
struct sf_head {
	__u32 at;       /* what comes before was looked at */
	__u32 line_end; /* where the first line ends, 0: not yet found */
	__u32 is_whole; /* its end was found */
	__u32 has_context;
};

/*
 * One a CPU, for the system-call programs alone: those run with preemption disabled (bpf_probe.h), and
 * what may interrupt them (the socket-state program, in a softirq) builds its small events on its stack.
 * `busy` proves it: a call that finds it set is counted and goes unseen, and nothing gets mixed up.
 */
struct sf_socket_scratch {
	__u64 busy;
	__u64 pid_tgid;
	__u64 goroutine;
	__u64 within;      /* the request that is open for the current thread or goroutine */
	__u64 is_go;       /* a goroutine is at it, not a thread */
	__u64 is_own;      /* `within` was opened by it, not by a goroutine that has begun it */
	__u64 serves_many; /* the current thread is an event loop */
	__u64 is_late;     /* the call is looked at when it has moved its bytes */
	struct sf_running running;
	__u64 minted;    /* requests, with this scratch, ever */
	__u64 header;    /* enum sf_header, of the programs on TLS libraries */
	__u64 minter;    /* upper 16 bits of their keys, no other scratch's */
	__u64 random[2]; /* see sf_random; zero: not yet begun */
	struct sf_connection fresh;
	struct sf_socket_opened opened;
	struct sf_iovec iovecs[SF_MAX_IOVECS];
	struct sf_walk_of_iovecs walk;
	struct sf_head head;
	__s64 header_place; /* see sf_find_header_place */
	struct sf_socket_data data;
	unsigned char overhang[SF_WHOLE_BYTES]; /* so that the verifier need not relate offset and size */
};

/* Indexed by CPU: a value of a per-CPU map cannot be that large. Sized by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sf_socket_scratch);
} socket_scratch SEC(".maps");

static __always_inline void sf_count(__u32 counter, __u64 amount)
{
	sf_add_to_counter(&socket_counters, counter, amount);
}

/* Bytes of the ring that events have asked for, ever, of all objects: they share it (src/kernel/bpf_object.rs). */
__u64 sent_bytes SEC(".data.sent");

static __always_inline bool sf_send(void *event, __u64 bytes)
{
	/*
	 * The reader is woken each time that so much more was sent, and not by every event from then on until it
	 * runs: a wake-up is an interrupt. `wake_at_bytes` is a power of two, so that its bit tells. An event takes a
	 * head of eight bytes in the ring, and is aligned to eight.
	 */
	__u64 taken = (bytes + 15) & ~7ULL;
	__u64 before = __sync_fetch_and_add(&sent_bytes, taken);
	bool is_filling = (before ^ (before + taken)) & config.wake_at_bytes || bytes > config.wake_at_bytes;

	if (bpf_ringbuf_output(&socket_events, event, bytes,
			       is_filling ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP)) {
		sf_count(SF_SOCKET_COUNTER_LOST_RING_FULL, 1);
		return false;
	}
	sf_count(SF_SOCKET_COUNTER_EVENTS, 1);
	return true;
}

/* The head of an event of the current thread's. */
static __always_inline void sf_begin_event(struct sf_socket_event *event, __u32 type, __u64 connection,
					   __u64 time_ns, __u64 pid_tgid, __u64 goroutine)
{
	event->type = type;
	event->cpu = bpf_get_smp_processor_id();
	event->time_ns = time_ns;
	event->connection = connection;
	event->pid = pid_tgid >> 32;
	event->tid = (__u32)pid_tgid;
	event->goroutine = goroutine;
}

static __always_inline void sf_describe_opened(struct sf_socket_opened *opened,
					       const struct sf_connection *connection)
{
	opened->local = connection->local;
	opened->peer = connection->peer;
	opened->opened_by = connection->opened_by;
	opened->opener_goroutine = connection->opener_goroutine;
	opened->opener_pid = connection->opener_pid;
	opened->opener_tid = connection->opener_tid;
	opened->role = connection->role;
	opened->network_namespace = connection->network_namespace;
}

#endif /* SF_SOCKET_SEND_H */
