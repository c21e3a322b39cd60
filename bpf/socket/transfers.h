/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What each kind of system call means for its connection, when it begins and when it returns. */
#ifndef SF_SOCKET_TRANSFERS_H
#define SF_SOCKET_TRANSFERS_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "../kernel_fields.h"
#include "evidence.h"
#include "following.h"
#include "payload.h"
#include "requests.h"
#include "tcp_state.h"
#include "tls_pairs.h"

/*
 * An event loop that is known does something with a descriptor. Unless that is for the request it is at, a callback
 * begins that is for something else: another connection that has ended or come about, another thread, a signal, a
 * name that was looked up. Files of a folder are read in the middle of things and say nothing.
 */
static __noinline int sf_end_callback(struct task_struct *task, __u32 descriptor, bool is_opening)
{
	struct sf_thread *thread = sf_thread_of(task, 0);
	const struct sf_connection *connection;
	struct sf_socket socket = {};

	if (!thread || !thread->request || thread->serves_many < SF_SERVES_PROMPTLY)
		return 0;
	if (sf_find_socket(task, descriptor, &socket)) {
		connection = bpf_map_lookup_elem(&connections, &socket.connection);
		if (connection &&
		    (connection->request == thread->request || connection->opened_by == thread->request))
			return 0;
		/* Whether one that was used before is still well may be asked in the middle of things. */
		if (is_opening && (!connection || connection->asks || connection->serves))
			return 0;
	} else if (sf_is_regular_file(task, descriptor)) {
		return 0;
	}
	sf_be_at(thread, 0);
	return 0;
}

/* ---- data ------------------------------------------------------------------------------------- */

/* What a call does. */
struct sf_call {
	struct sf_socket socket;
	struct sf_buffers buffers;
	__u64 length;   /* bytes it moves */
	__u64 position; /* where they stand */
	__u64 time_ns;
	__u32 direction;
	__u32 is_over; /* it returns: memory that cannot be read now never will be */
};

/*
 * Which number TCP gives the first byte that a call moves, so that user space knows the same byte at both ends. What
 * stands between TCP and the program (TLS in the kernel) counts other bytes than TCP does.
 */
static __noinline int sf_number(struct sf_socket_data *data, const struct sf_call *call)
{
	const struct tcp_sock *tcp = (const struct tcp_sock *)call->socket.sk;
	__u32 length = call->length, state = call->socket.state, read_to;

	data->sequence = 0;
	data->reserved = 0;
	if (call->socket.family == AF_UNIX || SF_FIELD(inet_connection_sock, tcp, icsk_ulp_ops))
		return 0;
	if (call->direction == SF_IN) {
		read_to = SF_FIELD(tcp_sock, tcp, copied_seq);
		/* The end of the stream counts as one byte, and may have been read with those before it. */
		if (read_to == SF_FIELD(tcp_sock, tcp, rcv_nxt)) {
			if (state == TCP_CLOSE)
				return 0;
			read_to -= state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING ||
				   state == TCP_TIME_WAIT;
		}
		data->sequence = read_to - length;
	} else {
		/* What opens the connection (TCP Fast Open) counts as one byte, too. */
		if (state == TCP_SYN_SENT)
			return 0;
		data->sequence = SF_FIELD(tcp_sock, tcp, write_seq) - (call->is_over ? length : 0);
	}
	data->flags |= SF_DATA_SEQUENCE;
	return 0;
}

/* Takes what a call moves into account, and sends it. */
static __noinline int sf_tell(struct sf_socket_scratch *scratch, struct sf_call *call)
{
	struct sf_connection *connection = sf_follow(scratch, &call->socket, SF_ROLE_UNKNOWN);
	struct sf_socket_data *data = &scratch->data;
	__u32 direction = call->direction & 1;
	__u64 limit, bytes;
	bool was_used;

	if (!connection || connection->is_excluded)
		return SF_TOLD_NOTHING;
	sf_count(SF_SOCKET_COUNTER_BYTES, call->length);
	if (direction == SF_OUT && connection->serves)
		sf_note_answer(bpf_get_current_task_btf(), connection, call->socket.connection);
	if (direction == SF_IN)
		sf_forget_context(connection, call->socket.connection);
	/* Of a connection that a TLS library shows, it is told what it shows. */
	limit = connection->is_decrypted ? 0 : sf_capture_limit(connection, 0);
	if (!limit) {
		sf_note_tls_transfer(connection, call->socket.connection, direction, false);
		sf_weigh_evidence(scratch, connection, direction, true, false);
		call->position = __sync_fetch_and_add(&connection->position[direction], call->length);
		return SF_TOLD_SILENT;
	}
	was_used = connection->asks;
	scratch->is_late = call->is_over;
	data->flags = 0;
	if (sf_capture(scratch, &call->buffers, limit)) {
		if (!call->is_over)
			return SF_TOLD_UNREAD;
		data->head_bytes = 0;
		data->tail_bytes = 0;
		data->flags |= SF_DATA_UNREADABLE;
		sf_count(SF_SOCKET_COUNTER_LOST_UNREADABLE, 1);
	}
	if (call->buffers.length != call->length)
		data->tail_bytes = 0; /* what was read last is not what was moved last */
	call->position = __sync_fetch_and_add(&connection->position[direction], call->length);
	data->position = call->position;
	data->length = call->length;
	data->direction = direction;
	data->within = scratch->within;
	data->minted = 0;
	sf_begin_event(&data->event, SF_SOCKET_DATA, call->socket.connection, call->time_ns,
		       scratch->pid_tgid, scratch->goroutine);
	sf_number(data, call);
	sf_notice_tls(connection, data);
	sf_note_tls_transfer(connection, call->socket.connection, direction,
			     !call->position && !connection->position[!direction]);
	sf_notice_request(scratch, connection, call->socket.family == AF_UNIX ? NULL : call->socket.sk);
	if (!data->minted || direction == SF_OUT)
		sf_weigh_evidence(scratch, connection, direction, was_used, data->minted);
	if (scratch->serves_many && !data->within)
		data->flags |= SF_DATA_EVENT_LOOP;
	sf_announce(scratch, connection, &call->socket, call->time_ns);
	bytes = data->head_bytes + data->tail_bytes;
	if (bytes > SF_WHOLE_BYTES)
		bytes = SF_WHOLE_BYTES;
	sf_send(data, __builtin_offsetof(struct sf_socket_data, bytes) + bytes);
	return SF_TOLD;
}

/* Where the bytes of a call with arguments `second` and `third` lie. False: nowhere, or it is not known. */
static __noinline bool sf_find_buffers(struct sf_socket_scratch *scratch, __u64 number, __u64 second,
				       __u64 third, struct sf_buffers *buffers)
{
	switch (number) {
	case SF_SYS_READV:
	case SF_SYS_WRITEV:
		buffers->address = second;
		buffers->iovecs = third < SF_IOV_MAX ? third : SF_IOV_MAX;
		break;
	case SF_SYS_SENDMSG:
	case SF_SYS_RECVMSG:
	case SF_SYS_SENDMMSG:
	case SF_SYS_RECVMMSG: {
		__u64 array[2];

		if (bpf_probe_read_user(array, sizeof(array),
					(void *)(second + __builtin_offsetof(struct sf_msghdr, iov))))
			return false;
		buffers->address = array[0];
		buffers->iovecs = array[1] < SF_IOV_MAX ? array[1] : SF_IOV_MAX;
		break;
	}
	default:
		buffers->address = second;
		buffers->iovecs = 0;
		buffers->length = third;
		return true;
	}
	if (!buffers->iovecs)
		return false;
	if (buffers->iovecs == 1) {
		struct sf_iovec iovec;

		if (bpf_probe_read_user(&iovec, sizeof(iovec), (void *)buffers->address))
			return false;
		buffers->address = iovec.base;
		buffers->length = iovec.length;
		buffers->iovecs = 0;
		return true;
	}
	return !sf_sum_iovecs(scratch, buffers);
}

static __always_inline bool sf_is_open(const struct sf_socket *socket)
{
	return socket->family == AF_UNIX || socket->state != TCP_CLOSE;
}

/*
 * This and what follows for each kind of call is not inlined, so that what each has on the stack is not there for all:
 * Linux 6.1 permits 512 bytes from the hook to the last function.
 */
static __noinline int sf_begin_write(struct task_struct *task, __u64 pid_tgid, __u64 number,
				     const struct pt_regs *regs)
{
	struct sf_socket_scratch *scratch;
	struct sf_thread *thread;
	struct sf_call call = {};
	int told = SF_TOLD_UNREAD;

	if (!sf_find_socket(task, regs->di, &call.socket) || !sf_is_open(&call.socket))
		return 0;
	thread = sf_thread_of(task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		sf_count(SF_SOCKET_COUNTER_LOST_NO_THREAD, 1);
		return 0;
	}
	thread->pending.connection = 0;
	scratch = sf_take_scratch(task, pid_tgid);
	if (!scratch)
		return 0;
	call.time_ns = bpf_ktime_get_ns();
	call.direction = SF_OUT;
	if (sf_find_buffers(scratch, number, regs->si, regs->dx, &call.buffers)) {
		call.length = call.buffers.length;
		told = call.length ? sf_tell(scratch, &call) : SF_TOLD_NOTHING;
	}
	sf_release_scratch(scratch);
	if (told == SF_TOLD_NOTHING)
		return 0;
	thread->pending.connection = call.socket.connection;
	thread->pending.position = call.position;
	thread->pending.length = call.length;
	thread->pending.time_ns = call.time_ns;
	thread->pending.state = told == SF_TOLD          ? SF_PENDING_SENT
				: told == SF_TOLD_SILENT ? SF_PENDING_SILENT
							 : SF_PENDING_UNREAD;
	return 0;
}

/* A write that was to move more than it did. */
static __noinline int sf_amend(struct task_struct *task, const struct sf_pending_write *pending, __u64 moved,
			       __u64 pid_tgid)
{
	struct sf_connection *connection;
	struct sf_socket_amended amended = {};
	__u64 id = pending->connection;
	bool is_go;

	connection = bpf_map_lookup_elem(&connections, &id);
	if (connection)
		__sync_fetch_and_add(&connection->position[SF_OUT], moved - pending->length);
	if (pending->state != SF_PENDING_SENT)
		return 0;
	sf_begin_event(&amended.event, SF_SOCKET_AMENDED, id, bpf_ktime_get_ns(), pid_tgid,
		       sf_current_goroutine(task, pid_tgid >> 32, &is_go));
	amended.position = pending->position;
	amended.length = moved;
	sf_count(SF_SOCKET_COUNTER_AMENDED, 1);
	sf_send(&amended, sizeof(amended));
	return 0;
}

/*
 * What a call has moved that is looked at when it returns. Not static, so that it is verified once and not
 * again for each of its callers.
 */
__noinline int sf_end_transfer(struct sf_call *call, __u64 number, __u64 second, __u64 third)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct sf_socket_scratch *scratch;

	if (!call)
		return 0;
	scratch = sf_take_scratch(bpf_get_current_task_btf(), pid_tgid);
	if (!scratch)
		return 0;
	call->is_over = 1;
	if (number == SF_SYS_SENDFILE || number == SF_SYS_SPLICE) {
		call->buffers.length = 0;
	} else if (sf_find_buffers(scratch, number, second, third, &call->buffers)) {
		if (number == SF_SYS_RECVMMSG || number == SF_SYS_SENDMMSG) {
			__u32 first = 0;

			bpf_probe_read_user(&first, sizeof(first),
					    (void *)(second + __builtin_offsetof(struct sf_mmsghdr, length)));
			call->buffers.length = first;
		} else {
			call->buffers.length = call->length;
		}
	} else {
		call->buffers.length = 0;
	}
	sf_tell(scratch, call);
	sf_release_scratch(scratch);
	if (call->direction == SF_IN && call->socket.family != AF_UNIX && call->socket.state == TCP_CLOSE)
		sf_leave_when_read(call->socket.sk, call->socket.connection);
	return 0;
}

static __noinline int sf_end_write(struct task_struct *task, __u64 pid_tgid, __u64 number,
				   const struct pt_regs *regs, long result)
{
	struct sf_thread *thread = sf_thread_of(task, 0);
	struct sf_pending_write pending;
	struct sf_call call = {};

	if (!thread || !thread->pending.connection)
		return 0;
	pending = thread->pending;
	thread->pending.connection = 0;
	if (pending.state == SF_PENDING_UNREAD) {
		if (result <= 0 || !sf_find_socket(task, regs->di, &call.socket) ||
		    call.socket.connection != pending.connection)
			return 0;
		sf_count(SF_SOCKET_COUNTER_READ_LATE, 1);
		call.direction = SF_OUT;
		call.length = result;
		call.time_ns = pending.time_ns;
		sf_end_transfer(&call, number, regs->si, regs->dx);
		return 0;
	}
	if (result < 0)
		result = 0;
	if ((__u64)result < pending.length)
		sf_amend(task, &pending, result, pid_tgid);
	return 0;
}

/* End of stream has been read. */
static __noinline int sf_end_of_stream(struct task_struct *task, const struct sf_socket *socket,
				       __u64 pid_tgid)
{
	struct sf_socket_shut_down shut_down = {.direction = SF_IN};
	__u64 id = socket->connection;
	struct sf_connection *connection = id ? bpf_map_lookup_elem(&connections, &id) : NULL;
	bool is_go;

	if (!connection || !connection->is_announced || connection->is_at_end)
		return 0;
	connection->is_at_end = 1;
	sf_begin_event(&shut_down.event, SF_SOCKET_SHUT_DOWN, id, bpf_ktime_get_ns(), pid_tgid,
		       sf_current_goroutine(task, pid_tgid >> 32, &is_go));
	sf_send(&shut_down, sizeof(shut_down));
	return 0;
}

static __noinline int sf_end_read(struct task_struct *task, __u64 pid_tgid, __u64 number,
				  const struct pt_regs *regs, long result)
{
	struct sf_call call = {};

	if (!sf_find_socket(task, regs->di, &call.socket)) {
		sf_end_callback(task, regs->di, false);
		return 0;
	}
	if (!result) {
		sf_end_callback(task, regs->di, false);
		/* A read of no bytes reads none. */
		if (regs->dx || (number != SF_SYS_READ && number != SF_SYS_RECVFROM))
			sf_end_of_stream(task, &call.socket, pid_tgid);
		if (call.socket.family != AF_UNIX && call.socket.state == TCP_CLOSE)
			sf_leave_when_read(call.socket.sk, call.socket.connection);
		return 0;
	}
	call.direction = SF_IN;
	call.length = result;
	call.time_ns = bpf_ktime_get_ns();
	sf_end_transfer(&call, number, regs->si, regs->dx);
	return 0;
}

/* sendfile, or one end of a splice: lengths only. */
static __noinline int sf_end_splice(struct task_struct *task, __u64 number, __u32 descriptor, __u32 direction,
				    long result)
{
	struct sf_call call = {};

	if (!sf_find_socket(task, descriptor, &call.socket) || !sf_is_open(&call.socket))
		return 0;
	call.direction = direction;
	call.length = result;
	call.time_ns = bpf_ktime_get_ns();
	sf_end_transfer(&call, number, 0, 0);
	return 0;
}

struct sf_messages {
	__u64 address;
	__u64 count;
	__u64 sum;
};

/* bpf_loop callback. */
static long sf_sum_message(__u32 index, void *context)
{
	struct sf_messages *messages = context;
	__u32 length = 0;

	if (index >= messages->count)
		return 1;
	bpf_probe_read_user(&length, sizeof(length),
			    (void *)(messages->address + index * sizeof(struct sf_mmsghdr) +
				     __builtin_offsetof(struct sf_mmsghdr, length)));
	messages->sum += length;
	return 0;
}

/* recvmmsg, sendmmsg: all messages count, the first one is read. */
static __noinline int sf_end_messages(struct task_struct *task, __u64 number, const struct pt_regs *regs,
				      __u32 direction, long result)
{
	struct sf_messages messages = {.address = regs->si, .count = result};
	struct sf_call call = {};

	if (!sf_find_socket(task, regs->di, &call.socket)) {
		if (direction == SF_IN)
			sf_end_callback(task, regs->di, false);
		return 0;
	}
	bpf_loop(SF_IOV_MAX, sf_sum_message, &messages, 0);
	if (!messages.sum)
		return 0;
	call.direction = direction;
	call.length = messages.sum;
	call.time_ns = bpf_ktime_get_ns();
	sf_end_transfer(&call, number, regs->si, 0);
	return 0;
}

/* A UNIX socket was connected or accepted. TCP tells by itself, see on_tcp_state. */
static __noinline int sf_end_opening(struct task_struct *task, __u64 pid_tgid, __u32 descriptor, __u32 role)
{
	struct sf_socket_scratch *scratch;
	struct sf_socket socket = {};

	if (!sf_find_socket(task, descriptor, &socket) || socket.family != AF_UNIX)
		return 0;
	scratch = sf_take_scratch(task, pid_tgid);
	if (!scratch)
		return 0;
	sf_follow(scratch, &socket, role);
	sf_release_scratch(scratch);
	return 0;
}

#define SHUT_RD 0
#define SHUT_WR 1
#define SHUT_RDWR 2

/* A UNIX socket was shut down. For TCP see on_tcp_state. */
static __noinline int sf_end_shutdown(struct task_struct *task, __u64 pid_tgid, __u32 descriptor, __u32 how)
{
	struct sf_socket_shut_down shut_down = {};
	struct sf_connection *connection;
	struct sf_socket socket = {};
	__u64 id;
	bool is_go;

	if (!sf_find_socket(task, descriptor, &socket) || socket.family != AF_UNIX)
		return 0;
	id = socket.connection;
	connection = bpf_map_lookup_elem(&connections, &id);
	if (!connection || !connection->is_announced)
		return 0;
	sf_begin_event(&shut_down.event, SF_SOCKET_SHUT_DOWN, id, bpf_ktime_get_ns(), pid_tgid,
		       sf_current_goroutine(task, pid_tgid >> 32, &is_go));
	if (how == SHUT_RD || how == SHUT_RDWR) {
		shut_down.direction = SF_IN;
		sf_send(&shut_down, sizeof(shut_down));
	}
	if (how == SHUT_WR || how == SHUT_RDWR) {
		shut_down.direction = SF_OUT;
		sf_send(&shut_down, sizeof(shut_down));
	}
	return 0;
}

#endif /* SF_SOCKET_TRANSFERS_H */
