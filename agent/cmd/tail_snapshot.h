/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots for tail: asks an aggregator for topics, one request at a time, until each that was
 * wanted has come. Owns a connection of its own. Same thread as its owner.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/bulletin.h"
#include "bus/credentials.h"

struct tail_snapshot;

struct tail_snapshot_spec {
	const char *address;
	struct credentials *const *tls; /* as of bus/dialer.h */
	struct arena *arena;            /* for decoding, between calls anybody's */
	/* Whether a topic of the list is wanted. */
	bool (*is_wanted)(void *data, const char *topic);
	/* A part: its topic, and the sequence that its series include. */
	void (*on_part)(void *data, const struct bulletin *part);
	/* All that was wanted has come, topics in number, lists not counted. Again after each repair. */
	void (*on_complete)(void *data, size_t topics);
	/* Once until it works again. */
	void (*on_trouble)(void *data, const char *why);
};

/* Same errors as dialer_open(). */
int tail_snapshot_open(struct loop *loop, const struct tail_snapshot_spec *spec, void *data,
		       struct tail_snapshot **ret, struct err *e);
struct tail_snapshot *tail_snapshot_close(struct tail_snapshot *s);

/* The publisher counts from 1 in this epoch: forgets all, asks for its list of topics. */
void tail_snapshot_begin(struct tail_snapshot *s, uint64_t epoch);
/* A topic by itself: new, or something of it was missed. */
void tail_snapshot_want(struct tail_snapshot *s, const char *topic);
/* A topic of this epoch had a message: true when it was never wanted before; now it is. */
bool tail_snapshot_met(struct tail_snapshot *s, const char *topic);
/* Call it each second. */
void tail_snapshot_second(struct tail_snapshot *s);
