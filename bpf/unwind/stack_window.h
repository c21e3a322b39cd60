/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reads words of the user stack, a stretch at a time.
 *
 * A call of bpf_probe_read_user costs 65 ns on the machine that this was measured on, whether it
 * fetches 8 bytes or 64, and 88 ns for 1024. A walk only ever goes up, and frames are mostly smaller
 * than 300 bytes, so what lies above the word that is asked for is fetched with it.
 *
 * A stretch ends with its page at the latest: memory is there or not page by page, so fetching more
 * than was asked for cannot fail where the word alone would not have.
 *
 * Needs from whoever includes it: bpf_probe_read_user.
 */
#ifndef SF_UNWIND_STACK_WINDOW_H
#define SF_UNWIND_STACK_WINDOW_H

#include "../vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "pages.h"

#define SF_STACK_WINDOW_BYTES 2048
/* The smallest page there is; larger ones are multiples of it. */
#define SF_USER_PAGE_BYTES 4096

struct sf_stack_window {
	__u64 begin; /* user address */
	__u64 bytes; /* read from there; 0: nothing */
	/* A word more than is ever read: Linux 6.1 loses track of what it has compared, and takes a mask's word. */
	unsigned char contents[SF_STACK_WINDOW_BYTES + 8] __attribute__((aligned(8)));
};

/* Makes the window begin at `address`. 0 if at least one word is in it. */
__attribute__((noinline)) int sf_move_window(struct sf_stack_window *window, __u64 address)
{
	__u64 bytes = SF_USER_PAGE_BYTES - address % SF_USER_PAGE_BYTES;

	if (!window)
		return -1;
	if (bytes > SF_STACK_WINDOW_BYTES)
		bytes = SF_STACK_WINDOW_BYTES;
	window->begin = address;
	window->bytes = bytes;
	if (bytes >= sizeof(__u64) && !bpf_probe_read_user(window->contents, bytes, (void *)address))
		return 0;
	/* A word across two pages, or memory of a finer grain than pages (a recorded image). */
	window->bytes = sizeof(__u64);
	if (!bpf_probe_read_user(window->contents, sizeof(__u64), (void *)address))
		return 0;
	window->bytes = 0;
	return -1;
}

/* Reads the word at `address`. 0 if it could be read. */
static __always_inline int sf_read_stack(struct sf_stack_window *window, __u64 address, __u64 *word)
{
	__u64 offset = address - window->begin;

	/* Both comparisons: the first against what is there, the second for the verifier. */
	if (offset > window->bytes - sizeof(*word) || window->bytes < sizeof(*word) ||
	    offset > SF_STACK_WINDOW_BYTES - sizeof(*word)) {
		if (sf_move_window(window, address))
			return -1;
		offset = 0;
	}
	SF_OPAQUE(offset);
	*word = *(const __u64 *)&window->contents[offset & (SF_STACK_WINDOW_BYTES - 1)];
	return 0;
}

#endif /* SF_UNWIND_STACK_WINDOW_H */
