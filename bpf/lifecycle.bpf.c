/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What cannot wait for user space when processes begin, change and end.
 *
 * A child of fork runs, and is sampled, before any reader can have heard of it. It gets an alias of
 * its parent's mapping table (see sf_process) and, when its parent's target says so, becomes a target
 * itself. exec makes the table of the old program wrong, so it goes at once: until user space has
 * looked again, samples say that the process is not known. The last thread of a process that exits
 * takes the process's entries along, so that a reused pid starts from nothing.
 *
 * An exec in time (fs/exec.c, begin_new_exec; fs/binfmt_elf.c): the new address space is installed; the
 * process gets its new name (task_rename, then perf's COMM record, which carries the exec flag); the
 * kernel maps executable, interpreter and vDSO (MMAP2 records); sched_process_exec; user code. User
 * space reads those records on another CPU meanwhile and may have stored the new table before
 * sched_process_exec runs, so that one may not delete blindly: what describes the process as it was
 * before the new name is old, what describes it after is new.
 *
 * User space keeps its own books by perf records; nothing here tells it anything.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "process_maps.h"
#include "runtime_maps.h"
#include "spanflame.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

/* Gives a child what a map has of its parent. */
static __always_inline void inherit(void *map, __u32 parent_tgid, __u32 child_tgid)
{
	const void *of_parent = bpf_map_lookup_elem(map, &parent_tgid);

	if (of_parent)
		bpf_map_update_elem(map, &child_tgid, of_parent, BPF_ANY);
}

static __always_inline void forget_runtimes(__u32 tgid)
{
	bpf_map_delete_elem(&python_processes, &tgid);
	bpf_map_delete_elem(&v8_processes, &tgid);
	bpf_map_delete_elem(&hotspot_processes, &tgid);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_tgid = parent->tgid, child_tgid = child->tgid;
	const struct sf_process *process;
	const struct sf_target *target;

	if (parent_tgid == child_tgid)
		return 0; /* a thread */

	target = bpf_map_lookup_elem(&targets, &parent_tgid);
	if (target && target->follow_children) {
		struct sf_target inherited = {.follow_children = 1};

		bpf_map_update_elem(&targets, &child_tgid, &inherited, BPF_ANY);
	}

	process = bpf_map_lookup_elem(&processes, &parent_tgid);
	if (process) {
		struct sf_process alias = {
			.flags = process->flags,
			.alias_of = process->alias_of ? process->alias_of : parent_tgid,
			.alias_version = process->alias_of ? process->alias_version : process->version,
		};

		bpf_map_update_elem(&processes, &child_tgid, &alias, BPF_ANY);
	}

	inherit(&words, parent_tgid, child_tgid);
	inherit(&python_processes, parent_tgid, child_tgid);
	inherit(&v8_processes, parent_tgid, child_tgid);
	inherit(&hotspot_processes, parent_tgid, child_tgid);
	return 0;
}

/* tgid → when it got its latest name. Only to bridge an exec: whoever is evicted starts from nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} renamed SEC(".maps");

SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct *task)
{
	__u32 tgid = task->tgid;
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&renamed, &tgid, &now, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	__u32 tgid = task->tgid;
	const struct sf_process *process = bpf_map_lookup_elem(&processes, &tgid);
	const __u64 *renamed_ns;

	/* User space tells it again with the new program's mappings. */
	bpf_map_delete_elem(&words, &tgid);
	forget_runtimes(tgid);
	if (!process)
		return 0;
	renamed_ns = bpf_map_lookup_elem(&renamed, &tgid);
	if (!renamed_ns || process->image_ns <= *renamed_ns)
		bpf_map_delete_elem(&processes, &tgid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	__u32 tgid = task->tgid;

	/* do_exit has taken this thread off the count; two last threads may both see none left. */
	if (task->signal->live.counter > 0)
		return 0;
	bpf_map_delete_elem(&processes, &tgid);
	bpf_map_delete_elem(&targets, &tgid);
	bpf_map_delete_elem(&words, &tgid);
	forget_runtimes(tgid);
	return 0;
}
