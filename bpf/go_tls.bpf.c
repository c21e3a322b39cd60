/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Plain bytes of crypto/tls, from (*Conn).Read and (*Conn).Write.
 *
 * What a read gives is told where it returns, at each of its `ret` instructions, what a write takes where it
 * begins. A write moves all of it or breaks the connection, so that its end is not looked at. A goroutine's
 * stack may be moved while it reads: places on it count from its upper end.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define SF_PLAIN_MINTER 0x4000 /* no CPU's, and not that of tls.bpf.c */

#include "go/net_conn.h"
#include "spanflame.h"
#include "tls/plain_bytes.h"
#include "uprobes.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

#define SF_G_STACK_LO 0 /* runtime.g.stack */
#define SF_G_STACK_HI 8

/* A read between its beginning and its end. */
struct sf_go_read {
	__u64 conn;    /* *tls.Conn */
	__u64 address; /* of its buffer; if that is on the stack, from the stack's upper end on downwards */
	__u64 depth;   /* of the return address, from there */
	__u64 is_on_stack;
};

/* Those of processes that have ended are taken out by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_GO_READS);
	__type(key, struct sf_goroutine_key);
	__type(value, struct sf_go_read);
} go_reads SEC(".maps");

/* The goroutine at hand, and the upper end of its stack. */
static __always_inline bool sf_find_reader(struct sf_goroutine_key *key, struct sf_running *running,
					   __u64 *stack_lo, __u64 *stack_hi)
{
	const struct sf_go_process *go;

	key->tgid = bpf_get_current_pid_tgid() >> 32;
	go = bpf_map_lookup_elem(&go_processes, &key->tgid);
	if (!go)
		return false;
	key->goroutine = sf_find_goroutine(go, bpf_get_current_task_btf(), running);
	if (!key->goroutine)
		return false;
	*stack_lo = sf_read_word(running->g + SF_G_STACK_LO);
	*stack_hi = sf_read_word(running->g + SF_G_STACK_HI);
	return *stack_hi != 0;
}

/* Plain bytes of a connection are missing from here on. */
static __always_inline void sf_lose_go_bytes(__u64 id, __u32 counter)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);

	sf_count_tls(counter, 1);
	if (connection)
		sf_break_plain_bytes(connection);
}

/* Read(c *Conn, b []byte) */
static __noinline int sf_go_tls_read(const bpf_user_pt_regs_t *registers)
{
	struct sf_go_read read = {.conn = registers->ax, .address = registers->bx};
	struct sf_goroutine_key key = {};
	__u64 stack_lo, stack_hi, stack = registers->sp;
	struct sf_running running;

	if (!sf_find_reader(&key, &running, &stack_lo, &stack_hi))
		return 0;
	read.depth = stack_hi - stack;
	if (read.address >= stack_lo && read.address < stack_hi) {
		read.is_on_stack = 1;
		read.address = stack_hi - read.address;
	}
	if (bpf_map_update_elem(&go_reads, &key, &read, BPF_ANY)) {
		struct sf_socket socket = {};

		sf_lose_go_bytes(sf_find_connection(read.conn, &socket), SF_TLS_COUNTER_LOST_NO_ROOM);
	}
	return 0;
}

SEC("uprobe")
SF_UPROBE(on_go_tls_read, sf_go_tls_read)

static __always_inline int sf_tell_go_bytes(struct sf_plain_bytes *plain, __u64 conn)
{
	struct sf_socket_scratch *scratch;
	struct sf_socket socket = {};
	__u64 position;

	plain->connection = sf_find_connection(conn, &socket);
	if (!plain->connection)
		return 0;
	plain->captured = plain->length;
	plain->time_ns = bpf_ktime_get_ns();
	plain->is_last_chance = 1;
	scratch = sf_take_plain_scratch(bpf_get_current_task_btf(), bpf_get_current_pid_tgid());
	if (!scratch) {
		sf_lose_go_bytes(plain->connection, SF_TLS_COUNTER_LOST_NO_SCRATCH);
		return 0;
	}
	sf_tell_plain_bytes(scratch, plain, &position);
	sf_release_plain_scratch(scratch);
	return 0;
}

/* It returns n, err. */
static __noinline int sf_go_tls_read_end(const bpf_user_pt_regs_t *registers)
{
	struct sf_plain_bytes plain = {.direction = SF_IN};
	struct sf_goroutine_key key = {};
	__u64 stack_lo, stack_hi, stack = registers->sp, conn;
	const struct sf_go_read *read;
	struct sf_running running;

	plain.length = registers->ax;
	if (!sf_find_reader(&key, &running, &stack_lo, &stack_hi))
		return 0;
	read = bpf_map_lookup_elem(&go_reads, &key);
	if (!read || read->depth != stack_hi - stack) {
		/* It began before it was looked at. */
		if (!read && (__s64)plain.length > 0)
			sf_count_tls(SF_TLS_COUNTER_LOST_RETURN, 1);
		return 0;
	}
	conn = read->conn;
	plain.address = read->is_on_stack ? stack_hi - read->address : read->address;
	bpf_map_delete_elem(&go_reads, &key);
	if ((__s64)plain.length <= 0)
		return 0;
	sf_count_tls(SF_TLS_COUNTER_READS, 1);
	return sf_tell_go_bytes(&plain, conn);
}

SEC("uprobe")
SF_UPROBE(on_go_tls_read_end, sf_go_tls_read_end)

/* Write(c *Conn, b []byte) */
static __noinline int sf_go_tls_write(const bpf_user_pt_regs_t *registers)
{
	struct sf_plain_bytes plain = {.direction = SF_OUT};
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 conn = registers->ax;

	plain.address = registers->bx;
	plain.length = registers->cx;
	if (!plain.length || !bpf_map_lookup_elem(&go_processes, &tgid))
		return 0;
	sf_count_tls(SF_TLS_COUNTER_WRITES, 1);
	return sf_tell_go_bytes(&plain, conn);
}

SEC("uprobe")
SF_UPROBE(on_go_tls_write, sf_go_tls_write)
