/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A minute as bytes: u32 CRC32C (little-endian) of what follows | version | start in minutes |
 * n ranges { gap, count } | n ticks { gap of sequences, offset in ms * 2 + is it a key frame } |
 * n samples, by id and tick { gap of ids, gap of ticks * 8 + kind, value }. All numbers are varints.
 * The tick gap counts from 0 where the id changes. Read back as strictly as it is written: disks
 * lie, too.
 */
#include "base/crc32c.h"
#include "fleet/minute_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1u

static void encode_value(struct pack *out, const struct minute *m, const struct minute_item *s)
{
	unsigned int last = 0;

	if (s->kind == MINUTE_GAUGE)
		pack_double(out, s->v.gauge);
	else if (s->kind == MINUTE_COUNTER_ADD || s->kind == MINUTE_COUNTER_TOTAL)
		pack_u64(out, s->v.counter);
	if (!minute_is_cells(s->kind))
		return;
	pack_u64(out, s->v.window.count);
	for (uint32_t i = 0; i < s->v.window.count; i++) {
		unsigned int cell = m->cells[s->v.window.first + i];

		pack_u64(out, cell - last);
		pack_u64(out, m->counts[s->v.window.first + i]);
		last = cell;
	}
}

static void encode_body(struct pack *out, const struct minute *m)
{
	uint64_t sequence = 0;
	uint32_t id = 0, tick = 0;

	pack_u64(out, VERSION);
	pack_u64(out, m->start_ms / MINUTE_MS);
	pack_u64(out, m->range_count);
	for (uint32_t i = 0; i < m->range_count; i++) {
		pack_u64(out, m->ranges[i].first - sequence);
		pack_u64(out, m->ranges[i].count);
		sequence = m->ranges[i].first + m->ranges[i].count;
	}
	pack_u64(out, m->tick_count);
	sequence = 0;
	for (uint32_t i = 0; i < m->tick_count; i++) {
		pack_u64(out, m->ticks[i].sequence - sequence);
		pack_u64(out, m->ticks[i].offset_ms * 2u + m->ticks[i].is_key);
		sequence = m->ticks[i].sequence;
	}
	pack_u64(out, m->sample_count);
	for (uint32_t i = 0; i < m->sample_count; i++) {
		const struct minute_item *s = &m->samples[i];

		if (s->id != id)
			tick = 0;
		pack_u64(out, s->id - id);
		pack_u64(out, (uint64_t)(s->tick - tick) * 8 + s->kind);
		encode_value(out, m, s);
		id = s->id;
		tick = s->tick;
	}
}

int minute_encode(struct minute *m, struct pack *out)
{
	static const uint8_t room[4];
	size_t at = out->size;
	uint32_t crc;
	int r = minute_sort(m);

	if (r < 0)
		return r;
	pack_bytes(out, room, sizeof(room));
	encode_body(out, m);
	if (out->has_failed)
		return -ENOMEM;
	crc = crc32c(0, out->data + at + 4, out->size - at - 4);
	for (unsigned int i = 0; i < 4; i++)
		out->data[at + i] = (uint8_t)(crc >> (8 * i));
	return 0;
}

/* -------- reading -------- */

static int decode_ranges(struct unpack *u, struct minute *m)
{
	uint64_t sequence = 0, sum = 0;

	m->range_count = 0;
	for (uint64_t n = unpack_u64_max(u, MINUTE_TICKS_MAX), i = 0; i < n; i++) {
		uint64_t first = sequence + unpack_u64(u);
		uint64_t count = unpack_u64_max(u, MINUTE_TICKS_MAX);

		if (!m->ranges)
			m->ranges = calloc(n, sizeof(*m->ranges));
		if (!m->ranges)
			return -ENOMEM;
		sum += count;
		if (u->is_bad || first < sequence || !count || first + count < first ||
		    sum > MINUTE_TICKS_MAX)
			return -EBADMSG;
		m->ranges[m->range_count++] = (struct minute_range){first, count};
		sequence = first + count;
	}
	return 0;
}

static int decode_ticks(struct unpack *u, struct minute *m)
{
	uint64_t sequence = 0, n = unpack_u64_max(u, MINUTE_TICKS_MAX);
	int r = n ? minute_reserve(m, n, 0, 0) : -EBADMSG; /* an empty one is never written */

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t fresh = sequence + unpack_u64(u);
		uint64_t offset = unpack_u64_max(u, 2 * MINUTE_MS - 1);

		if (u->is_bad || fresh < sequence || (i && fresh == sequence))
			return -EBADMSG;
		m->ticks[m->tick_count++] =
			(struct minute_tick){.sequence = fresh,
					     .offset_ms = (uint32_t)(offset / 2),
					     .is_key = offset % 2};
		sequence = fresh;
	}
	return 0;
}

static int decode_cells(struct unpack *u, struct minute *m, struct minute_item *s)
{
	uint64_t n = unpack_u64_max(u, HIST_CELLS), cell = 0;
	uint16_t cells[HIST_CELLS];
	uint64_t counts[HIST_CELLS];
	int r;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t gap = unpack_u64_max(u, HIST_CELLS - 1);

		cell += gap;
		counts[i] = unpack_u64(u);
		if (u->is_bad || cell >= HIST_CELLS || (i && !gap))
			return -EBADMSG;
		cells[i] = (uint16_t)cell;
	}
	r = minute_reserve(m, 0, 0, n);
	if (r >= 0)
		minute_push_cells(m, s, n, cells, counts);
	return r;
}

static int decode_sample(struct unpack *u, struct minute *m, uint64_t *id, uint64_t *tick)
{
	uint64_t gap = unpack_u64_max(u, FRAME_ID_MAX);
	uint64_t place = unpack_u64_max(u, MINUTE_TICKS_MAX * 8);
	unsigned int kind = place % 8;
	struct minute_item *s;
	int r = minute_reserve(m, 0, 1, 0);

	if (r < 0)
		return r;
	*tick = (gap ? 0 : *tick) + place / 8;
	*id += gap;
	if (u->is_bad || *id > FRAME_ID_MAX || *tick >= m->tick_count || kind > MINUTE_ABSENT)
		return -EBADMSG;
	s = minute_push(m, (uint32_t)*id, (enum minute_kind)kind);
	s->tick = (uint32_t)*tick;
	if (minute_is_cells(kind))
		return decode_cells(u, m, s);
	if (kind == MINUTE_GAUGE)
		s->v.gauge = unpack_double(u);
	else if (kind != MINUTE_ABSENT)
		s->v.counter = unpack_u64(u);
	return 0;
}

static int decode_body(struct unpack *u, struct minute *m)
{
	uint64_t id = 0, tick = 0, start;
	int r;

	if (unpack_u64(u) != VERSION)
		return u->is_bad ? -EBADMSG : -EPROTONOSUPPORT;
	start = unpack_u64_max(u, UINT64_MAX / MINUTE_MS);
	m->start_ms = start * MINUTE_MS;
	r = decode_ranges(u, m);
	if (r >= 0)
		r = decode_ticks(u, m);
	if (r < 0)
		return r;
	for (uint64_t n = unpack_u64_max(u, MINUTE_SAMPLES_MAX), i = 0; i < n && r >= 0; i++)
		r = u->is_bad ? -EBADMSG : decode_sample(u, m, &id, &tick);
	if (r >= 0 && (u->is_bad || u->at != u->end))
		return -EBADMSG;
	m->is_sorted = true; /* gaps are never negative */
	return r;
}

int minute_decode(const uint8_t *data, size_t size, struct minute **ret)
{
	struct minute *m;
	struct unpack u;
	uint32_t crc = 0;
	int r;

	if (size < 4)
		return -EBADMSG;
	for (unsigned int i = 0; i < 4; i++)
		crc |= (uint32_t)data[i] << (8 * i);
	if (crc != crc32c(0, data + 4, size - 4))
		return -EBADMSG;
	r = minute_new(0, &m);
	if (r < 0)
		return r;
	unpack_init(&u, data + 4, size - 4);
	r = decode_body(&u, m);
	if (r < 0) {
		minute_free(m);
		return r;
	}
	*ret = m;
	return 0;
}
