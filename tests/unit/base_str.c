/* SPDX-License-Identifier: Apache-2.0 */
/* base/str: bounded copies, slips of the pen, strict numbers, buffers that end at their limit. */
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void copy_is_bounded(void **state)
{
	char buf[5];

	(void)state;
	assert_true(str_copy(buf, sizeof(buf), ""));
	assert_string_equal(buf, "");
	assert_true(str_copy(buf, sizeof(buf), "abcd"));
	assert_string_equal(buf, "abcd");
	assert_false(str_copy(buf, sizeof(buf), "abcde"));
	assert_string_equal(buf, "abcd");
	assert_false(str_copy(buf, 1, "a"));
	assert_string_equal(buf, "");
	buf[0] = 'x';
	assert_false(str_copy(buf, 0, "a"));
	assert_int_equal(buf[0], 'x');
}

static void prefixes_and_suffixes(void **state)
{
	(void)state;
	assert_true(str_starts("tidegate", "tide"));
	assert_true(str_starts("tidegate", ""));
	assert_false(str_starts("tide", "tidegate"));
	assert_true(str_ends("tidegate", "gate"));
	assert_true(str_ends("gate", ""));
	assert_false(str_ends("ate", "gate"));
	assert_false(str_equal("a", "A"));
}

static void distance_counts_slips(void **state)
{
	char a[200], b[200];

	(void)state;
	assert_int_equal(str_distance("", ""), 0);
	assert_int_equal(str_distance("", "abc"), 3);
	assert_int_equal(str_distance("abc", ""), 3);
	assert_int_equal(str_distance("drain", "drian"), 1);
	assert_int_equal(str_distance("drain", "brain"), 1);
	assert_int_equal(str_distance("kitten", "sitting"), 3);
	assert_int_equal(str_distance("ca", "abc"), 3); /* no edit inside a swapped pair */
	memset(a, 'a', sizeof(a) - 1);
	memset(b, 'b', sizeof(b) - 1);
	a[sizeof(a) - 1] = b[sizeof(b) - 1] = '\0';
	assert_int_equal(str_distance(a, b), 63);
}

static void nearest_is_near_or_nothing(void **state)
{
	static const char *const words[] = {"deadline", "quiet", "exec"};

	(void)state;
	assert_string_equal(str_nearest("dedline", words, 3), "deadline");
	assert_string_equal(str_nearest("exce", words, 3), "exec");
	assert_string_equal(str_nearest("quiet", words, 3), "quiet");
	assert_null(str_nearest("completely", words, 3));
	assert_null(str_nearest("", words, 0));
}

static void numbers_are_strict(void **state)
{
	static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x10", "1.0", "a", "1a"};
	uint64_t v = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(str_to_u64(bad[i], &v), -EINVAL);
	assert_int_equal(str_to_u64("18446744073709551616", &v), -ERANGE);
	assert_int_equal(v, 7);
	assert_int_equal(str_to_u64("18446744073709551615", &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(str_to_u64("007", &v), 0);
	assert_int_equal(v, 7);
}

static void files_are_read_whole_or_not(void **state)
{
	char path[] = "/tmp/tidegate-str-XXXXXX", buf[8];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(str_read_file(path, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	assert_int_equal(write(fd, "abc\n\n", 5), 5);
	assert_int_equal(str_read_file(path, buf, sizeof(buf)), 4);
	assert_string_equal(buf, "abc\n");
	assert_int_equal(write(fd, "de", 2), 2);
	assert_int_equal(str_read_file(path, buf, sizeof(buf)), 7);
	assert_string_equal(buf, "abc\n\nde");
	assert_int_equal(write(fd, "f", 1), 1);
	assert_int_equal(str_read_file(path, buf, sizeof(buf)), -E2BIG);
	close(fd);
	unlink(path);
	assert_int_equal(str_read_file(path, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(str_read_file("/", buf, sizeof(buf)), -EISDIR);
}

static void buffer_grows_to_its_limit(void **state)
{
	struct strbuf b;

	(void)state;
	strbuf_init(&b, 1000);
	strbuf_puts(&b, "");
	assert_string_equal(b.data, "");
	for (int i = 0; i < 99; i++)
		strbuf_printf(&b, "%09d\n", i);
	assert_false(b.failed);
	assert_int_equal(b.len, 990);
	strbuf_puts(&b, "123456789");
	assert_false(b.failed);
	assert_int_equal(b.len, 999);
	strbuf_puts(&b, "x");
	assert_true(b.failed);
	assert_int_equal(strlen(b.data), 999);
	strbuf_reset(&b);
	assert_false(b.failed);
	assert_string_equal(b.data, "");
	strbuf_add(&b, "a\0b", 3);
	assert_memory_equal(b.data, "a\0b", 4);
	strbuf_fini(&b);
	assert_null(b.data);
}

static void failed_buffer_stays_failed(void **state)
{
	struct strbuf b;

	(void)state;
	strbuf_init(&b, 8);
	strbuf_puts(&b, "12345678");
	assert_true(b.failed);
	strbuf_puts(&b, "1");
	strbuf_printf(&b, "%d", 1);
	assert_true(b.failed);
	assert_int_equal(b.len, 0);
	strbuf_fini(&b);
	strbuf_init(&b, SIZE_MAX);
	strbuf_puts(&b, "abc");
	strbuf_add(&b, "x", SIZE_MAX - 2); /* the length would wrap around */
	assert_true(b.failed);
	assert_string_equal(b.data, "abc");
	strbuf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copy_is_bounded),
		cmocka_unit_test(prefixes_and_suffixes),
		cmocka_unit_test(distance_counts_slips),
		cmocka_unit_test(nearest_is_near_or_nothing),
		cmocka_unit_test(numbers_are_strict),
		cmocka_unit_test(files_are_read_whole_or_not),
		cmocka_unit_test(buffer_grows_to_its_limit),
		cmocka_unit_test(failed_buffer_stays_failed),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("str", tests, NULL, NULL);
}
