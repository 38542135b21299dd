/* SPDX-License-Identifier: Apache-2.0 */
/* Names of topics and what subscribers choose from them. */
#include "bus/filter.h"

#include "bus/subject.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void topics_are_built(void **state)
{
	char t[SUBJECT_MAX + 1], gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1], long_name[400];

	(void)state;
	assert_int_equal(subject_metrics("nginx", "pod/web-1", t), 0);
	assert_string_equal(t, "metrics/nginx/pod%2Fweb-1");
	assert_int_equal(subject_metrics(NULL, "a", t), 0);
	assert_string_equal(t, "metrics/-/a");
	assert_true(subject_read_metrics(t, gateway, agent));
	assert_string_equal(gateway, "");
	assert_string_equal(agent, "a");
	/* A gateway that is called like none is another one. */
	assert_int_equal(subject_metrics("-", "a", t), 0);
	assert_string_equal(t, "metrics/%2D/a");
	assert_true(subject_read_metrics(t, gateway, NULL));
	assert_string_equal(gateway, "-");
	assert_int_equal(subject_events("drain.begin", t), 0);
	assert_string_equal(t, "events/drain.begin");
	assert_int_equal(subject_scale("web 1", t), 0);
	assert_string_equal(t, "scale/web%201");
	assert_int_equal(subject_metrics("nginx", "", t), -EINVAL);
	assert_string_equal(t, "");
	assert_int_equal(subject_events("", t), -EINVAL);
	memset(long_name, 'x', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(subject_metrics("nginx", long_name, t), -E2BIG);
	assert_string_equal(t, "");
	assert_int_equal(subject_metrics(long_name, "a", t), 0);
	assert_int_equal(strlen(t), strlen("metrics/") + SUBJECT_GATEWAY + strlen("/a"));
	memset(long_name, '/', sizeof(long_name) - 1);
	assert_int_equal(subject_metrics(long_name, long_name, t), -E2BIG);
	assert_int_equal(subject_metrics(long_name, "a", t), 0);
}

static void any_name_comes_back(void **state)
{
	char t[SUBJECT_MAX + 1], gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1];

	(void)state;
	srand(5);
	for (unsigned int round = 0; round < 5000; round++) {
		char names[2][24] = {{0}};

		for (unsigned int n = 0; n < 2; n++)
			for (int i = 0, len = 1 + rand() % 20; i < len; i++)
				names[n][i] = (char)(1 + rand() % 255);
		assert_int_equal(subject_metrics(names[0], names[1], t), 0);
		assert_true(subject_read_metrics(t, gateway, agent));
		assert_string_equal(gateway, names[0]);
		assert_string_equal(agent, names[1]);
	}
}

static void foreign_topics_are_not_read(void **state)
{
	static const char *const bad[] = {"",
					  "metrics/",
					  "metrics/nginx",
					  "metrics/nginx/",
					  "metrics//a",
					  "metrics/n/a/b",
					  "metrics/n/%",
					  "metrics/n/%2",
					  "metrics/n/%2g",
					  "metrics/n/%00",
					  "metrics/n/%2f",
					  "metrics/n /a",
					  "events/x",
					  "series/a"};
	char gateway[SUBJECT_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(subject_read_metrics(bad[i], gateway, NULL));
}

static void topics_are_chosen(void **state)
{
	struct filter f = {0};

	(void)state;
	assert_true(filter_topic(&f, "metrics/nginx/a"));
	assert_true(filter_topic(&f, "anything"));
	assert_false(filter_topic(&f, "beacon"));
	assert_int_equal(filter_add_topic(&f, ""), -EINVAL);
	assert_int_equal(filter_add_topic(&f, "events/"), 0);
	assert_int_equal(filter_add_topic(&f, "metrics/"), 0);
	assert_true(filter_topic(&f, "events/drain.end"));
	assert_true(filter_topic(&f, "metrics/kong/a"));
	assert_false(filter_topic(&f, "scale/web"));
	assert_false(filter_topic(&f, "beacon"));
	assert_int_equal(filter_add_gateway(&f, "nginx"), 0);
	assert_true(filter_topic(&f, "metrics/nginx/a"));
	assert_false(filter_topic(&f, "metrics/kong/a"));
	assert_false(filter_topic(&f, "metrics/-/a"));
	assert_true(filter_topic(&f, "events/drain.end"));
	assert_int_equal(filter_add_metric(&f, "tidegate_requests_total"), 0);
	assert_false(filter_topic(&f, "events/drain.end"));
	f = (struct filter){0};
	assert_int_equal(filter_add_topic(&f, "beacon"), 0);
	assert_true(filter_topic(&f, "beacon"));
	for (unsigned int i = 1; i < FILTER_TERMS; i++)
		assert_int_equal(filter_add_topic(&f, "x"), 0);
	assert_int_equal(filter_add_topic(&f, "x"), -ENOSPC);
}

static void bodies_are_thinned(void **state)
{
	char requests[] = "tidegate_requests_total", bytes[] = "tidegate_bytes_total",
	     own[] = "tidegate_spool_bytes", key[] = "gateway", nginx[] = "nginx", kong[] = "kong";
	char *of_nginx[] = {key, nginx}, *of_kong[] = {key, kong};
	Tidegate__BusSeries s[4], *list[4];
	Tidegate__Event e, *events[] = {&e};
	Tidegate__BusBody body, out;
	struct filter f = {0};
	struct arena arena;

	(void)state;
	assert_int_equal(arena_init(&arena, 1 << 16), 0);
	for (unsigned int i = 0; i < 4; i++) {
		tidegate__bus_series__init(&s[i]);
		s[i].metric = i == 3 ? own : i % 2 ? bytes : requests;
		s[i].labels = i == 2 ? of_kong : of_nginx;
		s[i].n_labels = i == 3 ? 0 : 2;
		list[i] = &s[i];
	}
	tidegate__event__init(&e);
	e.gateway = nginx;
	tidegate__bus_body__init(&body);
	body.n_series = 4;
	body.series = list;
	body.n_events = 1;
	body.events = events;
	assert_int_equal(filter_body(&f, &body, &arena, &out), 0);
	assert_int_equal(out.n_series, 4);
	assert_int_equal(out.n_events, 1);
	assert_int_equal(filter_add_gateway(&f, "nginx"), 0);
	assert_int_equal(filter_body(&f, &body, &arena, &out), 0);
	assert_int_equal(out.n_series, 2);
	assert_ptr_equal(out.series[0], &s[0]);
	assert_ptr_equal(out.series[1], &s[1]);
	assert_int_equal(out.n_events, 1);
	assert_int_equal(filter_add_metric(&f, "tidegate_req*"), 0);
	assert_int_equal(filter_body(&f, &body, &arena, &out), 0);
	assert_int_equal(out.n_series, 1);
	assert_ptr_equal(out.series[0], &s[0]);
	assert_int_equal(out.n_events, 0);
	assert_int_equal(filter_add_metric(&f, "tidegate_bytes_total"), 0);
	assert_int_equal(filter_body(&f, &body, &arena, &out), 0);
	assert_int_equal(out.n_series, 2);
	assert_int_equal(body.n_series, 4);
	arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(topics_are_built),
		cmocka_unit_test(any_name_comes_back),
		cmocka_unit_test(foreign_topics_are_not_read),
		cmocka_unit_test(topics_are_chosen),
		cmocka_unit_test(bodies_are_thinned),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
