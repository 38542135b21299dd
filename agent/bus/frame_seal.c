/* SPDX-License-Identifier: Apache-2.0 */
/* Protobuf message, zstd where it helps, checksum. Owned by one encoder. Pure. */
#include "bus/frame_seal.h"

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "bus/frame_budget.h"
#include "bus/frame_dictionary.h"
#include "bus/frame_open.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ZSTD_LEVEL       3
#define ZSTD_LEAST_BYTES 48u   /* of texts; below, its header and tables never pay */
#define ZSTD_LEAST_BITS  4096u /* of a frame without texts: bit sections hold little for it */

static ProtobufCBinaryData bytes_of(const struct frame_bits_writer *w)
{
	return (ProtobufCBinaryData){.len = w->size, .data = w->data};
}

/* protobuf-c's structs are not const-correct; packing does not write. */
static char *unconst(const char *s)
{
	return (char *)(uintptr_t)s;
}

/* Points into s->text: metric, unit, help, then the label strings. */
static unsigned int strings_of(const struct interned *s, const char **head, const char **labels)
{
	const char *at = s->text;

	for (unsigned int i = 0; i < 3; i++, at += strlen(at) + 1)
		head[i] = at;
	for (unsigned int i = 0; i < 2u * s->label_count; i++, at += strlen(at) + 1)
		labels[i] = at;
	return 2u * s->label_count;
}

#define STRINGS_MAX (2 * SEGMENT_LABELS_MAX)

struct definition_slot {
	Tidegate__SeriesDef message;
	char *labels[STRINGS_MAX];
};

static void definitions_fill(struct definition_slot *slots, Tidegate__SeriesDef **messages,
			     const struct frame_sections *sections)
{
	const char *head[3], *labels[2][STRINGS_MAX] = {{NULL}}, *metric = "";
	unsigned int counts[2] = {0, 0};
	uint32_t prev = 0;

	for (size_t i = 0; i < sections->definition_count; i++) {
		const struct interned *s = sections->definitions[i];
		const char **own = labels[i & 1], **before = labels[(i & 1) ^ 1];
		unsigned int n = strings_of(s, head, own), shared = 0, most = counts[(i & 1) ^ 1];
		Tidegate__SeriesDef *m = &slots[i].message;

		while (shared < n && shared < most && strcmp(own[shared], before[shared]) == 0)
			shared++;
		tidegate__series_def__init(m);
		m->id = s->id - prev;
		if (strcmp(head[0], metric) != 0)
			m->metric = unconst(head[0]);
		m->shared = shared;
		for (unsigned int k = shared; k < n; k++)
			slots[i].labels[k - shared] = unconst(own[k]);
		m->labels = slots[i].labels;
		m->n_labels = n - shared;
		m->kind = s->kind;
		m->merge = s->merge;
		m->scope = s->scope;
		m->unit = unconst(head[1]);
		m->help = unconst(head[2]);
		messages[i] = m;
		metric = head[0];
		counts[i & 1] = n;
		prev = s->id;
	}
}

static void events_fill(const struct frame_head *head, Tidegate__Event *events,
			Tidegate__Event **pointers)
{
	for (unsigned int i = 0; i < head->event_count; i++) {
		tidegate__event__init(&events[i]);
		events[i].id = head->events[i].id;
		events[i].time_ms = head->events[i].time_ms;
		events[i].kind = unconst(head->events[i].kind);
		events[i].gateway = unconst(head->events[i].gateway);
		events[i].json = unconst(head->events[i].json);
		pointers[i] = &events[i];
	}
}

static int reserve(uint8_t **data, size_t *cap, size_t need)
{
	uint8_t *grown;

	if (*data && need <= *cap)
		return 0;
	grown = realloc(*data, need);
	if (!grown)
		return -ENOMEM;
	*data = grown;
	*cap = need;
	return 0;
}

static int pack(struct frame_seal *seal, const struct frame_head *head,
		const struct frame_sections *sections, size_t *ret_size)
{
	_cleanup_free_ struct definition_slot *slots = NULL;
	_cleanup_free_ Tidegate__SeriesDef **messages = NULL;
	Tidegate__Event events[FRAME_EVENTS_MAX], *event_pointers[FRAME_EVENTS_MAX];
	Tidegate__Frame m = TIDEGATE__FRAME__INIT;
	int r;

	if (sections->definition_count) {
		slots = malloc(sections->definition_count * sizeof(*slots));
		messages = malloc(sections->definition_count * sizeof(*messages));
		if (!slots || !messages)
			return -ENOMEM;
		definitions_fill(slots, messages, sections);
	}
	events_fill(head, events, event_pointers);
	m.sequence = head->sequence;
	m.time_ms = head->time_ms;
	m.interval_ms = head->interval_ms;
	m.key = head->is_key;
	m.series = head->series;
	m.events_dropped = head->events_dropped;
	m.n_defs = sections->definition_count;
	m.defs = messages;
	m.counters = bytes_of(&sections->counters);
	m.gauges = bytes_of(&sections->gauges);
	m.cells = bytes_of(&sections->histograms);
	m.absent = bytes_of(&sections->absent);
	m.n_events = head->event_count;
	m.events = event_pointers;
	*ret_size = tidegate__frame__get_packed_size(&m);
	r = reserve(&seal->plain, &seal->plain_cap, *ret_size);
	if (r < 0)
		return r;
	tidegate__frame__pack(&m, seal->plain);
	return 0;
}

/* What zstd makes of it, into out, if that is below *size. */
static void try_zstd(struct frame_seal *seal, const ZSTD_CDict *dictionary, size_t plain,
		     uint8_t *out, size_t *size, uint8_t *flags)
{
	/* A result that is no smaller does not fit and is an error. */
	size_t n = dictionary ? ZSTD_compress_usingCDict(seal->zstd, out, *size - 1, seal->plain,
							 plain, dictionary)
			      : ZSTD_compressCCtx(seal->zstd, out, *size - 1, seal->plain, plain,
						  ZSTD_LEVEL);

	if (ZSTD_isError(n))
		return;
	*size = n;
	*flags = FRAME_FLAG_ZSTD | (dictionary ? FRAME_FLAG_DICTIONARY : 0);
}

static void seal_finish(uint8_t *sealed, size_t size, uint8_t flags)
{
	uint32_t crc = crc32c(0, sealed + FRAME_SEAL_BYTES, size);

	sealed[0] = flags;
	for (unsigned int i = 0; i < 4; i++)
		sealed[1 + i] = (uint8_t)(crc >> (8 * i));
}

/* seal->plain packed as shortest. */
static int seal_plain(struct frame_seal *seal, size_t plain, const ZSTD_CDict *dictionary,
		      size_t *ret_size)
{
	uint8_t flags = 0, tried_flags = 0;
	size_t size = plain, tried;
	int r;

	if ((r = reserve(&seal->sealed, &seal->sealed_cap, FRAME_SEAL_BYTES + plain)) < 0 ||
	    (r = reserve(&seal->tried, &seal->tried_cap, FRAME_SEAL_BYTES + plain)) < 0)
		return r;
	if (!seal->zstd)
		seal->zstd = ZSTD_createCCtx();
	if (!seal->zstd)
		return -ENOMEM;
	try_zstd(seal, NULL, plain, seal->sealed + FRAME_SEAL_BYTES, &size, &flags);
	tried = size;
	if (dictionary)
		try_zstd(seal, dictionary, plain, seal->tried + FRAME_SEAL_BYTES, &tried,
			 &tried_flags);
	if (tried_flags) {
		uint8_t *swap = seal->sealed;
		size_t cap = seal->sealed_cap;

		seal->sealed = seal->tried;
		seal->sealed_cap = seal->tried_cap;
		seal->tried = swap;
		seal->tried_cap = cap;
		size = tried;
		flags = tried_flags;
	}
	if (!flags)
		memcpy(seal->sealed + FRAME_SEAL_BYTES, seal->plain, plain);
	seal_finish(seal->sealed, size, flags);
	*ret_size = FRAME_SEAL_BYTES + size;
	return 0;
}

int frame_seal(struct frame_seal *seal, const struct frame_head *head,
	       const struct frame_sections *sections, const uint8_t **ret_data, size_t *ret_size)
{
	bool has_texts = sections->definition_count || head->event_count;
	size_t plain;
	int r;

	r = pack(seal, head, sections, &plain);
	if (r < 0)
		return r;
	if (plain >= (has_texts ? ZSTD_LEAST_BYTES : ZSTD_LEAST_BITS)) {
		r = seal_plain(seal, plain, has_texts ? frame_dictionary_pack() : NULL, ret_size);
		if (r < 0)
			return r;
	} else {
		r = reserve(&seal->sealed, &seal->sealed_cap, FRAME_SEAL_BYTES + plain);
		if (r < 0)
			return r;
		memcpy(seal->sealed + FRAME_SEAL_BYTES, seal->plain, plain);
		seal_finish(seal->sealed, plain, 0);
		*ret_size = FRAME_SEAL_BYTES + plain;
	}
	*ret_data = seal->sealed;
	return 0;
}

int frame_without_dictionary(const uint8_t *data, size_t size, uint8_t **ret, size_t *ret_size)
{
	struct frame_budget budget;
	struct frame_seal seal = {0};
	const uint8_t *plain;
	size_t plain_size;
	int r;

	*ret = NULL;
	if (!size || !(data[0] & FRAME_FLAG_DICTIONARY))
		return 0;
	frame_budget_init(&budget, FRAME_PLAIN_MAX + 4096);
	r = frame_open(&budget, data, size, &plain, &plain_size, NULL);
	if (r >= 0)
		r = reserve(&seal.plain, &seal.plain_cap, plain_size);
	if (r >= 0) {
		memcpy(seal.plain, plain, plain_size);
		r = seal_plain(&seal, plain_size, NULL, ret_size);
	}
	if (r >= 0)
		*ret = TAKE_PTR(seal.sealed);
	frame_seal_fini(&seal);
	frame_budget_fini(&budget);
	return r < 0 ? r : 0;
}

void frame_seal_fini(struct frame_seal *seal)
{
	ZSTD_freeCCtx(seal->zstd);
	free(seal->plain);
	free(seal->sealed);
	free(seal->tried);
	*seal = (struct frame_seal){0};
}
