/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counters, by their number in an array for each CPU. */
#ifndef SF_COUNTERS_H
#define SF_COUNTERS_H

#include <bpf/bpf_helpers.h>

#include "vmlinux.h"

static __always_inline void sf_add_to_counter(void *counters, __u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(counters, &counter);

	/* Atomic: a softirq may count between load and store. */
	if (value)
		__sync_fetch_and_add(value, amount);
}

#endif /* SF_COUNTERS_H */
