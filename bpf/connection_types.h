/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connections, by tgid << 32 | fd: how far both directions were followed. Included by types.h.
 */
#pragma once

enum stream_state {
	STREAM_SYNC,  /* seeded: waits for a request line, ignores all else */
	STREAM_FIRST, /* at the beginning of a message */
	STREAM_HEADERS,
	STREAM_BODY, /* skip bytes, then the message is complete */
	STREAM_CHUNK_SIZE,
	STREAM_CHUNK_DATA, /* skip bytes, then the next chunk */
	STREAM_TRAILER,
	STREAM_HTTP2, /* frames (http2.bpf.h); skip bytes of one are of no interest */
	STREAM_UNTIL_CLOSE,
	STREAM_OFF, /* not HTTP, or no longer */
};

struct stream {
	u8 state;
	u8 is_skipping; /* the rest of this line is of no interest */
	u8 carry_len;
	u8 is_chunked;
	u8 has_length;
	u8 is_h2c; /* this 101 turns the connection into HTTP/2 */
	u8 reserved[2];
	u64 skip;
	u64 length;
	u8 carry[CARRY_BYTES];
};

#define PIPELINE 8u /* requests of one connection whose start is remembered */

#define CONNECTION_CLIENT_LEFT  1u /* it sent its end; it may still be reading */
#define CONNECTION_CLIENT_RESET 2u /* it is gone */
#define CONNECTION_UPSTREAM     4u /* made by connect(): requests are written, responses read */
#define CONNECTION_TLS          8u /* its plain bytes come from the TLS library */
#define CONNECTION_HTTP2        16u
#define CONNECTION_CLIENT_GONE  (CONNECTION_CLIENT_LEFT | CONNECTION_CLIENT_RESET)
#define CONNECTION_FAILED       256u /* of an upstream: counted, nothing more is expected */

#define PENDING_HEALTH 0x80u

struct connection {
	u32 flags;
	u32 started;  /* requests, by the reader */
	u32 ended;    /* by the writer */
	u32 code;     /* of the response under way */
	u32 upstream; /* with CONNECTION_UPSTREAM: its record */
	union {
		u32 http2; /* with CONNECTION_HTTP2: its number in http2_connections */
		u32 early; /* of an upstream: requests whose answer was seen before them */
	};
	u64 connect_ns;  /* since when connect() is under way; 0: it is not */
	u64 first_ns;    /* first byte of the request line being read */
	u64 response_ns; /* first byte of the response being written */
	u64 tls_object;  /* SSL or tls.Conn that is tied to it; 0: none; TLS_UNSEEN */
	u64 start_ns[PIPELINE];
	u8 method[PIPELINE]; /* enum http_method | PENDING_HEALTH */
	u32 noted;           /* bit set of pending requests whose head is in the table of notes */
	u32 head_slot;       /* whose thread read the last head */
	struct stream streams[2];
};

/* Connections whose descriptor is no socket any more, as the agent found: it is about to end them
 * itself (agent/probe/reconcile.c). A place holds the connection's key, with CLAIM_TAKEN from when on
 * nobody else may end it. A program that ends such a connection takes the key away first. */
#define CLAIMS      256u
#define CLAIM_TAKEN (1ULL << 63)

static inline u32 claim_place(u64 key)
{
	return (u32)(key ^ key >> 32) & (CLAIMS - 1);
}
