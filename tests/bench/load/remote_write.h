/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder of Prometheus remote write 1.0 for one standard agent: WriteRequest in protobuf, snappy
 * in one block. Labels are packed once; a request holds each series with as many samples as ticks
 * were added.
 */
#pragma once

#include "standard.h"

struct buffer {
	uint8_t *data;
	size_t size, cap;
};

struct remote_write {
	struct buffer labels[STANDARD_SERIES], samples[STANDARD_SERIES];
	struct buffer request;
};

int remote_write_init(struct remote_write *w, const char *instance);
void remote_write_begin(struct remote_write *w);
void remote_write_tick(struct remote_write *w, const struct standard *s, int64_t time_ms);
/* The compressed request after `room` free bytes; the caller's, NULL without memory. */
uint8_t *remote_write_finish(struct remote_write *w, size_t room, size_t *ret_size);
