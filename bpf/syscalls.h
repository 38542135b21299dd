/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Watched system calls: one row each. X(name, number on x86-64, class, the kernel's function without
 * __x64_sys_); the class says what is done beyond counting. And the errors that are told apart:
 * X(name, number).
 */
#pragma once

#define SYSCALL_ROWS(X)                          \
	X(read, 0, READ, read)                   \
	X(readv, 19, READV, readv)               \
	X(recvfrom, 45, READ, recvfrom)          \
	X(recvmsg, 47, RECVMSG, recvmsg)         \
	X(write, 1, WRITE, write)                \
	X(writev, 20, WRITEV, writev)            \
	X(sendto, 44, WRITE, sendto)             \
	X(sendmsg, 46, SENDMSG, sendmsg)         \
	X(sendfile, 40, SENDFILE, sendfile64)    \
	X(splice, 275, SPLICE, splice)           \
	X(accept, 43, ACCEPT, accept)            \
	X(accept4, 288, ACCEPT, accept4)         \
	X(connect, 42, CONNECT, connect)         \
	X(getsockopt, 55, SOCKOPT, getsockopt)   \
	X(close, 3, CLOSE, close)                \
	X(epoll_wait, 232, LOOP, epoll_wait)     \
	X(epoll_pwait, 281, LOOP, epoll_pwait)   \
	X(epoll_pwait2, 441, LOOP, epoll_pwait2) \
	X(openat, 257, PLAIN, openat)

/* Not counted, only noticed (notice.bpf.h): its number, and its id + 1. */
#define SYSCALL_LISTEN_NUMBER 50
#define SYSCALL_LISTENS       31

#define SYSCALL_NUMBERS 512 /* numbers from here on are not watched */

enum syscall_id {
#define X(name, ...) SYSCALL_##name,
	SYSCALL_ROWS(X)
#undef X
		SYSCALL_COUNT
};

enum syscall_class {
	CLASS_PLAIN,
	CLASS_LISTEN,
	CLASS_LOOP,
	CLASS_ACCEPT,
	CLASS_CONNECT,
	CLASS_CLOSE,
	CLASS_READ,
	CLASS_READV,
	CLASS_RECVMSG,
	CLASS_WRITE,
	CLASS_WRITEV,
	CLASS_SENDMSG,
	CLASS_SENDFILE,
	CLASS_SPLICE,
	CLASS_SOCKOPT,
};

/* Cell 0 holds every error that has no row. Restarted calls (-ERESTART…) are EINTR. */
#define ERRNO_ROWS(X)        \
	X(EPERM, 1)          \
	X(ENOENT, 2)         \
	X(EINTR, 4)          \
	X(EIO, 5)            \
	X(EBADF, 9)          \
	X(EAGAIN, 11)        \
	X(ENOMEM, 12)        \
	X(EACCES, 13)        \
	X(EFAULT, 14)        \
	X(EBUSY, 16)         \
	X(EEXIST, 17)        \
	X(ENODEV, 19)        \
	X(ENOTDIR, 20)       \
	X(EISDIR, 21)        \
	X(EINVAL, 22)        \
	X(ENFILE, 23)        \
	X(EMFILE, 24)        \
	X(EFBIG, 27)         \
	X(ENOSPC, 28)        \
	X(ESPIPE, 29)        \
	X(EROFS, 30)         \
	X(EPIPE, 32)         \
	X(ENAMETOOLONG, 36)  \
	X(ENOSYS, 38)        \
	X(ELOOP, 40)         \
	X(EPROTO, 71)        \
	X(ENOTSOCK, 88)      \
	X(EMSGSIZE, 90)      \
	X(EOPNOTSUPP, 95)    \
	X(EAFNOSUPPORT, 97)  \
	X(EADDRINUSE, 98)    \
	X(EADDRNOTAVAIL, 99) \
	X(ENETDOWN, 100)     \
	X(ENETUNREACH, 101)  \
	X(ECONNABORTED, 103) \
	X(ECONNRESET, 104)   \
	X(ENOBUFS, 105)      \
	X(EISCONN, 106)      \
	X(ENOTCONN, 107)     \
	X(ETIMEDOUT, 110)    \
	X(ECONNREFUSED, 111) \
	X(EHOSTUNREACH, 113) \
	X(EALREADY, 114)     \
	X(EINPROGRESS, 115)

#define ERRNO_NUMBERS 134

enum errno_cell {
	ERRNO_OTHER,
#define X(name, number) ERRNO_CELL_##name,
	ERRNO_ROWS(X)
#undef X
		ERRNOS
};
