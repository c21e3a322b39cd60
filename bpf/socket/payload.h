/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reading what a call moves out of the caller's memory: the first bytes and the last ones.
 *
 * Memory that the process has never touched (a constant in a file mapping) cannot be read from here, as
 * BPF faults nothing in. The kernel's own copy does, so that a write which could not be read when it
 * began can be read when it returns.
 */
#ifndef SF_SOCKET_PAYLOAD_H
#define SF_SOCKET_PAYLOAD_H

#include <bpf/bpf_helpers.h>

#include "../spanflame.h"
#include "send.h"
#include "syscalls.h"

/* Where the bytes of a call lie. */
struct sf_buffers {
	__u64 address;  /* of the buffer, or of an array of iovecs */
	__u32 iovecs;   /* 0: it is a buffer */
	__u32 are_read; /* 1: the iovecs are in the scratch already */
	__u64 length;   /* bytes that lie there */
};

#define SF_IOV_MAX 1024 /* the kernel's own limit (UIO_MAXIOV) */

/* The first iovecs of an array, as many as the scratch has room for. */
static __always_inline int sf_read_iovecs(struct sf_socket_scratch *scratch, __u64 address, __u64 count)
{
	if (count > SF_MAX_IOVECS)
		count = SF_MAX_IOVECS;
	return bpf_probe_read_user(scratch->iovecs, count * sizeof(struct sf_iovec), (void *)address);
}

struct sf_summing {
	__u64 address;
	__u64 count;
	__u64 sum;
	__u64 failed;
};

/* bpf_loop callback: one iovec. */
static long sf_add_iovec(__u32 index, struct sf_summing *summing)
{
	struct sf_iovec iovec;

	if (index >= summing->count)
		return 1;
	if (bpf_probe_read_user(&iovec, sizeof(iovec),
				(void *)(summing->address + index * sizeof(struct sf_iovec)))) {
		summing->failed = 1;
		return 1;
	}
	summing->sum += iovec.length;
	return 0;
}

/* The bytes that an array of iovecs has. Nonzero: the array could not be read. */
static __always_inline int sf_sum_iovecs(struct sf_socket_scratch *scratch, struct sf_buffers *buffers)
{
	struct sf_summing summing = {.address = buffers->address, .count = buffers->iovecs};
	__u32 index;

	if (buffers->iovecs <= SF_MAX_IOVECS) {
		if (sf_read_iovecs(scratch, buffers->address, buffers->iovecs))
			return 1;
		buffers->are_read = 1;
		buffers->length = 0;
		for (index = 0; index < SF_MAX_IOVECS && index < buffers->iovecs; index++)
			buffers->length += scratch->iovecs[index].length;
		return 0;
	}
	bpf_loop(SF_IOV_MAX, sf_add_iovec, &summing, 0);
	buffers->length = summing.sum;
	return summing.failed;
}

/* Copies into the head at `filled`; returns bytes copied, or -1. */
static __always_inline __s64 sf_copy(struct sf_socket_data *data, __u64 filled, __u64 bytes, __u64 address)
{
	if (bytes > SF_WHOLE_BYTES)
		bytes = SF_WHOLE_BYTES;
	if (filled > SF_WHOLE_BYTES)
		return -1;
	if (bpf_probe_read_user(&data->bytes[filled], bytes, (void *)address))
		return -1;
	return bytes;
}

struct sf_gathering {
	struct sf_socket_scratch *scratch;
	__u64 count;
};

/* bpf_loop callback: the part of one iovec that belongs to the head, and whether the call ends in it. */
static long sf_gather_iovec(__u32 index, struct sf_gathering *gathering)
{
	struct sf_socket_scratch *scratch = gathering->scratch;
	struct sf_walk_of_iovecs *walk = &scratch->walk;
	__u64 left = walk->length - walk->offset, base, bytes, part;

	if (index >= gathering->count || index >= SF_MAX_IOVECS || !left)
		return 1;
	base = scratch->iovecs[index].base;
	bytes = scratch->iovecs[index].length;
	if (bytes > left)
		bytes = left;
	if (!bytes)
		return 0;
	part = walk->wanted - walk->filled;
	if (part > bytes)
		part = bytes;
	if (part) {
		if (sf_copy(&scratch->data, walk->filled, part, base) < 0) {
			walk->failed = 1;
			return 1;
		}
		walk->filled += part;
	}
	walk->offset += bytes;
	if (bytes == left) {
		walk->tail_address = base + bytes;
		walk->tail_bytes = bytes < SF_TAIL_BYTES ? bytes : SF_TAIL_BYTES;
	}
	return 0;
}

/*
 * Reads the first and the last bytes, `limit` in all. Nonzero: nothing of it could be read. A tail that
 * cannot be read is left out.
 */
static __noinline int sf_capture(struct sf_socket_scratch *scratch, const struct sf_buffers *buffers,
				 __u64 limit)
{
	struct sf_walk_of_iovecs *walk = &scratch->walk;
	struct sf_socket_data *data = &scratch->data;
	__u64 length = buffers->length, wanted = length, tail_bytes;

	data->head_bytes = 0;
	data->tail_bytes = 0;
	if (!length || !limit)
		return 0;
	if (wanted > limit)
		wanted = limit - SF_TAIL_BYTES;
	if (!buffers->iovecs) {
		if (sf_copy(data, 0, wanted, buffers->address) < 0)
			return 1;
		walk->filled = wanted;
		walk->tail_address = buffers->address + length;
		walk->tail_bytes = SF_TAIL_BYTES;
	} else {
		struct sf_gathering gathering = {.scratch = scratch, .count = buffers->iovecs};

		__builtin_memset(walk, 0, sizeof(*walk));
		walk->length = length;
		walk->wanted = wanted;
		if (!buffers->are_read && sf_read_iovecs(scratch, buffers->address, buffers->iovecs))
			return 1;
		bpf_loop(SF_MAX_IOVECS, sf_gather_iovec, &gathering, 0);
		if (walk->failed)
			return 1;
	}
	data->head_bytes = walk->filled;
	tail_bytes = length - walk->filled;
	if (tail_bytes > walk->tail_bytes)
		tail_bytes = walk->tail_bytes;
	if (tail_bytes && sf_copy(data, walk->filled, tail_bytes, walk->tail_address - tail_bytes) > 0)
		data->tail_bytes = tail_bytes;
	return 0;
}

#endif /* SF_SOCKET_PAYLOAD_H */
