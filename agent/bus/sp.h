/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codec of the scalability protocols' wire (the mappings for TCP and for ipc). Pure; hostile bytes
 * become an error. A connection: 8 bytes of handshake each way (00 'S' 'P' 00, u16 protocol, u16
 * zero), then messages: u64 length | bytes; over ipc each with a leading byte 1. Big-endian.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SP_HANDSHAKE   8
#define SP_MESSAGE_MAX (1u << 20)
#define SP_HOPS_MAX    8 /* words of a request's backtrace, as nanomsg's default time to live */
#define SP_HEADER_MAX  9

enum sp_protocol {
	SP_PAIR = 0x10,
	SP_PUB = 0x20,
	SP_SUB = 0x21,
	SP_REQ = 0x30,
	SP_REP = 0x31,
	SP_PUSH = 0x50,
	SP_PULL = 0x51,
};

void sp_put32(uint8_t out[4], uint32_t v);
uint32_t sp_get32(const uint8_t in[4]);

void sp_handshake_put(uint8_t out[SP_HANDSHAKE], uint16_t protocol);
/* -EPROTO: no SP; -EPROTONOSUPPORT: another protocol than expect. */
int sp_handshake_check(const uint8_t in[SP_HANDSHAKE], uint16_t expect);

/* Header of a message of that size; returns its length, 8 or 9. */
size_t sp_header_put(uint8_t out[SP_HEADER_MAX], bool is_ipc, uint64_t size);

/* Length in bytes of the backtrace at the front of a request or reply, which ends with the first
 * word that has its high bit set. -EPROTO: there is none within SP_HOPS_MAX words. */
int sp_backtrace(const uint8_t *message, size_t size);

/* Memory that several parsers share. */
struct sp_budget {
	size_t used, limit;
	uint64_t refused;
};

struct sp_parser {
	uint16_t expect;
	bool is_ipc, is_ready; /* ready: the handshake is done */
	uint8_t header[SP_HEADER_MAX];
	size_t header_len;
	size_t message_max;
	uint8_t *message; /* grows with what has come, never with what was promised */
	size_t size;      /* promised */
	size_t len, cap;
	struct sp_budget *budget;
};

enum sp_event { SP_MORE, SP_READY, SP_MESSAGE };

/* expect: the protocol the peer must speak; budget may be NULL. */
void sp_parser_init(struct sp_parser *p, uint16_t expect, bool is_ipc, size_t message_max,
		    struct sp_budget *budget);
void sp_parser_fini(struct sp_parser *p);

/* Takes bytes up to the next event: SP_MORE (all were taken), SP_READY, SP_MESSAGE (message[0..size)
 * until the next call). -EPROTO, -EPROTONOSUPPORT, -EMSGSIZE, -ENOBUFS (budget), -ENOMEM: the
 * connection must end. *ret_used says how many bytes were taken. */
int sp_parser_feed(struct sp_parser *p, const uint8_t *data, size_t size, size_t *ret_used);
