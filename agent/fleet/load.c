/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of readings in each incarnation, taken while frames are applied: the same frames give the
 * same ring, on any aggregator and after any restart. */
#include "fleet/load.h"

#include "fleet/state.h"

#include <math.h>
#include <string.h>

#define LOAD_STEP_MS  5000u
#define LOAD_LEAST_MS 10000u
#define LOAD_SPAN_MS  60000u

void load_sample(const struct fleet *f, struct fleet_incarnation *inc)
{
	const struct fleet_load *last =
		&inc->load[(inc->load_count + FLEET_LOADS - 1) % FLEET_LOADS];
	struct fleet_load now = {.time_ms = inc->last_time_ms};
	bool is_known = false;

	if (inc->load_count && inc->last_time_ms < last->time_ms) {
		inc->load_count = 0; /* the agent's clock was set back */
	} else if (inc->load_count && inc->last_time_ms - last->time_ms < LOAD_STEP_MS) {
		return;
	}
	for (uint32_t i = 0; i < inc->series_count; i++) {
		const struct fleet_series *s = &inc->series[i];
		const char *name;

		if (s->kind == METRIC_HISTOGRAM)
			continue;
		name = f->groups.metrics[f->groups.groups[s->group]->metric].name;
		if (strcmp(name, metric_descs[METRIC_ID_LOOP_BUSY].name) == 0) {
			now.busy_ns += s->v.counter;
			is_known = true;
		} else if (s->is_present &&
			   strcmp(name, metric_descs[METRIC_ID_WORKERS].name) == 0) {
			now.workers += s->v.gauge;
		}
	}
	if (is_known && now.workers > 0)
		inc->load[inc->load_count++ % FLEET_LOADS] = now;
}

/* False while too little is known. */
static bool incarnation_read(const struct fleet_incarnation *inc, double *ret)
{
	uint32_t have = inc->load_count < FLEET_LOADS ? inc->load_count : FLEET_LOADS;
	const struct fleet_load *last, *first = NULL;
	double ratio;

	if (have < 2)
		return false;
	last = &inc->load[(inc->load_count - 1) % FLEET_LOADS];
	for (uint32_t i = 2; i <= have; i++) {
		const struct fleet_load *l = &inc->load[(inc->load_count - i) % FLEET_LOADS];

		if (last->time_ms - l->time_ms > LOAD_SPAN_MS)
			break;
		first = l;
	}
	if (!first || last->time_ms - first->time_ms < LOAD_LEAST_MS ||
	    last->busy_ns < first->busy_ns)
		return false;
	ratio = (double)(last->busy_ns - first->busy_ns) /
		((double)(last->time_ms - first->time_ms) * 1e6 * last->workers);
	*ret = ratio > 1 ? 1 : ratio;
	return true;
}

void load_read(const struct fleet *f, uint64_t now_ms, uint64_t stale_ms, struct load_reading *ret)
{
	double sum = 0;

	*ret = (struct load_reading){.mean = NAN, .at_ms = now_ms};
	for (uint32_t i = 0; i < f->agent_count; i++) {
		const struct fleet_incarnation *inc = fleet_current(f->agents[i]);
		double ratio;

		/* An aggregator's sums are no agent: how many stand behind them is not known. */
		if (f->agents[i]->is_sum)
			continue;
		if (!inc || inc->last_seen_ms + LOAD_EXPECTED_MS < now_ms || !inc->load_count)
			continue;
		ret->expected++;
		if (inc->last_seen_ms + stale_ms < now_ms || !incarnation_read(inc, &ratio))
			continue;
		ret->reporting++;
		sum += ratio;
		if (inc->last_seen_ms < ret->at_ms)
			ret->at_ms = inc->last_seen_ms;
	}
	if (ret->reporting)
		ret->mean = sum / ret->reporting;
	else
		ret->at_ms = 0;
}
