/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which trace a request belongs to, as far as the kernel side can tell, for those whose context goes on in TCP's
 * header (propagate.bpf.c) or in one of HTTP's (http_header.bpf.c). User space joins more than this: both ends of a connection on this host, for one.
 * So only what it cannot decide otherwise is taken as settled here:
 *
 *	read      the header or TCP's says which trace; or it comes from elsewhere and neither says anything
 *	written   within a request whose trace is settled; or within none, on a connection that no request opened
 *
 * The context goes out for what is settled and sampled, and not beside one in the payload.
 */
#ifndef SF_SOCKET_CONTEXTS_H
#define SF_SOCKET_CONTEXTS_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../kernel_fields.h"
#include "../propagation_maps.h"
#include "../spanflame.h"
#include "connections.h"
#include "send.h"

/* What the payload says. */
enum sf_header {
	SF_HEADER_FOUND = 1,
	SF_HEADER_SAMPLED = 2,
};

static __always_inline const struct sf_propagation *sf_propagation(void)
{
	__u32 zero = 0;
	const struct sf_propagation *found = bpf_map_lookup_elem(&propagation, &zero);

	return found && found->is_on ? found : NULL;
}

/* Whether a trace is kept that nobody has decided on (src/trace/sampling.rs). */
static __always_inline bool sf_is_kept(const struct sf_propagation *propagation,
				       const unsigned char *trace_id)
{
	__u64 lower;

	__builtin_memcpy(&lower, trace_id + 8, sizeof(lower));
	return (bpf_be64_to_cpu(lower) & (~0ULL >> 1)) < propagation->sampling_bound;
}

/* Whether the other end is on this host by its address: there user space knows more than we do. */
static __always_inline bool sf_is_loopback(const struct sf_endpoint *peer)
{
	__u32 words[4];

	__builtin_memcpy(words, peer->address, sizeof(words));
	if (words[0] || words[1])
		return false;
	return words[2] == bpf_htonl(0xffff) ? peer->address[12] == 127
					     : !words[2] && words[3] == bpf_htonl(1);
}

/* Takes the context that came with the segment in which the request's first byte stands. */
static __always_inline bool sf_take_context(struct sf_socket_data *data, const struct sock *sk,
					    __u32 begun_bytes)
{
	__u64 id = data->event.connection;
	const struct sf_incoming_context *incoming = bpf_map_lookup_elem(&incoming_contexts, &id);
	__u32 first;
	bool is_its;

	if (!incoming)
		return false;
	first = SF_FIELD(tcp_sock, sk, copied_seq) - (__u32)data->length - begun_bytes;
	is_its = first - incoming->sequence < incoming->end - incoming->sequence;
	if (is_its) {
		__builtin_memcpy(data->trace_id, incoming->context.trace_id, sizeof(data->trace_id));
		__builtin_memcpy(data->parent_span_id, incoming->context.span_id,
				 sizeof(data->parent_span_id));
		data->flags |= SF_DATA_RECEIVED;
	}
	sf_count(is_its ? SF_SOCKET_COUNTER_CONTEXTS_RECEIVED : SF_SOCKET_COUNTER_CONTEXTS_STRAY, 1);
	bpf_map_delete_elem(&incoming_contexts, &id);
	return is_its;
}

/* A request was read, `begun_bytes` of it before this call. `header`: enum sf_header. */
static __noinline int sf_receive_context(struct sf_socket_data *data, const struct sf_connection *connection,
					 int header, const struct sock *sk, __u32 begun_bytes)
{
	const struct sf_propagation *propagation = sf_propagation();
	struct sf_trace_id trace;
	__u64 request = data->minted;
	bool is_sampled;

	if (!propagation)
		return 0;
	if (header)
		is_sampled = header & SF_HEADER_SAMPLED;
	else if (sk && sf_take_context(data, sk, begun_bytes))
		is_sampled = true;
	else
		is_sampled =
			sk && !sf_is_loopback(&connection->peer) && sf_is_kept(propagation, data->trace_id);
	if (!is_sampled)
		return 0;
	__builtin_memcpy(trace.bytes, data->trace_id, sizeof(trace.bytes));
	bpf_map_update_elem(&settled_traces, &request, &trace, BPF_ANY);
	return 0;
}

/* The other end answers: it has the request. */
static __always_inline void sf_forget_context(struct sf_connection *connection, __u64 id)
{
	if (!connection->is_sending)
		return;
	connection->is_sending = 0;
	bpf_map_delete_elem(&outgoing_contexts, &id);
}

/* Where in its head the request's context is to be put, as sf_find_header_place has found. */
static __always_inline void sf_plan_header(const struct sf_propagation *propagation,
					   const struct sf_socket_scratch *scratch,
					   const struct sf_connection *connection,
					   struct sf_outgoing_context *outgoing)
{
	if (!propagation->inserts_headers)
		return;
	if (!connection->takes_headers) {
		sf_count_header(SF_HEADER_COUNTER_LEFT_CONNECTION);
	} else if (scratch->is_late) {
		sf_count_header(SF_HEADER_COUNTER_LEFT_LATE);
	} else if (scratch->header_place <= 0) {
		sf_count_header(-scratch->header_place);
	} else {
		outgoing->insert_at = scratch->header_place;
		__builtin_memcpy(&outgoing->begin, scratch->data.bytes, sizeof(outgoing->begin));
	}
}

/* A request that has no context in its payload is about to be written. */
static __noinline int sf_send_context(struct sf_socket_scratch *scratch, struct sf_connection *connection,
				      const struct sock *sk)
{
	const struct sf_propagation *propagation = sf_propagation();
	struct sf_socket_data *data = &scratch->data;
	struct sf_outgoing_context outgoing = {};
	__u64 id = data->event.connection, within = data->within;

	/* Of a write that moved nothing. */
	sf_forget_context(connection, id);
	if (!propagation || !sk)
		return 0;
	if (within) {
		const struct sf_trace_id *trace = bpf_map_lookup_elem(&settled_traces, &within);

		if (!trace)
			return 0;
		__builtin_memcpy(data->trace_id, trace->bytes, sizeof(data->trace_id));
	} else if (connection->opened_by || !sf_is_kept(propagation, data->trace_id)) {
		return 0;
	}
	__builtin_memcpy(outgoing.context.trace_id, data->trace_id, sizeof(data->trace_id));
	__builtin_memcpy(outgoing.context.span_id, data->span_id, sizeof(data->span_id));
	outgoing.sequence = SF_FIELD(tcp_sock, sk, write_seq);
	sf_plan_header(propagation, scratch, connection, &outgoing);
	if (bpf_map_update_elem(&outgoing_contexts, &id, &outgoing, BPF_ANY))
		return 0;
	connection->is_sending = 1;
	data->flags |= SF_DATA_SENT;
	sf_count(SF_SOCKET_COUNTER_CONTEXTS_SENT, 1);
	return 0;
}

#endif /* SF_SOCKET_CONTEXTS_H */
