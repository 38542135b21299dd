/* SPDX-License-Identifier: Apache-2.0 */
/* What the scale policy reads and wants: over HTTP when asked, on the bus each second. */
#include "cmd/core.h"

#include "base/clock.h"
#include "bus/subject.h"
#include "fleet/load.h"
#include "scale/threshold.h"

#include <math.h>

static const struct scale_policy policy = {
	.name = "loop_busy",
	.metric = "tidegate_loop_busy_seconds_total",
	.aggregation = SCALE_MEAN,
	.target = 0.7,
	.tolerance = 0.1,
	.min = 1,
	.max = 100000,
	.stale_ns = 60 * NS_PER_S,
};

void core_signal_read(struct core *c, struct core_signal *ret)
{
	uint64_t now_ns = clock_real_ns();
	struct load_reading reading;
	struct scale_input input;

	*ret = (struct core_signal){0};
	load_read(c->fleet, now_ns / NS_PER_MS, c->config->fleet_stale / NS_PER_MS, &reading);
	input = (struct scale_input){
		.value = reading.mean,
		.at_ns = reading.at_ms * NS_PER_MS,
		.replicas = reading.expected,
		.reporting = reading.reporting,
		.expected = reading.expected,
	};
	ret->api = (struct api_signal){
		.name = policy.name,
		.metric = policy.metric,
		.value = reading.mean,
		.target = policy.target,
		.age_s = reading.reporting && now_ns > input.at_ns
				 ? (double)(now_ns - input.at_ns) / 1e9
				 : NAN,
		.current = reading.expected,
	};
	ret->api.is_error =
		scale_threshold(&policy, &input, now_ns, &ret->decision, &ret->error) < 0;
	ret->api.reason = ret->api.is_error ? ret->error.text : ret->decision.reason;
	ret->api.coverage = ret->decision.coverage;
	ret->api.desired = ret->api.is_error ? 0 : ret->decision.desired;
}

/* protobuf-c's strings are not const; packing only reads them. */
static char *unconst(const char *s)
{
	return (char *)(uintptr_t)s;
}

void core_signal_publish(struct core *c, uint64_t now_ms)
{
	char topic[SUBJECT_MAX + 1];
	struct core_signal signal;
	Tidegate__BusSignal out, *list[] = {&out};
	Tidegate__BusBody body;
	const uint8_t *message;
	size_t size;

	core_signal_read(c, &signal);
	tidegate__bus_signal__init(&out);
	tidegate__bus_body__init(&body);
	out.policy = unconst(signal.api.name);
	out.metric = unconst(signal.api.metric);
	out.value = signal.api.value;
	out.target = signal.api.target;
	out.age_s = signal.api.age_s;
	out.coverage = signal.api.coverage;
	out.current = signal.api.current;
	out.desired = signal.api.desired;
	out.reason = unconst(signal.api.reason);
	body.time_ms = now_ms;
	body.signals = list;
	body.n_signals = 1;
	if (subject_scale(policy.name, topic) >= 0 &&
	    publisher_message(c->publisher, topic, &body, &message, &size) >= 0)
		gatelink_publish(c->gate, message, size);
}
