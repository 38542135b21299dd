/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which TLS object belongs to which connection. System calls on such a connection bring ciphertext:
 * they only tell the descriptor of the library's call that makes them (tls_calls.bpf.h), whose
 * buffer holds the plain bytes. Runs in the watched thread.
 */
#pragma once

#include "flight.bpf.h"
#include "window.bpf.h"

#include "tls_types.h"

/* From object to descriptor; deleted with the connection, checked against it at every use. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* set before load: as many as connections */
	__type(key, struct tls_key);
	__type(value, u32);
} tls_ties SEC(".maps");

/* Go: the call under way of a goroutine, which may move to another thread while it waits. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* set before load: two a connection */
	__type(key, struct tls_key);
	__type(value, struct tls_call);
} tls_calls SEC(".maps");

/* From here on plain bytes come from the library. What came by system calls is forgotten. */
static __always_inline void tls_begin(struct connection *c)
{
	struct stream *st = &c->streams[SIDE_REQUEST];

	c->flags |= CONNECTION_TLS;
	c->first_ns = 0;
	st->carry_len = 0;
	st->is_skipping = 0;
	if (st->state != STREAM_SYNC)
		message_reset(st);
	message_reset(&c->streams[SIDE_RESPONSE]);
	c->streams[SIDE_RESPONSE].carry_len = 0;
	c->streams[SIDE_RESPONSE].is_skipping = 0;
}

/* A handshake record where a request line was to be. */
static __always_inline bool tls_hello(const struct slot *s, u32 at)
{
	return window_byte(&s->scan, at) == TLS_HANDSHAKE &&
	       (s->scan.len - at < 2 || window_byte(&s->scan, at + 1) == TLS_MAJOR);
}

static __always_inline void tls_untie(const struct slot *s, struct connection *c)
{
	struct tls_key key = {.object = c->tls_object, .tgid = s->tgid};

	if (c->tls_object > TLS_UNSEEN)
		bpf_map_delete_elem(&tls_ties, &key);
	c->tls_object = 0;
}

static __always_inline void tls_tie(struct slot *s, struct connection *c, u32 fd, u64 object)
{
	struct tls_key key = {.object = object, .tgid = s->tgid};

	if (!(c->flags & CONNECTION_TLS))
		tls_begin(c);
	tls_untie(s, c);
	if (bpf_map_update_elem(&tls_ties, &key, &fd, BPF_ANY))
		lost(LOST_TLS);
	else
		c->tls_object = object;
}

static __always_inline bool class_writes(u32 class)
{
	return class >= CLASS_WRITE && class <= CLASS_SENDMSG;
}

/* Bytes that the gateway wrote, and nobody tells which object they came from: the handshake is done,
 * and there will be nothing to follow. */
static __always_inline void tls_unseen(struct slot *s, struct connection *c, u32 class)
{
	u64 at = s->args[1];
	u8 first = 0;

	if (class == CLASS_SENDMSG)
		bpf_probe_read_user(&at, sizeof(at), (void *)(at + 16));
	if (class == CLASS_SENDMSG || class == CLASS_WRITEV)
		bpf_probe_read_user(&at, sizeof(at), (void *)at);
	bpf_probe_read_user(&first, sizeof(first), (void *)at);
	if (first == TLS_DATA)
		c->tls_object = TLS_UNSEEN;
}

/* A system call on a connection that is TLS or may turn out to be. True: its bytes are ciphertext. */
GLOBAL int tls_call(struct slot *s, struct connection *c, u32 fd, u32 class)
{
	const struct tls_call *call;
	struct tls_key key = {};
	u64 object;

	if (!s || !c)
		return 0;
	object = s->tls_object;
	if (object & TLS_HINT) {
		/* Left over from a handshake that is done, perhaps of another connection: what is
		 * tied stays so. */
		if (!(c->flags & CONNECTION_TLS) || c->tls_object > TLS_UNSEEN)
			object = 0;
		object &= ~TLS_HINT;
	} else if (!object && c->tls_object <= TLS_UNSEEN && s->goroutine) {
		key.object = s->goroutine;
		key.tgid = s->tgid;
		call = bpf_map_lookup_elem(&tls_calls, &key);
		if (call)
			object = call->object;
	}
	/* Requests in plain text were seen here: it is not the object's. */
	if (object && object != c->tls_object && (c->flags & CONNECTION_TLS || !c->started))
		tls_tie(s, c, fd, object);
	if (!(c->flags & CONNECTION_TLS))
		return 0;
	if (!c->tls_object && class_writes(class))
		tls_unseen(s, c, class);
	return 1;
}

/* The connection ends. */
static __always_inline void tls_end(const struct slot *s, struct connection *c)
{
	if (c->tls_object == TLS_UNSEEN)
		lost(LOST_TLS);
	tls_untie(s, c);
}
