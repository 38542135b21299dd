/* SPDX-License-Identifier: Apache-2.0 */
/* Report of a lease. Owns nothing; steward. */
#include "drain/lease_report.h"

static uint64_t delta(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static json_t *number(const struct lease *l, uint64_t v)
{
	/* A missing value is absent, never 0. */
	return l->at_start.is_requests_known ? json_integer((json_int_t)v) : json_null();
}

static json_t *steps(const struct lease *l)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < l->step_count && i < LEASE_STEPS_MAX; i++)
		json_array_append_new(list, json_pack("{s:f,s:s}", "at_s", l->steps[i].at_ms / 1e3,
						      "text", l->steps[i].text));
	return list;
}

static json_t *hooks(const struct lease *l)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < l->hook_count && i < LEASE_HOOKS_MAX; i++) {
		const struct lease_hook *h = &l->hooks[i];
		json_t *item = json_pack("{s:s,s:s,s:b,s:f}", "name", h->name, "point", h->point,
					 "ok", h->is_ok, "seconds", h->ms / 1e3);

		if (h->error[0])
			json_object_set_new(item, "error", json_string(h->error));
		json_array_append_new(list, item);
	}
	return list;
}

json_t *lease_report(const struct lease *l, uint64_t now_ns)
{
	const struct lease_numbers *a = &l->at_start, *n = &l->now;
	uint64_t end_ns = l->is_over ? l->over_ns : now_ns;
	json_t *o = json_pack("{s:s,s:s,s:s,s:s}", "gateway", l->gateway, "instance", l->instance,
			      "reason", l->reason, "state",
			      l->is_over ? "over" : lease_state_name(l->state));

	json_object_set_new(o, "in_flight_at_start", number(l, a->in_flight));
	json_object_set_new(o, "arrived", number(l, lease_arrived(l)));
	json_object_set_new(o, "completed", number(l, delta(n->completed, a->completed)));
	json_object_set_new(o, "aborted", number(l, delta(n->aborted, a->aborted)));
	json_object_set_new(o, "lost", number(l, lease_lost(l)));
	/* Only how many were lost is in the segment; which ones is known when there are none. */
	json_object_set_new(o, "lost_requests",
			    a->is_requests_known && !lease_lost(l) ? json_array() : json_null());
	json_object_set_new(o, "waited_s", json_real((double)delta(end_ns, l->begin_ns) / 1e9));
	json_object_set_new(o, "forced", json_boolean(l->is_forced));
	json_object_set_new(o, "undrained", json_boolean(l->is_undrained));
	json_object_set_new(o, "expired", json_boolean(l->is_expired));
	json_object_set_new(o, "failed", json_boolean(l->is_failed));
	json_object_set_new(o, "code", json_integer(lease_exit_code(l)));
	json_object_set_new(o, "split",
			    json_pack("{s:f,s:f,s:f,s:f}", "quiet_period_s", l->quiet_ns / 1e9,
				      "quiet_until_s", delta(l->quiet_until_ns, l->begin_ns) / 1e9,
				      "wait_until_s", delta(l->wait_until_ns, l->begin_ns) / 1e9,
				      "deadline_s", delta(l->deadline_ns, l->begin_ns) / 1e9));
	json_object_set_new(o, "steps", steps(l));
	json_object_set_new(o, "hooks", hooks(l));
	return o;
}
