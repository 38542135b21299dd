/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions of an uplink. */
#include "bus/uplink_sessions.h"

#include <string.h>

static unsigned int find(const struct uplink_sessions *s, const uint8_t *incarnation)
{
	unsigned int i = 0;

	while (i < UPLINK_SESSIONS &&
	       (!s->slots[i].id ||
		memcmp(s->slots[i].incarnation, incarnation, FRAME_INCARNATION_BYTES) != 0))
		i++;
	return i;
}

uint32_t uplink_sessions_get(const struct uplink_sessions *s, const uint8_t *incarnation)
{
	unsigned int i = find(s, incarnation);

	return i < UPLINK_SESSIONS ? s->slots[i].id : 0;
}

void uplink_sessions_set(struct uplink_sessions *s, const uint8_t *incarnation, uint32_t id)
{
	unsigned int at = find(s, incarnation);

	if (at == UPLINK_SESSIONS) {
		if (!id)
			return;
		at = 0;
		for (unsigned int i = 1; i < UPLINK_SESSIONS; i++)
			if (s->slots[i].used < s->slots[at].used)
				at = i;
		memcpy(s->slots[at].incarnation, incarnation, FRAME_INCARNATION_BYTES);
	}
	s->slots[at].id = id;
	s->slots[at].used = id ? ++s->uses : 0;
}
