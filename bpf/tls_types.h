/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What tls.bpf.h, tls_calls.bpf.h and agent/probe/tls.c share. */
#pragma once

#include "types.h"

/* Content types and the major version in a TLS record's head (RFC 8446, 5.1). */
#define TLS_HANDSHAKE 0x16
#define TLS_DATA      0x17
#define TLS_MAJOR     3

/* An SSL or tls.Conn of a process; in tls_calls a goroutine. */
struct tls_key {
	u64 object;
	u32 tgid, reserved;
};

struct tls_call {
	u64 object, buffer;
};

/* In slot.tls_object (objects are aligned): a handshake's, which has no plain bytes. */
#define TLS_HINT 1ull

/* In connection.tls_object: data went by, and no object is known. */
#define TLS_UNSEEN 1ull

/* Cookie of a probe. */
#define TLS_COOKIE_WRITE 1u
#define TLS_COOKIE_COUNT 2u /* *_ex: the count is where the fourth argument points */
