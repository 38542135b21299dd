/* SPDX-License-Identifier: Apache-2.0 */
/* Cursors: what each aggregator has, and what it gets next. Part of the spool. */
#include "bus/spool_state.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define CURSOR_MAGIC 0x3243505345444954ULL /* "TIDESPC2" */

static struct spool_cursor_set *set_find(const struct spool_cursor *c,
					 const uint8_t incarnation[FRAME_INCARNATION_BYTES])
{
	for (unsigned int i = 0; i < SPOOL_CURSOR_SETS; i++) {
		struct spool_cursor_set *set = &c->state->sets[i];

		if (set->used &&
		    memcmp(set->incarnation, incarnation, FRAME_INCARNATION_BYTES) == 0)
			return set;
	}
	return NULL;
}

/* Finds the set, or takes the place of the one that was not used for longest. */
struct spool_set *spool_cursor_set(struct spool_cursor *c,
				   const uint8_t incarnation[FRAME_INCARNATION_BYTES])
{
	struct spool_cursor_set *set = set_find(c, incarnation);

	if (!set) {
		set = &c->state->sets[0];
		for (unsigned int i = 1; i < SPOOL_CURSOR_SETS; i++)
			if (c->state->sets[i].used < set->used)
				set = &c->state->sets[i];
		*set = (struct spool_cursor_set){0};
		memcpy(set->incarnation, incarnation, FRAME_INCARNATION_BYTES);
	}
	set->used = ++c->state->uses;
	return &set->set;
}

/* A file name of the address; two addresses with one hash would be told apart by the payload. */
static void cursor_name(const char *address, char name[32])
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *address; address++)
		h = (h ^ (unsigned char)*address) * 0x100000001b3ULL;
	snprintf(name, 32, "cursor-%016" PRIx64, h);
}

static bool state_is_valid(const struct spool_cursor_state *state, const char *address)
{
	if (strncmp(state->address, address, sizeof(state->address)) != 0)
		return false;
	for (unsigned int i = 0; i < SPOOL_CURSOR_SETS; i++)
		if (state->sets[i].set.count > SPOOL_RANGES_MAX)
			return false;
	return true;
}

struct opening {
	struct spool_cursor *c;
	const struct spool_file *file;
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t last;          /* sequence seen in that incarnation */
	uint64_t damaged, lost; /* frames that nobody is known to have, and no file holds */
	bool knows_current;     /* the cursor was written down in the current incarnation */
};

static bool is_current(const struct spool *s, const uint8_t *incarnation)
{
	return memcmp(s->identity.incarnation, incarnation, FRAME_INCARNATION_BYTES) == 0;
}

/* Sequences that are in no file will never come, so they are settled. Inside a file they were
 * damaged; between files they died in the memory of a killed courier, or at the end of a file. */
static void opening_gap(struct opening *o, uint64_t last, bool is_in_file)
{
	const struct spool *s = o->c->spool;
	struct spool_set *set = spool_cursor_set(o->c, o->incarnation);
	uint64_t n;

	if (o->last >= last)
		return;
	n = spool_set_missing(set, o->last + 1, last);
	spool_set_add(set, o->last + 1, last);
	if (is_in_file)
		o->damaged += n;
	/* Without the twin sequences are skipped that were never given. */
	else if (o->knows_current && s->has_twin && is_current(s, o->incarnation))
		o->lost += n;
}

/* Counts what waits. */
static void opening_record(void *data, const struct spool_file *f,
			   const struct spool_record_header *h)
{
	struct opening *o = data;

	if (memcmp(o->incarnation, f->incarnation, sizeof(o->incarnation)) != 0) {
		memcpy(o->incarnation, f->incarnation, sizeof(o->incarnation));
		o->last = 0;
	}
	if (h->sequence > o->last) {
		opening_gap(o, h->sequence - 1, o->file == f);
		o->last = h->sequence;
	}
	o->file = f;
	if (!spool_set_has(spool_cursor_set(o->c, f->incarnation), h->sequence)) {
		o->c->pending_frames++;
		o->c->pending_bytes += h->length;
	}
}

/* Each frame once, however many cursors miss it; and those that a process before us found, but was
 * killed before it could tell. */
static void opening_count(struct spool *s, const struct opening *o)
{
	struct spool_cursor_state *state = o->c->state;

	state->untold_damaged += o->damaged;
	state->untold_lost += o->lost;
	if (state->untold_damaged > s->opened_damaged) {
		s->stats.dropped_damaged += state->untold_damaged - s->opened_damaged;
		s->opened_damaged = state->untold_damaged;
	}
	if (state->untold_lost > s->opened_lost) {
		s->stats.dropped_lost += state->untold_lost - s->opened_lost;
		s->opened_lost = state->untold_lost;
	}
}

void spool_told(struct spool *s)
{
	for (unsigned int i = 0; i < s->cursor_count; i++) {
		struct spool_cursor *c = s->cursors[i];

		if (!c->state->untold_damaged && !c->state->untold_lost)
			continue;
		c->state->untold_damaged = c->state->untold_lost = 0;
		c->is_dirty = true;
		spool_cursor_save(c);
	}
}

static void cursor_free(struct spool_cursor *c)
{
	spool_slots_close(&c->slots);
	free(c->state);
	free(c->readers[0].buf);
	free(c->readers[1].buf);
	free(c);
}

static int cursor_load(struct spool_cursor *c, const char *address)
{
	struct opening o = {.c = c};
	struct spool *s = c->spool;
	char name[32];
	uint64_t damaged;
	int r = 0;

	cursor_name(address, name);
	if (s->dir_fd >= 0)
		r = spool_slots_open(&c->slots, s->dir_fd, name, CURSOR_MAGIC, sizeof(*c->state),
				     c->state);
	if (r == -ENOMEM)
		return r;
	/* Without its file a cursor begins empty: all is sent again, which harms nobody. */
	if (r != 1 || !state_is_valid(c->state, address)) {
		memset(c->state, 0, sizeof(*c->state));
		str_copy(c->state->address, sizeof(c->state->address), address);
	}
	o.knows_current = set_find(c, s->identity.incarnation);
	for (unsigned int i = 0; i < s->file_count; i++)
		spool_file_walk(s, &s->files[i], opening_record, &o, &damaged);
	if (!is_current(s, o.incarnation)) {
		memcpy(o.incarnation, s->identity.incarnation, sizeof(o.incarnation));
		o.last = 0;
	}
	opening_gap(&o, s->next_sequence - 1 - s->memory_count, false);
	opening_count(s, &o);
	/* Written at once: the next process must not count them again, and must know which it misses. */
	spool_cursor_set(c, s->identity.incarnation);
	c->is_dirty = true;
	spool_cursor_save(c);
	for (unsigned int i = 0; i < s->memory_count; i++) {
		c->pending_frames++;
		c->pending_bytes += s->memory[i].size;
	}
	return 0;
}

int spool_cursor_open(struct spool *s, const char *address, struct spool_cursor **ret)
{
	struct spool_cursor *c;
	int r;

	if (s->cursor_count == SPOOL_CURSORS_MAX)
		return -ENOSPC;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->spool = s;
	c->slots.fd = -1;
	c->state = calloc(1, sizeof(*c->state));
	c->readers[0].buf = malloc(FRAME_SEALED_MAX);
	c->readers[1].buf = malloc(FRAME_SEALED_MAX);
	r = c->state && c->readers[0].buf && c->readers[1].buf ? cursor_load(c, address) : -ENOMEM;
	if (r < 0) {
		cursor_free(c);
		return r;
	}
	s->cursors[s->cursor_count++] = c;
	spool_cursor_rewind(c);
	*ret = c;
	return 0;
}

struct spool_cursor *spool_cursor_close(struct spool_cursor *c)
{
	struct spool *s;

	if (!c)
		return NULL;
	s = c->spool;
	spool_cursor_save(c);
	for (unsigned int i = 0; i < s->cursor_count; i++) {
		if (s->cursors[i] != c)
			continue;
		memmove(&s->cursors[i], &s->cursors[i + 1],
			(s->cursor_count - i - 1) * sizeof(s->cursors[0]));
		s->cursor_count--;
		break;
	}
	cursor_free(c);
	return NULL;
}

void spool_cursor_save(struct spool_cursor *c)
{
	if (c->is_dirty && spool_slots_write(&c->slots, c->state) == 0)
		c->is_dirty = false;
}

void spool_cursor_rewind(struct spool_cursor *c)
{
	const struct spool *s = c->spool;
	struct spool_reader *old = &c->readers[SPOOL_OLD], *live = &c->readers[SPOOL_LIVE];

	old->number = 0;
	old->offset = 0;
	old->last = 0;
	old->until = s->next_sequence;
	live->number = s->file_count ? s->files[s->file_count - 1].number : 0;
	live->offset = s->file_count ? (off_t)s->files[s->file_count - 1].bytes : 0;
	live->last = s->next_sequence - 1;
	live->until = UINT64_MAX;
	old->has_record = live->has_record = false;
}

/* Is this a frame to hand out? */
static bool is_wanted(struct spool_cursor *c, const struct spool_reader *r,
		      const uint8_t *incarnation, uint64_t sequence)
{
	struct spool_cursor_set *set = set_find(c, incarnation);

	if (is_current(c->spool, incarnation) && (sequence <= r->last || sequence >= r->until))
		return false;
	return !set || !spool_set_has(&set->set, sequence);
}

static const struct spool_file *reader_file(const struct spool *s, struct spool_reader *r)
{
	for (unsigned int i = 0; i < s->file_count; i++) {
		const struct spool_file *f = &s->files[i];

		if (f->number < r->number)
			continue;
		if (f->number > r->number || r->offset < (off_t)sizeof(struct spool_file_header)) {
			r->number = f->number;
			r->offset = sizeof(struct spool_file_header);
		}
		return f;
	}
	return NULL;
}

static bool peek_disk(struct spool_cursor *c, struct spool_reader *r)
{
	const struct spool_file *f;
	struct spool_record_header h;
	uint64_t skipped;
	off_t at;

	while ((f = reader_file(c->spool, r))) {
		at = spool_file_next(f->fd, r->offset, (off_t)f->bytes, &h, r->buf, &skipped);
		if (at <= 0) { /* the end of this file; there may be more to come in the last */
			if (f == &c->spool->files[c->spool->file_count - 1])
				return false;
			r->number = f->number + 1;
			r->offset = 0;
			continue;
		}
		r->offset = at;
		if (is_wanted(c, r, f->incarnation, h.sequence)) {
			r->next_number = f->number;
			r->next_offset = at + (off_t)(sizeof(h) + h.length);
			r->record = (struct spool_record){
				.sequence = h.sequence,
				.time_ms = h.time_ms,
				.data = r->buf,
				.size = h.length,
			};
			memcpy(r->record.incarnation, f->incarnation, FRAME_INCARNATION_BYTES);
			return true;
		}
		if (is_current(c->spool, f->incarnation) && h.sequence >= r->until)
			return false;
		r->offset = at + (off_t)(sizeof(h) + h.length);
	}
	return false;
}

static bool peek_memory(struct spool_cursor *c, struct spool_reader *r)
{
	const struct spool *s = c->spool;

	for (unsigned int i = 0; i < s->memory_count; i++) {
		const struct spool_memory_frame *m = &s->memory[i];

		if (!is_wanted(c, r, s->identity.incarnation, m->sequence))
			continue;
		memcpy(r->buf, m->data, m->size);
		r->next_number = r->number;
		r->next_offset = r->offset;
		r->record = (struct spool_record){
			.sequence = m->sequence,
			.time_ms = m->time_ms,
			.data = r->buf,
			.size = m->size,
		};
		memcpy(r->record.incarnation, s->identity.incarnation, FRAME_INCARNATION_BYTES);
		return true;
	}
	return false;
}

int spool_cursor_peek(struct spool_cursor *c, enum spool_end end, struct spool_record *ret)
{
	struct spool_reader *r = &c->readers[end];

	if (r->has_record && !is_wanted(c, r, r->record.incarnation, r->record.sequence))
		r->has_record = false;
	if (!r->has_record)
		r->has_record = peek_disk(c, r) || peek_memory(c, r);
	if (!r->has_record)
		return 0;
	*ret = r->record;
	return 1;
}

void spool_cursor_take(struct spool_cursor *c, enum spool_end end)
{
	struct spool_reader *r = &c->readers[end];

	CHECK(r->has_record);
	r->number = r->next_number;
	r->offset = r->next_offset;
	if (is_current(c->spool, r->record.incarnation))
		r->last = r->record.sequence;
	r->has_record = false;
}

void spool_cursor_appended(struct spool_cursor *c, size_t size)
{
	c->pending_frames++;
	c->pending_bytes += size;
}

static void pending_less(struct spool_cursor *c, size_t size)
{
	if (c->pending_frames)
		c->pending_frames--;
	c->pending_bytes -= size < c->pending_bytes ? size : c->pending_bytes;
	if (!c->pending_frames)
		c->pending_bytes = 0;
}

bool spool_cursor_lost(struct spool_cursor *c, const uint8_t incarnation[FRAME_INCARNATION_BYTES],
		       uint64_t sequence, size_t size)
{
	struct spool_set *set = spool_cursor_set(c, incarnation);

	if (spool_set_has(set, sequence))
		return false;
	spool_set_add(set, sequence, sequence);
	c->is_dirty = true;
	pending_less(c, size);
	return true;
}

void spool_cursor_settle(struct spool_cursor *c, const uint8_t incarnation[FRAME_INCARNATION_BYTES],
			 uint64_t sequence, size_t size, enum spool_fate fate)
{
	if (!spool_cursor_lost(c, incarnation, sequence, size))
		return;
	/* No file holds it: were we killed, the next process would take it for lost. */
	if (c->spool->memory_count)
		spool_cursor_save(c);
	if (fate == SPOOL_REFUSED)
		c->spool->stats.dropped_refused++;
	else if (fate == SPOOL_UNKNOWN)
		c->spool->stats.dropped_unknown++;
}

uint64_t spool_cursor_pending(const struct spool_cursor *c, uint64_t *ret_frames)
{
	if (ret_frames)
		*ret_frames = c->pending_frames;
	return c->pending_bytes;
}
