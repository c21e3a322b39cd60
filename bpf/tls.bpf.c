/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Plain bytes of TLS connections, from the calls of OpenSSL's interface (OpenSSL, BoringSSL, Node's own).
 *
 * What a read gives is told when it returns, before its caller sees it; what a write takes is told when it
 * begins, as on sockets, and amended when it returns with less or an error. A write that could not go on
 * (SSL_ERROR_WANT_WRITE) is amended to nothing, and its repetition, which has the same bytes, told again.
 * A write of an object that is not known to be for a connection yet is told when it returns, for which it may
 * have become known; see socket/tls_pairs.h.
 *
 * A call and its return are brought together by the stack pointer: calls within calls (TLS within TLS, a
 * handshake that two functions are part of), and calls that were left by an exception, are told apart by it.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define SF_PLAIN_MINTER 0x8000

#include "socket/left_alone.h"
#include "spanflame.h"
#include "tls/plain_bytes.h"
#include "uprobes.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

/* The contract's types, see socket.bpf.c. */
struct sf_tls_contract {
	enum sf_tls_function function;
	enum sf_tls_counter counter;
};
struct sf_tls_contract contract SEC(".data.contract");

#define SF_TLS_PART_OF_OTHER 0 /* function: of the call that it is made within */

static __always_inline bool sf_is_read(__u32 function)
{
	return function == SF_TLS_READ || function == SF_TLS_READ_EX;
}

static __always_inline bool sf_is_write(__u32 function)
{
	return function == SF_TLS_WRITE || function == SF_TLS_WRITE_EX || function == SF_TLS_WRITE_EX2;
}

/* A call in which the library takes what was read from the connection. */
static __always_inline bool sf_is_reading(__u32 function)
{
	return sf_is_read(function) || function == SF_TLS_HANDSHAKE;
}

/* The connection that an object is for; 0: it is not known, or `is_gone`. */
static __always_inline __u64 sf_connection_of(__u32 tgid, __u64 object, bool *is_gone)
{
	struct sf_tls_key key = {.object = object, .tgid = tgid};
	const struct sf_tls_pair *pair = bpf_map_lookup_elem(&tls_pairs, &key);
	__u64 id;

	*is_gone = false;
	if (!pair || pair->evidence != SF_TLS_PAIRED)
		return 0;
	id = pair->connection;
	if (bpf_map_lookup_elem(&connections, &id))
		return id;
	*is_gone = true;
	bpf_map_delete_elem(&tls_pairs, &key);
	return 0;
}

/* The calls whose return addresses lie at or above `stack`: the others were left by an exception or a jump. */
static __always_inline __u32 sf_calls_above(const struct sf_tls_thread *thread, __u64 stack)
{
	__u32 calls = thread->calls;
	int index;

	if (calls > SF_MAX_TLS_CALLS)
		calls = SF_MAX_TLS_CALLS;
	for (index = 0; index < SF_MAX_TLS_CALLS; index++) {
		if (calls && thread->call[(calls - 1) % SF_MAX_TLS_CALLS].stack < stack)
			calls--;
	}
	return calls;
}

/* Plain bytes of an object are lost. */
static __noinline int sf_note_loss(__u32 tgid, __u64 object)
{
	struct sf_tls_key key = {.object = object, .tgid = tgid};
	struct sf_tls_pair *pair = bpf_map_lookup_elem(&tls_pairs, &key);
	struct sf_connection *connection;
	__u64 id;

	if (!pair)
		return 0;
	pair->has_lost = 1;
	id = pair->connection;
	connection = bpf_map_lookup_elem(&connections, &id);
	if (connection && pair->evidence == SF_TLS_PAIRED)
		sf_break_plain_bytes(connection);
	return 0;
}

/* ---- a call begins ------------------------------------------------------------------------------- */

/* Returns whether the call writes bytes that can be told now: they are in the thread's `plain`. */
static __noinline int sf_begin_tls_call(bpf_user_pt_regs_t *registers)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), stack = registers->sp;
	__u32 function = bpf_get_attach_cookie(registers), calls, outer = 0;
	__u64 read_from;
	struct sf_tls_thread *thread;
	struct sf_tls_call *call;
	bool is_gone;

	if (!sf_is_followed(pid_tgid >> 32))
		return 0;
	thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL,
				      BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		sf_count_tls(SF_TLS_COUNTER_LOST_NO_THREAD, 1);
		sf_note_loss(pid_tgid >> 32, registers->di);
		return 0;
	}
	calls = sf_calls_above(thread, stack + 1);
	thread->returned = 0;
	thread->object = 0;
	thread->calls = calls;
	/* Writes too: they go on with a handshake, as Node has them do. */
	read_from = sf_tls_read_for(thread, pid_tgid >> 32, registers->di);
	if (read_from)
		sf_weigh_tls_pair(pid_tgid >> 32, registers->di, read_from, SF_TLS_HAS_READ);
	if (calls >= SF_MAX_TLS_CALLS) {
		sf_count_tls(SF_TLS_COUNTER_LOST_DEPTH, 1);
		sf_note_loss(pid_tgid >> 32, registers->di);
		return 0;
	}
	if (calls) {
		call = &thread->call[(calls - 1) % SF_MAX_TLS_CALLS];
		if (call->object == registers->di)
			outer = call->function;
	}
	/* SSL_write_ex is made of SSL_write_ex2. */
	if ((sf_is_write(outer) && sf_is_write(function)) || (sf_is_read(outer) && sf_is_read(function)))
		function = SF_TLS_PART_OF_OTHER;

	call = &thread->call[calls % SF_MAX_TLS_CALLS];
	call->stack = stack;
	call->object = registers->di;
	call->address = registers->si;
	call->length = 0;
	call->result = 0;
	call->time_ns = bpf_ktime_get_ns();
	call->touched = 0;
	call->connection = 0;
	call->position = 0;
	call->function = function;
	call->touched_several = 0;
	call->is_told = 0;
	thread->calls = calls + 1;
	switch (function) {
	case SF_TLS_READ_EX:
		call->result = registers->cx;
		break;
	case SF_TLS_WRITE:
		if ((__s32)registers->dx > 0)
			call->length = (__u32)registers->dx;
		break;
	case SF_TLS_WRITE_EX:
		call->length = registers->dx;
		call->result = registers->cx;
		break;
	case SF_TLS_WRITE_EX2:
		call->length = registers->dx;
		call->result = registers->r8;
		break;
	default:
		break;
	}
	if (!call->length)
		return 0;
	thread->plain.connection = sf_connection_of(pid_tgid >> 32, call->object, &is_gone);
	thread->plain.address = call->address;
	thread->plain.length = call->length;
	thread->plain.captured = call->length;
	thread->plain.time_ns = call->time_ns;
	thread->plain.direction = SF_OUT;
	thread->plain.is_last_chance = 0;
	return thread->plain.connection != 0;
}

/*
 * What the two functions say is done here, where the verifier has forgotten on which ways they got there: it
 * would follow each of them through all of this.
 */
static __noinline int sf_on_tls_call(bpf_user_pt_regs_t *registers)
{
	struct sf_socket_scratch *scratch;
	struct sf_tls_thread *thread;
	struct sf_tls_call *call;
	__u64 position = 0;
	int told;

	if (!sf_begin_tls_call(registers))
		return 0;
	thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, 0);
	if (!thread)
		return 0;
	/* Without one it is told when the call returns. */
	scratch = sf_take_plain_scratch(bpf_get_current_task_btf(), bpf_get_current_pid_tgid());
	if (!scratch)
		return 0;
	told = sf_tell_plain_bytes(scratch, &thread->plain, &position);
	sf_release_plain_scratch(scratch);
	call = &thread->call[(thread->calls - 1) % SF_MAX_TLS_CALLS];
	call->position = position;
	if (told == SF_TOLD || told == SF_TOLD_SILENT)
		call->connection = thread->plain.connection;
	call->is_told = told == SF_TOLD;
	return 0;
}

/* ---- … and returns ------------------------------------------------------------------------------- */

/* Bytes that a call has moved, by what it returns; 0: none, or it failed. */
static __always_inline __u64 sf_moved_by(const struct sf_tls_call *call, __u64 returned)
{
	__u64 moved = 0;

	if (call->result) {
		if ((__u32)returned != 1 || bpf_probe_read_user(&moved, sizeof(moved), (void *)call->result))
			return 0;
		return moved;
	}
	if (call->function == SF_TLS_SENDFILE)
		return (__s64)returned > 0 ? returned : 0;
	return (__s32)returned > 0 ? (__u32)returned : 0;
}

/* What the call has shown of the connection that its object is for. */
static __always_inline void sf_learn_from(struct sf_tls_thread *thread, const struct sf_tls_call *call,
					  bool has_succeeded, __u32 tgid)
{
	bool is_reading = sf_is_reading(call->function);
	__u64 read_from = 0;

	if (is_reading) {
		read_from = sf_tls_read_for(thread, tgid, call->object);
		sf_forget_tls_reads(thread);
	}
	thread->object = 0;
	if (call->touched) {
		if (!call->touched_several)
			sf_weigh_tls_pair(tgid, call->object, call->touched, SF_TLS_HAS_TOUCHED);
		return;
	}
	thread->object = call->object;
	if (is_reading && has_succeeded && read_from)
		sf_weigh_tls_pair(tgid, call->object, read_from, SF_TLS_HAS_DECRYPTED);
}

/* Whether what a call has moved can be told: it is in the thread's `plain`. */
static __always_inline bool sf_take_moved(struct sf_tls_thread *thread, const struct sf_tls_call *call,
					  __u64 moved, __u64 pid_tgid)
{
	bool is_read = sf_is_read(call->function), is_gone;

	thread->plain.connection = sf_connection_of(pid_tgid >> 32, call->object, &is_gone);
	thread->plain.address = call->address;
	thread->plain.length = moved;
	thread->plain.captured = call->function == SF_TLS_SENDFILE ? 0 : moved;
	thread->plain.time_ns = is_read ? bpf_ktime_get_ns() : call->time_ns;
	thread->plain.direction = is_read ? SF_IN : SF_OUT;
	thread->plain.is_last_chance = 1;
	if (thread->plain.connection)
		return true;
	sf_count_tls(is_gone ? SF_TLS_COUNTER_LOST_GONE : SF_TLS_COUNTER_LOST_UNBOUND, 1);
	sf_note_loss(pid_tgid >> 32, call->object);
	return false;
}

/* Returns whether the call has moved bytes that are to be told now. */
static __noinline int sf_end_tls_call(bpf_user_pt_regs_t *registers)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), stack = registers->sp - sizeof(__u64), moved;
	__u32 function = bpf_get_attach_cookie(registers), calls;
	struct sf_tls_thread *thread;
	struct sf_tls_call *call;
	bool is_go;

	if (!sf_is_followed(pid_tgid >> 32))
		return 0;
	thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, 0);
	if (!thread) {
		if (function != SF_TLS_HANDSHAKE)
			sf_count_tls(SF_TLS_COUNTER_LOST_RETURN, 1);
		return 0;
	}
	calls = sf_calls_above(thread, stack);
	call = &thread->call[(calls - 1) % SF_MAX_TLS_CALLS];
	if (!calls || call->stack != stack) {
		thread->calls = calls;
		/* Two functions that end in one return, because one has jumped to the other, were one call. */
		if (thread->returned != stack && function != SF_TLS_HANDSHAKE)
			sf_count_tls(SF_TLS_COUNTER_LOST_RETURN, 1);
		return 0;
	}
	thread->calls = calls - 1;
	thread->returned = stack;
	if (call->function == SF_TLS_PART_OF_OTHER) {
		if (calls > 1 && call->touched) {
			struct sf_tls_call *outer = &thread->call[(calls - 2) % SF_MAX_TLS_CALLS];

			outer->touched_several |=
				call->touched_several || (outer->touched && outer->touched != call->touched);
			outer->touched = call->touched;
		}
		return 0;
	}
	moved = sf_moved_by(call, registers->ax);
	sf_learn_from(thread, call, moved, pid_tgid >> 32);
	if (call->function == SF_TLS_HANDSHAKE)
		return 0;
	if (sf_is_read(call->function)) {
		if (!moved)
			return 0;
		sf_count_tls(SF_TLS_COUNTER_READS, 1);
		return sf_take_moved(thread, call, moved, pid_tgid);
	}
	sf_count_tls(SF_TLS_COUNTER_WRITES, 1);
	if (call->connection) {
		if (moved < call->length)
			sf_amend_plain_bytes(
				call->connection, call->position, call->length, moved, call->is_told,
				pid_tgid,
				sf_current_goroutine(bpf_get_current_task_btf(), pid_tgid >> 32, &is_go));
	} else if (moved) {
		return sf_take_moved(thread, call, moved, pid_tgid);
	}
	return 0;
}

static __noinline int sf_on_tls_return(bpf_user_pt_regs_t *registers)
{
	struct sf_socket_scratch *scratch;
	struct sf_tls_thread *thread;
	__u64 position;

	if (!sf_end_tls_call(registers))
		return 0;
	thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, 0);
	if (!thread)
		return 0;
	scratch = sf_take_plain_scratch(bpf_get_current_task_btf(), bpf_get_current_pid_tgid());
	if (!scratch) {
		__u64 id = thread->plain.connection;
		struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);

		sf_count_tls(SF_TLS_COUNTER_LOST_NO_SCRATCH, 1);
		if (connection)
			sf_break_plain_bytes(connection);
		return 0;
	}
	sf_tell_plain_bytes(scratch, &thread->plain, &position);
	sf_release_plain_scratch(scratch);
	return 0;
}

/* ---- an object is let go of ---------------------------------------------------------------------- */

static __noinline int sf_free_tls_object(bpf_user_pt_regs_t *registers)
{
	struct sf_tls_key key = {.object = registers->di, .tgid = bpf_get_current_pid_tgid() >> 32};

	sf_forget_tls_pair(&key);
	return 0;
}

SEC("uprobe")
SF_UPROBE(on_tls_call, sf_on_tls_call)

SEC("uretprobe")
SF_UPROBE(on_tls_return, sf_on_tls_return)

SEC("uprobe")
SF_UPROBE(on_tls_free, sf_free_tls_object)
