/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the bus somebody wants to see: topics by prefix, gateways and metrics by name. SP leaves
 * the choice to the subscriber, everything reaches it. Pure.
 */
#pragma once

#include "bus/bulletin.h"

#define FILTER_TERMS 64 /* of each kind */

/* Terms of one kind are alternatives, kinds are all to be met; no term of a kind: all of it. */
struct filter {
	const char *topics[FILTER_TERMS];   /* prefixes */
	const char *gateways[FILTER_TERMS]; /* whole names */
	const char *metrics[FILTER_TERMS];  /* whole names, or a prefix and `*` */
	unsigned int topic_count, gateway_count, metric_count;
};

/* term is borrowed. -ENOSPC, -EINVAL (empty). */
int filter_add_topic(struct filter *f, const char *term);
int filter_add_gateway(struct filter *f, const char *term);
int filter_add_metric(struct filter *f, const char *term);

/* Whether messages of the topic can hold anything that is wanted: also whether its gaps matter. A
 * beacon only when asked for by name. */
bool filter_topic(const struct filter *f, const char *topic);

bool filter_series(const struct filter *f, const Tidegate__BusSeries *s);
bool filter_event(const struct filter *f, const Tidegate__Event *e);
bool filter_signal(const struct filter *f, const Tidegate__BusSignal *s);

/* A copy of the body that holds what is wanted; lists come from the arena. -ENOMEM. */
int filter_body(const struct filter *f, const Tidegate__BusBody *body, struct arena *arena,
		Tidegate__BusBody *ret);
