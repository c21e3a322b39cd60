/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* In place of libbpf's header: the helpers that the unwinder calls, as shim.c has them. */
#ifndef SF_SHIM_BPF_HELPERS_H
#define SF_SHIM_BPF_HELPERS_H

#define __always_inline inline __attribute__((always_inline))

static void *bpf_map_lookup_elem(const void *map, const void *key);
static long bpf_probe_read_user(void *to, __u32 bytes, const void *address);
static __u64 bpf_get_current_task(void);
static __u32 bpf_get_smp_processor_id(void);

/* bpf_loop takes its callback as void pointer; this one may not be called through the wrong type. */
#define bpf_loop(count, callback, context, flags)                                     \
	({                                                                            \
		__u32 sf_index = 0;                                                   \
		while (sf_index < (__u32)(count) && !(callback)(sf_index, (context))) \
			sf_index++;                                                   \
		(void)(flags);                                                        \
		(long)sf_index;                                                       \
	})

#endif
