/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose peers may learn of contexts: those at addresses that are not of the internet. For programs of sock_ops. */
#ifndef SF_PRIVATE_ADDRESSES_H
#define SF_PRIVATE_ADDRESSES_H

#include <bpf/bpf_endian.h>

#include "vmlinux.h"

/* linux/bpf.h: this end has connected to the other one. */
#define BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB 4

/* In host byte order: 10/8, 172.16/12, 192.168/16 (RFC 1918), 100.64/10 (RFC 6598), 127/8, 169.254/16. */
static __always_inline bool sf_is_private_v4(__u32 address)
{
	return address >> 24 == 10 || address >> 20 == 0xac1 || address >> 16 == 0xc0a8 ||
	       address >> 22 == 0x191 || address >> 24 == 127 || address >> 16 == 0xa9fe;
}

/* Words in host byte order: fc00::/7, fe80::/10, ::1, and IPv4 addresses mapped into IPv6. */
static __always_inline bool sf_is_private_v6(__u32 first, __u32 second, __u32 third, __u32 fourth)
{
	if (first >> 25 == 0x7e || first >> 22 == 0x3fa)
		return true;
	if (first || second)
		return false;
	return third == 0xffff ? sf_is_private_v4(fourth) : !third && fourth == 1;
}

static __always_inline bool sf_is_peer_private(const struct bpf_sock_ops *ops)
{
	if (ops->family == AF_INET)
		return sf_is_private_v4(bpf_ntohl(ops->remote_ip4));
	return ops->family == AF_INET6 &&
	       sf_is_private_v6(bpf_ntohl(ops->remote_ip6[0]), bpf_ntohl(ops->remote_ip6[1]),
				bpf_ntohl(ops->remote_ip6[2]), bpf_ntohl(ops->remote_ip6[3]));
}

#endif /* SF_PRIVATE_ADDRESSES_H */
