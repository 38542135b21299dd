/* SPDX-License-Identifier: Apache-2.0 */
/* Series of upstreams. An address is looked at when its series are registered, never again. */
#include "cmd/keeper_upstreams.h"

#include <errno.h>
#include <stdlib.h>

/* 0: not registered; else index + 1; negative: refused, not tried again. */
struct refs {
	int connect, response, errors[UPSTREAM_ERRORS];
};

struct keeper_upstreams {
	struct segment_writer *w;
	unsigned int most;
	struct refs refs[];
};

int keeper_upstreams_new(struct segment_writer *w, unsigned int most, struct keeper_upstreams **ret)
{
	struct keeper_upstreams *k = calloc(1, sizeof(*k) + most * sizeof(k->refs[0]));

	if (!k)
		return -ENOMEM;
	k->w = w;
	k->most = most;
	*ret = k;
	return 0;
}

struct keeper_upstreams *keeper_upstreams_free(struct keeper_upstreams *k)
{
	free(k);
	return NULL;
}

/* Index of the series, or -1. */
static int series(struct keeper_upstreams *k, int *ref, enum metric_id metric,
		  const struct upstream *u, const char *reason)
{
	const struct segment_gateway *g;
	char name[PROBE_UPSTREAM_BYTES];
	int index;

	if (*ref)
		return *ref > 0 ? *ref - 1 : -1;
	g = segment_writer_gateway_at(k->w, u->address.gateway);
	probe_upstream_name(&u->address, name);
	const char *labels[4][2] = {{"gateway", g->name},
				    {"instance", g->instance},
				    {"upstream", name},
				    {"reason", reason}};

	index = segment_writer_series(k->w, &metric_descs[metric], (const char *const(*)[2])labels,
				      reason ? 4 : 3);
	*ref = index < 0 ? -1 : index + 1;
	return index < 0 ? -1 : index;
}

static void write_upstream(void *data, unsigned int i, const struct upstream *u)
{
	struct keeper_upstreams *k = data;
	struct refs *r = &k->refs[i];

	if (i >= k->most || u->address.gateway >= segment_writer_header(k->w)->gateways_count)
		return;
	if (r->connect || histogram_count(u->connect_ns))
		segment_writer_histogram(
			k->w, series(k, &r->connect, METRIC_ID_UPSTREAM_CONNECT, u, NULL),
			u->connect_ns);
	if (r->response || histogram_count(u->response_ns))
		segment_writer_histogram(k->w, series(k, &r->response, METRIC_ID_UPSTREAM, u, NULL),
					 u->response_ns);
	for (unsigned int e = 0; e < UPSTREAM_ERRORS; e++)
		if (r->errors[e] || u->errors[e])
			segment_writer_counter(k->w,
					       series(k, &r->errors[e], METRIC_ID_UPSTREAM_ERRORS,
						      u, probe_upstream_error_name(e)),
					       u->errors[e]);
}

void keeper_upstreams_write(struct keeper_upstreams *k, struct probe_set *set)
{
	probe_each_upstream(set, write_upstream, k);
}
