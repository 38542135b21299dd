/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket between the gate (connects) and the core (listens) at <runtime_dir>/private/core.sock,
 * and its core side. It speaks SP's PAIR over ipc (bus/peer.h), without nanomsg. A message:
 *
 *   gate -> core  REQUEST  u8 type | u8 channel | u8 handle size | handle | passport | payload
 *                          (an Uplink, or whatever a subscriber asks on the snapshot channel)
 *   core -> gate  REPLY    u8 type | u8 channel | u8 handle size | handle | payload
 *   core -> gate  PUBLISH  u8 type | topic NUL BusMessage
 *
 * A handle is opaque: the way back to who asked. Requests that are never answered, and replies that
 * are dropped, come again: whoever asks resends.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/passport.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Payload of a request or reply: with its backtrace it must be within everyone's 1 MiB. */
#define GATELINK_PAYLOAD_MAX ((1u << 20) - 64)
#define GATELINK_MESSAGE_MAX (1u << 20) /* of a published message */
#define GATELINK_HANDLE_MAX  64
#define GATELINK_FRAME_MAX   (GATELINK_MESSAGE_MAX + PASSPORT_BYTES_MAX + GATELINK_HANDLE_MAX + 16)

enum gatelink_type { GATELINK_REQUEST = 1, GATELINK_REPLY = 2, GATELINK_PUBLISH = 3 };
enum gatelink_channel { GATELINK_UPLINK = 0, GATELINK_SNAPSHOT = 1 };

/* A copyable value; keep it until the reply. */
struct gatelink_handle {
	uint32_t generation; /* of the connection to the gate: a reply to an older one is dropped */
	uint8_t channel;     /* enum gatelink_channel */
	uint8_t size;
	uint8_t bytes[GATELINK_HANDLE_MAX];
};

struct gatelink_server;

/* payload and from are borrowed for the call. May call reply, publish and pause. */
typedef void (*gatelink_request_fn)(void *data, const struct gatelink_handle *handle,
				    const struct passport *from, const uint8_t *payload,
				    size_t size);

struct gatelink_stats {
	uint64_t requests, replies, published;
	uint64_t replies_dropped, publish_dropped; /* gate away, or its queue full */
	uint64_t connections, refused;
	uint64_t malformed; /* requests without a passport: not from the door; dropped */
	size_t queued_bytes;
	bool is_connected;
};

/* Listens at path (0660; its directory must shut others out). */
int gatelink_server_open(struct loop *loop, const char *path, gatelink_request_fn on_request,
			 void *data, struct gatelink_server **ret, struct err *e);
struct gatelink_server *gatelink_server_close(struct gatelink_server *s);

/* -ENOTCONN (gate away or changed), -ENOBUFS (queue full), -EMSGSIZE. All are counted; nothing
 * needs to be done about them. */
int gatelink_reply(struct gatelink_server *s, const struct gatelink_handle *handle,
		   const uint8_t *payload, size_t size);
/* message: what publisher_message() built. Same errors. */
int gatelink_publish(struct gatelink_server *s, const uint8_t *message, size_t size);

/* What reply and publish queued goes out before the loop waits, together; this sends it now. */
void gatelink_flush(struct gatelink_server *s);

/* While paused no requests are read (they wait in the gate, the door and at last the agents). */
void gatelink_pause(struct gatelink_server *s, bool is_paused);
void gatelink_server_stats(const struct gatelink_server *s, struct gatelink_stats *ret);

/* ---- the messages, for both sides. Pure. ---- */

struct gatelink_message {
	uint8_t type, channel;
	const uint8_t *handle;
	size_t handle_size;
	const uint8_t *payload; /* borrowed from data */
	size_t size;
};

/* -EBADMSG. */
int gatelink_parse(const uint8_t *data, size_t size, struct gatelink_message *ret);
/* Writes type, channel and handle; returns their length. */
size_t gatelink_head(uint8_t out[GATELINK_HANDLE_MAX + 3], uint8_t type, uint8_t channel,
		     const uint8_t *handle, size_t handle_size);
