/* SPDX-License-Identifier: Apache-2.0 */
#include "variants.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TOTALS_EACH 60u

struct variant {
	struct standard state;
	struct frame_encoder *encoder;
	struct variant_frame *frames; /* by sequence; 0 is empty */
	uint64_t count, capacity;
};

static struct variant variants[VARIANTS];
static uint64_t base_ms;

static struct variant *variant_of(unsigned int number)
{
	struct variant *v = &variants[number];

	if (v->encoder)
		return v;
	if (frame_encoder_new(&v->encoder) < 0)
		return NULL;
	if (!base_ms)
		base_ms = clock_real_ns() / NS_PER_MS;
	standard_init(&v->state, number, "");
	return v;
}

static int frame_next(struct variant *v, unsigned int number)
{
	uint64_t sequence = v->count ? v->count : 1, now = clock_real_ns() / NS_PER_MS;
	struct variant_frame *f;
	const uint8_t *data;
	int r;

	if (sequence >= v->capacity) {
		uint64_t capacity = v->capacity ? v->capacity * 2 : 64;

		f = realloc(v->frames, capacity * sizeof(*f));
		if (!f)
			return -ENOMEM;
		v->frames = f;
		v->capacity = capacity;
	}
	f = &v->frames[sequence];
	*f = (struct variant_frame){.time_ms = sequence == 1 ? base_ms : now};
	standard_step(&v->state);
	r = standard_frame(&v->state, v->encoder, sequence, f->time_ms,
			   sequence == 1                                    ? FRAME_KEY
			   : sequence % TOTALS_EACH == number % TOTALS_EACH ? FRAME_TOTALS
									    : FRAME_CHANGES,
			   &data, &f->size);
	if (r < 0)
		return r;
	f->total = standard_total(&v->state);
	f->data = malloc(f->size);
	if (!f->data)
		return -ENOMEM;
	memcpy(f->data, data, f->size);
	v->count = sequence + 1;
	return 0;
}

const struct variant_frame *variant_frame(unsigned int number, uint64_t sequence)
{
	struct variant *v = variant_of(number);

	while (v && sequence >= v->count)
		if (frame_next(v, number) < 0)
			return NULL;
	return v ? &v->frames[sequence] : NULL;
}

int variant_first(unsigned int number, const char *instance, const uint8_t **ret, size_t *ret_size)
{
	static struct frame_encoder *encoder;
	static struct standard state;
	int r;

	frame_encoder_free(encoder);
	encoder = NULL;
	r = variant_frame(number, 1) ? frame_encoder_new(&encoder) : -ENOMEM;
	if (r < 0)
		return r;
	standard_init(&state, number, instance);
	standard_step(&state);
	return standard_frame(&state, encoder, 1, base_ms, FRAME_KEY, ret, ret_size);
}

uint64_t variant_total(unsigned int number, uint64_t sequence)
{
	return sequence ? variants[number].frames[sequence].total : 0;
}
