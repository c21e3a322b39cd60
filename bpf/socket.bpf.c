/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What goes over sockets: who moves which bytes of which connection, and how connections begin and end.
 *
 * Reads are looked at when they return. On x86-64 the registers still hold the call's arguments then, so
 * that nothing need be remembered from its beginning, and a read that was already waiting when the agent
 * started is seen as well. (Should another thread close the descriptor and give its number to another
 * socket while the read waits, the bytes are taken for the other's.) Writes are looked at when they begin,
 * because the other end, if it is on this host, may answer before they return; what they moved in the end is
 * known at their return, and amended if it is less. sendfile, splice and the calls for several messages are
 * looked at when they return.
 *
 * Positions count what was moved, whether its event was sent or not. So whatever is missing, user space
 * sees a gap.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "request_maps.h"
#include "socket/connections.h"
#include "socket/payload.h"
#include "socket/requests.h"
#include "socket/send.h"
#include "socket/syscalls.h"
#include "spanflame.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

/* The contract's types, so that they reach the object's BTF and from there Rust (src/kernel/socket_abi.rs). */
struct sf_socket_contract {
	struct sf_socket_config config;
	struct sf_socket_event event;
	struct sf_socket_opened opened;
	struct sf_socket_data data;
	struct sf_socket_amended amended;
	struct sf_socket_shut_down shut_down;
	struct sf_socket_ended ended;
	struct sf_go_process go_process;
	enum sf_capture capture;
	enum sf_direction direction;
	enum sf_role role;
	enum sf_socket_event_type event_type;
	enum sf_data_flag data_flag;
	enum sf_ending ending;
	enum sf_socket_counter counter;
};
struct sf_socket_contract contract SEC(".data.contract");

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

/* The scratch with who is calling in it; NULL, counted, if it is not to be had. */
static __always_inline struct sf_socket_scratch *sf_take_scratch(struct task_struct *task, __u64 pid_tgid)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct sf_socket_scratch *scratch = bpf_map_lookup_elem(&socket_scratch, &cpu);
	struct sf_thread *thread;
	bool is_go;

	if (!scratch || scratch->busy) {
		sf_count(SF_SOCKET_COUNTER_LOST_NO_SCRATCH, 1);
		return NULL;
	}
	scratch->busy = 1;
	scratch->pid_tgid = pid_tgid;
	scratch->goroutine = sf_current_goroutine(task, pid_tgid >> 32, &is_go);
	scratch->is_go = is_go;
	if (is_go) {
		scratch->within = sf_goroutine_request(pid_tgid >> 32, scratch->goroutine);
	} else {
		thread = sf_thread_of(task, 0);
		scratch->within = thread ? thread->request : 0;
	}
	return scratch;
}

static __always_inline void sf_release_scratch(struct sf_socket_scratch *scratch)
{
	scratch->busy = 0;
}

/* ---- connections ------------------------------------------------------------------------------ */

/* What is known of the socket's connection, from now on if not before. NULL, counted: it cannot be followed. */
static __noinline struct sf_connection *sf_follow(struct sf_socket_scratch *scratch,
						  const struct sf_socket *socket, __u32 role)
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
	__builtin_memset(&scratch->fresh, 0, sizeof(scratch->fresh));
	scratch->fresh.role = role;
	if (role == SF_ROLE_CONNECTED) {
		scratch->fresh.opened_by = scratch->within;
		scratch->fresh.opener_goroutine = scratch->goroutine;
		scratch->fresh.opener_pid = scratch->pid_tgid >> 32;
		scratch->fresh.opener_tid = (__u32)scratch->pid_tgid;
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

static __always_inline __u64 sf_capture_limit(__u64 connection)
{
	const __u32 *capture = bpf_map_lookup_elem(&captures, &connection);

	if (!capture || *capture == SF_CAPTURE_HEADS)
		return SF_HEAD_BYTES;
	return *capture == SF_CAPTURE_WHOLE ? SF_WHOLE_BYTES : 0;
}

/* ---- data ------------------------------------------------------------------------------------- */

/* What a call does. */
struct sf_call {
	struct sf_socket socket;
	struct sf_buffers buffers;
	__u64 length; /* bytes it moves */
	__u64 time_ns;
	__u32 direction;
	__u32 is_last_chance; /* memory that cannot be read now never will be */
};

enum sf_told {
	SF_TOLD_NOTHING = 0, /* not followed */
	SF_TOLD = 1,
	SF_TOLD_SILENT = 2, /* its place in the stream is taken, but nobody wants to see it */
	SF_TOLD_UNREAD = 3, /* nothing is done yet */
};

/* Takes what a call moves into account, and sends it. */
static __noinline int sf_tell(struct sf_socket_scratch *scratch, struct sf_call *call, __u64 *position)
{
	struct sf_connection *connection = sf_follow(scratch, &call->socket, SF_ROLE_UNKNOWN);
	struct sf_socket_data *data = &scratch->data;
	__u32 direction = call->direction & 1;
	__u64 limit, bytes;

	if (!connection || connection->is_excluded)
		return SF_TOLD_NOTHING;
	sf_count(SF_SOCKET_COUNTER_BYTES, call->length);
	limit = sf_capture_limit(call->socket.connection);
	if (!limit) {
		*position = __sync_fetch_and_add(&connection->position[direction], call->length);
		return SF_TOLD_SILENT;
	}
	data->flags = 0;
	if (sf_capture(scratch, &call->buffers, limit)) {
		if (!call->is_last_chance)
			return SF_TOLD_UNREAD;
		data->head_bytes = 0;
		data->tail_bytes = 0;
		data->flags |= SF_DATA_UNREADABLE;
		sf_count(SF_SOCKET_COUNTER_LOST_UNREADABLE, 1);
	}
	if (call->buffers.length != call->length)
		data->tail_bytes = 0; /* what was read last is not what was moved last */
	*position = __sync_fetch_and_add(&connection->position[direction], call->length);
	data->position = *position;
	data->length = call->length;
	data->direction = direction;
	data->within = scratch->within;
	data->minted = 0;
	sf_begin_event(&data->event, SF_SOCKET_DATA, call->socket.connection, call->time_ns,
		       scratch->pid_tgid, scratch->goroutine);
	sf_notice_request(scratch, connection);
	sf_announce(scratch, connection, &call->socket, call->time_ns);
	bytes = data->head_bytes + data->tail_bytes;
	if (bytes > SF_WHOLE_BYTES)
		bytes = SF_WHOLE_BYTES;
	sf_send(data, __builtin_offsetof(struct sf_socket_data, bytes) + bytes);
	return SF_TOLD;
}

/* Where the bytes of a call with arguments `second` and `third` lie. False: nowhere, or it is not known. */
static __noinline bool sf_find_buffers(__u64 number, __u64 second, __u64 third, struct sf_buffers *buffers)
{
	switch (number) {
	case SF_SYS_READV:
	case SF_SYS_WRITEV:
		buffers->address = second;
		buffers->iovecs = third;
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
		buffers->iovecs = array[1];
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
	return !sf_sum_iovecs(buffers);
}

static __always_inline bool sf_is_open(const struct sf_socket *socket)
{
	return socket->family == AF_UNIX || socket->state != TCP_CLOSE;
}

static __always_inline void sf_begin_write(struct task_struct *task, __u64 pid_tgid, __u64 number,
					   __u32 descriptor, __u64 second, __u64 third)
{
	struct sf_socket_scratch *scratch;
	struct sf_thread *thread;
	struct sf_call call = {};
	__u64 position = 0;
	int told = SF_TOLD_UNREAD;

	if (!sf_find_socket(task, descriptor, &call.socket) || !sf_is_open(&call.socket))
		return;
	thread = sf_thread_of(task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		sf_count(SF_SOCKET_COUNTER_LOST_NO_THREAD, 1);
		return;
	}
	thread->pending.connection = 0;
	scratch = sf_take_scratch(task, pid_tgid);
	if (!scratch)
		return;
	call.time_ns = bpf_ktime_get_ns();
	call.direction = SF_OUT;
	if (sf_find_buffers(number, second, third, &call.buffers)) {
		call.length = call.buffers.length;
		told = call.length ? sf_tell(scratch, &call, &position) : SF_TOLD_NOTHING;
	}
	sf_release_scratch(scratch);
	if (told == SF_TOLD_NOTHING)
		return;
	thread->pending.connection = call.socket.connection;
	thread->pending.position = position;
	thread->pending.length = call.length;
	thread->pending.time_ns = call.time_ns;
	thread->pending.state = told == SF_TOLD          ? SF_PENDING_SENT
				: told == SF_TOLD_SILENT ? SF_PENDING_SILENT
							 : SF_PENDING_UNREAD;
}

/* A write that was to move more than it did. */
static __always_inline void sf_amend(struct task_struct *task, const struct sf_pending_write *pending,
				     __u64 moved, __u64 pid_tgid)
{
	struct sf_connection *connection;
	struct sf_socket_amended amended = {};
	__u64 id = pending->connection;
	bool is_go;

	connection = bpf_map_lookup_elem(&connections, &id);
	if (connection)
		__sync_fetch_and_add(&connection->position[SF_OUT], moved - pending->length);
	if (pending->state != SF_PENDING_SENT)
		return;
	sf_begin_event(&amended.event, SF_SOCKET_AMENDED, id, bpf_ktime_get_ns(), pid_tgid,
		       sf_current_goroutine(task, pid_tgid >> 32, &is_go));
	amended.position = pending->position;
	amended.length = moved;
	sf_count(SF_SOCKET_COUNTER_AMENDED, 1);
	sf_send(&amended, sizeof(amended));
}

/*
 * What a call has moved that is looked at when it returns. Not static, so that it is verified once and not
 * again for each of its callers.
 */
__noinline int sf_end_transfer(struct sf_call *call, __u64 number, __u64 second, __u64 third)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), position;
	struct sf_socket_scratch *scratch;

	if (!call)
		return 0;
	scratch = sf_take_scratch(bpf_get_current_task_btf(), pid_tgid);
	if (!scratch)
		return 0;
	call->is_last_chance = 1;
	if (number == SF_SYS_SENDFILE || number == SF_SYS_SPLICE) {
		call->buffers.length = 0;
	} else if (sf_find_buffers(number, second, third, &call->buffers)) {
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
	sf_tell(scratch, call, &position);
	sf_release_scratch(scratch);
	return 0;
}

static __always_inline void sf_end_write(struct task_struct *task, __u64 pid_tgid, __u64 number,
					 __u32 descriptor, __u64 second, __u64 third, long result)
{
	struct sf_thread *thread = sf_thread_of(task, 0);
	struct sf_pending_write pending;
	struct sf_call call = {};

	if (!thread || !thread->pending.connection)
		return;
	pending = thread->pending;
	thread->pending.connection = 0;
	if (pending.state == SF_PENDING_UNREAD) {
		if (result <= 0 || !sf_find_socket(task, descriptor, &call.socket) ||
		    call.socket.connection != pending.connection)
			return;
		sf_count(SF_SOCKET_COUNTER_READ_LATE, 1);
		call.direction = SF_OUT;
		call.length = result;
		call.time_ns = pending.time_ns;
		sf_end_transfer(&call, number, second, third);
		return;
	}
	if (result < 0)
		result = 0;
	if ((__u64)result < pending.length)
		sf_amend(task, &pending, result, pid_tgid);
}

/* End of stream has been read. */
static __always_inline void sf_end_of_stream(struct task_struct *task, const struct sf_socket *socket,
					     __u64 pid_tgid)
{
	struct sf_socket_shut_down shut_down = {.direction = SF_IN};
	__u64 id = socket->connection;
	struct sf_connection *connection = id ? bpf_map_lookup_elem(&connections, &id) : NULL;
	bool is_go;

	if (!connection || !connection->is_announced || connection->is_at_end)
		return;
	connection->is_at_end = 1;
	sf_begin_event(&shut_down.event, SF_SOCKET_SHUT_DOWN, id, bpf_ktime_get_ns(), pid_tgid,
		       sf_current_goroutine(task, pid_tgid >> 32, &is_go));
	sf_send(&shut_down, sizeof(shut_down));
}

static __always_inline void sf_end_read(struct task_struct *task, __u64 pid_tgid, __u64 number,
					__u32 descriptor, __u64 second, __u64 third, long result)
{
	struct sf_call call = {};

	if (!sf_find_socket(task, descriptor, &call.socket))
		return;
	if (!result) {
		/* A read of no bytes reads none. */
		if (third || (number != SF_SYS_READ && number != SF_SYS_RECVFROM))
			sf_end_of_stream(task, &call.socket, pid_tgid);
		return;
	}
	call.direction = SF_IN;
	call.length = result;
	call.time_ns = bpf_ktime_get_ns();
	sf_end_transfer(&call, number, second, third);
}

/* sendfile, or one end of a splice: lengths only. */
static __always_inline void sf_end_splice(struct task_struct *task, __u64 number, __u32 descriptor,
					  __u32 direction, long result)
{
	struct sf_call call = {};

	if (!sf_find_socket(task, descriptor, &call.socket) || !sf_is_open(&call.socket))
		return;
	call.direction = direction;
	call.length = result;
	call.time_ns = bpf_ktime_get_ns();
	sf_end_transfer(&call, number, 0, 0);
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
static __always_inline void sf_end_messages(struct task_struct *task, __u64 number, __u32 descriptor,
					    __u64 second, __u32 direction, long result)
{
	struct sf_messages messages = {.address = second, .count = result};
	struct sf_call call = {};

	if (!sf_find_socket(task, descriptor, &call.socket))
		return;
	bpf_loop(SF_IOV_MAX, sf_sum_message, &messages, 0);
	if (!messages.sum)
		return;
	call.direction = direction;
	call.length = messages.sum;
	call.time_ns = bpf_ktime_get_ns();
	sf_end_transfer(&call, number, second, 0);
}

/* A UNIX socket was connected or accepted. TCP tells by itself, see on_tcp_state. */
static __always_inline void sf_end_opening(struct task_struct *task, __u64 pid_tgid, __u32 descriptor,
					   __u32 role)
{
	struct sf_socket_scratch *scratch;
	struct sf_socket socket = {};

	if (!sf_find_socket(task, descriptor, &socket) || socket.family != AF_UNIX)
		return;
	scratch = sf_take_scratch(task, pid_tgid);
	if (!scratch)
		return;
	sf_follow(scratch, &socket, role);
	sf_release_scratch(scratch);
}

#define SHUT_RD 0
#define SHUT_WR 1
#define SHUT_RDWR 2

/* A UNIX socket was shut down. For TCP see on_tcp_state. */
static __always_inline void sf_end_shutdown(struct task_struct *task, __u64 pid_tgid, __u32 descriptor,
					    __u32 how)
{
	struct sf_socket_shut_down shut_down = {};
	struct sf_connection *connection;
	struct sf_socket socket = {};
	__u64 id;
	bool is_go;

	if (!sf_find_socket(task, descriptor, &socket) || socket.family != AF_UNIX)
		return;
	id = socket.connection;
	connection = bpf_map_lookup_elem(&connections, &id);
	if (!connection || !connection->is_announced)
		return;
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
}

/* ---- the hooks -------------------------------------------------------------------------------- */

static __always_inline bool sf_is_followed(__u64 pid_tgid)
{
	return !config.exclude_agent || pid_tgid >> 32 != agent_tgid;
}

/* Whether the call is one to look at: not the agent's, not of a 32-bit program. */
static __always_inline bool sf_is_ours(struct task_struct *task, __u64 pid_tgid)
{
	if (!sf_is_followed(pid_tgid))
		return false;
	if (task->thread_info.status & TS_COMPAT) {
		sf_count(SF_SOCKET_COUNTER_LOST_32_BIT, 1);
		return false;
	}
	return true;
}

/* A thread that serves many is at none of their requests any more. */
static __always_inline void sf_begin_wait(struct task_struct *task, __u64 number, const struct pt_regs *regs)
{
	struct sf_thread *thread = sf_thread_of(task, 0);

	if (thread && thread->request &&
	    sf_waits_for_several(number, regs->di, regs->si, regs->dx, regs->r10))
		thread->request = 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(on_sys_enter, struct pt_regs *regs, long number)
{
	struct task_struct *task;
	__u64 pid_tgid;

	if (!sf_concerns(enter_calls, number))
		return 0;
	task = bpf_get_current_task_btf();
	pid_tgid = bpf_get_current_pid_tgid();
	if (!sf_is_ours(task, pid_tgid))
		return 0;
	switch (number) {
	case SF_SYS_SENDTO:
		if (regs->r10 & MSG_OOB)
			return 0;
		break;
	case SF_SYS_SENDMSG:
		if (regs->dx & MSG_OOB)
			return 0;
		break;
	case SF_SYS_WRITE:
	case SF_SYS_WRITEV:
		break;
	default:
		sf_begin_wait(task, number, regs);
		return 0;
	}
	sf_begin_write(task, pid_tgid, number, regs->di, regs->si, regs->dx);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long result)
{
	__u64 number = regs->orig_ax, pid_tgid;
	struct task_struct *task;

	if (!sf_concerns(exit_calls, number))
		return 0;
	task = bpf_get_current_task_btf();
	pid_tgid = bpf_get_current_pid_tgid();
	switch (number) {
	case SF_SYS_WRITE:
	case SF_SYS_WRITEV:
	case SF_SYS_SENDTO:
	case SF_SYS_SENDMSG:
		sf_end_write(task, pid_tgid, number, regs->di, regs->si, regs->dx, result);
		return 0;
	default:
		break;
	}
	if (result < 0 || !sf_is_ours(task, pid_tgid))
		return 0;
	switch (number) {
	case SF_SYS_RECVFROM:
		if (regs->r10 & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
			return 0;
		break;
	case SF_SYS_RECVMSG:
		if (regs->dx & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
			return 0;
		break;
	case SF_SYS_RECVMMSG:
		if (!(regs->r10 & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)))
			sf_end_messages(task, number, regs->di, regs->si, SF_IN, result);
		return 0;
	case SF_SYS_SENDMMSG:
		if (!(regs->r10 & MSG_OOB))
			sf_end_messages(task, number, regs->di, regs->si, SF_OUT, result);
		return 0;
	case SF_SYS_SENDFILE:
		if (result)
			sf_end_splice(task, number, regs->di, SF_OUT, result);
		return 0;
	case SF_SYS_SPLICE:
		if (!result)
			return 0;
		sf_end_splice(task, number, regs->di, SF_IN, result);
		sf_end_splice(task, number, regs->dx, SF_OUT, result);
		return 0;
	case SF_SYS_CONNECT:
		sf_end_opening(task, pid_tgid, regs->di, SF_ROLE_CONNECTED);
		return 0;
	case SF_SYS_ACCEPT:
	case SF_SYS_ACCEPT4:
		sf_end_opening(task, pid_tgid, result, SF_ROLE_ACCEPTED);
		return 0;
	case SF_SYS_SHUTDOWN:
		sf_end_shutdown(task, pid_tgid, regs->di, regs->si);
		return 0;
	default:
		break;
	}
	sf_end_read(task, pid_tgid, number, regs->di, regs->si, regs->dx, result);
	return 0;
}

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

static __always_inline void sf_enter_connection(const struct sock *sk, __u64 id, __u32 role)
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
			fresh.opened_by = sf_goroutine_request(fresh.opener_pid, fresh.opener_goroutine);
		} else {
			thread = sf_thread_of(task, 0);
			fresh.opened_by = thread ? thread->request : 0;
		}
		if (config.exclude_agent && fresh.opener_pid == agent_tgid)
			return;
	}
	sf_describe_tcp(sk, &fresh);
	if (bpf_map_update_elem(&connections, &id, &fresh, BPF_ANY))
		sf_count(SF_SOCKET_COUNTER_LOST_CONNECTION, 1);
	else
		sf_count(SF_SOCKET_COUNTER_CONNECTIONS, 1);
}

/* Tells that this end will write no more: it has closed the connection or shut it down. */
static __always_inline void sf_tell_shut_down(__u64 id)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);
	struct sf_socket_shut_down shut_down = {.direction = SF_OUT};

	if (!connection || !connection->is_announced)
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

static __noinline int sf_leave_connection(__u64 id, int old_state, int error)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);
	struct sf_socket_ended ended = {};

	if (!connection)
		return 0;
	if (!connection->is_excluded && (connection->is_announced || old_state == TCP_SYN_SENT)) {
		if (!connection->is_announced)
			sf_tell_failed(connection, id);
		sf_begin_event(&ended.event, SF_SOCKET_ENDED, id, bpf_ktime_get_ns(), 0, 0);
		ended.ending = sf_ending(old_state, error);
		ended.error = error;
		sf_send(&ended, sizeof(ended));
	}
	bpf_map_delete_elem(&connections, &id);
	bpf_map_delete_elem(&captures, &id);
	return 0;
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
		sf_leave_connection(bpf_get_socket_cookie(sk), old_state, sk->sk_err);
		break;
	default:
		break;
	}
	return 0;
}

/* ---- what no system call explains ------------------------------------------------------------------ */

/*
 * io_uring moves bytes of sockets without any of the system calls above: within io_uring_enter, or in
 * threads of the kernel's own making. Which they were is not seen here, only that there were some.
 */
static __always_inline void sf_count_unexplained(const struct sock *sk, int moved, __u32 counter)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (moved <= 0 || sk->sk_type != SOCK_STREAM || !sf_is_followed(bpf_get_current_pid_tgid()))
		return;
	if (!(task->flags & PF_IO_WORKER)) {
		regs = (struct pt_regs *)bpf_task_pt_regs(task);
		if (!regs || regs->orig_ax != SF_SYS_IO_URING_ENTER)
			return;
	}
	sf_count(counter, moved);
}

/* Linux 6.3 and later. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(on_sent, struct sock *sk, int moved, int flags)
{
	sf_count_unexplained(sk, moved, SF_SOCKET_COUNTER_UNEXPLAINED_OUT);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_received, struct sock *sk, int moved, int flags)
{
	if (!(flags & MSG_PEEK))
		sf_count_unexplained(sk, moved, SF_SOCKET_COUNTER_UNEXPLAINED_IN);
	return 0;
}

/* ---- what is there already ------------------------------------------------------------------------ */

/*
 * Read once when following begins: gives a cookie to every TCP socket that has none. Read later it
 * lists what still exists, so that what was missed can be taken out.
 */
SEC("iter/tcp")
int list_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	__u64 cookie;

	if (!sk)
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	bpf_seq_write(ctx->meta->seq, &cookie, sizeof(cookie));
	return 0;
}

/* Lists the connection ids of the UNIX sockets that exist. */
SEC("iter/unix")
int list_unix(struct bpf_iter__unix *ctx)
{
	struct unix_sock *sk = ctx->unix_sk;
	struct socket *socket;
	__u64 id;

	if (!sk)
		return 0;
	socket = BPF_CORE_READ(sk, sk.sk_socket);
	if (!socket)
		return 0;
	id = BPF_CORE_READ((const struct socket_alloc *)socket, vfs_inode.i_ino) | SF_CONNECTION_UNIX;
	bpf_seq_write(ctx->meta->seq, &id, sizeof(id));
	return 0;
}

/* Run once by the agent, on itself, before anything is attached. */
SEC("raw_tp")
int learn_agent(void *ctx)
{
	agent_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
