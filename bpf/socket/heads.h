/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whether a header can be put into the head of an HTTP/1 request (RFC 9112) that is about to be written, and where:
 * behind its first line. That must be certain, since the payload is somebody else's:
 *
 * - the line ends in HTTP/1.0 or HTTP/1.1 and CR LF, so that what follows are headers;
 * - the head's end is in what was captured of the call, so that all of its headers were looked at;
 * - none of them carries a context, of any kind that is known: two would be a contradiction.
 */
#ifndef SF_SOCKET_HEADS_H
#define SF_SOCKET_HEADS_H

#include <bpf/bpf_helpers.h>

#include "../propagation_maps.h"
#include "send.h"
#include "text.h"

#define SF_LINE_FEEDS8 0x0a0a0a0a0a0a0a0aULL

#define SF_SEARCHED_BYTES 4096 /* of the head */
/* Longer first lines are left alone, so that line and header are in one piece when they go to TCP. */
#define SF_MAX_LINE_BYTES 1024
#define SF_MAX_HEAD_LINES 256

struct sf_search {
	struct sf_socket_scratch *scratch;
};

/* Whether a header's name, of which these are the first bytes in small letters, says that it carries a context. */
static __always_inline bool sf_names_context(__u64 name)
{
	switch (name) {
	case SF_TEXT8('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r'): /* traceparent, tracestate: W3C */
	case SF_TEXT8('t', 'r', 'a', 'c', 'e', 's', 't', 'a'):
	case SF_TEXT8('x', '-', 'b', '3', '-', 't', 'r', 'a'): /* x-b3-traceid, x-b3-sampled: Zipkin */
	case SF_TEXT8('x', '-', 'b', '3', '-', 's', 'a', 'm'):
	case SF_TEXT8('u', 'b', 'e', 'r', '-', 't', 'r', 'a'): /* uber-trace-id: Jaeger */
	case SF_TEXT8('x', '-', 'd', 'a', 't', 'a', 'd', 'o'): /* x-datadog-trace-id */
	case SF_TEXT8('x', '-', 'a', 'm', 'z', 'n', '-', 't'): /* x-amzn-trace-id: X-Ray */
	case SF_TEXT8('x', '-', 'c', 'l', 'o', 'u', 'd', '-'): /* x-cloud-trace-context: Google */
	case SF_TEXT8('x', '-', 'o', 't', '-', 's', 'p', 'a'): /* x-ot-span-context: OpenTracing */
	case SF_TEXT8('e', 'l', 'a', 's', 't', 'i', 'c', '-'): /* elastic-apm-traceparent */
	case SF_TEXT8('n', 'e', 'w', 'r', 'e', 'l', 'i', 'c'): /* newrelic */
	case SF_TEXT8('s', 'e', 'n', 't', 'r', 'y', '-', 't'): /* sentry-trace */
	case SF_TEXT8('o', 't', '-', 't', 'r', 'a', 'c', 'e'): /* ot-tracer-traceid: OpenTracing */
	case SF_TEXT8('x', '-', 'i', 'n', 's', 't', 'a', 'n'): /* x-instana-t */
	case SF_TEXT8('x', '-', 'd', 'y', 'n', 'a', 't', 'r'): /* x-dynatrace */
		return true;
	default:
		break;
	}
	/* b3: Zipkin; sw8: SkyWalking */
	return (name & 0xffffff) == SF_TEXT4('b', '3', ':', 0) || (__u32)name == SF_TEXT4('s', 'w', '8', ':');
}

/* bpf_loop callback: goes on to behind the next line feed, or by eight bytes. */
static long sf_search_head(__u32 index, struct sf_search *search)
{
	const struct sf_socket_data *data = &search->scratch->data;
	struct sf_head *head = &search->scratch->head;
	__u32 at = head->at, end = data->head_bytes;
	__u64 word, feeds, name;

	if (at >= end || at > SF_SEARCHED_BYTES)
		return 1;
	__builtin_memcpy(&word, &data->bytes[at], sizeof(word));
	/* As in sf_scan_word: of bytes that are zero the lowest is exact. */
	word ^= SF_LINE_FEEDS8;
	feeds = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;
	if (!feeds) {
		head->at = at + 8;
		return 0;
	}
	feeds = (feeds & -feeds) >> 7;
	if (feeds >> 32)
		at += 4, feeds >>= 32;
	if (feeds >> 16)
		at += 2, feeds >>= 16;
	if (feeds >> 8)
		at += 1;
	at++;
	if (at > end || at > SF_SEARCHED_BYTES + 8)
		return 1;
	head->at = at;
	if (!head->line_end)
		head->line_end = at;
	/* Where less than a whole word was captured, something old follows: that cannot hide a context. */
	__builtin_memcpy(&name, &data->bytes[at], sizeof(name));
	if (at + 2 <= end && (name & 0xffff) == SF_TEXT4('\r', '\n', 0, 0)) {
		head->is_whole = 1;
		return 1;
	}
	if (sf_names_context(name | SF_SPACES8)) {
		head->has_context = 1;
		return 1;
	}
	return 0;
}

/* Whether the first line, which ends at `end`, is that of an HTTP/1 request. */
static __always_inline bool sf_is_http1_line(const struct sf_socket_data *data, __u32 end)
{
	__u64 version;
	__u32 last;

	/* GET / HTTP/1.1 */
	if (end < 16 || end > SF_MAX_LINE_BYTES)
		return false;
	__builtin_memcpy(&version, &data->bytes[end - 11], sizeof(version));
	__builtin_memcpy(&last, &data->bytes[end - 4], sizeof(last));
	return version == SF_TEXT8(' ', 'H', 'T', 'T', 'P', '/', '1', '.') && data->bytes[end - 12] != ' ' &&
	       (last == SF_TEXT4('.', '0', '\r', '\n') || last == SF_TEXT4('.', '1', '\r', '\n'));
}

/* Where in the head that was captured a header can be put; else why nowhere, enum sf_header_counter, negated. */
static __always_inline int sf_header_place(struct sf_socket_scratch *scratch)
{
	struct sf_search search = {.scratch = scratch};
	__u32 line_end;

	__builtin_memset(&scratch->head, 0, sizeof(scratch->head));
	bpf_loop(SF_SEARCHED_BYTES / 8 + SF_MAX_HEAD_LINES, sf_search_head, &search, 0);
	if (scratch->head.has_context)
		return -SF_HEADER_COUNTER_LEFT_CONTEXT;
	if (!scratch->head.is_whole)
		return -SF_HEADER_COUNTER_LEFT_HEAD;
	line_end = scratch->head.line_end;
	if (!sf_is_http1_line(&scratch->data, line_end))
		return -SF_HEADER_COUNTER_LEFT_LINE;
	return line_end;
}

/*
 * Notes that in the scratch, if headers are put in at all. Not static, so that it is verified once and not for each
 * way that leads here.
 */
__noinline int sf_find_header_place(void)
{
	__u32 cpu = bpf_get_smp_processor_id(), zero = 0;
	const struct sf_propagation *found = bpf_map_lookup_elem(&propagation, &zero);
	struct sf_socket_scratch *scratch = bpf_map_lookup_elem(&socket_scratch, &cpu);

	if (found && found->inserts_headers && scratch)
		scratch->header_place = sf_header_place(scratch);
	return 0;
}

#endif /* SF_SOCKET_HEADS_H */
