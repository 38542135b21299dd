/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HTTP/2: what is remembered of a connection and of its open streams, in maps of their own, so that
 * connections of HTTP/1 do not pay for it.
 */
#pragma once

#include "types.h"

#define HTTP2_STREAMS 65536u /* open ones, of all connections */

enum http2_step {
	HTTP2_HEADER, /* the nine bytes in front of a frame */
	HTTP2_PAD,    /* the byte that says how much is padding */
	HTTP2_BLOCK,  /* header fields */
	HTTP2_GOAWAY, /* the last stream that will be served */
	HTTP2_END,
};

enum hpack_step {
	HPACK_FIRST,  /* byte of a field */
	HPACK_INDEX,  /* more of its number */
	HPACK_LENGTH, /* of a string: its first byte */
	HPACK_LENGTH_MORE,
	HPACK_GATHER, /* a value that means something */
	HPACK_PASS,   /* a string that means nothing */
};

enum hpack_form { HPACK_INDEXED, HPACK_INDEXING, HPACK_SIZE, HPACK_LITERAL };

enum hpack_kind { HPACK_NONE, HPACK_METHOD, HPACK_STATUS, HPACK_PATH, HPACK_AGENT };

/* A field that means something: enum http_method, the status code (0: unreadable), or 1: health. */
#define HPACK_WHAT(kind, value) ((u32)(kind) << 12 | (value))
#define HPACK_KIND(what)        ((what) >> 12)
#define HPACK_VALUE(what)       ((what)&0xfff)

#define HPACK_STATIC     62u /* the first index of the dynamic table */
#define HPACK_REMEMBERED 16u
#define HPACK_TEXT       64u

/* An entry of the dynamic table, by how many were inserted up to and with it. The index of an entry
 * is its distance from the newest one, whatever was evicted meanwhile; so nothing else of the table
 * needs to be known. */
struct hpack_entry {
	u32 number, what;
};

/* One direction. The numbers of a side are written by whoever reads or writes, one thread a time. */
struct http2_side {
	u64 frame_ns; /* first byte of the frame */
	u8 step;      /* enum http2_step */
	u8 type, flags;
	u8 header_len;
	u32 frame_stream;
	u32 left; /* bytes of the frame, without those that are to be skipped, and without padding */
	u32 pad;
	/* the header block; it may go on in CONTINUATION frames */
	u32 block_stream;
	u8 block_type, block_flags;
	u8 is_open, is_done; /* nothing more of it means anything */
	u32 code;
	u8 method, is_health;
	u8 wanted;      /* bits by enum hpack_kind */
	u8 is_counting; /* something was remembered: insertions must be counted from then on */
	/* the field */
	u8 field; /* enum hpack_step */
	u8 form, kind, is_name;
	u8 is_huffman, shift, gathered, reserved;
	u32 number; /* being read */
	u32 string; /* bytes that are left of it */
	u32 length; /* of the value */
	u32 what;
	u32 inserted; /* into the dynamic table */
	u32 remembered_at;
	u8 header[16];
	u64 value[HPACK_TEXT / 8];
	struct hpack_entry remembered[HPACK_REMEMBERED];
};

struct http2 {
	u32 last_id; /* of the client's streams */
	u32 allowed; /* by the gateway's GOAWAY */
	struct http2_side sides[2];
};

/* Key: the connection's number << 32 | stream. */
struct http2_stream {
	u64 start_ns, first_ns;
	u32 method;   /* enum http_method | PENDING_HEALTH */
	u32 code;     /* 0: unreadable */
	u32 is_final; /* code is that of the answer, not of a 1xx before it */
	u32 reserved;
};

/* What the agent tells, and bookkeeping of both. [0]: plain text, [1]: Huffman's code. */
struct http2_control {
	u32 number;       /* of connections so far; 0 is none */
	u32 has_left;     /* streams were left in the table when their connection ended */
	u32 static_paths; /* bit 0: "/" is a health path, bit 1: "/index.html" */
	u32 path_count[2], agent_count[2];
	u32 reserved;
	struct pattern paths[2][2 * PATTERNS], agents[2][PATTERNS];
};
