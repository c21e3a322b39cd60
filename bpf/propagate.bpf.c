// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Carries a request's context in an option of TCP's header, so that a host that runs spanflame too learns
 * which span has sent the request, though nobody put it into the payload.
 *
 * The option has kind 25 (unassigned by IANA) and 26 bytes: kind, length, trace id, span id. So does
 * OpenTelemetry's eBPF instrumentation, which understands ours and is understood. That it is there means that
 * the trace is sampled. A receiver that does not know an option ignores it (RFC 9293, section 3.1, MUST-6); what
 * cannot bear it is some middlebox of the internet, so it only goes to private addresses and to this host.
 *
 * It goes with the segment that begins the request, and with a repetition of that one. Whoever receives it
 * notes which sequence numbers the segment had; the socket programs take the context for a request only if its
 * first byte is one of them. So what comes late, twice or in another order can be missing and cannot be wrong.
 *
 * Linux 5.10. On connections that were there before, Linux 6.12. The room for options is 40 bytes: beside
 * timestamps (12) there is just enough; beside a selective acknowledgement there is not, and the option stays out.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "private_addresses.h"
#include "propagation_maps.h"
#include "spanflame.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

#define SF_OPTION_KIND 25

/* As it stands in the header. */
struct sf_option {
	unsigned char kind;
	unsigned char length;
	struct sf_context context;
};

/* linux/bpf.h */
#define BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB 5
#define BPF_SOCK_OPS_PARSE_HDR_OPT_CB 13
#define BPF_SOCK_OPS_HDR_OPT_LEN_CB 14
#define BPF_SOCK_OPS_WRITE_HDR_OPT_CB 15
#define BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG (1 << 5)
#define BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG (1 << 6)
#define TCP_BPF_SOCK_OPS_CB_FLAGS 1008

static __always_inline void sf_ask_for(struct bpf_sock_ops *ops, int flag)
{
	if (sf_is_peer_private(ops))
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | flag);
}

/* A segment is about to be sent, for the first time or again: does it begin the request? */
static __always_inline void sf_reserve(struct bpf_sock_ops *ops)
{
	__u64 connection = bpf_get_socket_cookie(ops);
	const struct sf_outgoing_context *outgoing = bpf_map_lookup_elem(&outgoing_contexts, &connection);

	if (outgoing && (outgoing->sequence == ops->snd_nxt || outgoing->sequence == ops->snd_una))
		bpf_reserve_hdr_opt(ops, sizeof(struct sf_option), 0);
}

/* The number of the first byte of the segment that is looked at, and where its header ends. */
static __always_inline bool sf_segment(const struct bpf_sock_ops *ops, __u32 *sequence, __u32 *header_bytes)
{
	const struct tcphdr *header = ops->skb_data;

	if ((const void *)(header + 1) > ops->skb_data_end)
		return false;
	*sequence = bpf_ntohl(header->seq);
	*header_bytes = (header->offset_and_flags[0] >> 4) * 4;
	return true;
}

static __always_inline void sf_write(struct bpf_sock_ops *ops)
{
	__u64 connection = bpf_get_socket_cookie(ops);
	const struct sf_outgoing_context *outgoing = bpf_map_lookup_elem(&outgoing_contexts, &connection);
	struct sf_option option = {.kind = SF_OPTION_KIND, .length = sizeof(option)};
	__u32 sequence, header_bytes;

	if (!outgoing || !sf_segment(ops, &sequence, &header_bytes) || outgoing->sequence != sequence)
		return;
	option.context = outgoing->context;
	bpf_store_hdr_opt(ops, &option, sizeof(option), 0);
}

static __always_inline bool sf_is_same(const struct sf_context *one, const struct sf_context *other)
{
	return !__builtin_memcmp(one, other, sizeof(*one));
}

static __always_inline void sf_receive(struct bpf_sock_ops *ops)
{
	__u64 connection = bpf_get_socket_cookie(ops);
	struct sf_option option = {.kind = SF_OPTION_KIND}; /* the length must not be given */
	struct sf_incoming_context incoming = {}, *known;
	__u32 header_bytes;

	if (bpf_load_hdr_opt(ops, &option, sizeof(option), 0) != sizeof(option) ||
	    option.length != sizeof(option))
		return;
	if (!sf_segment(ops, &incoming.sequence, &header_bytes) || ops->skb_len <= header_bytes)
		return;
	incoming.end = incoming.sequence + (ops->skb_len - header_bytes);
	incoming.context = option.context;
	/* A long write is cut up by the network card, and each piece has a copy of the option. */
	known = bpf_map_lookup_elem(&incoming_contexts, &connection);
	if (known && known->end == incoming.sequence && sf_is_same(&known->context, &incoming.context)) {
		known->end = incoming.end;
		return;
	}
	bpf_map_update_elem(&incoming_contexts, &connection, &incoming, BPF_ANY);
}

SEC("sockops")
int on_tcp_header(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		sf_ask_for(ops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		sf_ask_for(ops, BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		sf_reserve(ops);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		sf_write(ops);
		break;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		sf_receive(ops);
		break;
	default:
		break;
	}
	return 1;
}

/* Read once: connections that are there already. Which end asks is not known of them. Lists what was refused. */
SEC("iter/tcp")
int ask_of_old_connections(struct bpf_iter__tcp *ctx)
{
	int flags = BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG;
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *sk;
	__u64 cookie;
	bool is_private;

	if (!common || common->skc_state != TCP_ESTABLISHED)
		return 0;
	if (common->skc_family == AF_INET)
		is_private = sf_is_private_v4(bpf_ntohl(common->skc_daddr));
	else
		is_private = common->skc_family == AF_INET6 &&
			     sf_is_private_v6(bpf_ntohl(common->skc_v6_daddr.in6_u.u6_addr32[0]),
					      bpf_ntohl(common->skc_v6_daddr.in6_u.u6_addr32[1]),
					      bpf_ntohl(common->skc_v6_daddr.in6_u.u6_addr32[2]),
					      bpf_ntohl(common->skc_v6_daddr.in6_u.u6_addr32[3]));
	sk = is_private ? bpf_skc_to_tcp_sock(common) : NULL;
	if (!sk)
		return 0;
	/* Others may have asked for something, too. */
	flags |= sk->bpf_sock_ops_cb_flags;
	if (!bpf_setsockopt(sk, IPPROTO_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return 0;
	cookie = bpf_get_socket_cookie(common);
	bpf_seq_write(ctx->meta->seq, &cookie, sizeof(cookie));
	return 0;
}
