/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel types that our programs touch, kept by hand instead of the 3 MB that bpftool dumps.
 *
 * Types marked with preserve_access_index hold only the members we use: libbpf moves every access to
 * where the running kernel has that member (CO-RE). The rest is UAPI and never moves.
 */
#ifndef SF_VMLINUX_H
#define SF_VMLINUX_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

#define true 1
#define false 0

#ifndef NULL
#define NULL ((void *)0)
#endif

/* ---- UAPI: linux/bpf.h, asm/ptrace.h ----------------------------------------------------------- */

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_SOCKHASH = 18,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_MMAPABLE = 1U << 10,
};

enum {
	BPF_RB_NO_WAKEUP = 1ULL << 0,
	BPF_RB_FORCE_WAKEUP = 1ULL << 1,
	BPF_RB_AVAIL_DATA = 0,
};

enum {
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
};

#if defined(__TARGET_ARCH_x86)
/* The registers as a perf_event program's context shows them; reads must be of 8 bytes. */
typedef struct {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
} bpf_user_pt_regs_t;
#else
#error "registers of this architecture are not described yet"
#endif

struct bpf_perf_event_data {
	bpf_user_pt_regs_t regs;
	__u64 sample_period;
	__u64 addr;
};

/* What the verifier puts in for a pointer of the context is one of 8 bytes. */
#define SF_CONTEXT_POINTER(type, name) \
	union {                        \
		type name;             \
		__u64 name##_word;     \
	} __attribute__((aligned(8)))

/* All members, in their order: accesses are to offsets that the verifier rewrites. */
struct bpf_sock_ops {
	__u32 op;
	union {
		__u32 args[4];
		__u32 reply;
		__u32 replylong[4];
	};
	__u32 family;
	__be32 remote_ip4;
	__be32 local_ip4;
	__be32 remote_ip6[4];
	__be32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 is_fullsock;
	__u32 snd_cwnd;
	__u32 srtt_us;
	__u32 bpf_sock_ops_cb_flags;
	__u32 state;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 mss_cache;
	__u32 ecn_flags;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 total_retrans;
	__u32 segs_in;
	__u32 data_segs_in;
	__u32 segs_out;
	__u32 data_segs_out;
	__u32 lost_out;
	__u32 sacked_out;
	__u32 sk_txhash;
	__u64 bytes_received;
	__u64 bytes_acked;
	SF_CONTEXT_POINTER(void *, sk);
	SF_CONTEXT_POINTER(void *, skb_data); /* this and the next: the header of TCP with its options */
	SF_CONTEXT_POINTER(void *, skb_data_end);
	__u32 skb_len; /* header and payload */
	__u32 skb_tcp_flags;
};

/* Opaque: the verifier knows what it may be turned into. */
struct bpf_sock;

/* Likewise. What a program of a socket's map is shown of what is about to be sent. */
struct sk_msg_md {
	SF_CONTEXT_POINTER(void *, data); /* this and the next: the first stretch of it */
	SF_CONTEXT_POINTER(void *, data_end);
	__u32 family;
	__be32 remote_ip4;
	__be32 local_ip4;
	__be32 remote_ip6[4];
	__be32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 size; /* of all of it, bytes */
	SF_CONTEXT_POINTER(struct bpf_sock *, sk);
};

struct tcphdr {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 offset_and_flags[2]; /* length of the header in words of 4 bytes: the upper half of the first */
	__be16 window;
	__u16 check;
	__be16 urg_ptr;
};

/* ---- kernel types, relocated ------------------------------------------------------------------- */

#ifdef __bpf__ /* the native build of the unwinder has no kernel to be moved to */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#endif

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live; /* threads that have not begun to exit */
};

struct return_instance {
	unsigned long stack;          /* where the return address lay */
	unsigned long orig_ret_vaddr; /* what it was */
	struct return_instance *next;
};

struct uprobe_task {
	struct return_instance *return_instances;
	unsigned long vaddr;     /* of the instruction that is being stepped out of line */
	unsigned long xol_vaddr; /* where its copy is executed */
};

struct xol_area {
	unsigned long vaddr; /* of `[uprobes]` */
};

struct uprobes_state {
	struct xol_area *xol_area; /* NULL until the first uprobe of the process is hit */
};

struct mm_struct {
	unsigned long start_stack;
	struct uprobes_state uprobes_state;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data; /* of a socket's file: its struct socket */
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct thread_struct {
	unsigned long fsbase;
};

struct thread_info {
	__u32 status; /* TS_COMPAT: in a system call of a 32-bit program */
};

struct task_struct {
	struct thread_info thread_info;
	struct thread_struct thread;
	struct files_struct *files;
	unsigned int flags; /* PF_* */
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	struct uprobe_task *utask;
	char comm[16];
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

struct ns_common {
	unsigned int inum; /* inode number of /proc/PID/ns/… */
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	possible_net_t skc_net;
	atomic64_t skc_cookie;   /* 0: nobody has asked for it yet */
	unsigned long skc_flags; /* by enum sock_flags */
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	int sk_err;
	__u8 sk_shutdown;      /* bits: 1 no more is read, 2 no more is sent */
	int sk_sndbuf;         /* bytes that may wait to be sent, with what they take beside themselves */
	__u8 sk_kern_sock : 1; /* the kernel itself uses it */
	struct socket *sk_socket;
};

enum sock_flags {
	SOCK_ZEROCOPY, /* the value is the kernel's */
};

struct inet_sock {
	__be16 inet_sport; /* stays when skc_num has been given back */
};

struct inet_connection_sock {
	const void *icsk_ulp_ops; /* of what stands between the program and TCP: TLS in the kernel, MPTCP */
};

struct tcp_sock {
	__u32 rcv_nxt;    /* up to where bytes have come */
	__u32 copied_seq; /* the first byte that has not been read */
	__u32 write_seq;  /* the one that is written next */
	__u32 snd_una;    /* the first one that the other end has not acknowledged */
	__u8 bpf_sock_ops_cb_flags;
};

struct unix_sock {
	struct sock sk;
	struct sock *peer;
};

struct socket {
	short type;
	struct sock *sk;
};

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__unix {
	struct bpf_iter_meta *meta;
	struct unix_sock *unix_sk;
};

#ifdef __bpf__
#pragma clang attribute pop
#endif

/* linux/sched.h: what tasks are. The bits are the same since Linux 5.12. */
#define PF_IO_WORKER 0x00000010
#define PF_FORKNOEXEC 0x00000040 /* has not executed another program since it was forked */
#define PF_KTHREAD 0x00200000

/* linux/stat.h, linux/socket.h, linux/in.h, net/tcp_states.h, asm/thread_info.h */
#define S_IFMT 00170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define TS_COMPAT 0x0002

enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_CLOSING = 11,
	TCP_LISTEN = 10,
};

#endif /* SF_VMLINUX_H */
