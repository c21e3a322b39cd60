/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a call tells of the request that its thread seemed to be at. */
#ifndef SF_SOCKET_EVIDENCE_H
#define SF_SOCKET_EVIDENCE_H

#include <bpf/bpf_helpers.h>

#include "following.h"
#include "requests.h"

/* Does the call show that the thread is not, or no longer, at the request that it seemed to be at? */
static __always_inline void sf_weigh_evidence(struct sf_socket_scratch *scratch,
					      struct sf_connection *connection, __u32 direction,
					      bool was_used)
{
	struct sf_thread *thread;

	if (scratch->is_go || !scratch->within)
		return;
	if (sf_is_for_request(connection, direction, scratch->within, scratch->serves_many, was_used)) {
		if (direction == SF_OUT && !connection->serves)
			sf_leave_prompt(bpf_get_current_task_btf(), scratch->serves_many);
		return;
	}
	scratch->data.within = 0;
	thread = sf_thread_of(bpf_get_current_task_btf(), 0);
	if (thread)
		thread->request = 0;
}

#endif /* SF_SOCKET_EVIDENCE_H */
