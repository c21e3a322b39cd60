/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who is calling, and on which connection: what every look at a call begins with. */
#ifndef SF_SOCKET_FOLLOWING_H
#define SF_SOCKET_FOLLOWING_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "connections.h"
#include "publishing.h"
#include "send.h"

/* ---- who -------------------------------------------------------------------------------------- */

static __always_inline struct sf_thread *sf_thread_of(struct task_struct *task, __u64 flags)
{
	return bpf_task_storage_get(&threads, task, NULL, flags);
}

static __always_inline __u64 sf_current_goroutine(struct task_struct *task, __u32 tgid, bool *is_go)
{
	const struct sf_go_process *go = bpf_map_lookup_elem(&go_processes, &tgid);

	*is_go = go != NULL;
	return go ? sf_goroutine_of(go, task) : 0;
}

/* What an event loop has asked of others for its request is all that is certain to be for it. */
static __always_inline void sf_leave_prompt(struct task_struct *task, __u32 serves_many)
{
	struct sf_thread *thread = serves_many == SF_SERVES_PROMPTLY ? sf_thread_of(task, 0) : NULL;

	if (thread)
		sf_be_at(thread, 0);
}

/* Who is at it, in a Go program, and within which request. */
static __always_inline void sf_take_goroutine(struct sf_socket_scratch *scratch,
					      const struct sf_go_process *go, struct task_struct *task)
{
	struct sf_goroutine_key key = {.tgid = scratch->pid_tgid >> 32};
	const struct sf_goroutine *own;

	key.goroutine = sf_find_goroutine(go, task, &scratch->running);
	scratch->goroutine = key.goroutine;
	if (!key.goroutine)
		return;
	own = bpf_map_lookup_elem(&goroutines, &key);
	if (own) {
		scratch->within = own->request;
		scratch->is_own = 1;
		return;
	}
	scratch->within = sf_inherited_request(key.tgid, scratch->running.g, key.goroutine);
	if (scratch->within)
		sf_note_inherited(key.tgid, key.goroutine, scratch->within);
}

/* Who is calling, and at which request. */
static __noinline int sf_note_caller(struct sf_socket_scratch *scratch, struct task_struct *task,
				     __u64 pid_tgid)
{
	const struct sf_go_process *go;
	struct sf_thread *thread;
	__u32 tgid = pid_tgid >> 32;

	scratch->pid_tgid = pid_tgid;
	scratch->goroutine = 0;
	scratch->serves_many = 0;
	scratch->within = 0;
	scratch->is_own = 0;
	go = bpf_map_lookup_elem(&go_processes, &tgid);
	scratch->is_go = go != NULL;
	if (go) {
		sf_take_goroutine(scratch, go, task);
	} else {
		thread = sf_thread_of(task, 0);
		scratch->within = thread ? thread->request : 0;
		scratch->is_own = 1;
		scratch->serves_many = thread ? thread->serves_many : 0;
	}
	return 0;
}

/* The scratch with who is calling in it; NULL, counted, if it is not to be had. */
static __always_inline struct sf_socket_scratch *sf_take_scratch(struct task_struct *task, __u64 pid_tgid)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct sf_socket_scratch *scratch = bpf_map_lookup_elem(&socket_scratch, &cpu);

	if (!scratch || scratch->busy) {
		sf_count(SF_SOCKET_COUNTER_LOST_NO_SCRATCH, 1);
		return NULL;
	}
	scratch->busy = 1;
	scratch->minter = cpu;
	sf_note_caller(scratch, task, pid_tgid);
	return scratch;
}

static __always_inline void sf_release_scratch(struct sf_socket_scratch *scratch)
{
	scratch->busy = 0;
}

/* ---- connections ------------------------------------------------------------------------------ */

/* What is known of the socket's connection, from now on if not before. NULL, counted: it cannot be followed. */
static __noinline __attribute__((unused)) struct sf_connection *
sf_follow(struct sf_socket_scratch *scratch, const struct sf_socket *socket, __u32 role)
{
	__u64 id = socket->connection;
	struct sf_connection *connection;

	if (!socket->protocol_ok) {
		sf_count(SF_SOCKET_COUNTER_LOST_PROTOCOL, 1);
		return NULL;
	}
	if (!id) {
		sf_count(SF_SOCKET_COUNTER_LOST_NO_COOKIE, 1);
		return NULL;
	}
	connection = bpf_map_lookup_elem(&connections, &id);
	if (connection)
		return connection;
	if (socket->family != AF_UNIX && socket->state == TCP_CLOSE) {
		sf_count(SF_SOCKET_COUNTER_AFTER_END, 1);
		return NULL;
	}
	__builtin_memset(&scratch->fresh, 0, sizeof(scratch->fresh));
	scratch->fresh.role = role;
	if (role == SF_ROLE_CONNECTED) {
		/* Libraries connect for whoever comes next, in goroutines that somebody happened to begin. */
		scratch->fresh.opened_by = scratch->is_own ? scratch->within : 0;
		scratch->fresh.opener_goroutine = scratch->goroutine;
		scratch->fresh.opener_pid = scratch->pid_tgid >> 32;
		scratch->fresh.opener_tid = (__u32)scratch->pid_tgid;
		sf_leave_prompt(bpf_get_current_task_btf(), scratch->serves_many);
	}
	if (socket->family == AF_UNIX)
		sf_describe_unix(socket, &scratch->fresh);
	else
		sf_describe_tcp(socket->sk, &scratch->fresh);
	if (!bpf_map_update_elem(&connections, &id, &scratch->fresh, BPF_NOEXIST))
		sf_count(SF_SOCKET_COUNTER_CONNECTIONS, 1);
	connection = bpf_map_lookup_elem(&connections, &id);
	if (!connection)
		sf_count(SF_SOCKET_COUNTER_LOST_CONNECTION, 1);
	return connection;
}

/* Sends a connection's OPENED, unless that has been done. */
static __always_inline void sf_announce(struct sf_socket_scratch *scratch, struct sf_connection *connection,
					const struct sf_socket *socket, __u64 time_ns)
{
	if (connection->is_announced || __sync_lock_test_and_set(&connection->is_announced, 1))
		return;
	/* By now the other end may have been accepted. */
	if (socket->family == AF_UNIX)
		sf_describe_unix(socket, connection);
	sf_begin_event(&scratch->opened.event, SF_SOCKET_OPENED, socket->connection, time_ns,
		       scratch->pid_tgid, scratch->goroutine);
	sf_describe_opened(&scratch->opened, connection);
	if (!sf_send(&scratch->opened, sizeof(scratch->opened)))
		connection->is_announced = 0;
}

/* How much is captured of a call; `decrypted` is SF_CAPTURE_OF_DECRYPTED for plain bytes inside of TLS, or 0. */
static __always_inline __u64 sf_capture_limit(const struct sf_connection *connection, __u32 decrypted)
{
	__u32 capture = connection->capture;

	if ((capture & SF_CAPTURE_OF_DECRYPTED) != decrypted)
		return SF_HEAD_BYTES;
	switch (capture & ~SF_CAPTURE_OF_DECRYPTED) {
	case SF_CAPTURE_HEADS:
		return SF_HEAD_BYTES;
	case SF_CAPTURE_WHOLE:
		return SF_WHOLE_BYTES;
	default:
		return 0;
	}
}

#endif /* SF_SOCKET_FOLLOWING_H */
