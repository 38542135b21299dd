/* SPDX-License-Identifier: Apache-2.0 */
/* SP handshake and framing. Pure; used by the door, the fan-out and tail. */
#include "bus/sp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GROW_FIRST 512 /* also what is kept between messages */

void sp_put32(uint8_t out[4], uint32_t v)
{
	out[0] = (uint8_t)(v >> 24);
	out[1] = (uint8_t)(v >> 16);
	out[2] = (uint8_t)(v >> 8);
	out[3] = (uint8_t)v;
}

uint32_t sp_get32(const uint8_t in[4])
{
	return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

void sp_handshake_put(uint8_t out[SP_HANDSHAKE], uint16_t protocol)
{
	out[0] = 0;
	out[1] = 'S';
	out[2] = 'P';
	out[3] = 0;
	out[4] = (uint8_t)(protocol >> 8);
	out[5] = (uint8_t)protocol;
	out[6] = 0;
	out[7] = 0;
}

int sp_handshake_check(const uint8_t in[SP_HANDSHAKE], uint16_t expect)
{
	if (in[0] != 0 || in[1] != 'S' || in[2] != 'P' || in[3] != 0 || in[6] != 0 || in[7] != 0)
		return -EPROTO;
	if ((in[4] << 8 | in[5]) != expect)
		return -EPROTONOSUPPORT;
	return 0;
}

size_t sp_header_put(uint8_t out[SP_HEADER_MAX], bool is_ipc, uint64_t size)
{
	size_t n = 0;

	if (is_ipc)
		out[n++] = 1;
	sp_put32(out + n, (uint32_t)(size >> 32));
	sp_put32(out + n + 4, (uint32_t)size);
	return n + 8;
}

int sp_backtrace(const uint8_t *message, size_t size)
{
	for (size_t n = 0; n < SP_HOPS_MAX && (n + 1) * 4 <= size; n++)
		if (message[n * 4] & 0x80)
			return (int)(n + 1) * 4;
	return -EPROTO;
}

static void parser_release(struct sp_parser *p)
{
	if (p->budget)
		p->budget->used -= p->cap;
	free(p->message);
	p->message = NULL;
	p->cap = 0;
}

void sp_parser_init(struct sp_parser *p, uint16_t expect, bool is_ipc, size_t message_max,
		    struct sp_budget *budget)
{
	*p = (struct sp_parser){
		.expect = expect, .is_ipc = is_ipc, .message_max = message_max, .budget = budget};
}

void sp_parser_fini(struct sp_parser *p)
{
	parser_release(p);
}

static int parser_reserve(struct sp_parser *p, size_t need)
{
	size_t cap = p->cap ? p->cap : GROW_FIRST;
	uint8_t *grown;

	if (need <= p->cap)
		return 0;
	while (cap < need)
		cap *= 2;
	if (p->budget && p->budget->limit - p->budget->used < cap - p->cap) {
		p->budget->refused++;
		return -ENOBUFS;
	}
	grown = realloc(p->message, cap);
	if (!grown)
		return -ENOMEM;
	if (p->budget)
		p->budget->used += cap - p->cap;
	p->message = grown;
	p->cap = cap;
	return 0;
}

static int parse_header(struct sp_parser *p)
{
	const uint8_t *length = p->header + (p->is_ipc ? 1 : 0);

	if (p->is_ipc && p->header[0] != 1)
		return -EPROTO;
	if (sp_get32(length) != 0 || sp_get32(length + 4) > p->message_max)
		return -EMSGSIZE;
	p->size = sp_get32(length + 4);
	return 0;
}

/* Copies what is missing of the header; true when it is whole. */
static bool fill_header(struct sp_parser *p, size_t want, const uint8_t *data, size_t size,
			size_t *used)
{
	size_t n = want - p->header_len;

	if (n > size - *used)
		n = size - *used;
	memcpy(p->header + p->header_len, data + *used, n);
	p->header_len += n;
	*used += n;
	return p->header_len == want;
}

int sp_parser_feed(struct sp_parser *p, const uint8_t *data, size_t size, size_t *ret_used)
{
	const size_t want = p->is_ready && p->is_ipc ? 9 : 8;
	bool had_header = p->header_len == want;
	size_t used = 0, n;
	int r;

	/* The message that the last call gave out is done with. */
	if (had_header && p->is_ready && p->len == p->size) {
		p->header_len = p->len = p->size = 0;
		had_header = false;
		if (p->cap > GROW_FIRST)
			parser_release(p);
	}
	if (!had_header) {
		bool whole;

		if (!size) {
			*ret_used = 0;
			return SP_MORE;
		}
		whole = fill_header(p, want, data, size, &used);
		*ret_used = used;
		if (p->is_ready && p->is_ipc && p->header[0] != 1)
			return -EPROTO;
		if (!whole)
			return SP_MORE;
		if (!p->is_ready) {
			r = sp_handshake_check(p->header, p->expect);
			if (r < 0)
				return r;
			p->is_ready = true;
			p->header_len = 0;
			return SP_READY;
		}
		r = parse_header(p);
		if (r < 0)
			return r;
	}
	n = p->size - p->len;
	if (n > size - used)
		n = size - used;
	r = parser_reserve(p, p->len + n);
	if (r < 0)
		return r;
	if (n)
		memcpy(p->message + p->len, data + used, n);
	p->len += n;
	*ret_used = used + n;
	return p->len == p->size ? SP_MESSAGE : SP_MORE;
}
