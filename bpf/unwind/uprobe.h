/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The return address that a pending uretprobe replaced.
 *
 * While a function with a uretprobe runs, its return address on the stack is that of a trampoline in
 * the `[uprobes]` mapping; the true one is kept in task->utask->return_instances, newest first, with
 * the stack address it was taken from (kernel/events/uprobes.c, prepare_uretprobe). That address
 * tells which instance belongs to which frame, also when a longjmp left stale ones behind. Several
 * uretprobes on one function make several instances with one stack address; the kernel copies the
 * true address into each.
 *
 * Whose uprobe it is does not matter: perf, bpftrace and we ourselves look alike.
 */
#ifndef SF_UNWIND_UPROBE_H
#define SF_UNWIND_UPROBE_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "../vmlinux.h"
#include "native.h"

/* The kernel allows 64 nested uretprobes a thread (MAX_URETPROBE_DEPTH). */
#define SF_MAX_RETURN_INSTANCES 64

static long sf_try_return_instance(__u32 unused, struct sf_walk **context)
{
	struct sf_walk *walk = *context;
	struct return_instance *instance = (struct return_instance *)walk->uprobe_cursor;

	(void)unused;
	if (!instance)
		return 1;
	if (BPF_CORE_READ(instance, stack) == walk->uprobe_slot) {
		walk->uprobe_address = BPF_CORE_READ(instance, orig_ret_vaddr);
		return 1;
	}
	walk->uprobe_cursor = (__u64)BPF_CORE_READ(instance, next);
	return 0;
}

/* Bytes of `[uprobes]`, one page in each process that a uprobe was hit in. */
#define SF_UPROBE_AREA_BYTES 4096

/* Whether pc lies in the current process's `[uprobes]`. */
static int sf_in_uprobe_area(__u64 pc)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct xol_area *area;
	struct mm_struct *mm;

	if (!bpf_core_field_exists(task->utask))
		return 0; /* a kernel without uprobes */
	mm = BPF_CORE_READ(task, mm);
	if (!mm)
		return 0;
	area = BPF_CORE_READ(mm, uprobes_state.xol_area);
	if (!area)
		return 0;
	return pc - BPF_CORE_READ(area, vaddr) < SF_UPROBE_AREA_BYTES;
}

/* What the pc in `[uprobes]` stands for, 0 if that cannot be known. */
static __u64 sf_true_return_address(struct sf_walk *walk)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct uprobe_task *utask;
	__u64 xol_address;

	if (!bpf_core_field_exists(task->utask))
		return 0;
	utask = BPF_CORE_READ(task, utask);
	if (!utask)
		return 0;
	if (!walk->pc_is_return) {
		/* The leaf: a probed instruction is being executed from its copy … */
		xol_address = BPF_CORE_READ(utask, xol_vaddr);
		if (xol_address && walk->pc - xol_address < 16)
			return BPF_CORE_READ(utask, vaddr) + (walk->pc - xol_address);
		/*
		 * … or the function has returned to the trampoline, which is about to trap, or, since
		 * 6.11, has pushed three registers and called the kernel (uretprobe_trampoline_entry).
		 */
		if (walk->in_syscall)
			walk->registers[SF_RSP] += 3 * sizeof(__u64);
		walk->uprobe_slot = walk->registers[SF_RSP] - 8;
	} else {
		walk->uprobe_slot = walk->pc_slot;
	}

	walk->uprobe_cursor = (__u64)BPF_CORE_READ(utask, return_instances);
	walk->uprobe_address = 0;
	bpf_loop(SF_MAX_RETURN_INSTANCES, sf_try_return_instance, &walk, 0);
	return walk->uprobe_address;
}

#endif /* SF_UNWIND_UPROBE_H */
