/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Fields of the kernel's objects, by pointers of which the verifier does not know what they point to.
 *
 * Where the kernel lets a pointer be called one to a type (bpf_rdonly_cast, Linux 6.2), a field is a load that gives 0 if
 * the address is none, as with pointers that the verifier has followed itself. Elsewhere it is a call of
 * bpf_probe_read_kernel: some 35 ns each with its checks, and ten of them to find the socket of a descriptor.
 */
#ifndef SF_KERNEL_FIELDS_H
#define SF_KERNEL_FIELDS_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

extern void *bpf_rdonly_cast(const void *object, __u32 type_id) __ksym __weak;

/* `field` of the `struct type` that `pointer` points to: a number or a pointer. NULL where the cast is not there. */
#define SF_FIELD(type, pointer, field)                                                     \
	({                                                                                 \
		const struct type *object_ = (const void *)(pointer);                      \
		bpf_rdonly_cast ? ((const struct type *)bpf_rdonly_cast(                   \
					   object_, bpf_core_type_id_kernel(struct type))) \
					  ->field                                          \
				: BPF_CORE_READ(object_, field);                           \
	})

#endif /* SF_KERNEL_FIELDS_H */
