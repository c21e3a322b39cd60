/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How TCP connections begin and end, as TCP itself tells. */
#ifndef SF_SOCKET_TCP_STATE_H
#define SF_SOCKET_TCP_STATE_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "../kernel_fields.h"
#include "following.h"
#include "left_alone.h"
#include "tls_pairs.h"

/* ---- TCP's own account of how connections begin and end ------------------------------------------ */

/* linux/errno.h */
#define ECONNRESET 104
#define EPIPE 32
#define ETIMEDOUT 110

static __always_inline __u32 sf_ending(int old_state, int error)
{
	if (old_state == TCP_SYN_SENT)
		return SF_ENDING_NOT_CONNECTED;
	switch (error) {
	case 0:
		return SF_ENDING_CLOSED;
	case ECONNRESET:
	case EPIPE: /* reset after its end of stream had come */
		return SF_ENDING_RESET;
	case ETIMEDOUT:
		return SF_ENDING_TIMED_OUT;
	default:
		return SF_ENDING_FAILED;
	}
}

/* Not inlined, so that what it has on the stack is not there beside what the end of a connection takes. */
static __noinline int sf_enter_connection(const struct sock *sk, __u64 id, __u32 role)
{
	struct sf_connection fresh = {.role = role};

	if (role == SF_ROLE_CONNECTED) {
		struct task_struct *task = bpf_get_current_task_btf();
		__u64 pid_tgid = bpf_get_current_pid_tgid();
		struct sf_thread *thread;
		bool is_go;

		fresh.opener_pid = pid_tgid >> 32;
		fresh.opener_tid = (__u32)pid_tgid;
		fresh.opener_goroutine = sf_current_goroutine(task, fresh.opener_pid, &is_go);
		if (is_go) {
			fresh.opened_by = sf_noted_request(fresh.opener_pid, fresh.opener_goroutine);
		} else {
			thread = sf_thread_of(task, 0);
			fresh.opened_by = thread ? thread->request : 0;
			if (thread)
				sf_leave_prompt(task, thread->serves_many);
		}
		if (!sf_is_followed(fresh.opener_pid))
			return 0;
	}
	sf_describe_tcp(sk, &fresh);
	if (bpf_map_update_elem(&connections, &id, &fresh, BPF_ANY))
		sf_count(SF_SOCKET_COUNTER_LOST_CONNECTION, 1);
	else
		sf_count(SF_SOCKET_COUNTER_CONNECTIONS, 1);
	return 0;
}

/* Tells that this end will write no more: it has closed the connection or shut it down. */
static __always_inline void sf_tell_shut_down(__u64 id)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);
	struct sf_socket_shut_down shut_down = {.direction = SF_OUT};

	if (!connection)
		return;
	connection->is_shut_down = 1;
	if (!connection->is_announced)
		return;
	sf_begin_event(&shut_down.event, SF_SOCKET_SHUT_DOWN, id, bpf_ktime_get_ns(),
		       bpf_get_current_pid_tgid(), 0);
	sf_send(&shut_down, sizeof(shut_down));
}

static __noinline int sf_tell_failed(const struct sf_connection *connection, __u64 id)
{
	struct sf_socket_opened opened = {};
	__u64 opener = (__u64)connection->opener_pid << 32 | connection->opener_tid;

	sf_begin_event(&opened.event, SF_SOCKET_OPENED, id, bpf_ktime_get_ns(), opener,
		       connection->opener_goroutine);
	sf_describe_opened(&opened, connection);
	sf_send(&opened, sizeof(opened));
	return 0;
}

/* Bytes that have come and that nobody has read yet; the end of the stream counts as one. */
static __always_inline __u32 sf_unread_bytes(const struct sock *sk)
{
	const struct tcp_sock *tcp = (const struct tcp_sock *)sk;

	return SF_FIELD(tcp_sock, tcp, rcv_nxt) - SF_FIELD(tcp_sock, tcp, copied_seq);
}

static __noinline int sf_leave_connection(__u64 id, __u32 ending, int error)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);
	struct sf_socket_ended ended = {};

	if (!connection)
		return 0;
	if (connection->ending) {
		ending = connection->ending - 1;
		error = connection->error;
	}
	if (!connection->is_excluded && (connection->is_announced || ending == SF_ENDING_NOT_CONNECTED)) {
		if (!connection->is_announced)
			sf_tell_failed(connection, id);
		sf_begin_event(&ended.event, SF_SOCKET_ENDED, id, bpf_ktime_get_ns(), 0, 0);
		ended.ending = ending;
		ended.error = error;
		ended.is_decrypted = connection->is_decrypted;
		ended.moved[SF_IN] = connection->is_decrypted ? connection->plain_position[SF_IN]
							      : connection->position[SF_IN];
		ended.moved[SF_OUT] = connection->is_decrypted ? connection->plain_position[SF_OUT]
							       : connection->position[SF_OUT];
		/* It stays then, for the sweep of user space to find it gone. */
		if (!sf_send(&ended, sizeof(ended)))
			return 0;
	}
	sf_forget_tls_object(connection, id);
	bpf_map_delete_elem(&connections, &id);
	return 0;
}

/* So that what must be known of a server's process is known before its first request. */
static __noinline int sf_tell_listening(__u64 id)
{
	struct sf_socket_event event = {};

	sf_begin_event(&event, SF_SOCKET_LISTENS, id, bpf_ktime_get_ns(), bpf_get_current_pid_tgid(), 0);
	if (sf_is_followed(event.pid))
		sf_send(&event, sizeof(event));
	return 0;
}

/*
 * TCP is done with a connection, but what has come before can be read all the same: a response, and then the reset
 * of a server that did not want the rest of the request, or its end after ours. So the end waits for that.
 */
static __always_inline void sf_end_connection(const struct sock *sk, int old_state)
{
	__u64 id = bpf_get_socket_cookie((void *)sk);
	__u32 ending = sf_ending(old_state, sk->sk_err);
	struct sf_connection *connection;

	if (sk->sk_socket && old_state != TCP_SYN_SENT) {
		connection = bpf_map_lookup_elem(&connections, &id);
		if (connection && connection->is_announced && sf_unread_bytes(sk)) {
			connection->error = sk->sk_err;
			connection->ending = ending + 1;
			return;
		}
	}
	sf_leave_connection(id, ending, sk->sk_err);
}

static __always_inline void sf_leave_when_read(const struct sock *sk, __u64 id)
{
	if (!sf_unread_bytes(sk))
		sf_leave_connection(id, SF_ENDING_CLOSED, 0);
}

/*
 * Runs in the context of whoever causes the change: the caller of connect, close and shutdown, for what the
 * network brings anybody. A socket that is being accepted has no owner yet.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_tcp_state, struct sock *sk, int old_state, int new_state)
{
	struct sf_connection *connection;
	__u64 id;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	switch (new_state) {
	case TCP_LISTEN:
		sf_tell_listening(bpf_get_socket_cookie(sk));
		break;
	case TCP_SYN_SENT:
		sf_enter_connection(sk, bpf_get_socket_cookie(sk), SF_ROLE_CONNECTED);
		break;
	case TCP_ESTABLISHED:
		id = bpf_get_socket_cookie(sk);
		if (old_state == TCP_SYN_RECV) {
			sf_enter_connection(sk, id, SF_ROLE_ACCEPTED);
			break;
		}
		/* Its own address and port are chosen after TCP_SYN_SENT. */
		connection = bpf_map_lookup_elem(&connections, &id);
		if (connection)
			sf_describe_tcp(sk, connection);
		break;
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		sf_tell_shut_down(bpf_get_socket_cookie(sk));
		break;
	case TCP_CLOSE:
		sf_end_connection(sk, old_state);
		break;
	default:
		break;
	}
	return 0;
}

/* Whatever has not been told of a connection's end by now. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_tcp_destroyed, struct sock *sk)
{
	__u64 id = sk->__sk_common.skc_cookie.counter;

	if (id)
		sf_leave_connection(id, SF_ENDING_CLOSED, 0);
	return 0;
}

#endif /* SF_SOCKET_TCP_STATE_H */
