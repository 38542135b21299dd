/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says, parsed, and sums over processes that come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "probe/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_stat(void **state)
{
	static const char text[] =
		"4242 (ng) x (inx)) S 17 4242 4242 0 -1 4194368 5021 77 3 1 1009 503 13 7 20 0 29 "
		"0 "
		"904219 226492416 3521 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0";
	struct system_stat s;

	(void)state;
	assert_int_equal(system_parse_stat(text, &s), 0);
	assert_int_equal(s.parent, 17);
	assert_int_equal(s.own_ticks, 1512);
	assert_int_equal(s.reaped_ticks, 20);
	assert_int_equal(s.threads, 29);
	assert_int_equal(s.start_ticks, 904219);
	assert_int_equal(system_parse_stat("", &s), -EINVAL);
	assert_int_equal(system_parse_stat("1 (x", &s), -EINVAL);
	assert_int_equal(system_parse_stat("1 (x) S 1 2 3", &s), -EINVAL);
	assert_int_equal(s.start_ticks, 904219); /* untouched */
}

static void test_small_files(void **state)
{
	static const char io[] = "rchar: 6988\nwchar: 12\nsyscr: 12\nsyscw: 1\nread_bytes: 8192\n"
				 "write_bytes: 4096\ncancelled_write_bytes: 5";
	uint64_t a = 1, b = 2;

	(void)state;
	assert_int_equal(system_parse_schedstat("123456 3079088 17", &a, &b), 0);
	assert_int_equal(a, 123456);
	assert_int_equal(b, 3079088);
	assert_int_equal(system_parse_schedstat("12", &a, &b), -EINVAL);
	assert_int_equal(system_parse_io(io, &a, &b), 0);
	assert_int_equal(a, 8192);
	assert_int_equal(b, 4096);
	assert_int_equal(system_parse_io("rchar: 1\nread_bytes: 3", &a, &b), -EINVAL);
	assert_int_equal(system_parse_io("rchar: 1\nread_bytes: x\nwrite_bytes: 1", &a, &b),
			 -EINVAL);
	assert_int_equal(system_parse_statm("55296 2113 1619 238 0 494 0", &a), 0);
	assert_int_equal(a, 494);
	assert_int_equal(system_parse_statm("0 0 0 0 0 0 0", &a), 0);
	assert_int_equal(a, 0);
	assert_int_equal(system_parse_statm("0 1 2", &a), 0);
	assert_int_equal(a, 0);
	assert_int_equal(system_parse_statm("", &a), -EINVAL);
}

static void test_pressure(void **state)
{
	static const char text[] = "some avg10=89.30 avg60=75.47 avg300=40.64 total=861672538\n"
				   "full avg10=0.00 avg60=0.00 avg300=0.00 total=77";
	uint64_t ns = 5;

	(void)state;
	assert_int_equal(system_parse_pressure(text, "some", &ns), 0);
	assert_int_equal(ns, 861672538000);
	assert_int_equal(system_parse_pressure(text, "full", &ns), 0);
	assert_int_equal(ns, 77000);
	assert_int_equal(system_parse_pressure("some avg10=0.0 total=9", "full", &ns), -ENODATA);
	assert_int_equal(system_parse_pressure("", "some", &ns), -ENODATA);
	assert_int_equal(system_parse_pressure("some avg10=0", "some", &ns), -EINVAL);
	assert_int_equal(ns, 77000);
}

#define NET_HEAD                                                                                   \
	"Inter-|   Receive                                                |  Transmit\n"           \
	" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs " \
	"drop fifo colls carrier compressed\n"

static void test_net(void **state)
{
	static const char first[] = NET_HEAD "    lo: 1000 1 0 0 0 0 0 0 1000 1 0 0 0 0 0 0\n"
					     "  eth0: 7000 1 0 0 0 0 0 0 300 1 0 0 0 0 0 0\n"
					     "veth1f:500000 1 0 0 0 0 0 0 600000 1 0 0 0 0 0 0\n";
	static const char second[] = NET_HEAD "    lo: 9000 1 0 0 0 0 0 0 9000 1 0 0 0 0 0 0\n"
					      "  eth0: 7011 1 0 0 0 0 0 0 313 1 0 0 0 0 0 0\n"
					      "   wg0: 17 1 0 0 0 0 0 0 19 1 0 0 0 0 0 0\n";
	static const char third[] = NET_HEAD "  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n"
					     "   wg0: 17 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0";
	static char many[64 * (SYSTEM_INTERFACES + 8)];
	static struct system_net n;
	uint64_t r = 1, s = 1;
	size_t len;

	(void)state;
	assert_int_equal(system_net_update(&n, first, &r, &s), 0);
	assert_int_equal(r, 0); /* what was there before does not count */
	assert_int_equal(s, 0);
	/* One grew, one went, one is new. */
	assert_int_equal(system_net_update(&n, second, &r, &s), 0);
	assert_int_equal(r, 11 + 17);
	assert_int_equal(s, 13 + 19);
	/* One began again at 0. */
	assert_int_equal(system_net_update(&n, third, &r, &s), 0);
	assert_int_equal(r, 5);
	assert_int_equal(s, 7 + 1);
	assert_int_equal(system_net_update(&n, "", &r, &s), -EINVAL);
	assert_int_equal(system_net_update(&n, "one line\n", &r, &s), -EINVAL);
	assert_int_equal(system_net_update(&n, NET_HEAD "garbage\n:::\n eth0: x y\n", &r, &s), 0);
	assert_int_equal(r + s, 0);
	len = (size_t)snprintf(many, sizeof(many), "%s", NET_HEAD);
	for (unsigned int i = 0; i < SYSTEM_INTERFACES + 3; i++)
		len += (size_t)snprintf(many + len, sizeof(many) - len,
					"v%u: 2 1 0 0 0 0 0 0 3 1 0 0 0 0 0 0\n", i);
	assert_int_equal(system_net_update(&n, many, &r, &s), 0);
	assert_int_equal(r, 2 * SYSTEM_INTERFACES);
	assert_int_equal(n.refused, 3);
}

static void test_meter(void **state)
{
	struct system_meter m = {0};

	(void)state;
	assert_int_equal(system_meter_update(&m, 1000), 0);
	assert_int_equal(system_meter_update(&m, 1013), 13);
	assert_int_equal(system_meter_update(&m, 7), 0); /* it began again */
	assert_int_equal(system_meter_update(&m, 18), 11);
}

static void test_sum(void **state)
{
	struct system_sum s;

	(void)state;
	system_sum_init(&s, 8);
	/* A master and two workers that were there before, with 100 behind each. */
	system_sum_begin(&s);
	system_sum_add(&s, 1, 100, 40, true);
	system_sum_add(&s, 2, 100, 0, true);
	system_sum_add(&s, 3, 100, 0, true);
	assert_int_equal(system_sum_end(&s), 0);
	system_sum_begin(&s);
	system_sum_add(&s, 1, 101, 40, true);
	system_sum_add(&s, 2, 107, 0, true);
	system_sum_add(&s, 3, 113, 0, true);
	assert_int_equal(system_sum_end(&s), 1 + 7 + 13);
	/* 2 used 4 more, died and was handed to the master (111); 4 was born and used 5. */
	system_sum_begin(&s);
	system_sum_add(&s, 1, 101 + 111, 40 + 111, false);
	system_sum_add(&s, 3, 113, 0, false);
	system_sum_add(&s, 4, 5, 0, false);
	assert_int_equal(system_sum_end(&s), 4 + 5);
	/* One that was never seen alive came and went: its 9 count. */
	system_sum_begin(&s);
	system_sum_add(&s, 1, 212 + 9, 151 + 9, false);
	system_sum_add(&s, 3, 113, 0, false);
	system_sum_add(&s, 4, 5, 0, false);
	assert_int_equal(system_sum_end(&s), 9);
	/* 3 is dead when it is to be read, but the master was read before: handed over next time. */
	system_sum_begin(&s);
	system_sum_add(&s, 1, 221, 160, false);
	system_sum_add(&s, 4, 5, 0, false);
	assert_int_equal(system_sum_end(&s), 0);
	system_sum_begin(&s);
	system_sum_add(&s, 1, 221 + 115, 160 + 115, false);
	system_sum_add(&s, 4, 6, 0, false);
	assert_int_equal(system_sum_end(&s), 2 + 1);
	/* Nobody waited for 4: what it used stays counted, and nothing falls. */
	system_sum_begin(&s);
	system_sum_add(&s, 1, 336, 275, false);
	assert_int_equal(system_sum_end(&s), 0);
	system_sum_begin(&s);
	system_sum_add(&s, 1, 339, 275, false);
	assert_int_equal(system_sum_end(&s), 3);
	system_sum_fini(&s);
}

static void test_sum_limit(void **state)
{
	struct system_sum s;

	(void)state;
	system_sum_init(&s, 20);
	for (unsigned int pass = 0; pass < 3; pass++) {
		system_sum_begin(&s);
		for (uint64_t i = 0; i < 23; i++)
			system_sum_add(&s, 1000 + i, 7 * (pass + 1), 0, false);
		assert_int_equal(s.refused, 3);
		assert_int_equal(system_sum_end(&s), 20 * 7);
	}
	system_sum_fini(&s);
}

static void test_readers(void **state)
{
	uint64_t before, after, namespace = 1;
	int fd;

	(void)state;
	assert_int_equal(system_count_fds(getpid(), &before), 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(system_count_fds(getpid(), &after), 0);
	close(fd);
	assert_int_equal(after, before + 1);
	assert_int_equal(system_count_fds(0x7ffffffe, &after), -ESRCH);
	assert_int_equal(system_net_namespace(getpid(), &namespace), 0);
	assert_int_equal(namespace, 0);
	assert_int_equal(system_net_namespace(0x7ffffffe, &namespace), -ESRCH);
}

static void test_held_files(void **state)
{
	static char path[] = "/tmp/tidegate-system.XXXXXX", large[8000], buf[9000];
	struct system_budget budget = {.limit = 1};
	struct system_file one = {0}, two = {0}, none = {0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "first\n", 6), 6);
	assert_int_equal(system_file_read(&one, &budget, path, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "first");
	assert_int_equal(budget.held, 1);
	assert_int_equal(system_file_read(&two, &budget, path, buf, sizeof(buf)), 5);
	assert_int_equal(two.held, 0); /* beyond the budget it is not held, but read */
	memset(large, 'x', sizeof(large));
	assert_int_equal(pwrite(fd, large, sizeof(large), 0), sizeof(large));
	assert_int_equal(system_file_read(&one, &budget, path, buf, sizeof(buf)), sizeof(large));
	assert_int_equal(system_file_read(&one, &budget, path, buf, 5000), -E2BIG);
	assert_int_equal(one.held, 0);
	assert_int_equal(budget.held, 0);
	assert_int_equal(system_file_read(&none, &budget, "/nowhere/at/all", buf, sizeof(buf)),
			 -ENOENT);
	assert_int_equal(budget.held, 0);
	system_file_close(&none, &budget);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stat),       cmocka_unit_test(test_small_files),
		cmocka_unit_test(test_pressure),   cmocka_unit_test(test_net),
		cmocka_unit_test(test_meter),      cmocka_unit_test(test_sum),
		cmocka_unit_test(test_sum_limit),  cmocka_unit_test(test_readers),
		cmocka_unit_test(test_held_files),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
