/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several small messages in one: u32 size | bytes, repeated, big-endian. What travels through
 * nanomsg between door and gate does so in bundles, because there each message costs system calls
 * and thread switches, whatever its size. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BUNDLE_BYTES (64u << 10) /* from here on a bundle is full; its last message may be larger */
#define BUNDLE_HEAD  4u

struct bundle {
	uint8_t *data;
	size_t size, cap;
	unsigned int count;
};

void bundle_fini(struct bundle *b);
/* Appends a then b as one message. -ENOMEM leaves it as it was. */
int bundle_add(struct bundle *bundle, const void *a, size_t a_size, const void *b, size_t b_size);
/* Keeps the memory. */
void bundle_reset(struct bundle *b);

/* The message at *at (0 at first), which moves on. 1; 0: that was all; -EPROTO: damaged. */
int bundle_next(const uint8_t *data, size_t size, size_t *at, const uint8_t **ret,
		size_t *ret_size);
