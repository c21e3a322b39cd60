/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Requests that begin, as far as the kernel side can tell: the first bytes of a call look like the first
 * line of an HTTP/1 request (RFC 9112, section 3). It may be mistaken; user space reads all of it and has
 * the last word. What is decided here is what cannot wait: the request's key, so that samples can carry it,
 * and its ids, so that they can go out with its first byte.
 *
 * A thread that has read a request is at it until it waits for any of several descriptors (then it serves
 * many, and what it does next is anybody's), reads another request, or touches what is another one's: reads
 * from a connection that it has not written to for this request, or answers elsewhere. A thread that serves
 * one request at a time does none of that. A goroutine is at it until it reads another one.
 *
 * Within one turn of an event loop there are no system calls between what it does for one and for another: a
 * timer that runs out, a promise, a task that another thread has woken come right behind a read of something
 * else. So a thread that was ever seen to have two requests at once, or to wait with epoll while one that it
 * has read waits for its answer, is at none from then on, and that is counted. But for programs of which user space
 * knows that they handle each event to its end (`event_loops`): with those the first thing that is asked of
 * others after a request was read is for that request, and nothing else is. And but for Node, whose callbacks
 * begin with a system call on what they are for, and which says when it goes on to what has none (turns.bpf.c):
 * what it asks of others between the two is for the request that it has read.
 */
#ifndef SF_SOCKET_REQUESTS_H
#define SF_SOCKET_REQUESTS_H

#include <bpf/bpf_helpers.h>

#include "../request_maps.h"
#include "../spanflame.h"
#include "contexts.h"
#include "pools.h"
#include "publishing.h"
#include "send.h"
#include "text.h"

/* Bytes of the method and its space that a request begins with; 0: no method that we know. */
static __always_inline __u32 sf_method_bytes(__u64 word)
{
	switch ((__u32)word) {
	case SF_TEXT4('G', 'E', 'T', ' '):
	case SF_TEXT4('P', 'U', 'T', ' '):
		return 4;
	case SF_TEXT4('H', 'E', 'A', 'D'):
	case SF_TEXT4('P', 'O', 'S', 'T'):
		return (word >> 32 & 0xff) == ' ' ? 5 : 0;
	default:
		break;
	}
	if ((word & 0xffffffffffffULL) == SF_TEXT8('P', 'A', 'T', 'C', 'H', ' ', 0, 0) ||
	    (word & 0xffffffffffffULL) == SF_TEXT8('T', 'R', 'A', 'C', 'E', ' ', 0, 0))
		return 6;
	if ((word & 0xffffffffffffffULL) == SF_TEXT8('D', 'E', 'L', 'E', 'T', 'E', ' ', 0))
		return 7;
	if (word == SF_TEXT8('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '))
		return 8;
	return 0;
}

/* Whether what was captured begins like a request, if `before` bytes of it, `begun`, were read before. */
static __always_inline bool sf_is_request(const struct sf_socket_data *data, __u64 begun, __u32 before)
{
	__u32 target, word;
	__u64 first;

	__builtin_memcpy(&first, data->bytes, sizeof(first));
	before &= 7;
	target = sf_method_bytes(before ? begun | first << before * 8 : first);
	if (!target || target < before)
		return false;
	target -= before;
	if (data->head_bytes <= target)
		return false;
	target &= 15;
	if (data->bytes[target] == '/' || data->bytes[target] == '*')
		return true;
	if (data->head_bytes < target + sizeof(word))
		return false;
	__builtin_memcpy(&word, &data->bytes[target], sizeof(word));
	return (word | (__u32)SF_SPACES8) == SF_TEXT4('h', 't', 't', 'p');
}

/*
 * The same for what was read, which may be only a piece of the method: Go's HTTP server waits for the next
 * request by reading one byte of it, in another goroutine than the one that reads the rest. Returns how many
 * bytes of the request came before; negative: it is none.
 */
static __always_inline int sf_completes_request(const struct sf_socket_data *data,
						struct sf_connection *connection)
{
	__u64 begun = connection->begun, word;
	__u32 before = connection->begun_bytes, bytes = data->head_bytes;

	connection->begun_bytes = 0;
	if (sf_is_request(data, 0, 0))
		return 0;
	if (before && sf_is_request(data, begun, before))
		return before;
	if (!bytes || bytes != data->length || before + bytes > 7)
		return -1;
	__builtin_memcpy(&word, data->bytes, sizeof(word));
	word &= (1ULL << bytes % 8 * 8) - 1;
	connection->begun = before ? begun | word << before % 8 * 8 : word;
	connection->begun_bytes = before + bytes;
	return -1;
}

/* The system-call programs have a function around it that is verified by itself, and no stack for two. */
#ifdef SF_TAKE_TRACE_ID
#define SF_TRACE_ID_FUNCTION __noinline
#else
#define SF_TRACE_ID_FUNCTION __always_inline
#endif

/* ---- traceparent ------------------------------------------------------------------------------- */

/* Version, trace id, parent id and flags in hexadecimal with dashes (W3C Trace Context, section 3.2). */
#define SF_TRACEPARENT_BYTES 55
#define SF_TRACE_ID_AT 3
#define SF_SCANNED_BYTES 4096 /* of the head */

struct sf_scan {
	struct sf_socket_data *data;
	__u32 found; /* position of the value, 0: not yet */
};

/*
 * bpf_loop callback: eight bytes at a time, is there a colon, and before it the header's name? A word that
 * has this colon cannot have another before it, so that looking at a word's first one is enough.
 */
static long sf_scan_word(__u32 index, struct sf_scan *scan)
{
	struct sf_socket_data *data = scan->data;
	__u32 at = index * 8, colon, last;
	__u64 word, colons;

	if (at >= data->head_bytes || at > SF_SCANNED_BYTES)
		return 1;
	__builtin_memcpy(&word, &data->bytes[at], sizeof(word));
	/* A byte that is zero has its high bit set in the end (Hacker's Delight, 6-1); the lowest is exact. */
	word ^= 0x3a3a3a3a3a3a3a3aULL;
	colons = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;
	if (!colons)
		return 0;
	colon = at;
	colons = (colons & -colons) >> 7;
	/* Which byte the lowest set bit is in: a de Bruijn-free way with four comparisons. */
	if (colons >> 32)
		colon += 4, colons >>= 32;
	if (colons >> 16)
		colon += 2, colons >>= 16;
	if (colons >> 8)
		colon += 1;
	if (colon < 12 || colon > SF_SCANNED_BYTES + 8)
		return 0;
	__builtin_memcpy(&last, &data->bytes[colon - 4], sizeof(last));
	if ((last | (__u32)SF_SPACES8) != SF_TEXT4('r', 'e', 'n', 't'))
		return 0;
	__builtin_memcpy(&word, &data->bytes[colon - 11], sizeof(word));
	if ((word | SF_SPACES8) != SF_TEXT8('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r') ||
	    data->bytes[colon - 12] != '\n')
		return 0;
	scan->found = colon + 1;
	return 1;
}

/*
 * What each letter is as a hexadecimal digit. A table, because the verifier would follow both sides of each
 * branch, at each of 32 letters.
 */
#define SF_IS_DIGIT 0x10
const volatile __u8 hex_digits[256] SEC(".rodata.calls")
= {
	['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15,
	['6'] = 0x16, ['7'] = 0x17, ['8'] = 0x18, ['9'] = 0x19, ['a'] = 0x1a, ['b'] = 0x1b,
	['c'] = 0x1c, ['d'] = 0x1d, ['e'] = 0x1e, ['f'] = 0x1f,
};

/*
 * Takes the trace id of the head's traceparent into the event. Returns enum sf_header; 0: there is none that is
 * well formed.
 */
static SF_TRACE_ID_FUNCTION int sf_find_trace_id(struct sf_socket_data *data)
{
	__u32 at, all = SF_IS_DIGIT, any = 0;
	struct sf_scan scan = {.data = data};
	int index;

	bpf_loop(SF_SCANNED_BYTES / 8, sf_scan_word, &scan, 0);
	at = scan.found;
	if (!at || at > SF_SCANNED_BYTES + 16)
		return 0;
	if (data->bytes[at] == ' ' || data->bytes[at] == '\t')
		at++;
	if (at + SF_TRACEPARENT_BYTES > data->head_bytes)
		return 0;
	if (data->bytes[at + 2] != '-' || data->bytes[at + SF_TRACE_ID_AT + 32] != '-')
		return 0;
	/* Version ff is invalid; later versions begin as version 00 does. */
	if (data->bytes[at] == 'f' && data->bytes[at + 1] == 'f')
		return 0;
	for (index = 0; index < 16; index++) {
		__u32 high = hex_digits[data->bytes[at + SF_TRACE_ID_AT + 2 * index]];
		__u32 low = hex_digits[data->bytes[at + SF_TRACE_ID_AT + 2 * index + 1]];

		all &= high & low;
		any |= (high | low) & 0xf;
		data->trace_id[index] = high << 4 | (low & 0xf);
	}
	if (!any || !(all & SF_IS_DIGIT))
		return 0;
	/* The last digit of the flags. */
	return hex_digits[data->bytes[at + SF_TRACEPARENT_BYTES - 1]] & 1
		       ? SF_HEADER_FOUND | SF_HEADER_SAMPLED
		       : SF_HEADER_FOUND;
}

/* ---- threads that serve many --------------------------------------------------------------------- */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, __u32); /* enum sf_event_loop */
} event_loops SEC(".maps");

/* Whether the request that the thread has read last waits for its answer, and for the thread to write it. */
static __always_inline bool sf_has_unanswered(const struct sf_thread *thread)
{
	__u64 id = thread->connection;
	const struct sf_connection *connection;

	if (!id || thread->is_answered)
		return false;
	connection = bpf_map_lookup_elem(&connections, &id);
	return connection && !connection->is_at_end && !connection->is_shut_down;
}

static __always_inline void sf_begin_to_serve_many(struct sf_thread *thread)
{
	if (!thread->serves_many)
		thread->serves_many = SF_SERVES_MANY;
}

/* How the event loops of a process go about their work; NULL: it is not known. */
static __always_inline const __u32 *sf_event_loop_of(const struct task_struct *task, __u32 tgid)
{
	const __u32 *how = bpf_map_lookup_elem(&event_loops, &tgid);

	/* A worker that was forked runs the same program, whether it has been met yet or not. */
	if (!how && task->flags & PF_FORKNOEXEC) {
		tgid = task->real_parent->tgid;
		how = bpf_map_lookup_elem(&event_loops, &tgid);
	}
	return how;
}

/* A thread reads a request. */
static __always_inline void sf_begin_serving(struct sf_thread *thread, __u64 connection, __u64 request,
					     __u32 tgid)
{
	const __u32 *how;

	if (thread->connection != connection && sf_has_unanswered(thread))
		sf_begin_to_serve_many(thread);
	/* First: what is looked at from elsewhere belongs to the request. */
	sf_be_at(thread, 0);
	thread->connection = connection;
	thread->is_answered = 0;
	if (thread->serves_many) {
		how = sf_event_loop_of(bpf_get_current_task_btf(), tgid);
		if (!how) {
			sf_count(SF_SOCKET_COUNTER_EVENT_LOOP, 1);
			request = 0;
		}
		thread->serves_many = !how                          ? SF_SERVES_MANY
				      : *how == SF_EVENT_LOOP_TURNS ? SF_SERVES_IN_TURNS
								    : SF_SERVES_PROMPTLY;
	}
	thread->request = request;
}

/* Something is written to a connection from which requests are read. */
static __always_inline void sf_note_answer(struct task_struct *task, struct sf_connection *connection,
					   __u64 id)
{
	struct sf_thread *thread = bpf_task_storage_get(&threads, task, NULL, 0);

	connection->is_answered = 1;
	if (thread && thread->connection == id)
		sf_begin_answer(thread);
}

#ifdef SF_TAKE_TRACE_ID
/* What they see is not what TCP is given. */
#define SF_FIND_HEADER_PLACE() ((void)0)
#else
#define SF_FIND_HEADER_PLACE() sf_find_header_place()
#include "heads.h"

/*
 * The same for the system-call programs. Not static, so that it is verified once and not for each way that
 * leads here.
 */
__noinline int sf_take_trace_id(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct sf_socket_scratch *scratch = bpf_map_lookup_elem(&socket_scratch, &cpu);

	return scratch ? sf_find_trace_id(&scratch->data) : 0;
}
#define SF_TAKE_TRACE_ID(data) sf_take_trace_id()
#endif

/* ---- minting ----------------------------------------------------------------------------------- */

/*
 * Random numbers: xoroshiro128++ (Blackman and Vigna, 2019), which goes on from what the kernel's generator gave once. A
 * request takes six words of that, and each is a call.
 */
static __always_inline __u64 sf_random(struct sf_socket_scratch *scratch)
{
	__u64 first = scratch->random[0], second = scratch->random[1], sum;

	if (!(first | second)) {
		first = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
		second = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
	}
	sum = first + second;
	second ^= first;
	scratch->random[0] = (first << 49 | first >> 15) ^ second ^ second << 21;
	scratch->random[1] = second << 28 | second >> 36;
	return (sum << 17 | sum >> 47) + first;
}

/* An id of one or two such numbers; all zeros would be none. */
static __always_inline void sf_take_random(struct sf_socket_scratch *scratch, unsigned char *id,
					   __u32 numbers)
{
	__u32 index;

	for (index = 0; index < numbers; index++) {
		__u64 number = sf_random(scratch);

		number |= !number;
		__builtin_memcpy(id + index * sizeof(number), &number, sizeof(number));
	}
}

/* Notes who is at the request from now on. */
static __noinline int sf_open_request(struct sf_socket_scratch *scratch, __u64 request, bool is_sampled)
{
	if (scratch->is_go) {
		struct sf_goroutine_key key = {
			.goroutine = scratch->goroutine,
			.tgid = scratch->pid_tgid >> 32,
		};
		const struct sf_go_process *go = bpf_map_lookup_elem(&go_processes, &key.tgid);
		struct sf_goroutine opened = {.request = request};

		if (go)
			sf_note_ids(go, &scratch->running, &opened);
		if (!go || !key.goroutine || bpf_map_update_elem(&goroutines, &key, &opened, BPF_ANY))
			sf_count(SF_SOCKET_COUNTER_LOST_REQUEST, 1);
	} else {
		struct sf_thread *thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL,
								BPF_LOCAL_STORAGE_GET_F_CREATE);

		if (!thread) {
			sf_count(SF_SOCKET_COUNTER_LOST_REQUEST, 1);
			return 0;
		}
		sf_begin_serving(thread, scratch->data.event.connection, request, scratch->pid_tgid >> 32);
		sf_publish_at_once(thread, &scratch->data, is_sampled, scratch->pid_tgid);
	}
	return 0;
}

/* A Go program's request is written for another goroutine, which was seen when it asked (go.bpf.c). */
static __always_inline void sf_take_asker(struct sf_socket_data *data)
{
	const struct sf_asker *asker = bpf_map_lookup_elem(&go_askers, &data->event.connection);

	if (!asker)
		return;
	data->within = asker->request;
	bpf_map_delete_elem(&go_askers, &data->event.connection);
}

/*
 * HTTP/2 says so with its first bytes (RFC 9113, section 3.4). Its headers refer to those of before, so that all is
 * wanted from there on; user space, which decides what is captured, comes too late for the first requests.
 */
static __always_inline void sf_notice_http2(const struct sf_socket_data *data,
					    struct sf_connection *connection)
{
	__u64 first;

	if (data->position || data->head_bytes < sizeof(first))
		return;
	__builtin_memcpy(&first, data->bytes, sizeof(first));
	if (first != SF_TEXT8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T'))
		return;
	connection->capture =
		SF_CAPTURE_WHOLE | (data->flags & SF_DATA_DECRYPTED ? SF_CAPTURE_OF_DECRYPTED : 0);
}

/*
 * Mints what a request needs, if what was captured begins one. One that is read opens for its reader, one
 * that is written opens for nobody: what its thread does is still for the request that it is within.
 * `sk`: the TCP socket whose plain bytes these are, else NULL.
 */
static __noinline int sf_notice_request(struct sf_socket_scratch *scratch, struct sf_connection *connection,
					const struct sock *sk)
{
	struct sf_socket_data *data = &scratch->data;
	bool is_read = data->direction == SF_IN;
	int header, begun_bytes = 0;

	sf_notice_http2(data, connection);
	if (is_read ? connection->role == SF_ROLE_CONNECTED || connection->asks
		    : connection->role == SF_ROLE_ACCEPTED || connection->serves)
		return 0;
	if (is_read)
		begun_bytes = sf_completes_request(data, connection);
	if (is_read ? begun_bytes < 0 : !sf_is_request(data, 0, 0))
		return 0;
	scratch->minted++;
	data->minted = scratch->minter << SF_REQUEST_CPU_SHIFT | scratch->minted;
	data->flags |= SF_DATA_MINTED;
	header = SF_TAKE_TRACE_ID(data);
	if (!header)
		sf_take_random(scratch, data->trace_id, 2);
	sf_take_random(scratch, data->span_id, 1);
	sf_count(SF_SOCKET_COUNTER_MINTED, 1);
	if (is_read) {
		connection->serves = 1;
		connection->request = data->minted;
		connection->is_answered = 0;
		data->within = 0;
		sf_receive_context(data, connection, header, sk, begun_bytes);
		/* Who has sent it from this host, user space knows better. */
		sf_open_request(scratch, data->minted,
				header & SF_HEADER_SAMPLED || (data->flags & SF_DATA_RECEIVED &&
							       !sf_is_loopback(&connection->peer)));
	} else {
		connection->asks = 1;
		if (scratch->is_go)
			sf_take_asker(data);
		else
			sf_use_pooled(data, connection);
		if (!header) {
			if (connection->takes_headers)
				SF_FIND_HEADER_PLACE();
			sf_send_context(scratch, connection, sk);
		}
	}
	return 0;
}

/* ---- whose connection it is ---------------------------------------------------------------------- */

/*
 * Notes for which request a client's end is written to; `was_used`: others have been before. False: the call is for another request than the one
 * that the thread seemed to be at, and nothing is certain any more.
 */
static __always_inline bool sf_is_for_request(struct sf_connection *connection, __u32 direction, __u64 within,
					      __u32 serves_many, bool was_used)
{
	bool is_server = connection->serves || connection->role == SF_ROLE_ACCEPTED;

	if (direction == SF_OUT && !is_server) {
		/* An event loop that goes on with what another request, or nobody, has begun: connecting. */
		bool is_new = serves_many ? !was_used : !connection->request && connection->opened_by;
		bool is_others = is_new && connection->opened_by != within;

		/*
		 * It may have been made for the other. Event loops are at a request only if what they do is known
		 * so well that a connection is for whom it was made.
		 */
		if (is_others && !serves_many)
			connection->opened_by = 0;
		connection->request = within;
		return !is_others;
	}
	return connection->request == within;
}

/* ---- the end of a thread's evidence -------------------------------------------------------------- */

/* Bits that are set, without a branch, of which the verifier would follow both sides each time. */
static __always_inline __u64 sf_count_bits(__u64 word)
{
	word -= word >> 1 & 0x5555555555555555ULL;
	word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return word * 0x0101010101010101ULL >> 56;
}

/* How many descriptors are in an fd_set of `descriptors` bits. */
static __always_inline __u64 sf_count_set(__u64 address, __u32 descriptors)
{
	__u64 words[SF_FD_SET_WORDS] = {}, found = 0;
	__u32 bytes = (descriptors + 63) / 64 * 8;
	int index;

	if (!address)
		return 0;
	if (bytes > sizeof(words))
		bytes = sizeof(words);
	if (bpf_probe_read_user(words, bytes, (void *)address))
		return 0;
	for (index = 0; index < SF_FD_SET_WORDS; index++)
		found += sf_count_bits(words[index]);
	return found;
}

/* Whether the system call is one with which only event loops wait. */
static __always_inline bool sf_is_of_event_loop(__u64 number)
{
	return number == SF_SYS_EPOLL_WAIT || number == SF_SYS_EPOLL_PWAIT || number == SF_SYS_EPOLL_PWAIT2 ||
	       number == SF_SYS_IO_URING_ENTER;
}

/* Whether the system call waits for readiness, and for any of several descriptors. */
static __noinline __attribute__((unused)) bool sf_waits_for_several(__u64 number, __u64 first, __u64 second,
								    __u64 third, __u64 fourth)
{
	switch (number) {
	case SF_SYS_EPOLL_WAIT:
	case SF_SYS_EPOLL_PWAIT:
	case SF_SYS_EPOLL_PWAIT2:
		return true;
	case SF_SYS_POLL:
	case SF_SYS_PPOLL:
		return second > 1;
	case SF_SYS_SELECT:
	case SF_SYS_PSELECT6:
		/* One that is in both sets counts as two. Nobody has been seen doing that in a thread server. */
		return sf_count_set(second, first) + sf_count_set(third, first) > 1;
	case SF_SYS_IO_URING_ENTER:
		return third && fourth & IORING_ENTER_GETEVENTS;
	default:
		return false;
	}
}

#endif /* SF_SOCKET_REQUESTS_H */
