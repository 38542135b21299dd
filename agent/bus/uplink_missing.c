/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of missing frames. */
#include "bus/uplink_missing.h"

#include <string.h>

static unsigned int find(const struct uplink_missing *m, const uint8_t *incarnation)
{
	unsigned int i = 0;

	while (i < UPLINK_MISSING_MAX &&
	       (!m->ranges[i].rounds ||
		memcmp(m->ranges[i].incarnation, incarnation, FRAME_INCARNATION_BYTES) != 0))
		i++;
	return i;
}

static unsigned int make(struct uplink_missing *m, const uint8_t *incarnation)
{
	unsigned int at = 0;

	for (unsigned int i = 1; i < UPLINK_MISSING_MAX; i++)
		if (m->ranges[i].used < m->ranges[at].used)
			at = i;
	memcpy(m->ranges[at].incarnation, incarnation, FRAME_INCARNATION_BYTES);
	m->ranges[at].rounds = 0;
	return at;
}

unsigned int uplink_missing_note(struct uplink_missing *m, const uint8_t *incarnation,
				 const uint64_t *sequences, size_t n)
{
	unsigned int at = find(m, incarnation);
	uint64_t low = UINT64_MAX, high = 0;
	bool is_again = false;

	for (size_t i = 0; i < n; i++) {
		low = sequences[i] < low ? sequences[i] : low;
		high = sequences[i] > high ? sequences[i] : high;
		is_again |= uplink_missing_covers(m, incarnation, sequences[i]);
	}
	if (at == UPLINK_MISSING_MAX)
		at = make(m, incarnation);
	if (!is_again) {
		m->ranges[at].rounds = 0;
		m->ranges[at].low = low;
		m->ranges[at].high = high;
	}
	m->ranges[at].used = ++m->uses;
	return ++m->ranges[at].rounds;
}

void uplink_missing_widen(struct uplink_missing *m, const uint8_t *incarnation,
			  const uint64_t *sequences, size_t n)
{
	unsigned int at = find(m, incarnation);

	if (at == UPLINK_MISSING_MAX || m->ranges[at].rounds > 1)
		return;
	for (size_t i = 0; i < n; i++) {
		if (sequences[i] < m->ranges[at].low)
			m->ranges[at].low = sequences[i];
		if (sequences[i] > m->ranges[at].high)
			m->ranges[at].high = sequences[i];
	}
}

bool uplink_missing_covers(const struct uplink_missing *m, const uint8_t *incarnation,
			   uint64_t sequence)
{
	unsigned int at = find(m, incarnation);

	return at < UPLINK_MISSING_MAX && sequence >= m->ranges[at].low &&
	       sequence <= m->ranges[at].high;
}

void uplink_missing_taken(struct uplink_missing *m, const uint8_t *incarnation, uint64_t sequence)
{
	if (uplink_missing_covers(m, incarnation, sequence))
		uplink_missing_forget(m, incarnation);
}

void uplink_missing_forget(struct uplink_missing *m, const uint8_t *incarnation)
{
	unsigned int at = find(m, incarnation);

	if (at < UPLINK_MISSING_MAX)
		m->ranges[at].rounds = 0;
}
