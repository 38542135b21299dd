/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs of the query API and the thread that makes them: who answers, who frees. */
#include "cmd/core_query.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "history_db.h"

#define AHEAD       100 /* questions that take a while, before the one that matters */
#define PATIENCE_NS (60 * NS_PER_S)

static int setup(void **state)
{
	static const struct history_options options = {.ticks_ms = 1, .keep_ms = 1000};
	struct history_store *s;

	(void)state;
	if (history_db_begin() < 0)
		return -1;
	if (history_store_open(path, &options, &s, NULL) < 0)
		return -1;
	history_store_close(s);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return history_db_end();
}

static void submit(struct core_query *q, size_t steps, uint64_t deadline_ns,
		   struct http_response *r)
{
	struct core_query_job *job = calloc(1, sizeof(*job));

	assert_non_null(job);
	job->kind = CORE_QUERY_VALUES;
	assert_int_equal(query_parse("1+1", &job->queries[0], NULL), 0);
	job->query_count = 1;
	job->is_range = true;
	job->times = (struct query_times){1000, 1000, steps, 1000};
	job->deadline_ns = deadline_ns;
	strbuf_init(&job->out, 1u << 20);
	*r = (struct http_response){.status = 200};
	strbuf_init(&r->body, 1u << 20);
	core_query_submit(q, job, r);
}

static void end(struct http_response *r)
{
	r->drop(r->job);
	strbuf_fini(&r->body);
}

static void an_answer(void **state)
{
	uint64_t until = clock_mono_ns() + PATIENCE_NS;
	struct http_response r;
	struct core_query *q;

	(void)state;
	assert_int_equal(core_query_open(path, NULL, &q, NULL), 0);
	submit(q, 2, until, &r);
	while (r.step(r.job, &r))
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	assert_int_equal(r.status, 200);
	assert_non_null(strstr(r.body.data, "[[1,\"2\"],[2,\"2\"]]"));
	end(&r);
	core_query_close(q);
}

/* The thread is busy with others: the answer does not wait for it, and neither does the end. */
static void a_deadline_that_passes_in_the_queue(void **state)
{
	uint64_t until = clock_mono_ns() + PATIENCE_NS;
	static struct http_response ahead[AHEAD];
	struct http_response r, last;
	struct core_query *q;

	(void)state;
	assert_int_equal(core_query_open(path, NULL, &q, NULL), 0);
	for (size_t i = 0; i < AHEAD; i++)
		submit(q, QUERY_STEPS_MAX, until, &ahead[i]);
	submit(q, 1, clock_mono_ns() - 1, &r);
	submit(q, 1, until, &last);
	assert_int_equal(r.step(r.job, &r), 0);
	assert_int_equal(r.status, 503);
	assert_non_null(strstr(r.body.data, "\"errorType\":\"timeout\""));
	end(&r);
	/* In no order that the queue knows. */
	for (size_t i = AHEAD; i; i--)
		end(&ahead[i - 1]);
	while (last.step(last.job, &last))
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	assert_int_equal(last.status, 200);
	end(&last);
	core_query_close(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer),
		cmocka_unit_test(a_deadline_that_passes_in_the_queue),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
