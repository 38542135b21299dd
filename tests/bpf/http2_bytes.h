/* SPDX-License-Identifier: Apache-2.0 */
/* What http2.c sends: frames and header fields as literals, and one long conversation. */
#pragma once

#include "probe/huffman.h"
#include "rungs.h"

#include <stdbool.h>
#include <stdint.h>

#define END_STREAM  0x1
#define END_HEADERS 0x4
#define PADDED      0x8
#define PRIORITY    0x20
#define WHOLE       (END_STREAM | END_HEADERS)

enum { DATA, HEADERS, PRIORITY_FRAME, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION };

struct bytes {
	unsigned char *at;
	size_t n, room;
};

static void add(struct bytes *b, const void *data, size_t n)
{
	if (b->n + n > b->room) {
		b->room = (b->n + n) * 2;
		b->at = realloc(b->at, b->room);
		must(b->at != NULL);
	}
	memcpy(b->at + b->n, data, n);
	b->n += n;
}

static void add_byte(struct bytes *b, unsigned int v)
{
	unsigned char c = (unsigned char)v;

	add(b, &c, 1);
}

static void text(struct bytes *b, const char *s)
{
	add(b, s, strlen(s));
}

static void header(struct bytes *b, size_t n, unsigned int type, unsigned int flags, uint32_t id)
{
	const unsigned char h[9] = {
		(unsigned char)(n >> 16),  (unsigned char)(n >> 8),  (unsigned char)n,
		(unsigned char)type,       (unsigned char)flags,     (unsigned char)(id >> 24),
		(unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id,
	};

	add(b, h, sizeof(h));
}

/* Takes the payload's bytes. */
static void frame(struct bytes *b, unsigned int type, unsigned int flags, uint32_t id,
		  struct bytes *payload)
{
	header(b, payload->n, type, flags, id);
	if (payload->n)
		add(b, payload->at, payload->n);
	payload->n = 0;
}

/* A literal with the name's index in `bits` low bits below `first`. */
static void literal(struct bytes *b, unsigned int first, const char *value)
{
	add_byte(b, first);
	if (strlen(value) < 127) {
		add_byte(b, (unsigned int)strlen(value));
	} else {
		add_byte(b, 127);
		add_byte(b, ((unsigned int)strlen(value) - 127) & 0x7f);
		if (strlen(value) - 127 > 127) {
			b->at[b->n - 1] |= 0x80;
			add_byte(b, ((unsigned int)strlen(value) - 127) >> 7);
		}
	}
	text(b, value);
}

static void huffman(struct bytes *b, unsigned int first, const char *value)
{
	uint8_t code[256];
	size_t bits;

	must(huffman_encode(value, code, sizeof(code), &bits));
	add_byte(b, first);
	add_byte(b, 0x80 | (unsigned int)((bits + 7) / 8));
	add(b, code, (bits + 7) / 8);
}

/* A field whose name is a string too; goes into the dynamic table. */
static void field(struct bytes *b, const char *name, const char *value)
{
	add_byte(b, 0x40);
	add_byte(b, (unsigned int)strlen(name));
	text(b, name);
	add_byte(b, (unsigned int)strlen(value));
	text(b, value);
}

static void many(struct bytes *b, char c, unsigned int n)
{
	while (n--)
		add_byte(b, (unsigned char)c);
}

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static void get(struct bytes *b, struct bytes *p, uint32_t id, const char *path)
{
	add(p, "\x82\x86", 2);
	literal(p, 0x04, path);
	frame(b, HEADERS, WHOLE, id, p);
}

/* What a client sends on one connection: 15 requests. */
static void client_bytes(struct bytes *b)
{
	static const unsigned char zero[8];
	struct bytes p = {0};
	char path[160] = "/healthz?";

	text(b, PREFACE);
	add(&p, "\0\3\0\0\0\144", 6);
	frame(b, SETTINGS, 0, 0, &p);
	add(&p, "\x82\x86\x84", 3); /* GET http / */
	literal(&p, 0x41, "localhost");
	frame(b, HEADERS, WHOLE, 1, &p);
	add_byte(&p, 7); /* POST, padded, with a priority, whose body looks like a frame */
	add(&p, zero, 5);
	add(&p, "\x83\x84\x86", 3);
	many(&p, 0, 7);
	frame(b, HEADERS, END_HEADERS | PADDED | PRIORITY, 3, &p);
	add_byte(&p, 2);
	header(&p, 5, HEADERS, WHOLE, 99);
	many(&p, 0, 2);
	frame(b, DATA, END_STREAM | PADDED, 3, &p);
	add(&p, "\x3f\xe1\x1f", 3);    /* size of the table: a number of three bytes */
	literal(&p, 0x42, "HEAD");     /* into the table: 1 */
	huffman(&p, 0x44, "/healthz"); /* 2 */
	field(&p, "x-long", "value of no interest"); /* 3 */
	frame(b, HEADERS, WHOLE, 5, &p);
	add(&p, "\xc0\xbf\x86", 3);        /* HEAD /healthz by the table */
	literal(&p, 0x7a, "kube-probe/1"); /* 4 */
	frame(b, HEADERS, WHOLE, 7, &p);
	huffman(&p, 0x02, "DELETE"); /* in three frames, cut inside the method and a number */
	huffman(&p, 0x04, "/a");
	add(&p, "\x7f\x00\x01x", 4); /* 5: named by the number 63 + 0 */
	header(b, 4, HEADERS, END_STREAM, 9);
	add(b, p.at, 4);
	header(b, p.n - 7, CONTINUATION, 0, 9);
	add(b, p.at + 4, p.n - 7);
	header(b, 0, CONTINUATION, 0, 9);
	header(b, 3, CONTINUATION, END_HEADERS, 9);
	add(b, p.at + p.n - 3, 3);
	p.n = 0;
	add(&p, "\x82\xbf\x84", 3); /* GET, the agent by the table */
	frame(b, HEADERS, WHOLE, 11, &p);
	get(b, &p, 13, "/left");
	add(&p, zero, 4);
	frame(b, RST, 0, 13, &p);
	literal(&p, 0x12, "PURGE");
	frame(b, HEADERS, WHOLE, 15, &p);
	get(b, &p, 17, "/never");
	literal(&p, 0x02, "CONNECT");
	frame(b, HEADERS, END_HEADERS, 19, &p);
	add(&p, zero, 8);
	frame(b, PING, 0, 0, &p);
	get(b, &p, 21, "/reset");
	literal(&p, 0x02, "PUT");
	frame(b, HEADERS, END_HEADERS, 23, &p);
	field(&p, "x-trailer", "1");
	frame(b, HEADERS, WHOLE, 23, &p);
	add(&p, "\x82", 1);
	huffman(&p, 0x04, "/healthz?x=1");
	frame(b, HEADERS, WHOLE, 25, &p);
	get(b, &p, 27, "/healthzz");
	memset(path + 9, 'y', 140);
	get(b, &p, 29, path);
	get(b, &p, 2, "/healthz"); /* no client may open this */
	add(&p, zero, 4);
	frame(b, WINDOW, 0, 0, &p);
	frame(b, 0xfe, 0xff, 0x7fffffff, &p);
	free(p.at);
}

/* And what the gateway answers: 12 of them; one was left, one is reset, one never answered. */
static void server_bytes(struct bytes *b)
{
	static const unsigned char zero[8];
	struct bytes p = {0};

	frame(b, SETTINGS, 0, 0, &p);
	frame(b, SETTINGS, 1, 0, &p);
	add_byte(&p, 0x88);
	frame(b, HEADERS, END_HEADERS, 1, &p);
	text(&p, "hello");
	frame(b, DATA, END_STREAM, 1, &p);
	literal(&p, 0x08, "100");
	frame(b, HEADERS, END_HEADERS, 3, &p);
	literal(&p, 0x48, "201"); /* into the table: 1 */
	field(&p, "x", "y");      /* 2 */
	frame(b, HEADERS, END_HEADERS, 3, &p);
	frame(b, DATA, END_STREAM, 3, &p);
	add(&p, "\0\0\0\2", 4);
	literal(&p, 0x04, "/pushed");
	field(&p, "pushed", "1"); /* 3 */
	frame(b, PUSH, END_HEADERS, 1, &p);
	add_byte(&p, 0x8b);
	frame(b, HEADERS, WHOLE, 5, &p);
	add_byte(&p, 0xc0); /* 201 by the table */
	frame(b, HEADERS, WHOLE, 7, &p);
	huffman(&p, 0x48, "503"); /* 4 */
	frame(b, HEADERS, WHOLE, 9, &p);
	add_byte(&p, 0xbe);
	frame(b, HEADERS, END_HEADERS, 11, &p); /* 503 by the table */
	field(&p, "x-trailer", "2");
	frame(b, HEADERS, WHOLE, 11, &p); /* 5: trailers */
	add_byte(&p, 0x88);
	frame(b, HEADERS, WHOLE, 13, &p); /* the client has left */
	frame(b, HEADERS, WHOLE, 2, &p);
	add(&p, "\x3f\xe1\x1f\x8d", 4); /* a size first */
	frame(b, HEADERS, WHOLE, 15, &p);
	add_byte(&p, 0x88);
	frame(b, HEADERS, END_HEADERS, 19, &p); /* a tunnel */
	text(&p, "bytes of the tunnel");
	frame(b, DATA, 0, 19, &p);
	add(&p, zero, 4);
	frame(b, RST, 0, 21, &p);
	add_byte(&p, 0x89);
	frame(b, HEADERS, WHOLE, 23, &p);
	huffman(&p, 0x18, "301");
	frame(b, HEADERS, WHOLE, 25, &p);
	add_byte(&p, 0xbf); /* 503 by the table, after one more */
	frame(b, HEADERS, WHOLE, 27, &p);
	literal(&p, 0x08, "599");
	frame(b, HEADERS, END_HEADERS, 29, &p);
	add_byte(&p, 20);
	many(&p, 'x', 320);
	frame(b, DATA, PADDED | END_STREAM, 29, &p);
	free(p.at);
}
