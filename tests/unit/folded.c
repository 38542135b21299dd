/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles in app/: who is there, what is taken, what is swept; names and files that lie. */
#include "segment/folded.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ID 0x00000000000000abULL

static char dir[] = "/tmp/tidegate-folded.XXXXXX";

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int put(const char *name, const void *text, size_t size)
{
	int fd = open(path_of(name), O_RDWR | O_CREAT | O_TRUNC, 0640);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, size), size);
	return fd;
}

static void put_text(const char *name, const char *text)
{
	close(put(name, text, strlen(text)));
}

static bool is_there(const char *name)
{
	struct stat st;

	return lstat(path_of(name), &st) == 0;
}

static int make_dir(void **state)
{
	(void)state;
	memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

static int put_segment(const char *name, uint32_t version, uint32_t kind)
{
	struct segment_header h = {.magic = SEGMENT_MAGIC,
				   .version = version,
				   .endian = SEGMENT_ENDIAN,
				   .kind = kind,
				   .writer_pid = 7,
				   .writer_parent = 5};

	memset(h.gateway, 'g', sizeof(h.gateway)); /* without an end */
	return put(name, &h, sizeof(h));
}

static void test_processes(void **state)
{
	struct folded_process p[8];
	int held = put_segment("7-1.seg", SEGMENT_VERSION, SEGMENT_PROCESS);

	(void)state;
	assert_int_equal(flock(held, LOCK_EX), 0);
	close(put_segment("8-1.seg", SEGMENT_VERSION + 1, SEGMENT_PROCESS));
	close(put_segment("9-1.seg", SEGMENT_VERSION, SEGMENT_HOST));
	close(put_segment(".7-2.seg", SEGMENT_VERSION, SEGMENT_PROCESS));
	put_text("10-1.seg", "TIDESEG1");
	put_text("7-1.00000000000000ab.folded", "a 1\n");
	assert_int_equal(symlink("7-1.seg", path_of("11-1.seg")), 0);
	assert_int_equal(mkfifo(path_of("12-1.seg"), 0600), 0);
	assert_int_equal(folded_processes(dir, p, 8), 1);
	assert_string_equal(p[0].name, "7-1");
	assert_int_equal(p[0].pid, 7);
	assert_int_equal(p[0].parent, 5);
	assert_int_equal(p[0].uid, geteuid());
	assert_int_equal(strlen(p[0].gateway), sizeof(p[0].gateway) - 1);
	assert_true(p[0].is_alive);
	assert_true(folded_is_alive(dir, "7-1"));
	assert_false(folded_is_alive(dir, "10-1"));
	assert_false(folded_is_alive(dir, "13-1"));
	close(held);
	assert_false(folded_is_alive(dir, "7-1"));
	assert_int_equal(folded_processes(dir, p, 8), 1);
	assert_false(p[0].is_alive);
	assert_int_equal(folded_processes(dir, p, 0), 0);
	assert_int_equal(folded_processes("/nonexistent", p, 8), -ENOENT);
}

struct seen {
	unsigned int count, errors;
	int error;
	char process[48], text[64];
};

static void see(void *data, const char *process, uid_t uid, int error, const char *text,
		size_t size)
{
	struct seen *s = data;

	if (error < 0) {
		s->errors++;
		s->error = error;
		assert_null(text);
		return;
	}
	s->count++;
	assert_int_equal(uid, geteuid());
	str_copy(s->process, sizeof(s->process), process);
	snprintf(s->text, sizeof(s->text), "%.*s", (int)size, text);
}

static void test_take(void **state)
{
	struct seen seen = {0};

	(void)state;
	put_text("7-1.00000000000000ab.folded", "a;b 1\n");
	put_text("7-1.00000000000000ac.folded", "other id");
	put_text(".7-2.00000000000000ab.folded", "not finished");
	put_text("7-1.seg", "");
	assert_true(folded_is_there(dir, "7-1", ID));
	assert_false(folded_is_there(dir, "7-2", ID));
	assert_int_equal(folded_take(dir, ID, see, &seen), 0);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.errors, 0);
	assert_string_equal(seen.process, "7-1");
	assert_string_equal(seen.text, "a;b 1\n");
	assert_false(folded_is_there(dir, "7-1", ID));
	assert_true(is_there("7-1.00000000000000ac.folded"));
	assert_true(is_there(".7-2.00000000000000ab.folded"));
	assert_true(is_there("7-1.seg"));
	assert_int_equal(folded_take("/nonexistent", ID, see, &seen), -ENOENT);
}

static void test_take_what_is_no_profile(void **state)
{
	struct seen seen = {0};
	int fd = put("7-1.00000000000000ab.folded", "", 0);

	(void)state;
	assert_int_equal(ftruncate(fd, FOLDED_BYTES + 1), 0);
	assert_int_equal(folded_take(dir, ID, see, &seen), 0);
	assert_int_equal(seen.error, -EMSGSIZE);
	close(fd);
	assert_int_equal(symlink("/etc/passwd", path_of("7-1.00000000000000ab.folded")), 0);
	assert_false(folded_is_there(dir, "7-1", ID));
	assert_int_equal(folded_take(dir, ID, see, &seen), 0);
	assert_int_equal(seen.error, -ELOOP);
	/* Nobody writes to it: opening it must not wait. */
	assert_int_equal(mkfifo(path_of("7-1.00000000000000ab.folded"), 0600), 0);
	assert_int_equal(folded_take(dir, ID, see, &seen), 0);
	assert_int_equal(seen.error, -EINVAL);
	assert_int_equal(seen.errors, 3);
	assert_int_equal(seen.count, 0);
	assert_false(is_there("7-1.00000000000000ab.folded"));
}

static void test_sweep_by_age(void **state)
{
	uint64_t now = clock_real_ns();

	(void)state;
	put_text("7-1.00000000000000ab.folded", "a 1\n");
	put_text(".7-2.00000000000000ab.folded", "not finished");
	put_text("7-1.seg", "");
	assert_int_equal(symlink("/etc/passwd", path_of("8.folded")), 0);
	assert_int_equal(mkdir(path_of("9.folded"), 0700), 0);
	assert_int_equal(folded_sweep(dir, now), 0);
	assert_int_equal(folded_sweep(dir, now + FOLDED_KEPT_NS - 60 * NS_PER_S), 0);
	assert_int_equal(folded_sweep(dir, now + FOLDED_KEPT_NS + 60 * NS_PER_S), 3);
	assert_true(is_there("7-1.seg"));
	assert_true(is_there("9.folded"));
	assert_false(is_there(".7-2.00000000000000ab.folded"));
	assert_int_equal(access("/etc/passwd", R_OK), 0);
	assert_int_equal(folded_sweep("/nonexistent", now), 0);
}

static void test_sweep_by_number_and_bytes(void **state)
{
	uint64_t now = clock_real_ns();
	char name[64];
	int fd;

	(void)state;
	for (unsigned int i = 0; i < FOLDED_FILES + 13; i++) {
		snprintf(name, sizeof(name), "%u.folded", i);
		put_text(name, "");
	}
	assert_int_equal(folded_sweep(dir, now), 13);
	assert_int_equal(folded_sweep(dir, now), 0);
	fd = put("large.folded", "", 0);
	assert_int_equal(ftruncate(fd, FOLDED_ALL + 1), 0);
	close(fd);
	/* It, and nothing else. */
	assert_int_equal(folded_sweep(dir, now), 1);
	assert_false(is_there("large.folded"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_processes, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_take, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_take_what_is_no_profile, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_sweep_by_age, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_sweep_by_number_and_bytes, make_dir,
						remove_dir),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
