/* SPDX-License-Identifier: Apache-2.0 */
/* Series of one moment by gateway. */
#include "fleet/shelf.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct place {
	char gateway[SHELF_GATEWAY];
	struct body *body;
	bool is_taken;
};

struct shelf {
	struct place places[SHELF_BODIES];
	unsigned int next; /* to be given up when another gateway comes */
	uint64_t time_ms;
	shelf_fn fn;
	void *data;
};

int shelf_new(shelf_fn fn, void *data, struct shelf **ret)
{
	struct shelf *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	s->fn = fn;
	s->data = data;
	for (unsigned int i = 0; i < SHELF_BODIES && r >= 0; i++)
		r = body_new(0, &s->places[i].body);
	if (r < 0) {
		shelf_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct shelf *shelf_free(struct shelf *s)
{
	if (!s)
		return NULL;
	for (unsigned int i = 0; i < SHELF_BODIES; i++)
		body_free(s->places[i].body);
	free(s);
	return NULL;
}

void shelf_begin(struct shelf *s, uint64_t time_ms)
{
	s->time_ms = time_ms;
	for (unsigned int i = 0; i < SHELF_BODIES; i++) {
		s->places[i].is_taken = false;
		body_reset(s->places[i].body, time_ms);
	}
}

static void place_flush(struct shelf *s, struct place *p)
{
	if (body_count(p->body))
		s->fn(s->data, p->gateway, body_message(p->body));
	body_reset(p->body, s->time_ms);
}

static struct place *place_find(struct shelf *s, const char *gateway)
{
	struct place *p;

	for (unsigned int i = 0; i < SHELF_BODIES; i++) {
		p = &s->places[i];
		if (p->is_taken && strncmp(p->gateway, gateway, SHELF_GATEWAY - 1) == 0)
			return p;
	}
	p = &s->places[s->next++ % SHELF_BODIES];
	if (p->is_taken)
		place_flush(s, p);
	str_copy(p->gateway, sizeof(p->gateway), gateway);
	p->is_taken = true;
	return p;
}

int shelf_add(struct shelf *s, const struct merge_series *series)
{
	const char *gateway = "";
	struct place *p;

	for (unsigned int i = 0; i < series->label_count; i++)
		if (str_equal(series->labels[i].key, "gateway"))
			gateway = series->labels[i].value;
	p = place_find(s, gateway);
	if (body_add(p->body, series) >= 0)
		return 0;
	place_flush(s, p);
	return body_add(p->body, series);
}

void shelf_end(struct shelf *s)
{
	for (unsigned int i = 0; i < SHELF_BODIES; i++) {
		if (s->places[i].is_taken)
			place_flush(s, &s->places[i]);
		s->places[i].is_taken = false;
	}
}
