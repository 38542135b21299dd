/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as a query: parsed, evaluated over a few series and printed. What comes out must be JSON
 * that is whole; a query that is refused must say why. Times and durations of the same bytes besides.
 */
#include "outlet/query_eval.h"
#include "outlet/query_json.h"

#include "base/err.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

/* Series of two owners; what is counted rises, falls once and ends. */
static int select_series(void *data, const struct query_selection *what, query_series_fn fn,
			 void *fn_data, struct err *e)
{
	static const char *const owners[] = {"a", "b"}, *const names[] = {"up", "d_bucket"},
				 *const les[] = {"0.1", "1", "+Inf"};
	struct point points[20];
	int r = 0;

	(void)data;
	(void)e;
	for (unsigned int i = 0; i < 12 && r >= 0; i++) {
		const char *owner = owners[i / 6], *name = names[i / 3 % 2];
		const struct segment_label labels[] = {{"instance", owner}, {"le", les[i % 3]}};
		const struct query_series s = {owner, name, labels, 2, points, 20};

		if (!query_filter_name(what->filter, name) ||
		    !query_filter_labels(what->filter, labels, 2))
			continue;
		for (unsigned int k = 0; k < 20; k++)
			points[k] = (struct point){.time_ms = 1000 * (k + 1),
						   .value = k == 11 ? 0 : (i + 1) * k,
						   .is_absent = k == 19,
						   .is_minute = i == 3};
		r = fn(fn_data, &s);
	}
	return r;
}

static void evaluate(const struct query *query, uint64_t end_ms, uint64_t step_ms)
{
	const struct query_source source = {select_series, NULL, NULL};
	struct query_times times;
	struct err e = {{0}};
	struct strbuf out;
	struct matrix m;
	json_t *json;

	check(query_times_set(5000, end_ms, step_ms, 3000, &times, &e) == 0);
	if (query_eval(query_root(query), &times, &source, &m, &e) < 0) {
		check(e.text[0] != '\0');
		return;
	}
	strbuf_init(&out, 4 << 20);
	check(query_json_answer(&out, &m, query_root(query)->type, &times, step_ms != 0) == 0);
	json = json_loadb(out.data, out.len, 0, NULL);
	check(json != NULL);
	json_decref(json);
	strbuf_fini(&out);
	matrix_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct query *query;
	struct err e = {{0}};
	struct strbuf out;
	json_t *json;
	uint64_t ms;

	memcpy(text, data, size);
	text[size] = '\0';
	if (query_parse(text, &query, &e) >= 0) {
		evaluate(query, 5000, 0);
		evaluate(query, 25000, 1500);
		query_free(query);
	} else {
		check(e.text[0] != '\0');
	}
	query_time(text, &ms);
	query_duration(text, &ms);
	strbuf_init(&out, 4 << 20);
	check(query_json_error(&out, "bad_data", text) == 0);
	json = json_loadb(out.data, out.len, 0, NULL);
	check(json != NULL);
	json_decref(json);
	strbuf_fini(&out);
	free(text);
	return 0;
}
