/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Processes that come to have code which user space wants to put probes into, before they use it. */
#ifndef SF_SOCKET_NEW_CODE_H
#define SF_SOCKET_NEW_CODE_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "left_alone.h"
#include "send.h"

static __always_inline void sf_tell_new_code(__u64 pid_tgid, bool is_program)
{
	struct sf_socket_new_code new_code = {.is_program = is_program};
	/* A program that is to be left alone may be over before the reader looks by itself. */
	bool may_wait = is_program && !config.leaves_some_alone;

	sf_begin_event(&new_code.event, SF_SOCKET_NEW_CODE, 0, bpf_ktime_get_ns(), pid_tgid, 0);
	/* A library may be called within milliseconds; programs are many, and most of them none of ours. */
	if (bpf_ringbuf_output(&socket_events, &new_code, sizeof(new_code),
			       may_wait ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP))
		sf_count(SF_SOCKET_COUNTER_LOST_RING_FULL, 1);
	else
		sf_count(SF_SOCKET_COUNTER_EVENTS, 1);
}

/* Code of a file was mapped: is it a library that may be a TLS library by its name, `libssl…`? */
static __noinline int sf_end_mapping(struct task_struct *task, __u64 pid_tgid, __u32 descriptor)
{
	struct fdtable *table = task->files ? task->files->fdt : NULL;
	struct file *file = NULL;
	const unsigned char *name;
	char begin[8] = {};

	if (!table || descriptor >= table->max_fds)
		return 0;
	if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + descriptor) || !file)
		return 0;
	name = BPF_CORE_READ(file, f_path.dentry, d_name.name);
	if (bpf_probe_read_kernel_str(begin, sizeof(begin), name) < 7)
		return 0;
	if (begin[0] == 'l' && begin[1] == 'i' && begin[2] == 'b' && begin[3] == 's' && begin[4] == 's' &&
	    begin[5] == 'l')
		sf_tell_new_code(pid_tgid, false);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tgid = pid_tgid >> 32;

	if (config.leaves_some_alone)
		bpf_map_delete_elem(&left_alone, &tgid);
	sf_tell_new_code(pid_tgid, true);
	return 0;
}

#endif /* SF_SOCKET_NEW_CODE_H */
