/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What every program on a uprobe needs.
 *
 * Such programs may be preempted (since Linux 6.0 nothing prevents it). Linux 6.13 and later give programs of
 * this type stacks of which there is one a CPU and program, as if they could not be: a task that runs the same
 * program on the same CPU meanwhile overwrites the stack of the first one. bpf_preempt_disable() is there from
 * 6.10 on, so wherever it is needed. A program therefore is SF_UPROBE(name, body function): nothing but the
 * call between the two, so that nothing lies on the stack outside of them.
 *
 * Functions that are verified by themselves (not static) are refused within them before Linux 6.15.
 */
#ifndef SF_UPROBES_H
#define SF_UPROBES_H

#include <bpf/bpf_helpers.h>

#include "vmlinux.h"

extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

/*
 * A program `name` that calls `body`, a static __noinline int of the registers. The two functions are NULL where
 * the kernel does not have them, and the verifier sees no call then.
 */
#define SF_UPROBE(name, body)                   \
	int name(bpf_user_pt_regs_t *registers) \
	{                                       \
		if (bpf_preempt_disable)        \
			bpf_preempt_disable();  \
		body(registers);                \
		if (bpf_preempt_enable)         \
			bpf_preempt_enable();   \
		return 0;                       \
	}

#endif /* SF_UPROBES_H */
