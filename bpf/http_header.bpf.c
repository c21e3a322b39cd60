// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Puts the context of a request into its head, as the header `traceparent` (W3C Trace Context), for those who read
 * headers and know nothing of options of TCP. Loaded only if that was asked for, and only where the kernel has
 * passed a test of what it does to sockets (src/kernel/header_self_test.rs).
 *
 * A socket whose payload is to be changed must be in a map of sockets. From then on the kernel reads and writes it
 * by other functions of its own (net/ipv4/tcp_bpf.c), and shows what is written to a program before TCP is given it.
 * So these are only
 *
 *	sockets that programs of this host have connected, to private addresses, since this program was there;
 *	none of the kernel's own, none with TLS in the kernel or MPTCP on top, none that sends without copying.
 *
 * Whoever finds that another protocol is spoken on one takes it out of the map again, and the kernel gives its
 * functions back. All leave it when the map goes, which no file system keeps.
 *
 * Where the header goes was decided when the system call began (socket/heads.h); here is looked that these are the
 * bytes that were meant: their number in the stream, their beginning, and the end of their first line. Nothing is put in
 * while anything that was sent before is on its way: then TCP takes line and header at once, and should it
 * take not all of the rest, the kernel subtracts what is left from what the program has given, and is right.
 *
 * Linux 5.10. Known of the kernel: bpf_msg_push_data counts wrongly beyond the first stretch of a message (before
 * June 2026), so that it is only asked for that one; and with few stretches left it copies, so that large messages
 * are left alone.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "private_addresses.h"
#include "propagation_maps.h"
#include "socket/connections.h"
#include "spanflame.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

#define SK_DROP 0
#define SK_PASS 1
/* A bit of sk_shutdown, include/net/sock.h. */
#define SEND_SHUTDOWN 2

/* Name, a blank, version, trace id, parent id and flags with dashes, CR LF. */
#define SF_HEADER_BYTES 70
#define SF_HEADER_TRACE_ID_AT 16
#define SF_HEADER_SPAN_ID_AT 49

/* Positions in the line that the socket programs have chosen (SF_MAX_LINE_BYTES), so that the verifier knows it. */
#define SF_MAX_INSERT_AT 1024
/* Stretches of a message have a page at least, and there are 17. */
#define SF_MAX_MESSAGE_BYTES 32768
/* A smaller buffer might not take line and header at once. */
#define SF_MIN_SEND_BUFFER_BYTES 16384

/* The sequence is not looked at: user space cannot know it, and nobody else has the socket. */
const volatile __u32 is_self_test SEC(".rodata.self_test")
= 0;

/* Key = connection. A socket leaves it when it is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SF_MAX_HEADER_CONNECTIONS);
	__type(key, __u64);
	__type(value, __u64);
} header_sockets SEC(".maps");

static __always_inline bool sf_has_upper_protocol(const struct tcp_sock *tcp)
{
	return ((const struct inet_connection_sock *)tcp)->icsk_ulp_ops != NULL;
}

static __always_inline bool sf_is_fit(const struct tcp_sock *tcp)
{
	const struct sock *sk = (const struct sock *)tcp;

	if (sf_has_upper_protocol(tcp) || BPF_CORE_READ_BITFIELD(sk, sk_kern_sock))
		return false;
	return !(sk->__sk_common.skc_flags >> (bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY) & 63) & 1);
}

SEC("sockops")
int on_connected(struct bpf_sock_ops *ops)
{
	struct sf_connection *connection;
	const struct tcp_sock *tcp;
	void *sk = ops->sk;
	__u64 id;

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || !sf_is_peer_private(ops) || !sk)
		return 1;
	id = bpf_get_socket_cookie(ops);
	/* Not there: it is the agent's own. */
	connection = bpf_map_lookup_elem(&connections, &id);
	if (!connection || connection->role != SF_ROLE_CONNECTED || connection->is_excluded)
		return 1;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || !sf_is_fit(tcp))
		return 1;
	if (bpf_sock_hash_update(ops, &header_sockets, &id, BPF_NOEXIST)) {
		sf_count_header(SF_HEADER_COUNTER_LOST_CONNECTION);
		return 1;
	}
	connection->takes_headers = 1;
	sf_count_header(SF_HEADER_COUNTER_CONNECTIONS);
	return 1;
}

/*
 * Whether TCP takes more from it. Where it does not, the kernel subtracts all of the message from what the program has
 * given, and our line with it: the program would be told of fewer than no bytes, and not of the error.
 */
static __always_inline bool sf_takes_more(const struct sock *sk)
{
	return sk->__sk_common.skc_state == TCP_ESTABLISHED && !sk->sk_err &&
	       !(sk->sk_shutdown & SEND_SHUTDOWN);
}

static __always_inline void sf_write_hex(unsigned char *to, const unsigned char *from, int bytes)
{
	int index;

	for (index = 0; index < bytes; index++) {
		unsigned char high = from[index] >> 4, low = from[index] & 0xf;

		to[2 * index] = high + (high > 9 ? 'a' - 10 : '0');
		to[2 * index + 1] = low + (low > 9 ? 'a' - 10 : '0');
	}
}

static __always_inline void sf_write_header(unsigned char *to, const struct sf_context *context)
{
	unsigned char line[SF_HEADER_BYTES + 2] =
		"traceparent: 00-                                -                -01\r\n";

	sf_write_hex(&line[SF_HEADER_TRACE_ID_AT], context->trace_id, sizeof(context->trace_id));
	sf_write_hex(&line[SF_HEADER_SPAN_ID_AT], context->span_id, sizeof(context->span_id));
	__builtin_memcpy(to, line, SF_HEADER_BYTES);
}

/* Whether the message is the request that was meant. */
static __always_inline bool sf_is_meant(const struct sk_msg_md *msg,
					const struct sf_outgoing_context *outgoing, __u32 insert_at)
{
	const unsigned char *data = msg->data, *end = msg->data_end;
	__u64 begin;
	__u32 last;

	/* What is sent out of a file's or a pipe's pages is not shown, and may not be changed. */
	if (!data || data + sizeof(begin) > end)
		return false;
	__builtin_memcpy(&begin, data, sizeof(begin));
	if (begin != outgoing->begin)
		return false;
	last = insert_at - 1;
	/* What it is, the compiler knows, and an older verifier does not. */
	barrier_var(last);
	data += last & (SF_MAX_INSERT_AT - 1);
	/* Within the first stretch, and not behind it. */
	if (data + 2 > end)
		return false;
	return *data == '\n';
}

/* What has become of it, enum sf_header_counter. */
static __always_inline int sf_insert_header(struct sk_msg_md *msg, const struct tcp_sock *tcp,
					    const struct sf_outgoing_context *outgoing, __u32 insert_at,
					    int *verdict)
{
	unsigned char *data;

	if ((!is_self_test && outgoing->sequence != tcp->write_seq) || !sf_is_meant(msg, outgoing, insert_at))
		return SF_HEADER_COUNTER_LEFT_CHANGED;
	if (tcp->snd_una != tcp->write_seq)
		return SF_HEADER_COUNTER_LEFT_UNACKNOWLEDGED;
	if (sf_has_upper_protocol(tcp) || !sf_takes_more((const struct sock *)tcp))
		return SF_HEADER_COUNTER_LEFT_CONNECTION;
	if (msg->size > SF_MAX_MESSAGE_BYTES ||
	    ((const struct sock *)tcp)->sk_sndbuf < SF_MIN_SEND_BUFFER_BYTES ||
	    bpf_msg_push_data(msg, insert_at, SF_HEADER_BYTES, 0))
		return SF_HEADER_COUNTER_LEFT_NO_ROOM;
	/* It is a stretch of its own, so that nothing has to be copied to be shown. */
	if (!bpf_msg_pull_data(msg, insert_at, insert_at + SF_HEADER_BYTES, 0)) {
		data = msg->data;
		if (data && (void *)data + SF_HEADER_BYTES <= msg->data_end) {
			sf_write_header(data, &outgoing->context);
			return SF_HEADER_COUNTER_INSERTED;
		}
	}
	/* Never seen. What lies there may be anything, and must not go out. */
	if (bpf_msg_pop_data(msg, insert_at, SF_HEADER_BYTES, 0))
		*verdict = SK_DROP;
	return SF_HEADER_COUNTER_FAILED;
}

SEC("sk_msg")
int on_message(struct sk_msg_md *msg)
{
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(msg->sk);
	struct sf_outgoing_context *outgoing;
	int verdict = SK_PASS;
	__u32 insert_at;
	__u64 id;

	if (!tcp)
		return SK_PASS;
	id = ((const struct sock *)tcp)->__sk_common.skc_cookie.counter;
	outgoing = bpf_map_lookup_elem(&outgoing_contexts, &id);
	if (!outgoing)
		return SK_PASS;
	insert_at = outgoing->insert_at;
	if (!insert_at || insert_at > SF_MAX_INSERT_AT)
		return SK_PASS;
	/* Whatever becomes of it: it is tried once. */
	outgoing->insert_at = 0;
	sf_count_header(sf_insert_header(msg, tcp, outgoing, insert_at, &verdict));
	return verdict;
}
