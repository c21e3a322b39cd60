/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Plain bytes that a TLS library was given or gives, told as those of a connection: what sf_tell
 * (socket/transfers.h) is for system calls. They have positions of their own, and once there are some, those
 * of the wire are told no more.
 *
 * The programs that use this are on uprobes (uprobes.h) and may be preempted on older kernels, so that their
 * scratches are taken with an atomic exchange: the one of the CPU, or else one of a few that are for all.
 */
#ifndef SF_TLS_PLAIN_BYTES_H
#define SF_TLS_PLAIN_BYTES_H

#include <bpf/bpf_helpers.h>

/*
 * Before requests.h. A function that is verified by itself is refused here, see uprobes.h; and to be verified for
 * each way in which bytes may be a request takes seconds. So it is looked for before that is known.
 */
#define SF_TAKE_TRACE_ID(data) (scratch->header)

#include "../socket/evidence.h"
#include "../socket/following.h"
#include "../socket/payload.h"
#include "../socket/requests.h"
#include "../socket/tls_pairs.h"
#include "../spanflame.h"

#define SF_SPARE_SCRATCHES 4

/* Indexed by CPU, then the spare ones. Sized by user space: CPUs + SF_SPARE_SCRATCHES. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sf_socket_scratch);
} plain_scratch SEC(".maps");

static __always_inline struct sf_socket_scratch *sf_try_plain_scratch(__u32 index)
{
	struct sf_socket_scratch *scratch = bpf_map_lookup_elem(&plain_scratch, &index);

	if (!scratch || __sync_lock_test_and_set(&scratch->busy, 1))
		return NULL;
	/* No CPU has such a number. */
	scratch->minter = SF_PLAIN_MINTER | index;
	return scratch;
}

/* A scratch with who is calling in it; NULL if none is to be had. */
static __always_inline struct sf_socket_scratch *sf_take_plain_scratch(struct task_struct *task,
								       __u64 pid_tgid)
{
	struct sf_socket_scratch *scratch = sf_try_plain_scratch(bpf_get_smp_processor_id());
	int spare;

	for (spare = 0; spare < SF_SPARE_SCRATCHES && !scratch; spare++)
		scratch = sf_try_plain_scratch(config.cpus + spare);
	if (!scratch)
		return NULL;
	sf_note_caller(scratch, task, pid_tgid);
	return scratch;
}

static __always_inline void sf_release_plain_scratch(struct sf_socket_scratch *scratch)
{
	__sync_lock_test_and_set(&scratch->busy, 0);
}

/* Whether bytes may be the head of a request: capital letters, and not those of a response. */
static __always_inline bool sf_may_be_head(const struct sf_socket_data *data)
{
	__u32 word;

	__builtin_memcpy(&word, data->bytes, sizeof(word));
	return (word & 0xe0e0) == 0x4040 && word != SF_TEXT4('H', 'T', 'T', 'P');
}

/*
 * Takes plain bytes into account, in three steps: what leads to the end of one is forgotten by the verifier
 * before the next, which would otherwise be verified for each way through the steps before. Each returns
 * enum sf_told; SF_TOLD means to go on.
 */
static __noinline int sf_capture_plain_bytes(struct sf_socket_scratch *scratch,
					     const struct sf_plain_bytes *plain, __u64 *position)
{
	struct sf_buffers buffers = {.address = plain->address, .length = plain->captured};
	struct sf_socket_data *data = &scratch->data;
	__u32 direction = plain->direction & 1;
	struct sf_connection *connection;
	__u64 id = plain->connection, limit;

	connection = bpf_map_lookup_elem(&connections, &id);
	if (!connection || connection->is_excluded)
		return SF_TOLD_NOTHING;
	if (!connection->is_decrypted) {
		connection->begun_bytes = 0;
		connection->is_decrypted = 1;
	}
	if (direction == SF_OUT && connection->serves)
		sf_note_answer(bpf_get_current_task_btf(), connection, id);
	limit = sf_capture_limit(connection, SF_CAPTURE_OF_DECRYPTED);
	if (!limit) {
		sf_weigh_evidence(scratch, connection, direction, true, false);
		*position = __sync_fetch_and_add(&connection->plain_position[direction], plain->length);
		return SF_TOLD_SILENT;
	}
	data->flags = SF_DATA_DECRYPTED;
	if (sf_capture(scratch, &buffers, limit)) {
		if (!plain->is_last_chance)
			return SF_TOLD_UNREAD;
		data->head_bytes = 0;
		data->tail_bytes = 0;
		data->flags |= SF_DATA_UNREADABLE;
		sf_count(SF_SOCKET_COUNTER_LOST_UNREADABLE, 1);
	}
	return SF_TOLD;
}

static __noinline int sf_send_plain_bytes(struct sf_socket_scratch *scratch,
					  const struct sf_plain_bytes *plain, __u64 *position)
{
	struct sf_socket socket = {.connection = plain->connection, .family = AF_INET};
	struct sf_socket_data *data = &scratch->data;
	__u32 direction = plain->direction & 1;
	struct sf_connection *connection;
	bool was_used;
	__u64 bytes;

	connection = bpf_map_lookup_elem(&connections, &socket.connection);
	if (!connection)
		return SF_TOLD_NOTHING;
	*position = __sync_fetch_and_add(&connection->plain_position[direction], plain->length);
	data->position = *position;
	data->length = plain->length;
	data->direction = direction;
	data->within = scratch->within;
	data->minted = 0;
	sf_begin_event(&data->event, SF_SOCKET_DATA, socket.connection, plain->time_ns, scratch->pid_tgid,
		       scratch->goroutine);
	was_used = connection->asks;
	sf_notice_request(scratch, connection, NULL);
	if (!data->minted || direction == SF_OUT)
		sf_weigh_evidence(scratch, connection, direction, was_used, data->minted);
	if (scratch->serves_many && !data->within)
		data->flags |= SF_DATA_EVENT_LOOP;
	sf_announce(scratch, connection, &socket, plain->time_ns);
	bytes = data->head_bytes + data->tail_bytes;
	if (bytes > SF_WHOLE_BYTES)
		bytes = SF_WHOLE_BYTES;
	sf_send(data, __builtin_offsetof(struct sf_socket_data, bytes) + bytes);
	sf_count_tls(SF_TLS_COUNTER_BYTES, plain->length);
	return SF_TOLD;
}

/* All three of them; `position` is where the bytes stand. */
static __always_inline int sf_tell_plain_bytes(struct sf_socket_scratch *scratch,
					       const struct sf_plain_bytes *plain, __u64 *position)
{
	int told = sf_capture_plain_bytes(scratch, plain, position);

	if (told != SF_TOLD)
		return told;
	scratch->header = sf_may_be_head(&scratch->data) ? sf_find_trace_id(&scratch->data) : 0;
	return sf_send_plain_bytes(scratch, plain, position);
}

/* The write that was told at `position` moved only `moved` of `length` bytes. */
static __always_inline void sf_amend_plain_bytes(__u64 id, __u64 position, __u64 length, __u64 moved,
						 bool is_told, __u64 pid_tgid, __u64 goroutine)
{
	struct sf_connection *connection = bpf_map_lookup_elem(&connections, &id);
	struct sf_socket_amended amended = {};

	if (connection)
		__sync_fetch_and_add(&connection->plain_position[SF_OUT], moved - length);
	if (!is_told)
		return;
	sf_begin_event(&amended.event, SF_SOCKET_AMENDED, id, bpf_ktime_get_ns(), pid_tgid, goroutine);
	amended.position = position;
	amended.length = moved;
	amended.flags = SF_DATA_DECRYPTED;
	sf_count(SF_SOCKET_COUNTER_AMENDED, 1);
	sf_send(&amended, sizeof(amended));
}

#endif /* SF_TLS_PLAIN_BYTES_H */
