/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a frame: every count is checked against what is left of the section, every id and cell
 * against its limit, and all memory comes from the budget. Pure. */
#include "bus/frame_values.h"

#include "bus/frame_cells.h"

#include <errno.h>
#include <string.h>

struct values {
	struct frame *frame;
	struct frame_budget *budget;
	struct err *e;
};

/* An open section: n items, their ids ascending by gaps. */
struct section {
	struct frame_bits_reader r;
	void *items;
	size_t n;
	enum frame_code code;
	unsigned int k_gap;
	uint32_t id;
};

/* Opens it and allocates its items, of which each takes at least min_bits. */
static int section_open(const struct values *v, struct section *s, const ProtobufCBinaryData *data,
			enum frame_code gap, unsigned int min_bits, size_t item_size)
{
	uint64_t n;

	*s = (struct section){.code = gap};
	if (!data->len)
		return 0;
	frame_bits_open(&s->r, data->data, data->len);
	n = frame_bits_get_code(&s->r, FRAME_BITS_K_COUNT);
	if (s->r.failed || !n || n > (s->r.bits - s->r.at) / min_bits)
		return frame_is_damaged(v->e, "number of items");
	if (n > FRAME_SERIES_MAX)
		return err_set(v->e, -E2BIG, "frame: %llu series in a section, %u are allowed",
			       (unsigned long long)n, FRAME_SERIES_MAX);
	s->n = (size_t)n;
	s->items = frame_budget_array(v->budget, s->n, item_size);
	if (!s->items)
		return frame_budget_error(v->budget, v->e);
	s->k_gap = frame_bits_get_k(&s->r);
	return 0;
}

static uint64_t place_get(struct frame_bits_reader *r, enum frame_code code, unsigned int k)
{
	return k == FRAME_BITS_K_TRAINED ? frame_code_get(r, code) : frame_bits_get_code(r, k);
}

/* Next id; 0 when it is damaged. */
static uint32_t next_id(struct section *s)
{
	uint64_t gap = place_get(&s->r, s->code, s->k_gap);

	if (gap >= FRAME_ID_MAX - s->id)
		s->r.failed = true;
	s->id = s->r.failed ? 0 : s->id + 1 + (uint32_t)gap;
	return s->id;
}

static int read_counters(const struct values *v, const ProtobufCBinaryData *data)
{
	struct frame_code_recent recent = {0};
	struct frame_counter *items;
	struct section s;
	unsigned int k;
	int r = section_open(v, &s, data, FRAME_CODE_COUNTER_GAP, 2, sizeof(*items));

	if (r < 0 || !s.n)
		return r;
	items = s.items;
	k = frame_bits_get_k(&s.r);
	for (size_t i = 0; i < s.n && !s.r.failed; i++) {
		items[i].id = next_id(&s);
		items[i].value = k == FRAME_BITS_K_TRAINED ? frame_code_get_counter(&s.r, &recent)
							   : frame_bits_get_code(&s.r, k);
	}
	if (!frame_bits_is_done(&s.r))
		return frame_is_damaged(v->e, "counters");
	v->frame->counters = items;
	v->frame->counter_count = s.n;
	return 0;
}

static double read_gauge(struct frame_bits_reader *r, unsigned int k)
{
	uint64_t bits;
	unsigned int zeros;
	double v;

	if (!frame_bits_get(r, 1)) {
		bits = place_get(r, FRAME_CODE_GAUGE, k);
		if (bits >> 54)
			r->failed = true;
		return (double)(int64_t)(bits >> 1 ^ (~(bits & 1) + 1));
	}
	zeros = (unsigned int)frame_bits_get(r, 6);
	bits = frame_bits_get(r, 64 - zeros) << zeros;
	memcpy(&v, &bits, sizeof(v));
	return v;
}

static int read_gauges(const struct values *v, const ProtobufCBinaryData *data)
{
	struct frame_gauge *items;
	struct section s;
	unsigned int k;
	int r = section_open(v, &s, data, FRAME_CODE_GAUGE_GAP, 3, sizeof(*items));

	if (r < 0 || !s.n)
		return r;
	items = s.items;
	k = frame_bits_get_k(&s.r);
	for (size_t i = 0; i < s.n && !s.r.failed; i++) {
		items[i].id = next_id(&s);
		items[i].value = read_gauge(&s.r, k);
	}
	if (!frame_bits_is_done(&s.r))
		return frame_is_damaged(v->e, "gauges");
	v->frame->gauges = items;
	v->frame->gauge_count = s.n;
	return 0;
}

static int cells_alloc(const struct values *v, uint32_t n, uint16_t **ret_cells,
		       uint64_t **ret_counts)
{
	*ret_cells = frame_budget_array(v->budget, n, sizeof(**ret_cells));
	*ret_counts = frame_budget_array(v->budget, n, sizeof(**ret_counts));
	return *ret_cells && *ret_counts ? 0 : frame_budget_error(v->budget, v->e);
}

/* -------- version 1 -------- */

static int read_cells_1(const struct values *v, struct frame_bits_reader *r, unsigned int k_cell,
			unsigned int k_count, struct frame_histogram *h)
{
	uint64_t next = 0, gap, *counts;
	uint16_t *cells;
	int rc = cells_alloc(v, h->count, &cells, &counts);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < h->count; i++) {
		gap = frame_bits_get_code(r, k_cell);
		if (r->failed || gap >= HIST_CELLS - next)
			return frame_is_damaged(v->e, "histogram cell");
		cells[i] = (uint16_t)(next + gap);
		next += gap + 1;
		counts[i] = frame_bits_get_code(r, k_count);
	}
	h->cells = cells;
	h->counts = counts;
	return 0;
}

/* A parameter for which there is no trained code. */
static unsigned int get_plain_k(struct frame_bits_reader *r)
{
	unsigned int k = frame_bits_get_k(r);

	r->failed |= k == FRAME_BITS_K_TRAINED;
	return k;
}

static int read_histograms_1(const struct values *v, const ProtobufCBinaryData *data)
{
	unsigned int k_length, k_cell, k_count;
	struct frame_histogram *items;
	struct section s;
	int r = section_open(v, &s, data, FRAME_CODE_HISTOGRAM_GAP, 2, sizeof(*items));

	if (r < 0 || !s.n)
		return r;
	items = s.items;
	k_length = get_plain_k(&s.r);
	k_cell = get_plain_k(&s.r);
	k_count = get_plain_k(&s.r);
	for (size_t i = 0; i < s.n && !s.r.failed; i++) {
		uint32_t id = next_id(&s);
		uint64_t length = frame_bits_get_code(&s.r, k_length);

		if (s.r.failed || length > HIST_CELLS)
			return frame_is_damaged(v->e, "histogram length");
		items[i] = (struct frame_histogram){.id = id, .count = (uint32_t)length};
		r = read_cells_1(v, &s.r, k_cell, k_count, &items[i]);
		if (r < 0)
			return r;
	}
	if (!frame_bits_is_done(&s.r))
		return frame_is_damaged(v->e, "histograms");
	v->frame->histograms = items;
	v->frame->histogram_count = s.n;
	return 0;
}

/* -------- version 2 -------- */

static int read_cells(const struct values *v, struct frame_bits_reader *r, unsigned int *start,
		      const struct frame_histogram *before, struct frame_histogram *h)
{
	bool is_same = frame_bits_get(r, 1);
	uint64_t *counts;
	uint16_t *cells;
	int rc;

	h->count = is_same ? before ? before->count : 0 : frame_cells_get_length(r);
	if (r->failed || (is_same && !before))
		return frame_is_damaged(v->e, "histogram length");
	/* A copy for the same, too: what a bit can ask for is paid from the budget. */
	rc = cells_alloc(v, h->count, &cells, &counts);
	if (rc < 0)
		return rc;
	if (is_same) {
		memcpy(cells, before->cells, h->count * sizeof(*cells));
		memcpy(counts, before->counts, h->count * sizeof(*counts));
	} else {
		frame_cells_get(r, cells, counts, h->count, start);
	}
	h->cells = cells;
	h->counts = counts;
	return r->failed ? frame_is_damaged(v->e, "histogram cells") : 0;
}

static int read_histograms(const struct values *v, const ProtobufCBinaryData *data)
{
	struct frame_histogram *items;
	unsigned int start = 0;
	struct section s;
	int r = section_open(v, &s, data, FRAME_CODE_HISTOGRAM_GAP, 2, sizeof(*items));

	if (r < 0 || !s.n)
		return r;
	items = s.items;
	for (size_t i = 0; i < s.n; i++) {
		items[i].id = next_id(&s);
		r = read_cells(v, &s.r, &start, i ? &items[i - 1] : NULL, &items[i]);
		if (r < 0)
			return r;
	}
	if (!frame_bits_is_done(&s.r))
		return frame_is_damaged(v->e, "histograms");
	v->frame->histograms = items;
	v->frame->histogram_count = s.n;
	return 0;
}

static int read_absent(const struct values *v, const ProtobufCBinaryData *data)
{
	struct section s;
	uint32_t *items;
	int r = section_open(v, &s, data, FRAME_CODE_COUNTER_GAP, 1, sizeof(*items));

	if (r < 0 || !s.n)
		return r;
	items = s.items;
	for (size_t i = 0; i < s.n && !s.r.failed; i++)
		items[i] = next_id(&s);
	if (!frame_bits_is_done(&s.r))
		return frame_is_damaged(v->e, "absent series");
	v->frame->absent = items;
	v->frame->absent_count = s.n;
	return 0;
}

int frame_values_read(struct frame *f, struct frame_budget *budget, const Tidegate__Frame *m,
		      struct err *e)
{
	const struct values v = {f, budget, e};
	int r;

	frame_code_init();
	if (m->histograms.len && m->cells.len)
		return frame_is_damaged(e, "histograms of two versions");
	if ((r = read_counters(&v, &m->counters)) < 0 || (r = read_gauges(&v, &m->gauges)) < 0 ||
	    (r = m->cells.len ? read_histograms(&v, &m->cells)
			      : read_histograms_1(&v, &m->histograms)) < 0)
		return r;
	return read_absent(&v, &m->absent);
}
