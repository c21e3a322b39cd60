/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Event loops that say when they go on to something else.
 *
 * libuv's loop, of which Node is the user, polls: for each descriptor that is ready it runs a callback, which
 * begins with a system call on that descriptor. So what a callback does within a request that it has just
 * read ends with the next read elsewhere (socket/requests.h), or when polling is over. That no system call
 * tells: right behind polling libuv calls Node's Environment::CheckImmediate(uv_check_t *), in each turn of the
 * loop, and only then timers, closed handles and what setImmediate has put off. The function is exported, under
 * the same name by every release of Node from 10 to 24.
 *
 * nginx handles each event to its end and has no tasks in between either, but in the same turn timers that have run
 * out (ngx_event_expire_timers) and what handlers have put off (ngx_event_process_posted); it exports both for its
 * modules. Both run in each turn and mostly find nothing, so the program stands where they call what they have found.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "request_maps.h"
#include "socket/publishing.h"
#include "spanflame.h"
#include "uprobes.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

static __noinline int sf_end_turn(const bpf_user_pt_regs_t *registers)
{
	struct sf_thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, 0);

	if (thread)
		sf_be_at(thread, 0);
	return 0;
}

SEC("uprobe")
SF_UPROBE(on_turn, sf_end_turn)
