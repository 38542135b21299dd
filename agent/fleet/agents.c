/* SPDX-License-Identifier: Apache-2.0 */
/* Agents, their incarnations, and sessions: who is who, who comes, who departs. */
#include "fleet/state.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AGENT_ID_MAX 255
#define LABEL_MAX    255
const char *const fleet_label_names[FLEET_AGENT_LABELS] = {"cluster", "namespace", "pod", "node"};

int fleet_new(const struct fleet_limits *limits, struct fleet **ret)
{
	struct fleet *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->magic = FLEET_MAGIC;
	f->limits = *limits;
	group_table_init(&f->groups, limits->series);
	*ret = f;
	return 0;
}

static void agent_free(struct fleet_agent *a)
{
	free(a->id);
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		free(a->labels[i]);
	free(a);
}

struct fleet *fleet_free(struct fleet *f)
{
	if (!f)
		return NULL;
	for (uint32_t i = 0; i < f->slot_count; i++)
		if (f->slots[i])
			fleet_incarnation_clear(f->slots[i]);
	for (uint32_t i = 0; i < f->agent_count; i++)
		agent_free(f->agents[i]);
	free(f->slots);
	free(f->session_buckets);
	free(f->agents);
	free(f->agent_buckets);
	group_table_fini(&f->groups);
	free(f);
	return NULL;
}

static uint32_t text_hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ULL;
	return (uint32_t)(h ^ h >> 32);
}

struct fleet_agent *fleet_find_agent(const struct fleet *f, const char *id)
{
	uint32_t at, i;

	if (!f->agent_bucket_count)
		return NULL;
	at = text_hash(id) & (f->agent_bucket_count - 1);
	for (; (i = f->agent_buckets[at]); at = (at + 1) & (f->agent_bucket_count - 1))
		if (strcmp(f->agents[i - 1]->id, id) == 0)
			return f->agents[i - 1];
	return NULL;
}

static int agent_buckets_fill(struct fleet *f, uint32_t n)
{
	uint32_t *fresh = calloc(n, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->agent_count; i++) {
		uint32_t at = text_hash(f->agents[i]->id) & (n - 1);

		while (fresh[at])
			at = (at + 1) & (n - 1);
		fresh[at] = i + 1;
	}
	free(f->agent_buckets);
	f->agent_buckets = fresh;
	f->agent_bucket_count = n;
	return 0;
}

static struct fleet_agent *agent_new(const char *id, const char *const *labels)
{
	struct fleet_agent *a = calloc(1, sizeof(*a));
	bool is_whole;

	if (!a)
		return NULL;
	a->id = strdup(id);
	is_whole = a->id != NULL;
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++) {
		a->labels[i] = strdup(labels && labels[i] ? labels[i] : "");
		is_whole = is_whole && a->labels[i];
	}
	if (is_whole)
		return a;
	agent_free(a);
	return NULL;
}

int fleet_add_agent(struct fleet *f, const char *id, const char *const *labels,
		    struct fleet_agent **ret)
{
	struct fleet_agent *a = fleet_find_agent(f, id);
	uint32_t at;
	int r;

	if (a) {
		*ret = a;
		return 0;
	}
	if (f->agent_count >= f->limits.agents)
		return -ENOSPC;
	if ((f->agent_count + 1) * 2ULL > f->agent_bucket_count) {
		r = agent_buckets_fill(f, f->agent_bucket_count ? f->agent_bucket_count * 2 : 64);
		if (r < 0)
			return r;
	}
	if (f->agent_count == f->agent_capacity) {
		uint32_t capacity = f->agent_capacity ? f->agent_capacity * 2 : 64;
		struct fleet_agent **agents = realloc(f->agents, capacity * sizeof(*agents));

		if (!agents)
			return -ENOMEM;
		f->agents = agents;
		f->agent_capacity = capacity;
	}
	a = agent_new(id, labels);
	if (!a)
		return -ENOMEM;
	at = text_hash(id) & (f->agent_bucket_count - 1);
	while (f->agent_buckets[at])
		at = (at + 1) & (f->agent_bucket_count - 1);
	f->agents[f->agent_count++] = a;
	f->agent_buckets[at] = f->agent_count;
	*ret = a;
	return 0;
}

bool fleet_agent_departed(const struct fleet_agent *agent, const uint8_t *id)
{
	for (uint32_t i = 0; i < agent->departed_count && i < FLEET_DEPARTED_MAX; i++)
		if (memcmp(agent->departed[i], id, FRAME_INCARNATION_BYTES) == 0)
			return true;
	return false;
}

static struct fleet_incarnation *most_silent(const struct fleet_agent *agent,
					     const struct fleet_incarnation *but)
{
	struct fleet_incarnation *found = NULL;

	for (uint32_t i = 0; i < agent->incarnation_count; i++)
		if (agent->incarnations[i] != but &&
		    (!found || agent->incarnations[i]->last_seen_ms < found->last_seen_ms))
			found = agent->incarnations[i];
	return found;
}

int fleet_add_incarnation(struct fleet *f, struct fleet_agent *agent, const uint8_t *id,
			  uint32_t session, struct fleet_incarnation **ret)
{
	struct fleet_incarnation *inc = calloc(1, sizeof(*inc));
	int r;

	if (!inc)
		return -ENOMEM;
	memcpy(inc->id, id, FRAME_INCARNATION_BYTES);
	inc->agent = agent;
	r = fleet_session_begin(f, inc, session);
	if (r < 0) {
		free(inc);
		return r;
	}
	if (agent->incarnation_count == FLEET_INCARNATIONS_MAX)
		fleet_fold(f, most_silent(agent, NULL));
	agent->incarnations[agent->incarnation_count++] = inc;
	*ret = inc;
	return 0;
}

static int name_check(const char *s, size_t max)
{
	if (strnlen(s, max + 1) > max)
		return -EINVAL;
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return -EINVAL;
	return 0;
}

static void labels_update(struct fleet_agent *a, const char *const *labels)
{
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++) {
		char *copy;

		if (!labels[i] || str_equal(a->labels[i], labels[i]))
			continue;
		copy = strdup(labels[i]);
		if (!copy)
			continue;
		free(a->labels[i]);
		a->labels[i] = copy;
	}
}

static int hello_check(const struct fleet_hello *hello, struct err *e)
{
	if (!*hello->agent || name_check(hello->agent, AGENT_ID_MAX) < 0)
		return err_set(e, -EINVAL, "agent id: 1 to %d printable bytes", AGENT_ID_MAX);
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		if (hello->labels[i] && name_check(hello->labels[i], LABEL_MAX) < 0)
			return err_set(e, -EINVAL,
				       "label %s of agent %s: at most %d printable bytes",
				       fleet_label_names[i], hello->agent, LABEL_MAX);
	return 0;
}

int fleet_say_hello(struct fleet *f, const struct fleet_hello *hello, uint32_t session,
		    uint64_t now_ms, uint32_t *ret_session, struct err *e)
{
	struct fleet_incarnation *inc = NULL;
	struct fleet_agent *agent;
	int r = hello_check(hello, e);

	if (r < 0)
		return r;
	r = fleet_add_agent(f, hello->agent, hello->labels, &agent);
	if (r < 0) {
		f->stats.agents_refused++;
		return err_set(e, r,
			       r == -ENOSPC ? "agent %s: %u agents are known already, the most"
					    : "agent %s: no memory beyond %u agents",
			       hello->agent, f->agent_count);
	}
	if (fleet_agent_departed(agent, hello->incarnation)) {
		f->stats.agents_refused++;
		return err_set(e, -ESTALE,
			       "agent %s: this incarnation was silent for too long and "
			       "departed; remove its spool",
			       hello->agent);
	}
	if (agent->incarnation_count && agent->is_sum != hello->is_sum) {
		f->stats.agents_refused++;
		return err_set(e, -EINVAL, "%s is the name of an %s here; give this one another",
			       hello->agent, agent->is_sum ? "aggregator" : "agent");
	}
	labels_update(agent, hello->labels);
	agent->is_sum = hello->is_sum;
	for (uint32_t i = 0; i < agent->incarnation_count && !inc; i++)
		if (memcmp(agent->incarnations[i]->id, hello->incarnation,
			   FRAME_INCARNATION_BYTES) == 0)
			inc = agent->incarnations[i];
	if (!inc) {
		r = fleet_add_incarnation(f, agent, hello->incarnation, session, &inc);
		if (r < 0) {
			f->stats.agents_refused++;
			return err_set(e, r, "agent %s: no room for another incarnation: %s",
				       hello->agent, err_text(r));
		}
	}
	inc->last_seen_ms = now_ms;
	*ret_session = inc->session;
	return 0;
}

uint64_t fleet_life(const struct fleet *f)
{
	return f->life;
}

void fleet_set_life(struct fleet *f, uint64_t life)
{
	f->life = life;
}

struct fleet_incarnation *fleet_current(const struct fleet_agent *agent)
{
	struct fleet_incarnation *found = NULL;

	for (uint32_t i = 0; i < agent->incarnation_count; i++)
		if (!found || agent->incarnations[i]->last_time_ms > found->last_time_ms)
			found = agent->incarnations[i];
	return found;
}

static void fold_series(struct fleet *f, const struct fleet_series *s)
{
	struct group *g = f->groups.groups[s->group];

	if (s->kind == METRIC_COUNTER)
		g->base.counter += s->v.counter;
	else if (s->kind == METRIC_HISTOGRAM && s->v.cells)
		group_add_cells(g, s->v.cells->first, s->v.cells->count, s->v.cells->counts);
}

static int series_raise(struct fleet *f, struct fleet_incarnation *to,
			const struct fleet_origin *from, const struct fleet_series *s)
{
	uint32_t origin, i;
	int r = fleet_origin_intern(to, from->instance, from->worker, &origin);

	if (r >= 0)
		r = fleet_series_intern(f, to, s->group, origin, s->kind, &i);
	if (r < 0)
		return r;
	if (s->kind == METRIC_HISTOGRAM)
		return cell_window_raise(&to->series[i].v.cells, s->v.cells);
	if (s->v.counter > to->series[i].v.counter)
		to->series[i].v.counter = s->v.counter;
	return 0;
}

/* The incarnations of an aggregator's sums all say totals of one log, and the most of them holds
 * (merge): what this one alone says stays in the most silent of the others, which will hardly speak
 * again. */
static void sums_keep(struct fleet *f, const struct fleet_incarnation *inc)
{
	struct fleet_incarnation *to = most_silent(inc->agent, inc);

	for (uint32_t i = 0; i < inc->series_count; i++) {
		const struct fleet_series *s = &inc->series[i];

		if (s->kind != METRIC_GAUGE && series_raise(f, to, &inc->origins[s->origin], s) < 0)
			f->stats.series_refused++;
	}
}

void fleet_fold(struct fleet *f, struct fleet_incarnation *inc)
{
	struct fleet_agent *a = inc->agent;
	uint32_t i = 0;

	f->series_count -= inc->series_count;
	if (a->is_sum && a->incarnation_count > 1)
		sums_keep(f, inc);
	else
		for (uint32_t s = 0; s < inc->series_count; s++)
			fold_series(f, &inc->series[s]);
	memcpy(a->departed[a->departed_count++ % FLEET_DEPARTED_MAX], inc->id,
	       FRAME_INCARNATION_BYTES);
	while (a->incarnations[i] != inc)
		i++;
	memmove(&a->incarnations[i], &a->incarnations[i + 1],
		(a->incarnation_count - i - 1) * sizeof(a->incarnations[0]));
	a->incarnation_count--;
	fleet_session_end(f, inc);
	f->stats.departed++;
	f->stats.held_bytes -= inc->held_bytes;
	fleet_incarnation_clear(inc);
}

void fleet_depart(struct fleet *f, uint64_t now_ms, uint64_t silence_ms)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < f->slot_count; i++) {
		struct fleet_incarnation *inc = f->slots[i];

		/* Sums go on where they were however long their aggregator was away; folded into
		 * the base they would be refused for ever, or counted twice under a new name. */
		if (inc && !inc->agent->is_sum && inc->last_seen_ms + silence_ms < now_ms)
			fleet_fold(f, inc);
	}
	/* An agent without incarnations is forgotten after as long again; what it may still send
	 * then would be a departed incarnation that nobody remembers. So: keep them, up to half the
	 * limit, the latest first. */
	if (f->agent_count <= f->limits.agents / 2)
		return;
	for (uint32_t i = 0; i < f->agent_count; i++) {
		if (f->agents[i]->incarnation_count)
			f->agents[kept++] = f->agents[i];
		else
			agent_free(f->agents[i]);
	}
	f->agent_count = kept;
	memset(f->agent_buckets, 0, f->agent_bucket_count * sizeof(*f->agent_buckets));
	for (uint32_t i = 0; i < kept; i++) {
		uint32_t at = text_hash(f->agents[i]->id) & (f->agent_bucket_count - 1);

		while (f->agent_buckets[at])
			at = (at + 1) & (f->agent_bucket_count - 1);
		f->agent_buckets[at] = i + 1;
	}
}

void fleet_stats(const struct fleet *f, struct fleet_stats *ret)
{
	*ret = f->stats;
	ret->agents = f->agent_count;
	ret->series = (uint32_t)f->series_count;
	ret->groups = f->groups.count;
}
