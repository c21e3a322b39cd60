/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a net.Conn of a Go program to the connection that it is, and the counters of the programs for Go. */
#ifndef SF_GO_NET_CONN_H
#define SF_GO_NET_CONN_H

#include <bpf/bpf_helpers.h>

#include "../counters.h"
#include "../socket/connections.h"
#include "../spanflame.h"
#include "../vmlinux.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SF_GO_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} go_counters SEC(".maps");

static __always_inline void sf_count_go(__u32 counter)
{
	sf_add_to_counter(&go_counters, counter, 1);
}

#define SF_FD_SYSFD 16 /* internal/poll.FD.Sysfd, FD being the first member of net.netFD */

static __always_inline __u64 sf_read_word(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)address);
	return word;
}

/* net.netFD from its pfd.Sysfd on: family at 56, sotype at 64, isConnected at 72, net at 80. */
struct sf_net_fd {
	__u64 descriptor;
	__u64 reserved[4];
	__u64 family;
	__u64 type;
	__u64 is_connected; /* by connect(2), not by accept(2) */
	__u64 network;      /* "tcp", "tcp4", "tcp6", "unix" */
	__u64 network_bytes;
};

/*
 * The connection of a net.Conn. A *net.TCPConn and a *net.UnixConn begin with a pointer to a net.netFD; what
 * wraps another connection (crypto/tls.Conn, wrappers of gRPC, h2c and most others) begins with that, as an
 * interface: a word for its type, and the pointer. What it is, is not asked: a netFD proves itself, since it
 * names a socket of this process, and its family and type are that socket's. 0: none was found.
 */
static __noinline __u64 sf_find_connection(__u64 conn, struct sf_socket *found)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct sf_net_fd fd;
	__u64 words[2];
	int depth;

	for (depth = 0; depth < 5 && conn; depth++) {
		if (bpf_probe_read_user(words, sizeof(words), (void *)conn))
			break;
		if (!bpf_probe_read_user(&fd, sizeof(fd), (void *)(words[0] + SF_FD_SYSFD)) &&
		    fd.type == SOCK_STREAM && fd.network_bytes - 3 < 2 && fd.descriptor < 1 << 30 &&
		    sf_find_socket(task, fd.descriptor, found) && found->family == fd.family)
			return found->protocol_ok ? found->connection : 0;
		conn = words[1];
	}
	sf_count_go(SF_GO_COUNTER_LOST_CONNECTION);
	return 0;
}

#endif /* SF_GO_NET_CONN_H */
