/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a call tells of the request that its thread seemed to be at. */
#ifndef SF_SOCKET_EVIDENCE_H
#define SF_SOCKET_EVIDENCE_H

#include <bpf/bpf_helpers.h>

#include "following.h"
#include "requests.h"

/*
 * An event loop that is known reads more of a request that it has not begun to answer: the rest of its head, or its
 * body. What it does then is for that request again.
 */
static __always_inline bool sf_goes_on(const struct sf_socket_scratch *scratch,
				       const struct sf_connection *connection, __u32 direction)
{
	return direction == SF_IN && scratch->serves_many >= SF_SERVES_PROMPTLY && connection->serves &&
	       connection->request && !connection->is_answered;
}

/* Does the call show that the thread is not, or no longer, at the request that it seemed to be at? */
static __always_inline void sf_weigh_evidence(struct sf_socket_scratch *scratch,
					      struct sf_connection *connection, __u32 direction,
					      bool was_used, bool is_beginning)
{
	struct sf_thread *thread;
	bool goes_on_for_other;

	if (scratch->is_go)
		return;
	if (sf_goes_on(scratch, connection, direction)) {
		thread = sf_thread_of(bpf_get_current_task_btf(), 0);
		if (thread)
			sf_be_at(thread, connection->request);
		return;
	}
	if (!scratch->within)
		return;
	/* What another request has begun to ask: an event loop writes the rest of it. */
	goes_on_for_other = direction == SF_OUT && was_used && !is_beginning && !connection->serves &&
			    scratch->serves_many && connection->request != scratch->within;
	if (!goes_on_for_other &&
	    sf_is_for_request(connection, direction, scratch->within, scratch->serves_many, was_used)) {
		if (direction == SF_OUT && !connection->serves)
			sf_leave_prompt(bpf_get_current_task_btf(), scratch->serves_many);
		return;
	}
	scratch->data.within = 0;
	thread = sf_thread_of(bpf_get_current_task_btf(), 0);
	if (thread)
		sf_be_at(thread, 0);
}

#endif /* SF_SOCKET_EVIDENCE_H */
