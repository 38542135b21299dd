/* SPDX-License-Identifier: Apache-2.0 */
/* One request to an aggregator: the message, and which frames it holds. Internal to uplink*.c. */
#pragma once

#include "bus/spool.h"
#include "bus/uplink.h"

struct uplink_frame {
	uint64_t sequence;
	uint32_t size;
	uint32_t closed; /* the dictionary without which it cannot be opened here either; 0: none */
	bool is_settled;
};

struct uplink_request {
	uint32_t id;  /* 0: free */
	bool is_gone; /* wholly with the kernel: deadline_ns is that of the reply */
	bool has_hello;
	bool is_simple;  /* set before it is filled: frames go out without a dictionary */
	uint64_t number; /* of its message, on this connection */
	uint64_t progress, deadline_ns;
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct uplink_frame *frames; /* UPLINK_MESSAGE_FRAMES */
	unsigned int frame_count;
	uint8_t *message; /* until it is sent */
	size_t size, cap;
};

void uplink_request_free(struct uplink_request *q);

/* Fills the request with as many frames of one incarnation as the end of the cursor has and one
 * message may hold. session_of says the session of an incarnation; where it is 0, hello (packed)
 * goes along. 1, 0 when there is no frame, -ENOMEM. */
int uplink_request_fill(struct uplink_request *q, struct spool_cursor *c, enum spool_end end,
			uint32_t (*session_of)(void *data, const uint8_t *incarnation),
			int (*hello_of)(void *data, const uint8_t *incarnation, uint8_t *buf,
					size_t size),
			void *data);

struct uplink_frame *uplink_request_find(struct uplink_request *q, uint64_t sequence);
/* Some of its frames are not settled. */
bool uplink_request_is_open(const struct uplink_request *q);
/* One with this sequence or a higher one is. */
bool uplink_request_settled_from(const struct uplink_request *q, uint64_t sequence);
