/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What no system call explains: io_uring moves bytes of sockets without any of those that are looked at, within
 * io_uring_enter or in threads of the kernel's own making. Which they were is not seen here, only that there were some,
 * by TCP's and UNIX sockets' own tracepoints. These run with every call on every socket of the host, so they are put
 * there when the first ring is seen: by the system calls that rings are made and entered with, and at the start by the
 * threads of rings that there are. Of a ring that a program made before us and whose kernel thread asks for nothing, only
 * that thread tells.
 */
#ifndef SF_SOCKET_IO_URING_H
#define SF_SOCKET_IO_URING_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "left_alone.h"
#include "send.h"

/* 1: user space has been told that there are rings. */
__u32 io_uring_is_told SEC(".data.rings");

/* A function of its own: the event is not on the stack below other calls then. */
static __noinline int sf_tell_io_uring(__u64 pid_tgid)
{
	struct sf_socket_event event = {};

	if (io_uring_is_told || __sync_lock_test_and_set(&io_uring_is_told, 1))
		return 0;
	sf_begin_event(&event, SF_SOCKET_IO_URING, 0, bpf_ktime_get_ns(), pid_tgid, 0);
	/* What is moved before user space has heard of it is not counted. */
	if (bpf_ringbuf_output(&socket_events, &event, sizeof(event), BPF_RB_FORCE_WAKEUP)) {
		sf_count(SF_SOCKET_COUNTER_LOST_RING_FULL, 1);
		io_uring_is_told = 0;
		return 0;
	}
	sf_count(SF_SOCKET_COUNTER_EVENTS, 1);
	return 0;
}

/* By tgid; the processes that did so most lately. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_UNEXPLAINED);
	__type(key, __u32);
	__type(value, struct sf_unexplained);
} unexplained SEC(".maps");

static __always_inline void sf_count_unexplained(const struct sock *sk, int moved, __u32 direction)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct sf_unexplained fresh = {}, *process;
	struct pt_regs *regs;

	if (moved <= 0 || sk->sk_type != SOCK_STREAM)
		return;
	if (!(task->flags & PF_IO_WORKER)) {
		regs = (struct pt_regs *)bpf_task_pt_regs(task);
		if (!regs || regs->orig_ax != SF_SYS_IO_URING_ENTER)
			return;
	}
	if (!sf_is_followed(tgid))
		return;
	sf_count(direction == SF_IN ? SF_SOCKET_COUNTER_UNEXPLAINED_IN : SF_SOCKET_COUNTER_UNEXPLAINED_OUT,
		 moved);
	process = bpf_map_lookup_elem(&unexplained, &tgid);
	if (!process) {
		bpf_map_update_elem(&unexplained, &tgid, &fresh, BPF_NOEXIST);
		process = bpf_map_lookup_elem(&unexplained, &tgid);
	}
	if (process)
		__sync_fetch_and_add(&process->bytes[direction & 1], moved);
}

/* Linux 6.3 and later. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(on_sent, struct sock *sk, int moved, int flags)
{
	sf_count_unexplained(sk, moved, SF_OUT);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_received, struct sock *sk, int moved, int flags)
{
	if (!(flags & MSG_PEEK))
		sf_count_unexplained(sk, moved, SF_IN);
	return 0;
}

#endif /* SF_SOCKET_IO_URING_H */
