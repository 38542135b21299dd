/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No torn tick: a process ticks with values that must all be equal while two others read. Bounded
 * by reads and by time.
 */
#include "segment/reader.h"
#include "segment/writer.h"

#include "base/clock.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define READERS   2
#define READS     200000
#define BUDGET_NS (1 * NS_PER_S)
#define COUNTERS  40

static const struct metric_desc counter = {
	.name = "t_total", .unit = "", .labels = "", .help = "", .kind = METRIC_COUNTER};
static const struct metric_desc histogram = {
	.name = "t_seconds", .unit = "", .labels = "", .help = "", .kind = METRIC_HISTOGRAM};

struct result {
	uint64_t consistent, busy, torn, ticks_seen;
};

static struct segment_writer *w;
static int counters[COUNTERS], histograms[2];

static int series(const struct metric_desc *m, unsigned int i)
{
	char text[16];
	const char *labels[][2] = {{"i", text}};

	snprintf(text, sizeof(text), "%u", i);
	return segment_writer_series(w, m, labels, 1);
}

static void tick(uint64_t k)
{
	uint64_t cells[HIST_CELLS];

	for (unsigned int i = 0; i < HIST_CELLS; i++)
		cells[i] = k;
	segment_writer_tick_begin(w);
	segment_writer_gateway_at(w, 0)->accepts = k;
	for (unsigned int i = 0; i < COUNTERS; i++)
		segment_writer_counter(w, counters[i], k);
	segment_writer_histogram(w, histograms[0], cells);
	segment_writer_histogram(w, histograms[1], cells);
	segment_writer_gateway_at(w, 0)->requests_completed = k;
	segment_writer_tick_end(w, k, k, k);
}

/* Ticks follow each other with pauses from none to about two reads, so that reads begin, lie and
 * end in every part of a tick. Now and then a series comes along. */
static void write_for_ever(void)
{
	unsigned int random = 1, extra = 0;

	for (uint64_t k = 2;; k++) {
		tick(k);
		random = random * 1103515245 + 12345;
		for (volatile unsigned int spin = random >> 12 & 0x3fff; spin; spin--)
			;
		if (k % 1024 == 0 && extra < 64)
			series(&counter, 1000 + extra++);
	}
}

static bool is_torn(const struct segment_reader *r, uint64_t k)
{
	const struct segment_gateway *g = segment_reader_gateway(r, 0);
	struct segment_series s;

	if (g->accepts != k || g->requests_completed != k)
		return true;
	for (unsigned int i = 0; i < COUNTERS; i++)
		if (!segment_reader_series(r, (unsigned int)counters[i], &s) || s.counter != k)
			return true;
	for (unsigned int h = 0; h < 2; h++) {
		if (!segment_reader_series(r, (unsigned int)histograms[h], &s))
			return true;
		for (unsigned int i = 0; i < HIST_CELLS; i++)
			if (s.cells[i] != k)
				return true;
	}
	for (unsigned int i = 0; i < segment_reader_series_count(r); i++)
		if (!segment_reader_series(r, i, &s))
			return true;
	return false;
}

static void read_for_a_while(const char *path, struct result *result)
{
	uint64_t end = clock_mono_ns() + BUDGET_NS, last = 0;
	struct segment_reader *r = NULL;

	if (segment_reader_open(path, &r, NULL) < 0)
		_exit(1);
	for (unsigned int i = 0; i < READS && clock_mono_ns() < end; i++) {
		uint64_t k;
		int got = segment_reader_refresh(r, NULL);

		if (got == -EAGAIN) {
			result->busy++;
			continue;
		}
		if (got < 0)
			_exit(1);
		k = segment_reader_header(r)->tick_mono_ns;
		result->consistent++;
		result->ticks_seen += k != last;
		result->torn += k < last || is_torn(r, k);
		last = k;
	}
	segment_reader_close(r);
	_exit(0);
}

static void test_no_torn_tick(void **state)
{
	struct result *results = mmap(NULL, READERS * sizeof(*results), PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char dir[] = "/dev/shm/tidegate-tick-XXXXXX", path[64], lock[80];
	struct segment_options o = {
		.path = path,
		.kind = SEGMENT_HOST,
		.group = (gid_t)-1,
		.series = 128,
		.histograms = 2,
		.heap_bytes = 8192,
	};
	pid_t writer, readers[READERS];
	bool continued;
	int status;

	(void)state;
	assert_true(results != MAP_FAILED);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/t.seg", dir);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), 0);
	segment_writer_gateway(w, "g", "i");
	for (unsigned int i = 0; i < COUNTERS; i++)
		counters[i] = series(&counter, i);
	for (unsigned int i = 0; i < 2; i++)
		histograms[i] = series(&histogram, i);
	tick(1);
	writer = fork();
	if (writer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		write_for_ever();
	}
	for (unsigned int i = 0; i < READERS; i++) {
		readers[i] = fork();
		if (readers[i] == 0)
			read_for_a_while(path, &results[i]);
	}
	for (unsigned int i = 0; i < READERS; i++) {
		assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	kill(writer, SIGKILL);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	for (unsigned int i = 0; i < READERS; i++) {
		print_message("# reader %u: %llu consistent copies of %llu ticks, %llu refused, "
			      "%llu torn\n",
			      i, (unsigned long long)results[i].consistent,
			      (unsigned long long)results[i].ticks_seen,
			      (unsigned long long)results[i].busy,
			      (unsigned long long)results[i].torn);
		assert_int_equal(results[i].torn, 0);
		assert_true(results[i].ticks_seen >= 10);
	}
	segment_writer_close(w);
	unlink(path);
	unlink(lock);
	rmdir(dir);
	munmap(results, READERS * sizeof(*results));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_torn_tick),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
