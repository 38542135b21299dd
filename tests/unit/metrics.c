/* SPDX-License-Identifier: Apache-2.0 */
/* Every row of the metric catalogue obeys the rules that dashboards and exporters rely on. */
#include "metrics.h"

#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define NAME_CHARS "abcdefghijklmnopqrstuvwxyz0123456789_"

static void test_rows(void **state)
{
	static const char *const units[] = {"", "seconds", "bytes", "nanoseconds"};

	(void)state;
	for (unsigned int i = 0; i < METRIC_ID_COUNT; i++) {
		const struct metric_desc *m = &metric_descs[i];
		bool known_unit = false;

		if (!m->name || !m->help || !m->labels || !m->unit)
			fail_msg("row %u is not filled", i);
		if (!str_starts(m->name, "tidegate_") || m->name[strspn(m->name, NAME_CHARS)])
			fail_msg("%s: bad name", m->name);
		if (str_ends(m->name, "_total") != (m->kind == METRIC_COUNTER))
			fail_msg("%s: exactly counters end in _total", m->name);
		if (m->kind == METRIC_HISTOGRAM &&
		    (!str_ends(m->name, "_seconds") || !str_equal(m->unit, "seconds")))
			fail_msg("%s: histograms are in seconds", m->name);
		for (size_t j = 0; j < ARRAY_LEN(units); j++)
			known_unit |= str_equal(m->unit, units[j]);
		if (!known_unit)
			fail_msg("%s: unknown unit %s", m->name, m->unit);
		if (str_equal(m->unit, "nanoseconds") &&
		    (m->kind != METRIC_COUNTER || !str_ends(m->name, "_seconds_total")))
			fail_msg("%s: nanoseconds are for counters shown in seconds", m->name);
		if (str_equal(m->unit, "bytes") && !strstr(m->name, "_bytes"))
			fail_msg("%s: the name says the unit", m->name);
		if (m->kind != METRIC_GAUGE && m->merge != METRIC_SUM)
			fail_msg("%s: counters and histograms are summed", m->name);
		if (strlen(m->help) < 10 || !str_ends(m->help, ".") || strchr(m->help, '\n'))
			fail_msg("%s: help is one sentence", m->name);
		if (m->labels[strspn(m->labels, NAME_CHARS ",")] || strstr(m->labels, ",,") ||
		    str_starts(m->labels, ",") || str_ends(m->labels, ","))
			fail_msg("%s: bad labels %s", m->name, m->labels);
		for (unsigned int j = 0; j < i; j++)
			if (str_equal(m->name, metric_descs[j].name))
				fail_msg("%s: twice", m->name);
	}
}

static void test_find(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < METRIC_ID_COUNT; i++)
		assert_ptr_equal(metric_find(metric_descs[i].name), &metric_descs[i]);
	assert_null(metric_find("tidegate_requests"));
	assert_null(metric_find(""));
	assert_int_equal(metric_find("tidegate_gc_pause_seconds")->kind, METRIC_HISTOGRAM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_find),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
