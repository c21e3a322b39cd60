/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps that hold unwind tables; see spanflame.h for what lies in them. */
#ifndef SF_TABLE_MAPS_H
#define SF_TABLE_MAPS_H

#include <bpf/bpf_helpers.h>

#include "spanflame.h"
#include "unwind/rule_cache.h"
#include "vmlinux.h"

struct sf_slab {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SF_SLAB_PAGES);
	/*
	 * Sizes and not types: Linux 6.1 compares a new slab with this template by where a timer would
	 * be in its values, and remembers "none" of a map with types as another number than of one
	 * without (kernel/bpf/syscall.c, map_check_btf). User space makes slabs without types.
	 */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct sf_page));
};

/*
 * Every slab has the same number of entries and no BPF_F_INNER_MAP: with that flag the kernel could
 * not inline the look-up in a slab, which costs a call for each page that a frame touches.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SF_MAX_SLABS);
	__type(key, __u32);
	__array(values, struct sf_slab);
} slabs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SF_OBJECT_SLOTS);
	__type(key, __u32);
	__type(value, struct sf_object);
} objects SEC(".maps");

/*
 * One for each CPU, see unwind/rule_cache.h; user space sets how many. Not a per-CPU map, whose values
 * are limited to 32 KiB. Mmapable, though nobody does: such a map's values begin on a page, so that a set is one line
 * of a processor's cache; else they begin 16 bytes behind a line, and each set is two. Only the sampler may use
 * it: what interrupts a walk needs one of its own.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sf_rule_cache);
} rule_cache SEC(".maps");

#endif /* SF_TABLE_MAPS_H */
