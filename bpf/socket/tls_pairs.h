/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which object of a TLS library (SSL *) is for which connection.
 *
 * A library that reads and writes the socket itself does so within its calls: the socket that a call touches
 * is its object's, without doubt. A library that is given memory (Node, Python's asyncio) never touches one.
 * There the thread reads from a socket and then calls the library, or calls the library and then writes to a
 * socket, and what is between the two is what counts:
 *
 *   read     a call begins, and since the thread last waited for many or returned from such a call it has read
 *            from one socket only, which speaks TLS. Sockets whose objects are known do not count beside one
 *            whose object is not, as long as the call is about an object that has no pair either: loops read
 *            the end of one connection, for which they call nothing, and the beginning of another
 *   written  the thread's first write, after the call, to a socket that speaks TLS
 *
 * An object is paired when both name one connection, or when the call that the first one is about gives plain
 * bytes or completes a handshake. Each of them alone says nothing: a proxy that passes TLS on by itself reads
 * from sockets that no library cares for. What such a proxy writes it has read just before; so the first one is
 * enough for a connection whose first bytes were written by a thread that had read no TLS (is_tls_offered). That
 * matters to Node, whose clients write before the answer to the handshake is written.
 *
 * A connection has one object, an object one connection. What contradicts a pair undoes it, and is counted;
 * what is moved without a pair is counted as lost. A call that touches a socket proves a pair, unless the socket
 * is another object's: calls call back, and what is called back may do anything.
 *
 * Pairs end with SSL_free and with the connection. One whose end was missed is found out when its connection
 * is looked up, which is no more.
 */
#ifndef SF_SOCKET_TLS_PAIRS_H
#define SF_SOCKET_TLS_PAIRS_H

#include <bpf/bpf_helpers.h>

#include "../counters.h"
#include "../spanflame.h"
#include "../vmlinux.h"
#include "connections.h"

struct sf_tls_key {
	__u64 object; /* address */
	__u32 tgid;
	__u32 padding;
};

enum sf_tls_evidence {
	SF_TLS_HAS_READ = 1,
	SF_TLS_HAS_WRITTEN = 2,
	SF_TLS_HAS_DECRYPTED = 3, /* read, and that gave plain bytes or completed the handshake */
	SF_TLS_HAS_TOUCHED = 4,   /* within the call */
	SF_TLS_PAIRED = 5,        /* nothing more is needed */
};

struct sf_tls_pair {
	__u64 connection;
	__u32 evidence; /* enum sf_tls_evidence: the latest, or PAIRED */
	__u32 has_lost; /* plain bytes, because it was not paired then */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_CONNECTIONS);
	__type(key, struct sf_tls_key);
	__type(value, struct sf_tls_pair);
} tls_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SF_TLS_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} tls_counters SEC(".maps");

/* A call of a TLS library between its beginning and its return. */
struct sf_tls_call {
	__u64 stack; /* stack pointer at its beginning: where its return address lies */
	__u64 object;
	__u64 address;    /* of the plain bytes */
	__u64 length;     /* of them, for a write */
	__u64 result;     /* where it leaves how many were moved; 0: it returns that */
	__u64 time_ns;    /* of its beginning */
	__u64 touched;    /* the connection that it read or wrote; 0: none */
	__u64 connection; /* on which a write was told when it began; 0: it was not */
	__u64 position;   /* … and where */
	__u32 function;   /* enum sf_tls_function */
	__u32 touched_several;
	__u32 is_told; /* the write's event is out, not just its place taken */
};

/* Plain bytes that are to be told. */
struct sf_plain_bytes {
	__u64 connection;
	__u64 address;
	__u64 length;   /* moved, or to be moved */
	__u64 captured; /* of them that lie at `address`: `length`, or 0 if none do */
	__u64 time_ns;
	__u32 direction;
	__u32 is_last_chance; /* memory that cannot be read now never will be */
};

/* From which connections a thread has read, outside of calls of a TLS library and since the last one. */
struct sf_tls_reads {
	__u64 connection; /* the latest; 0: none */
	__u64 is_several; /* there was another one */
};

/* What a thread does that has called a TLS library, or moved what looks like TLS. */
struct sf_tls_thread {
	struct sf_tls_reads unpaired; /* connections whose objects are not known */
	struct sf_tls_reads paired;   /* … and those whose are */
	__u64 object;   /* that the latest call was about, until the thread's next write; 0: none */
	__u64 returned; /* stack pointer of the call that returned last, until the next one begins */
	__u32 calls;    /* that have not returned */
	__u32 padding;
	struct sf_plain_bytes plain;
	struct sf_tls_call call[SF_MAX_TLS_CALLS];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sf_tls_thread);
} tls_threads SEC(".maps");

static __always_inline void sf_count_tls(__u32 counter, __u64 amount)
{
	sf_add_to_counter(&tls_counters, counter, amount);
}

/* The connection has no object any more. */
static __always_inline void sf_forget_tls_object(struct sf_connection *connection, __u64 id)
{
	struct sf_tls_key key = {.object = connection->tls_object, .tgid = connection->tls_tgid};
	const struct sf_tls_pair *pair;

	if (!key.object)
		return;
	connection->tls_object = 0;
	/* The memory of an object that was freed unseen may be another's by now. */
	pair = bpf_map_lookup_elem(&tls_pairs, &key);
	if (pair && pair->connection == id)
		bpf_map_delete_elem(&tls_pairs, &key);
}

/* The object is for no connection any more. */
static __always_inline void sf_forget_tls_pair(const struct sf_tls_key *key)
{
	const struct sf_tls_pair *pair = bpf_map_lookup_elem(&tls_pairs, key);
	struct sf_connection *connection;
	__u64 id;

	if (!pair)
		return;
	id = pair->connection;
	connection = bpf_map_lookup_elem(&connections, &id);
	if (connection && connection->tls_object == key->object && connection->tls_tgid == key->tgid)
		connection->tls_object = 0;
	bpf_map_delete_elem(&tls_pairs, key);
}

/* Notes what is known of an object now. */
static __always_inline void sf_note_tls_pair(const struct sf_tls_key *key, __u64 id, __u32 evidence)
{
	struct sf_tls_pair pair = {.connection = id, .evidence = evidence};
	const struct sf_tls_pair *before = bpf_map_lookup_elem(&tls_pairs, key);

	if (before)
		pair.has_lost = before->has_lost;

	if (bpf_map_update_elem(&tls_pairs, key, &pair, BPF_ANY))
		sf_count_tls(SF_TLS_COUNTER_LOST_NO_ROOM, 1);
}

/* Plain bytes are missing from here on, nobody knows how many. */
static __always_inline void sf_break_plain_bytes(struct sf_connection *connection)
{
	__sync_fetch_and_add(&connection->plain_position[SF_IN], SF_UNKNOWN_GAP);
	__sync_fetch_and_add(&connection->plain_position[SF_OUT], SF_UNKNOWN_GAP);
}

/* Notes that an object is for a connection. */
static __always_inline void sf_pair_tls_object(const struct sf_tls_key *key, __u64 id,
					       struct sf_connection *connection)
{
	const struct sf_tls_pair *before = bpf_map_lookup_elem(&tls_pairs, key);

	/* Either some were told of it before the pair was undone, or the first ones are not the first. */
	if (connection->is_decrypted || !connection->is_tls_from_start || (before && before->has_lost))
		sf_break_plain_bytes(connection);
	sf_note_tls_pair(key, id, SF_TLS_PAIRED);
	connection->tls_tgid = key->tgid;
	connection->tls_object = key->object;
	sf_count_tls(SF_TLS_COUNTER_BOUND, 1);
}

static __always_inline bool sf_is_followed_connection(__u64 id)
{
	return bpf_map_lookup_elem(&connections, &id) != NULL;
}

/* Takes evidence that an object of the current process is for a connection. */
static __noinline int sf_weigh_tls_pair(__u32 tgid, __u64 object, __u64 id, __u32 evidence)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);
	struct sf_tls_key key = {.object = object, .tgid = tgid};
	bool is_others, is_paired, is_enough;
	struct sf_tls_pair *pair;

	if (!connection || !connection->is_tls)
		return 0;
	/* A server's first call, when the first bytes were read and none is written yet. */
	if (evidence == SF_TLS_HAS_READ && connection->role == SF_ROLE_ACCEPTED &&
	    !connection->position[SF_OUT])
		connection->is_tls_from_start = 1;
	pair = bpf_map_lookup_elem(&tls_pairs, &key);
	is_paired = pair && pair->evidence == SF_TLS_PAIRED;
	if (is_paired && pair->connection == id)
		return 0;
	is_others =
		connection->tls_object && (connection->tls_object != object || connection->tls_tgid != tgid);
	switch (evidence) {
	case SF_TLS_HAS_READ:
	case SF_TLS_HAS_WRITTEN:
		/* The pair that is known explains it, or it explains nothing. */
		if (is_paired || is_others)
			return 0;
		break;
	case SF_TLS_HAS_DECRYPTED:
		/* What the library gave had been read before: the connection read last is another object's. */
		if (is_paired && is_others)
			return 0;
		if (is_paired || is_others) {
			sf_count_tls(SF_TLS_COUNTER_CONTRADICTED, 1);
			sf_forget_tls_object(connection, id);
			sf_forget_tls_pair(&key);
			sf_note_tls_pair(&key, id, SF_TLS_HAS_READ);
			return 0;
		}
		break;
	case SF_TLS_HAS_TOUCHED:
		if (is_others && connection->tls_tgid == tgid)
			return 0;
		if (is_paired && sf_is_followed_connection(pair->connection)) {
			sf_count_tls(SF_TLS_COUNTER_CONTRADICTED, 1);
			sf_forget_tls_pair(&key);
			return 0;
		}
		/* It was handed to a child, or serves another connection after the first. */
		if (is_paired || is_others)
			sf_count_tls(SF_TLS_COUNTER_MOVED, 1);
		sf_forget_tls_object(connection, id);
		break;
	default:
		return 0;
	}
	is_enough = evidence >= SF_TLS_HAS_DECRYPTED ||
		    (evidence == SF_TLS_HAS_READ && connection->is_tls_offered) ||
		    (pair && pair->connection == id && pair->evidence != evidence);
	if (is_enough)
		sf_pair_tls_object(&key, id, connection);
	else
		sf_note_tls_pair(&key, id, evidence);
	return 0;
}

/* ---- what the socket programs note --------------------------------------------------------------- */

/* Does a call move TLS records? Their type, then a version from SSL 3.0 to TLS 1.3 (RFC 8446, section 5.1). */
static __always_inline void sf_notice_tls(struct sf_connection *connection, const struct sf_socket_data *data)
{
	if (connection->is_tls || data->head_bytes < 3)
		return;
	if (data->bytes[0] >= 20 && data->bytes[0] <= 23 && data->bytes[1] == 3 && data->bytes[2] <= 4)
		connection->is_tls = 1;
}

static __always_inline void sf_note_tls_read(struct sf_tls_reads *reads, __u64 id)
{
	if (reads->connection && reads->connection != id)
		reads->is_several = 1;
	reads->connection = id;
}

static __always_inline void sf_forget_tls_reads(struct sf_tls_thread *thread)
{
	__builtin_memset(&thread->unpaired, 0, sizeof(thread->unpaired));
	__builtin_memset(&thread->paired, 0, sizeof(thread->paired));
}

/* The connection of which the thread has read what a call about an object may take; 0: there are several, or none. */
static __always_inline __u64 sf_tls_read_for(const struct sf_tls_thread *thread, __u32 tgid, __u64 object)
{
	const struct sf_tls_reads *unpaired = &thread->unpaired, *paired = &thread->paired;
	struct sf_tls_key key = {.object = object, .tgid = tgid};
	const struct sf_tls_pair *pair;

	if (!unpaired->connection)
		return paired->is_several ? 0 : paired->connection;
	if (unpaired->is_several)
		return 0;
	if (paired->connection) {
		pair = bpf_map_lookup_elem(&tls_pairs, &key);
		if (pair && pair->evidence == SF_TLS_PAIRED)
			return 0;
	}
	return unpaired->connection;
}

/* A thread moves something over a connection; `is_first`: nothing was moved before. */
static __always_inline void sf_note_tls_transfer(struct sf_connection *connection, __u64 id, __u32 direction,
						 bool is_first)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct sf_tls_thread *thread;
	struct sf_tls_call *call;
	__u64 object;

	if (!connection->is_tls)
		return;
	/* Made here, so that what is read before a thread's first call is known when that comes. */
	thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL,
				      BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread)
		return;
	/* Within a call it is of another one that was made within and has returned. */
	object = direction == SF_OUT ? thread->object : 0;
	if (thread->calls && !object) {
		call = &thread->call[(thread->calls - 1) % SF_MAX_TLS_CALLS];
		if (connection->tls_object && connection->tls_object != call->object &&
		    connection->tls_tgid == tgid)
			return;
		if (call->touched && call->touched != id)
			call->touched_several = 1;
		call->touched = id;
		if (is_first && connection->role != SF_ROLE_UNKNOWN)
			connection->is_tls_from_start = 1;
		return;
	}
	if (direction == SF_IN) {
		sf_note_tls_read(connection->tls_object && connection->tls_tgid == tgid ? &thread->paired
											: &thread->unpaired,
				 id);
		return;
	}
	if (is_first && connection->role == SF_ROLE_CONNECTED && !thread->unpaired.connection) {
		connection->is_tls_from_start = 1;
		connection->is_tls_offered = 1;
	}
	thread->object = 0;
	if (object)
		sf_weigh_tls_pair(tgid, object, id, SF_TLS_HAS_WRITTEN);
}

/* What the thread does next has nothing to do with what it did. */
static __always_inline void sf_forget_transfers(struct sf_tls_thread *thread)
{
	sf_forget_tls_reads(thread);
	thread->object = 0;
}

#endif /* SF_SOCKET_TLS_PAIRS_H */
