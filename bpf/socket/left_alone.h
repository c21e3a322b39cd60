/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whose system calls, TLS libraries and connections are looked at: not the agent's own, and not those of processes that
 * the configuration leaves alone.
 *
 * Which processes these are, user space finds out by their executables, and drops what it hears of them until it has
 * said so here. An entry goes when the process executes something else and when it ends, so that it never stands for
 * another program or another process.
 */
#ifndef SF_SOCKET_LEFT_ALONE_H
#define SF_SOCKET_LEFT_ALONE_H

#include <bpf/bpf_helpers.h>

#include "send.h"

/* Written by user space; key = tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, __u32); /* not used */
} left_alone SEC(".maps");

static __always_inline bool sf_is_followed(__u32 tgid)
{
	if (config.exclude_agent && tgid == agent_tgid)
		return false;
	return !config.leaves_some_alone || !bpf_map_lookup_elem(&left_alone, &tgid);
}

#endif /* SF_SOCKET_LEFT_ALONE_H */
