/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections that one thread takes out of a pool, and another one writes to.
 *
 * java.net.http's client has threads of its own that write: its selector's (JDK 17), its workers (later). But the
 * connection is chosen by the thread that sends: that one takes it out of the pool of those that carry no request,
 * and sees whether it is still open by reading one byte, of which there is none yet (HttpConnection.getConnection and
 * checkOpen; in JDK 17 and 25). From then on the connection is its exchange's alone, until the response is over:
 * HTTP/1.1 carries one request at a time there. So what is asked next on this connection is asked for the request
 * that the reader of that byte is at. If it is at none (the exchange was handed to an executor before), nobody knows.
 *
 * Other programs may try connections of which they do not take any. So this is believed of programs called java.
 */
#ifndef SF_SOCKET_POOLS_H
#define SF_SOCKET_POOLS_H

#include <bpf/bpf_helpers.h>

#include "connections.h"
#include "following.h"

static __always_inline bool sf_is_java(const struct task_struct *task)
{
	char name[8] = {};

	bpf_probe_read_kernel(name, sizeof(name), task->group_leader->comm);
	return name[0] == 'j' && name[1] == 'a' && name[2] == 'v' && name[3] == 'a' && !name[4];
}

/* Whether a read that found nothing was the look at a connection that is taken. */
static __always_inline bool sf_is_look_at_pooled(__u64 number, __u64 third)
{
	return number == SF_SYS_READ && third == 1;
}

/* The current thread has looked whether a connection is still open. */
static __noinline __attribute__((unused)) int sf_take_pooled(struct task_struct *task, __u32 descriptor)
{
	struct sf_connection *connection;
	struct sf_socket socket = {};
	struct sf_thread *thread;
	__u64 id;

	if (!sf_is_java(task) || !sf_find_socket(task, descriptor, &socket))
		return 0;
	id = socket.connection;
	connection = bpf_map_lookup_elem(&connections, &id);
	if (!connection || connection->serves || (connection->role != SF_ROLE_CONNECTED && !connection->asks))
		return 0;
	thread = sf_thread_of(task, 0);
	connection->taken_by = thread ? thread->request : 0;
	return 0;
}

/* A request is about to be written. If the connection was taken for one, it is within that one. */
static __always_inline void sf_use_pooled(struct sf_socket_data *data, struct sf_connection *connection)
{
	__u64 taken_by = connection->taken_by;

	if (!taken_by)
		return;
	connection->taken_by = 0;
	if (data->within && data->within != taken_by) {
		/* Its writer is at another one, or seems so. */
		data->within = 0;
		return;
	}
	if (!data->within)
		data->flags |= SF_DATA_POOLED;
	data->within = taken_by;
	connection->request = taken_by;
}

#endif /* SF_SOCKET_POOLS_H */
