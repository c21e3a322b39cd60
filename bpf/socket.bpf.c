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
#include "socket/io_uring.h"
#include "socket/new_code.h"
#include "socket/syscalls.h"
#include "socket/tcp_state.h"
#include "socket/transfers.h"
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
	struct sf_socket_stream stream;
	struct sf_socket_new_code new_code;
	struct sf_unexplained unexplained;
	struct sf_go_process go_process;
	struct sf_go_code go_code;
	struct sf_propagation propagation;
	struct sf_outgoing_context outgoing_context;
	struct sf_publishing publishing;
	struct sf_connection connection;
	enum sf_capture capture;
	enum sf_direction direction;
	enum sf_role role;
	enum sf_socket_event_type event_type;
	enum sf_data_flag data_flag;
	enum sf_ending ending;
	enum sf_event_loop event_loop;
	enum sf_socket_counter counter;
	enum sf_header_counter header_counter;
	enum sf_tls_function tls_function;
	enum sf_tls_counter tls_counter;
	enum sf_go_counter go_counter;
};
struct sf_socket_contract contract SEC(".data.contract");

static __always_inline bool sf_is_read(__u64 number)
{
	return number == SF_SYS_READ || number == SF_SYS_READV || number == SF_SYS_RECVFROM ||
	       number == SF_SYS_RECVMSG;
}

/* ---- the hooks -------------------------------------------------------------------------------- */

/* Whether the call is one to look at: of a process that is followed, not of a 32-bit program. */
static __always_inline bool sf_is_ours(struct task_struct *task, __u64 pid_tgid)
{
	if (!sf_is_followed(pid_tgid >> 32))
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
	struct sf_tls_thread *tls = bpf_task_storage_get(&tls_threads, task, NULL, 0);
	bool is_tls = tls && !tls->calls;

	if (!is_tls && !(thread && thread->request))
		return;
	if (!sf_waits_for_several(number, regs->di, regs->si, regs->dx, regs->r10))
		return;
	if (is_tls)
		sf_forget_transfers(tls);
	if (!thread || !thread->request)
		return;
	if (sf_is_of_event_loop(number) && sf_has_unanswered(thread))
		sf_begin_to_serve_many(thread);
	sf_be_at(thread, 0);
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
	case SF_SYS_IO_URING_ENTER:
		sf_tell_io_uring(pid_tgid);
		sf_begin_wait(task, number, regs);
		return 0;
	default:
		sf_begin_wait(task, number, regs);
		return 0;
	}
	sf_begin_write(task, pid_tgid, number, regs);
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
	case SF_SYS_MMAP:
		if (regs->dx & PROT_EXEC && !(regs->r10 & MAP_ANONYMOUS))
			sf_end_mapping(task, pid_tgid, regs->r8);
		return 0;
	case SF_SYS_WRITE:
	case SF_SYS_WRITEV:
	case SF_SYS_SENDTO:
	case SF_SYS_SENDMSG:
		sf_end_write(task, pid_tgid, number, regs, result);
		return 0;
	default:
		break;
	}
	if (result == -SF_EAGAIN && sf_is_look_at_pooled(number, regs->dx))
		sf_take_pooled(task, regs->di);
	if (result < 0 && result != -SF_EAGAIN && sf_is_read(number))
		sf_end_callback(task, regs->di, false);
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
			sf_end_messages(task, number, regs, SF_IN, result);
		return 0;
	case SF_SYS_SENDMMSG:
		if (!(regs->r10 & MSG_OOB))
			sf_end_messages(task, number, regs, SF_OUT, result);
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
	case SF_SYS_GETSOCKOPT:
		sf_end_callback(task, regs->di, true);
		return 0;
	case SF_SYS_CONNECT:
		sf_end_opening(task, pid_tgid, regs->di, SF_ROLE_CONNECTED);
		return 0;
	case SF_SYS_ACCEPT:
	case SF_SYS_ACCEPT4:
		sf_end_callback(task, result, false);
		sf_end_opening(task, pid_tgid, result, SF_ROLE_ACCEPTED);
		return 0;
	case SF_SYS_IO_URING_SETUP:
		sf_tell_io_uring(pid_tgid);
		return 0;
	case SF_SYS_SHUTDOWN:
		sf_end_shutdown(task, pid_tgid, regs->di, regs->si);
		return 0;
	default:
		break;
	}
	sf_end_read(task, pid_tgid, number, regs, result);
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

/* Read once when following begins: threads that the kernel has made for rings (create_io_thread). */
SEC("iter/task")
int list_io_workers(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u64 pid;

	if (!task || !(task->flags & PF_IO_WORKER))
		return 0;
	pid = task->pid;
	bpf_seq_write(ctx->meta->seq, &pid, sizeof(pid));
	return 0;
}

/* Loaded only if some processes are left alone: the number of one that has ended will be another's. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_process_end, struct task_struct *task)
{
	__u32 tgid = task->tgid;

	/* do_exit has taken this thread off the count; two last threads may both see none left. */
	if (task->signal->live.counter <= 0)
		bpf_map_delete_elem(&left_alone, &tgid);
	return 0;
}

/* Run by user space. Returns whether the connection is followed. */
SEC("raw_tp")
int BPF_PROG(set_capture, __u64 id, __u64 capture)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);

	if (!connection)
		return 0;
	connection->capture = capture;
	return 1;
}

/* Run once by the agent, on itself, before anything is attached. */
SEC("raw_tp")
int learn_agent(void *ctx)
{
	agent_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
