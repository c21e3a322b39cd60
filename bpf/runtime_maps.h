/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is known of the runtimes of processes, for the unwinders of runtimes. */
#ifndef SF_RUNTIME_MAPS_H
#define SF_RUNTIME_MAPS_H

#include <bpf/bpf_helpers.h>

#include "spanflame.h"
#include "vmlinux.h"

/* A child of fork gets a copy of its parent's entries, in lifecycle.bpf.c; exec deletes them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_python);
} python_processes SEC(".maps");

/* The thread states of CPython's threads that were found, to find them again; python.h checks them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_PYTHON_THREADS);
	__type(key, struct sf_python_thread_key);
	__type(value, struct sf_python_thread);
} python_threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_v8);
} v8_processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct sf_hotspot);
} hotspot_processes SEC(".maps");

/*
 * Objects of runtimes that were seen: user space is to read a new one soon, before it moves. An entry is the
 * hash of (process, object, identity); of two that meet at an index each displaces the other, which costs an
 * early wake-up.
 */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SF_SEEN_SCRIPTS);
	__type(key, __u32);
	__type(value, __u64);
} seen_scripts SEC(".maps");

#endif /* SF_RUNTIME_MAPS_H */
