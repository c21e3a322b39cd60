/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which system calls concern us, by number (arch/x86/entry/syscalls/syscall_64.tbl), and a filter that
 * lets all others pass with one load: it is run at every system call of the host, twice.
 */
#ifndef SF_SOCKET_SYSCALLS_H
#define SF_SOCKET_SYSCALLS_H

#include "../vmlinux.h"

#if !defined(__TARGET_ARCH_x86)
#error "system calls of this architecture are not numbered yet"
#endif

enum sf_syscall {
	SF_SYS_READ = 0,
	SF_SYS_WRITE = 1,
	SF_SYS_POLL = 7,
	SF_SYS_MMAP = 9,
	SF_SYS_READV = 19,
	SF_SYS_WRITEV = 20,
	SF_SYS_SELECT = 23,
	SF_SYS_SENDFILE = 40,
	SF_SYS_CONNECT = 42,
	SF_SYS_ACCEPT = 43,
	SF_SYS_SENDTO = 44,
	SF_SYS_RECVFROM = 45,
	SF_SYS_SENDMSG = 46,
	SF_SYS_RECVMSG = 47,
	SF_SYS_SHUTDOWN = 48,
	SF_SYS_GETSOCKOPT = 55,
	SF_SYS_EPOLL_WAIT = 232,
	SF_SYS_PSELECT6 = 270,
	SF_SYS_PPOLL = 271,
	SF_SYS_SPLICE = 275,
	SF_SYS_EPOLL_PWAIT = 281,
	SF_SYS_ACCEPT4 = 288,
	SF_SYS_RECVMMSG = 299,
	SF_SYS_SENDMMSG = 307,
	SF_SYS_IO_URING_SETUP = 425,
	SF_SYS_IO_URING_ENTER = 426,
	SF_SYS_EPOLL_PWAIT2 = 441,
};

/* Writes are looked at when they begin; waits end a thread's evidence when they begin. */
#define SF_ENTER_CALLS(X, word)                                                                              \
	(X(SF_SYS_WRITE, word) | X(SF_SYS_WRITEV, word) | X(SF_SYS_SENDTO, word) | X(SF_SYS_SENDMSG, word) | \
	 X(SF_SYS_POLL, word) | X(SF_SYS_PPOLL, word) | X(SF_SYS_SELECT, word) | X(SF_SYS_PSELECT6, word) |  \
	 X(SF_SYS_EPOLL_WAIT, word) | X(SF_SYS_EPOLL_PWAIT, word) | X(SF_SYS_EPOLL_PWAIT2, word) |           \
	 X(SF_SYS_IO_URING_ENTER, word))

/*
 * Reads are looked at when they return, and so are writes whose outcome is not known before. Whether a connection
 * has come about is asked by getsockopt, at the beginning of an event loop's callback for it. See io_uring.h, too.
 */
#define SF_EXIT_CALLS(X, word)                                                                               \
	(X(SF_SYS_READ, word) | X(SF_SYS_READV, word) | X(SF_SYS_RECVFROM, word) | X(SF_SYS_RECVMSG, word) | \
	 X(SF_SYS_RECVMMSG, word) | X(SF_SYS_WRITE, word) | X(SF_SYS_WRITEV, word) |                         \
	 X(SF_SYS_SENDTO, word) | X(SF_SYS_SENDMSG, word) | X(SF_SYS_SENDMMSG, word) |                       \
	 X(SF_SYS_SENDFILE, word) | X(SF_SYS_SPLICE, word) | X(SF_SYS_SHUTDOWN, word) |                      \
	 X(SF_SYS_CONNECT, word) | X(SF_SYS_GETSOCKOPT, word) | X(SF_SYS_ACCEPT, word) |                     \
	 X(SF_SYS_ACCEPT4, word) | X(SF_SYS_MMAP, word) | X(SF_SYS_IO_URING_SETUP, word))

#define SF_SYSCALL_BIT(number, word) ((number) / 64 == (word) ? 1ULL << ((number) % 64) : 0)
#define SF_SYSCALL_BITS(CALLS)                                                         \
	{CALLS(SF_SYSCALL_BIT, 0), CALLS(SF_SYSCALL_BIT, 1), CALLS(SF_SYSCALL_BIT, 2), \
	 CALLS(SF_SYSCALL_BIT, 3), CALLS(SF_SYSCALL_BIT, 4), CALLS(SF_SYSCALL_BIT, 5), \
	 CALLS(SF_SYSCALL_BIT, 6)}
#define SF_SYSCALL_LIMIT (7 * 64)

const volatile __u64 enter_calls[8] SEC(".rodata.calls")
= SF_SYSCALL_BITS(SF_ENTER_CALLS);
const volatile __u64 exit_calls[8] SEC(".rodata.calls")
= SF_SYSCALL_BITS(SF_EXIT_CALLS);

static __always_inline bool sf_concerns(const volatile __u64 *calls, __u64 number)
{
	return number < SF_SYSCALL_LIMIT && calls[(number >> 6) & 7] >> (number & 63) & 1;
}

/* linux/socket.h */
#define MSG_OOB 0x1
#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

/* linux/mman.h */
#define PROT_EXEC 0x4
#define MAP_ANONYMOUS 0x20

/* asm-generic/errno-base.h */
#define SF_EAGAIN 11

/* linux/io_uring.h */
#define IORING_ENTER_GETEVENTS 1

#define SF_FD_SET_WORDS 16 /* 1024 descriptors: as many as libc's fd_set has */

/* As user space lays them out (linux/uio.h, linux/socket.h). */
struct sf_iovec {
	__u64 base;
	__u64 length;
};

struct sf_msghdr {
	__u64 name;
	__u32 name_bytes;
	__u32 padding;
	__u64 iov;
	__u64 iovecs;
	__u64 control;
	__u64 control_bytes;
	__u32 flags;
	__u32 padding_after;
};

struct sf_mmsghdr {
	struct sf_msghdr header;
	__u32 length; /* bytes that were moved */
	__u32 padding;
};

#endif /* SF_SOCKET_SYSCALLS_H */
