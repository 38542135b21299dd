/* SPDX-License-Identifier: Apache-2.0 */
/* Gap detection of a subscriber. Pure. */
#include "bus/subscriber.h"

void subscriber_init(struct subscriber *s, uint64_t seed)
{
	*s = (struct subscriber){.seed = seed};
	topics_init(&s->topics, SUBSCRIBER_TOPICS_MAX, seed);
}

void subscriber_fini(struct subscriber *s)
{
	topics_fini(&s->topics);
}

static void follow_epoch(struct subscriber *s, uint64_t epoch, struct subscriber_note *note)
{
	if (s->has_epoch && s->epoch == epoch)
		return;
	note->has_restarted = s->has_epoch;
	/* The publisher started anew while we listened (or tried to): all of it is ours. */
	s->is_whole = s->has_epoch;
	s->has_epoch = true;
	s->had_beacon = false;
	s->epoch = epoch;
	topics_fini(&s->topics);
	topics_init(&s->topics, SUBSCRIBER_TOPICS_MAX, s->seed);
}

void subscriber_message(struct subscriber *s, const char *topic, uint64_t epoch, uint64_t sequence,
			struct subscriber_note *ret)
{
	struct subscriber_note note = {0};
	struct topic *t;
	bool is_known;

	follow_epoch(s, epoch, &note);
	is_known = topics_find(&s->topics, topic) != NULL;
	if (topics_add(&s->topics, topic, &t) == 0) {
		if ((is_known || s->is_whole) && sequence > t->sequence)
			note.missed = sequence - t->sequence - 1;
		if (sequence > t->sequence)
			t->sequence = sequence;
	}
	*ret = note;
}

void subscriber_listed(struct subscriber *s, const char *topic, uint64_t sequence,
		       struct subscriber_note *ret)
{
	struct subscriber_note note = {0};
	struct topic *t = topics_find(&s->topics, topic);
	bool is_known = t != NULL;

	if (is_known || topics_add(&s->topics, topic, &t) == 0) {
		if (is_known || s->is_whole) {
			if (sequence > t->sequence)
				note.missed = sequence - t->sequence;
		} else if (s->had_beacon && sequence) {
			/* Changed since the last beacon, and we saw nothing of it; how much there
			 * was before we came is unknown. */
			note.missed = 1;
			note.is_at_least = true;
		}
		if (sequence > t->sequence)
			t->sequence = sequence;
	}
	*ret = note;
}

void subscriber_beacon_end(struct subscriber *s)
{
	s->had_beacon = true;
}
