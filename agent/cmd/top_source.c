/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owns three readers a file: two copies of ticks, and one that only looks whether there is a newer
 * tick, so that the older copy is given up for a newer one only.
 */
#include "cmd/top_source.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct pair {
	char path[PATH_MAX];
	struct segment_reader *watch, *now, *before;
	bool has_now, has_before;
};

struct top_source {
	struct pair host, app;
	bool has_app; /* is to be looked for */
	struct top_sample now, before;
};

/* ---- one file ---- */

static void pair_close(struct pair *p)
{
	p->watch = segment_reader_close(p->watch);
	p->now = segment_reader_close(p->now);
	p->before = segment_reader_close(p->before);
	p->has_now = p->has_before = false;
}

static int pair_open(struct pair *p, struct err *e)
{
	int r;

	if (p->watch)
		return 0;
	r = segment_reader_open(p->path, &p->watch, e);
	if (r >= 0)
		r = segment_reader_open(p->path, &p->now, e);
	if (r >= 0)
		r = segment_reader_open(p->path, &p->before, e);
	if (r < 0)
		pair_close(p);
	return r;
}

/* 1: there is a newer tick, and it is `now`. */
static int pair_follow(struct pair *p, struct err *e)
{
	const struct segment_header *seen, *have;
	struct segment_reader *taken;
	int r = pair_open(p, e);

	if (r >= 0)
		r = segment_reader_refresh_gateways(p->watch, e);
	if (r < 0)
		return r;
	seen = segment_reader_header(p->watch);
	have = segment_reader_header(p->now);
	if (p->has_now && seen->life == have->life && seen->tick_mono_ns == have->tick_mono_ns)
		return 0;
	r = segment_reader_refresh(p->before, e);
	if (r < 0)
		return r;
	taken = p->before;
	p->before = p->now;
	p->now = taken;
	p->has_before = p->has_now;
	p->has_now = true;
	return 1;
}

static bool get(const void *data, unsigned int index, struct segment_series *ret)
{
	return segment_reader_series(data, index, ret);
}

static void file_fill(const struct segment_reader *r, bool is_there, struct top_file *f)
{
	*f = (struct top_file){0};
	if (!is_there)
		return;
	f->life = segment_reader_header(r)->life;
	/* 0 means that there is no file; a writer's random number may be anything. */
	f->life += !f->life;
	f->tick_mono_ns = segment_reader_header(r)->tick_mono_ns;
	f->count = segment_reader_series_count(r);
	f->get = get;
	f->data = r;
}

static void sample_fill(struct top_sample *t, const struct segment_reader *host, bool has_host,
			const struct segment_reader *app, bool has_app)
{
	*t = (struct top_sample){0};
	file_fill(host, has_host, &t->host);
	file_fill(app, has_app, &t->app);
	if (!has_host)
		return;
	t->gateway_count = segment_reader_gateways(host);
	/* Ends the strings of each. */
	for (unsigned int i = 0; i < t->gateway_count; i++)
		segment_reader_gateway(host, i);
	t->gateways = segment_reader_gateway(host, 0);
}

/* ---- both ---- */

int top_source_open(const char *dir, const char *segment, struct top_source **ret, struct err *e)
{
	struct top_source *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	if (segment)
		str_copy(s->host.path, sizeof(s->host.path), segment);
	else
		snprintf(s->host.path, sizeof(s->host.path), "%s/host.seg", dir);
	s->has_app = !segment;
	if (s->has_app)
		snprintf(s->app.path, sizeof(s->app.path), "%s/app.seg", dir);
	r = pair_open(&s->host, e);
	if (r < 0) {
		top_source_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct top_source *top_source_close(struct top_source *s)
{
	if (!s)
		return NULL;
	pair_close(&s->host);
	pair_close(&s->app);
	free(s);
	return NULL;
}

int top_source_follow(struct top_source *s, struct err *e)
{
	int r = pair_follow(&s->host, e), app = 0;

	if (r >= 0 && segment_reader_header(s->host.watch)->kind != SEGMENT_HOST) {
		s->host.has_now = false;
		return err_set(e, -EBADMSG, "segment %s: not of a host, so no gateways are in it",
			       s->host.path);
	}
	if (s->has_app)
		app = pair_follow(&s->app, NULL);
	if (app < 0 && app != -EAGAIN)
		pair_close(&s->app);
	sample_fill(&s->now, s->host.now, s->host.has_now, s->app.now, s->app.has_now);
	sample_fill(&s->before, s->host.before, s->host.has_before, s->app.before,
		    s->app.has_before);
	return r;
}

const struct top_sample *top_source_now(const struct top_source *s)
{
	return &s->now;
}

const struct top_sample *top_source_before(const struct top_source *s)
{
	return &s->before;
}

const struct segment_header *top_source_header(const struct top_source *s)
{
	return segment_reader_header(s->host.watch);
}
