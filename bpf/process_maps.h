/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is known of processes: shared by the sampler and the life-cycle programs. */
#ifndef SF_PROCESS_MAPS_H
#define SF_PROCESS_MAPS_H

#include <bpf/bpf_helpers.h>

#include "spanflame.h"
#include "vmlinux.h"

/* tgid → mapping table. Elements are replaced as a whole, so that a reader sees old or new. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_process);
} processes SEC(".maps");

/* tgid → asked for. Consulted when sf_config.only_targets is set. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_target);
} targets SEC(".maps");

/* tgid → how its threads say in which span they are. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_words);
} words SEC(".maps");

#endif /* SF_PROCESS_MAPS_H */
