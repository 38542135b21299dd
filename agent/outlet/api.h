/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregator's JSON. Pure: neutral structs in, one JSON object out. */
#pragma once

#include "base/str.h"
#include "outlet/prometheus.h"

#include <stdint.h>

struct api_agent {
	const char *id;
	const uint8_t *incarnation; /* 16 bytes */
	const char *const *label_names, *const *labels;
	unsigned int label_count;
	double age_s; /* since it was heard */
	bool is_stale;
	uint32_t incarnations, series, interval_ms;
	uint64_t sequence, missing, gaps, frames, bytes, samples;
};

struct api_event {
	uint64_t id, time_ms;
	const char *agent, *kind, *gateway, *json;
};

struct api_signal {
	const char *name, *metric;
	bool is_error; /* then value, ratio and desired are unknown */
	double value, target, age_s, coverage;
	uint32_t current, desired;
	const char *reason;
};

/* Each appends one object. -E2BIG beyond the limit of out, -ENOMEM. */
int api_write_agents(struct strbuf *out, const struct api_agent *agents, size_t n);
int api_write_series(struct strbuf *out, const struct prometheus_source *source);
int api_write_events(struct strbuf *out, const struct api_event *events, size_t n);
int api_write_signals(struct strbuf *out, const struct api_signal *signals, size_t n);
