/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a minute on disk, with a checksum that is right: the first says whether it is the
 * frames of a minute or its end. What can be read must be written back as the same bytes, thinned
 * and walked in order.
 */
#include "base/crc32c.h"
#include "fleet/sheaf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

struct walk {
	uint32_t id;
	uint64_t sequence;
	size_t count;
};

static int on_sample(void *data, const struct minute_sample *s)
{
	struct walk *w = data;

	check(!w->count || s->id > w->id || (s->id == w->id && s->sequence >= w->sequence));
	for (size_t i = 0; i < s->cell_count; i++)
		check(s->cells[i] < HIST_CELLS && (!i || s->cells[i] > s->cells[i - 1]));
	w->id = s->id;
	w->sequence = s->sequence;
	w->count++;
	return 0;
}

static void use_minute(struct minute *m)
{
	struct walk w = {0};

	check(minute_each(m, on_sample, &w) == 0);
	check(minute_thin(m) == 0);
	w = (struct walk){0};
	check(minute_each(m, on_sample, &w) == 0);
	minute_free(m);
}

static void try_minute(const uint8_t *data, size_t size)
{
	struct pack p = {0};
	struct minute *m;

	if (minute_decode(data, size, &m) < 0)
		return;
	check(minute_encode(m, &p) == 0);
	use_minute(m);
	check(minute_decode(p.data, p.size, &m) == 0);
	minute_free(m);
	pack_fini(&p);
}

static void try_sheaf(const uint8_t *data, size_t size)
{
	struct pack p = {0};
	struct sheaf *s, *back;
	struct minute *m;

	if (sheaf_decode(data, size, &s) < 0)
		return;
	check(sheaf_encode(s, &p) == 0);
	check(sheaf_decode(p.data, p.size, &back) == 0);
	check(sheaf_frames(back) == sheaf_frames(s));
	check(sheaf_merge(back, s) == 0);
	check(sheaf_minute(s, sheaf_start_ms(s) + 30000, UINT64_MAX, &m) >= 0);
	use_minute(m);
	sheaf_free(back);
	sheaf_free(s);
	pack_fini(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *bytes;
	uint32_t crc;

	if (size < 2)
		return 0;
	bytes = malloc(size + 3);
	memcpy(bytes + 4, data + 1, size - 1);
	crc = crc32c(0, bytes + 4, size - 1);
	for (unsigned int i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(crc >> (8 * i));
	if (data[0] & 1)
		try_sheaf(bytes, size + 3);
	else
		try_minute(bytes, size + 3);
	free(bytes);
	return 0;
}
