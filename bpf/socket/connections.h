/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From a descriptor to a connection, and what is known of it.
 *
 * Followed are stream sockets: TCP over IPv4 and IPv6, UNIX. A connection is entered when it is connected
 * or accepted, or when its first bytes are seen; it leaves when TCP closes it. Nothing tells when a UNIX
 * socket is closed, so user space sweeps: whatever no longer exists it takes out.
 */
#ifndef SF_SOCKET_CONNECTIONS_H
#define SF_SOCKET_CONNECTIONS_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../kernel_fields.h"
#include "../spanflame.h"
#include "../vmlinux.h"

struct sf_connection {
	__u64 position[2]; /* bytes moved so far, by enum sf_direction */
	__u64 opened_by;
	__u64 opener_goroutine;
	__u32 opener_pid;
	__u32 opener_tid;
	struct sf_endpoint local;
	struct sf_endpoint peer;
	__u32 role;         /* enum sf_role */
	__u32 is_announced; /* its OPENED event is out */
	__u32 is_excluded;  /* by its port */
	__u32 is_at_end;    /* end of stream has been read, and told */
	__u32 is_shut_down; /* this end writes no more */
	__u32 ending;       /* enum sf_ending and 1; it is told when what has come before was read */
	__s32 error;
	__u32 serves;      /* a request was read from it: this end is the server, whatever `role` says */
	__u32 asks;        /* … was written to it: this end is the client */
	__u64 begun;       /* what was read last if it was less than tells a request, lowest byte first */
	__u32 begun_bytes; /* 0 to 8 */
	__u32 is_sending;  /* a request's context waits to go out in TCP's header */
	__u32 is_answered; /* something was written since `request` was read */
	__u32 network_namespace; /* inode number */
	__u32 is_tls;            /* what went over it looks like TLS records */
	__u32 is_decrypted;      /* a TLS library shows its plain bytes, which are what is told of it */
	__u32 is_tls_from_start; /* … and all of them: the library was there before anything was moved */
	__u16 takes_headers;     /* what is written there passes http_header.bpf.c */
	__u16 is_tls_offered;    /* its first bytes were written by a thread that had read no TLS before */
	__u32 tls_tgid;          /* of the process that has `tls_object` */
	__u32 capture;           /* enum sf_capture */
	__u64 tls_object;        /* of a TLS library that is for this connection, see tls_pairs.h; 0: none */
	__u64 plain_position[2]; /* plain bytes inside of TLS moved so far, by enum sf_direction */
	__u64 request;  /* of a server's end: read last; of a client's: within which was written last */
	__u64 taken_by; /* request whose thread has taken it out of a pool, see pools.h; 0: none */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SF_MAX_CONNECTIONS);
	__type(key, __u64);
	__type(value, struct sf_connection);
} connections SEC(".maps");

/* Who asks, and within which request. */
struct sf_asker {
	__u64 request; /* 0: none */
	__u64 goroutine;
};

/* Key = connection: who is about to send an HTTP/1 request there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SF_MAX_GO_SENDERS);
	__type(key, __u64);
	__type(value, struct sf_asker);
} go_askers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SF_PORT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} excluded_ports SEC(".maps");

/* What a descriptor of the current process refers to. */
struct sf_socket {
	struct sock *sk;
	__u64 connection; /* 0: a TCP socket without a cookie */
	__u64 inode;
	__u16 family;
	__u8 state;
	__u8 protocol_ok;
};

static __always_inline bool sf_is_excluded(__u16 port)
{
	__u32 word = port / 64;
	const __u64 *bits = bpf_map_lookup_elem(&excluded_ports, &word);

	return bits && *bits >> (port % 64) & 1;
}

static __always_inline bool sf_is_regular_file(struct task_struct *task, __u32 descriptor)
{
	struct fdtable *table = task->files ? task->files->fdt : NULL;
	struct file *file = NULL;

	if (!table || descriptor >= table->max_fds)
		return false;
	if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + descriptor) || !file)
		return false;
	return (SF_FIELD(inode, SF_FIELD(file, file, f_inode), i_mode) & S_IFMT) == S_IFREG;
}

/* False: no socket, or none of the kinds that are followed. */
static __always_inline bool sf_find_socket(struct task_struct *task, __u32 descriptor,
					   struct sf_socket *found)
{
	struct fdtable *table = task->files ? task->files->fdt : NULL;
	struct file *file = NULL;
	struct inode *inode;
	struct socket *socket;
	struct sock *sk;
	__u16 type;

	if (!table || descriptor >= table->max_fds)
		return false;
	if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + descriptor) || !file)
		return false;
	inode = SF_FIELD(file, file, f_inode);
	if ((SF_FIELD(inode, inode, i_mode) & S_IFMT) != S_IFSOCK)
		return false;
	socket = SF_FIELD(file, file, private_data);
	sk = SF_FIELD(socket, socket, sk);
	/* UNIX sockets in the file system are inodes of that kind too, but cannot be opened. */
	type = SF_FIELD(socket, socket, type);
	if (!sk || type != SOCK_STREAM)
		return false;
	found->sk = sk;
	found->family = SF_FIELD(sock, sk, __sk_common.skc_family);
	found->state = SF_FIELD(sock, sk, __sk_common.skc_state);
	found->inode = 0;
	found->protocol_ok = 1;
	if (found->family == AF_UNIX) {
		found->inode = SF_FIELD(inode, inode, i_ino);
		found->connection = found->inode | SF_CONNECTION_UNIX;
		return true;
	}
	if (found->family != AF_INET && found->family != AF_INET6)
		return false;
	found->protocol_ok = SF_FIELD(sock, sk, sk_protocol) == IPPROTO_TCP;
	found->connection = SF_FIELD(sock, sk, __sk_common.skc_cookie.counter);
	return true;
}

/* ::ffff:a.b.c.d */
static __always_inline void sf_map_address(struct sf_endpoint *endpoint, __be32 address)
{
	__builtin_memset(endpoint->address, 0, 10);
	endpoint->address[10] = 0xff;
	endpoint->address[11] = 0xff;
	__builtin_memcpy(&endpoint->address[12], &address, sizeof(address));
}

static __always_inline void sf_describe_tcp(const struct sock *sk, struct sf_connection *connection)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	connection->network_namespace = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	connection->local.family = family;
	connection->local.port = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	connection->peer.family = family;
	connection->peer.port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (family == AF_INET6) {
		BPF_CORE_READ_INTO(&connection->local.address, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&connection->peer.address, sk, __sk_common.skc_v6_daddr);
	} else {
		sf_map_address(&connection->local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		sf_map_address(&connection->peer, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	}
	connection->is_excluded =
		sf_is_excluded(connection->local.port) || sf_is_excluded(connection->peer.port);
}

static __always_inline void sf_describe_unix(const struct sf_socket *socket, struct sf_connection *connection)
{
	const struct unix_sock *own = (const struct unix_sock *)socket->sk;
	struct socket *peer = BPF_CORE_READ(own, peer, sk_socket);
	__u64 peer_inode = 0;

	/* A peer that has not been accepted yet has no socket. */
	if (peer)
		peer_inode = BPF_CORE_READ((const struct socket_alloc *)peer, vfs_inode.i_ino);
	connection->network_namespace = BPF_CORE_READ(own, sk.__sk_common.skc_net.net, ns.inum);
	connection->local.family = AF_UNIX;
	connection->peer.family = AF_UNIX;
	__builtin_memcpy(connection->local.address, &socket->inode, sizeof(__u64));
	__builtin_memcpy(connection->peer.address, &peer_inode, sizeof(__u64));
}

#endif /* SF_SOCKET_CONNECTIONS_H */
