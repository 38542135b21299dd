/* SPDX-License-Identifier: Apache-2.0 */
/* Slow requests on their way from the programs to the courier, as events. Keeper. */
#include "cmd/keeper_state.h"

#include "base/clock.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A frame has room for FRAME_EVENTS_MAX; a drain must find some of it. What is left waits in the
 * ring buffer for the next tick. */
#define EVENTS_A_TICK 48

static const char *http_of(const struct probe_slow *slow)
{
	return slow->is_http2 ? "2" : "1";
}

/* Times as microseconds say them: nobody wants seventeen digits. */
static json_t *seconds(uint64_t ns)
{
	return json_real((double)(ns / 1000) / 1e6);
}

static json_t *slow_json(const struct probe_slow *slow, const char *instance)
{
	json_t *j = json_pack("{s:s,s:s,s:s,s:o}", "instance", instance, "side",
			      slow->is_upstream ? "upstream" : "downstream", "method", slow->method,
			      "duration_s", seconds(slow->duration_ns));

	json_object_set_new(j, "http", json_string(http_of(slow)));
	json_object_set_new(j, "tls", json_boolean(slow->is_tls));
	if (slow->code) {
		json_object_set_new(j, "code", json_integer(slow->code));
		json_object_set_new(j, "first_byte_s", seconds(slow->first_byte_ns));
	} else {
		json_object_set_new(j, "unanswered", json_true());
	}
	if (slow->path[0])
		json_object_set_new(j, "path", json_string(slow->path));
	if (slow->is_cut)
		json_object_set_new(j, "path_cut", json_true());
	if (slow->traceparent[0])
		json_object_set_new(j, "traceparent", json_string(slow->traceparent));
	if (slow->is_health)
		json_object_set_new(j, "health", json_true());
	return j;
}

static void on_slow(void *data, const struct probe_slow *slow)
{
	struct keeper *k = data;
	uint64_t age_ns = clock_mono_ns() - slow->end_mono_ns;
	const struct segment_gateway *g;
	char *text = NULL;
	json_t *packet;

	if (slow->gateway >= segment_writer_header(k->segment)->gateways_count) {
		probe_slow_refuse(k->probes, 1);
		return;
	}
	g = keeper_record(k, slow->gateway);
	packet = json_pack("{s:s,s:s,s:s,s:I,s:o}", "type", "event", "kind", "slow_request",
			   "gateway", g->name, "time_ms",
			   (json_int_t)((clock_real_ns() - age_ns) / NS_PER_MS), "json",
			   slow_json(slow, g->instance));
	if (packet)
		text = json_dumps(packet, JSON_COMPACT);
	if (!text || daemon_link_send(k->ctx->links[LINK_KEEPER_COURIER], text, strlen(text)) < 0)
		probe_slow_refuse(k->probes, 1);
	free(text);
	json_decref(packet);
}

void keeper_events(struct keeper *k)
{
	probe_slow_each(k->probes, EVENTS_A_TICK, on_slow, k);
}
