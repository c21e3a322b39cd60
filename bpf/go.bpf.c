/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Go programs: which goroutine works on which request, where the goroutine that moves the bytes is another one.
 *
 * net/http and gRPC write requests in goroutines of their own, one a connection, that serve whoever comes. So
 * it is noted where one asks: for HTTP/1, whose connection carries one request at a time, by connection;
 * for gRPC by the address of the header fields that the asker has made and the writer writes; for
 * HTTP/2, which begins a goroutine for each request, by the goroutine that begins it. The other way round,
 * HTTP/2 and gRPC servers answer each stream in a goroutine that has read nothing.
 *
 * Programs sit behind each function's check for a larger stack (symbols/src/go/request_code.rs), where the
 * arguments still are in RAX, RBX, RCX, RDI, RSI, R8 (cmd/compile/abi-internal.md); R14 has g. User space
 * attaches them only where offsets are known. An unknown process (not in `go_processes`) is left alone.
 *
 * Offsets below are the same from Go 1.18 to 1.26, by the DWARF of programs built with each release.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "go/net_conn.h"
#include "request_maps.h"
#include "socket/connections.h"
#include "socket/send.h"
#include "spanflame.h"
#include "uprobes.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

#define SF_PERSIST_CONN_CONN 80 /* net/http.persistConn.conn */
#define SF_HTTP2_SERVER_CONN_CONN \
	16                   /* net/http.http2serverConn.conn, golang.org/x/net/http2.serverConn.conn */
#define SF_HTTP2_STREAM_ID 8 /* net/http.http2stream.id, golang.org/x/net/http2.stream.id */
#define SF_NET_FD_FAMILY 56  /* net.netFD.family, sotype, isConnected, net */

/* Keys that are minted here, ever; by CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} go_minted SEC(".maps");

/* Header fields of a gRPC request that are to be written. */
struct sf_go_fields_key {
	__u64 fields; /* address */
	__u32 tgid;
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_GO_SENDERS);
	__type(key, struct sf_go_fields_key);
	__type(value, struct sf_asker);
} go_fields SEC(".maps");

/* ---- who ---------------------------------------------------------------------------------------- */

/* A goroutine at a probe. */
struct sf_caller {
	const struct sf_go_process *go;
	struct sf_running running;
	__u64 pid_tgid;
	__u64 goroutine;
	__u64 request; /* that it is at; 0: none */
};

static __always_inline bool sf_find_caller(struct sf_caller *caller)
{
	struct sf_goroutine_key key = {};
	const struct sf_goroutine *own;
	__u32 tgid;

	caller->pid_tgid = bpf_get_current_pid_tgid();
	tgid = caller->pid_tgid >> 32;
	caller->go = bpf_map_lookup_elem(&go_processes, &tgid);
	if (!caller->go)
		return false;
	caller->request = 0;
	caller->goroutine = sf_find_goroutine(caller->go, bpf_get_current_task_btf(), &caller->running);
	if (!caller->goroutine)
		return false;
	key.tgid = tgid;
	key.goroutine = caller->goroutine;
	own = bpf_map_lookup_elem(&goroutines, &key);
	if (own) {
		caller->request = own->request;
		return true;
	}
	caller->request = sf_inherited_request(tgid, caller->running.g, caller->goroutine);
	if (caller->request) {
		sf_note_inherited(tgid, caller->goroutine, caller->request);
		sf_count_go(SF_GO_COUNTER_INHERITED);
	}
	return true;
}

/* ---- servers of many streams --------------------------------------------------------------------- */

static __always_inline __u64 sf_mint_key(void)
{
	__u64 cpu = bpf_get_smp_processor_id(), *minted;
	__u32 zero = 0;

	minted = bpf_map_lookup_elem(&go_minted, &zero);
	if (!minted)
		return 0;
	return cpu << SF_REQUEST_CPU_SHIFT | 1ULL << (SF_REQUEST_CPU_SHIFT - 1) |
	       (__sync_fetch_and_add(minted, 1) + 1);
}

static __always_inline int sf_tell_stream(const struct sf_caller *caller, __u64 connection, __u32 stream,
					  __u32 direction, __u64 request)
{
	struct sf_socket_stream told = {.request = request, .stream = stream, .direction = direction};

	sf_begin_event(&told.event, SF_SOCKET_STREAM, connection, bpf_ktime_get_ns(), caller->pid_tgid,
		       caller->goroutine);
	sf_send(&told, sizeof(told));
	return 0;
}

/* The current goroutine works on a stream from now on. */
static __always_inline int sf_begin_stream(struct sf_caller *caller, __u64 conn, __u32 stream, __u32 is_fresh)
{
	struct sf_goroutine_key key = {.goroutine = caller->goroutine, .tgid = caller->pid_tgid >> 32};
	const struct sf_goroutine *before = bpf_map_lookup_elem(&goroutines, &key);
	struct sf_goroutine opened = {.stream = stream, .is_fresh = is_fresh};
	struct sf_socket socket = {};

	/* Clients begin streams of odd numbers (RFC 9113, section 5.1.1). */
	opened.connection = stream & 1 ? sf_find_connection(conn, &socket) : 0;
	if (!opened.connection) {
		/* Whatever it did before, it does not any more. */
		bpf_map_delete_elem(&goroutines, &key);
		return 0;
	}
	/* A function whose stack had to grow after all begins anew. */
	if (before && before->connection == opened.connection && before->stream == stream)
		return 0;
	opened.request = sf_mint_key();
	sf_note_ids(caller->go, &caller->running, &opened);
	if (!opened.request || bpf_map_update_elem(&goroutines, &key, &opened, BPF_ANY)) {
		sf_count(SF_SOCKET_COUNTER_LOST_REQUEST, 1);
		return 0;
	}
	sf_count_go(SF_GO_COUNTER_HANDLERS);
	return sf_tell_stream(caller, opened.connection, stream, SF_IN, opened.request);
}

/* runHandler(sc *serverConn, rw *responseWriter, …), in a goroutine for this alone. */
static __noinline int sf_http2_handler(const bpf_user_pt_regs_t *registers)
{
	struct sf_caller caller;
	__u64 server = registers->ax, stream;

	if (!sf_find_caller(&caller))
		return 0;
	/* rw.rws.stream */
	stream = sf_read_word(sf_read_word(registers->bx));
	stream = sf_read_word(stream + SF_HTTP2_STREAM_ID);
	return sf_begin_stream(&caller, sf_read_word(server + SF_HTTP2_SERVER_CONN_CONN + 8), stream, 1);
}

SEC("uprobe")
SF_UPROBE(on_go_http2_handler, sf_http2_handler)

/*
 * handleStream(s *Server, t ServerTransport, stream *ServerStream). Workers take one stream after the other.
 * Where the transport is not gRPC's own but net/http's, what stands at the offset is no connection.
 */
static __noinline int sf_grpc_handler(const bpf_user_pt_regs_t *registers)
{
	struct sf_caller caller;
	__u64 transport = registers->cx, stream = registers->di;
	__u32 id = 0;

	if (!sf_find_caller(&caller))
		return 0;
	if (caller.go->grpc_stream_is_pointer)
		stream = sf_read_word(stream);
	bpf_probe_read_user(&id, sizeof(id), (void *)(stream + caller.go->grpc_stream_id));
	return sf_begin_stream(&caller, sf_read_word(transport + caller.go->grpc_server_conn + 8), id, 0);
}

SEC("uprobe")
SF_UPROBE(on_go_grpc_handler, sf_grpc_handler)

/* ---- clients -------------------------------------------------------------------------------------- */

/* (*persistConn).roundTrip(pc, …): the next request that is written to pc.conn is the current goroutine's. */
static __noinline int sf_http_client(const bpf_user_pt_regs_t *registers)
{
	struct sf_socket socket = {};
	struct sf_asker asker = {};
	struct sf_caller caller;
	__u64 connection;

	if (!sf_find_caller(&caller))
		return 0;
	connection = sf_find_connection(sf_read_word(registers->ax + SF_PERSIST_CONN_CONN + 8), &socket);
	if (!connection)
		return 0;
	asker.request = caller.request;
	asker.goroutine = caller.goroutine;
	bpf_map_update_elem(&go_askers, &connection, &asker, BPF_ANY);
	sf_count_go(SF_GO_COUNTER_ASKERS);
	return 0;
}

SEC("uprobe")
SF_UPROBE(on_go_http_client, sf_http_client)

/* (*ClientConn).RoundTrip: the goroutine that the current one begins next sends its request. */
static __noinline int sf_http2_client(const bpf_user_pt_regs_t *registers)
{
	struct sf_goroutine asking = {};
	struct sf_goroutine_key key = {};
	struct sf_caller caller;

	if (!sf_find_caller(&caller))
		return 0;
	asking.request = caller.request;
	sf_note_ids(caller.go, &caller.running, &asking);
	key.tgid = caller.pid_tgid >> 32;
	key.goroutine = caller.goroutine;
	bpf_map_update_elem(&go_http2_senders, &key, &asking, BPF_ANY);
	sf_count_go(SF_GO_COUNTER_ASKERS);
	return 0;
}

SEC("uprobe")
SF_UPROBE(on_go_http2_client, sf_http2_client)

/* createHeaderFields(t *http2Client, …) ([]hpack.HeaderField, error) returns. */
static __noinline int sf_grpc_fields_made(const bpf_user_pt_regs_t *registers)
{
	struct sf_go_fields_key key = {.fields = registers->ax};
	struct sf_asker asker = {};
	struct sf_caller caller;

	if (!key.fields || !sf_find_caller(&caller))
		return 0;
	key.tgid = caller.pid_tgid >> 32;
	asker.request = caller.request;
	asker.goroutine = caller.goroutine;
	bpf_map_update_elem(&go_fields, &key, &asker, BPF_ANY);
	sf_count_go(SF_GO_COUNTER_ASKERS);
	return 0;
}

SEC("uprobe")
SF_UPROBE(on_go_grpc_fields_made, sf_grpc_fields_made)

/* (*loopyWriter).writeHeader(l, streamID uint32, endStream bool, fields []hpack.HeaderField, …) */
static __noinline int sf_grpc_fields_written(const bpf_user_pt_regs_t *registers)
{
	struct sf_go_fields_key key = {.fields = registers->di};
	const struct sf_asker *found;
	struct sf_socket socket = {};
	struct sf_caller caller = {};
	struct sf_asker asker;
	__u64 connection, writer = registers->ax;
	__u32 stream = registers->bx;

	caller.pid_tgid = bpf_get_current_pid_tgid();
	key.tgid = caller.pid_tgid >> 32;
	/* Servers write fields, too. */
	found = bpf_map_lookup_elem(&go_fields, &key);
	if (!found)
		return 0;
	asker = *found;
	bpf_map_delete_elem(&go_fields, &key);
	caller.go = bpf_map_lookup_elem(&go_processes, &key.tgid);
	if (!caller.go)
		return 0;
	connection = sf_find_connection(sf_read_word(writer + caller.go->grpc_writer_conn + 8), &socket);
	if (!connection)
		return 0;
	caller.goroutine = asker.goroutine;
	return sf_tell_stream(&caller, connection, stream, SF_OUT, asker.request);
}

SEC("uprobe")
SF_UPROBE(on_go_grpc_fields_written, sf_grpc_fields_written)
