/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles of gateway scripts: which gateway is asked, until when. What is asked stands in its record
 * in host.seg, the keeper writes it there; the gateway's processes look. Steward.
 */
#include "cmd/steward_state.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <sys/random.h>

/* Processes look at their record once a second: the last to begin has its whole time, too. */
#define BEGIN_NS (1 * NS_PER_S)

static struct profile *profile_of(struct steward *s, const char *instance)
{
	struct profile *old = &s->profiles[0];

	for (unsigned int i = 0; i < SEGMENT_GATEWAYS; i++) {
		struct profile *p = &s->profiles[i];

		if (str_equal(p->instance, instance))
			return p;
		if (p->until_ns < old->until_ns)
			old = p;
	}
	return old;
}

/* When the profiles of what is meant end; 0: none is under way. */
static uint64_t busy_until(struct steward *s, const char *name, uint64_t now_ns)
{
	uint64_t until_ns = 0;

	for (unsigned int i = 0; i < steward_count_gateways(s); i++) {
		const struct segment_gateway *g = segment_reader_gateway(s->reader, i);
		const struct profile *p;

		if (!steward_is_live(g) || !steward_is_meant(name, g->name, g->instance))
			continue;
		p = profile_of(s, g->instance);
		if (str_equal(p->instance, g->instance) && p->until_ns > until_ns)
			until_ns = p->until_ns;
		/* of a steward before us */
		if (g->profile_until_mono_ns > until_ns)
			until_ns = g->profile_until_mono_ns;
	}
	return until_ns > now_ns ? until_ns : 0;
}

static int random_id(uint64_t *ret)
{
	uint64_t id = 0;

	/* Positive where it travels as JSON. */
	while (!id) {
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			return -EIO;
		id &= INT64_MAX;
	}
	*ret = id;
	return 0;
}

static json_t *begin(struct steward *s, const char *name, uint64_t id, uint64_t until_ns)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < steward_count_gateways(s); i++) {
		const struct segment_gateway *g = segment_reader_gateway(s->reader, i);
		struct profile *p;

		if (!steward_is_live(g) || !steward_is_meant(name, g->name, g->instance))
			continue;
		p = profile_of(s, g->instance);
		str_copy(p->instance, sizeof(p->instance), g->instance);
		p->id = id;
		p->until_ns = until_ns;
		steward_tell_profile(s, p);
		json_array_append_new(
			list, json_pack("{s:s,s:s}", "gateway", g->name, "instance", g->instance));
	}
	return list;
}

void steward_profile(struct steward *s, struct control_conn *conn, const struct control_request *q)
{
	uint64_t now_ns = clock_mono_ns(), until_ns = now_ns + BEGIN_NS + q->profile_ns, busy_ns;
	char text[192], id_text[24];
	json_t *list;
	uint64_t id;

	steward_refresh(s);
	busy_ns = busy_until(s, q->gateway, now_ns);
	if (busy_ns) {
		snprintf(text, sizeof(text),
			 "a profile of `%s` is under way: it ends in %.0f s, one at a time",
			 q->gateway, (double)(busy_ns - now_ns) / (double)NS_PER_S + 0.5);
		control_reply_error(conn, text);
		return;
	}
	if (random_id(&id) < 0) {
		control_reply_error(conn, "no random number for the profile's id");
		return;
	}
	list = begin(s, q->gateway, id, until_ns);
	if (!json_array_size(list)) {
		json_decref(list);
		steward_reply_unknown(s, conn, q->gateway);
		return;
	}
	snprintf(id_text, sizeof(id_text), "%016llx", (unsigned long long)id);
	log_info("steward", "a profile begins", "gateway=%s id=%s seconds=%.1f", q->gateway,
		 id_text, (double)q->profile_ns / (double)NS_PER_S);
	control_reply(conn, json_pack("{s:b,s:s,s:I,s:o}", "ok", 1, "id", id_text, "until_mono_ns",
				      (json_int_t)until_ns, "gateways", list));
}

void steward_repeat_profiles(struct steward *s)
{
	uint64_t now_ns = clock_mono_ns();

	for (unsigned int i = 0; i < SEGMENT_GATEWAYS; i++)
		if (s->profiles[i].until_ns > now_ns)
			steward_tell_profile(s, &s->profiles[i]);
}
