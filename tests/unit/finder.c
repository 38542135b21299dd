/* SPDX-License-Identifier: Apache-2.0 */
/* The finder on real, stripped files of the distribution, and on damaged copies of them. */
#include "probe/finder.h"
#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LIBS   "/usr/lib/x86_64-linux-gnu/"
#define LUAJIT LIBS "libluajit-5.1.so.2"

static int open_or_skip(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		print_message("# SKIP %s is not installed\n", path);
		skip();
	}
	return fd;
}

static struct finder_result examine_path(const char *path)
{
	struct finder_result result;
	int fd = open_or_skip(path);

	finder_examine(fd, -1, &result);
	close(fd);
	return result;
}

static void assert_function(const struct finder_function *f, bool with_exits)
{
	unsigned int i;

	assert_true(f->offset > 0);
	assert_true(f->entry.offset >= f->offset && f->entry.offset < f->offset + 32);
	assert_int_equal(f->exit_count > 0, with_exits);
	for (i = 0; i < f->exit_count; i++)
		assert_true(f->exits[i].offset > f->entry.offset);
}

static void assert_lua(const char *path, enum finder_runtime runtime, const char *name)
{
	struct finder_result r = examine_path(path);

	assert_string_equal(r.why, "");
	assert_int_equal(r.is_found, 1);
	assert_int_equal(r.runtime, runtime);
	assert_string_equal(r.name, name);
	assert_string_equal(r.how, "call-vote");
	assert_true(r.confidence > 0.7 && r.confidence <= 1);
	assert_function(&r.step, true);
	assert_function(&r.full, true);
	assert_int_equal(r.cycle.exit_count, 1);
	assert_int_equal(r.heap.count, runtime == FINDER_LUAJIT ? 1 : 2);
	assert_int_equal(r.heap.pointer_bytes, 8);
}

static void luajit_is_found_by_vote(void **state)
{
	struct finder_result r;
	unsigned int i, cycles = 0;

	(void)state;
	assert_lua(LUAJIT, FINDER_LUAJIT, "luajit");
	r = examine_path(LUAJIT);
	for (i = 0; i < r.step.exit_count; i++)
		cycles += r.step.exits[i].flags & FINDER_CYCLE ? 1 : 0;
	assert_int_equal(cycles, 1);
	assert_int_equal(r.step.entry.flags & FINDER_STEPPED, 0);
}

static void puc_lua_is_found_by_vote(void **state)
{
	(void)state;
	assert_lua(LIBS "liblua5.3.so.0", FINDER_PUC, "lua5.3");
	assert_lua(LIBS "liblua5.4.so.0", FINDER_PUC, "lua5.4");
}

static void go_is_found_by_its_function_table(void **state)
{
	struct finder_result r = examine_path("/usr/bin/caddy");

	(void)state;
	assert_string_equal(r.why, "");
	assert_int_equal(r.is_found, 1);
	assert_int_equal(r.runtime, FINDER_GO);
	assert_string_equal(r.how, "gopclntab");
	assert_function(&r.stop, false);
	assert_function(&r.start, true); /* where its pause may end */
	assert_function(&r.cycle, false);
}

static void nginx_has_no_runtime_and_that_is_no_failure(void **state)
{
	struct finder_result r = examine_path("/usr/sbin/nginx");

	(void)state;
	assert_int_equal(r.is_found, 0);
	assert_int_equal(r.runtime, FINDER_NONE);
	assert_string_equal(r.why, "");
}

static void other_files_say_what_they_are(void **state)
{
	struct finder_result r = examine_path("/etc/passwd");

	(void)state;
	assert_int_equal(r.is_found, 0);
	assert_string_equal(r.why, "not an ELF file");
	r = examine_path("/dev/null");
	assert_string_equal(r.why, "not a regular file");
}

/* ---- damaged copies ---- */

struct copy {
	uint8_t *bytes;
	size_t size;
	int fd;
};

static void copy_read(struct copy *copy, const char *path)
{
	_cleanup_close_ int fd = open_or_skip(path);
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	copy->size = (size_t)st.st_size;
	copy->bytes = malloc(copy->size);
	assert_non_null(copy->bytes);
	assert_int_equal(pread(fd, copy->bytes, copy->size, 0), (ssize_t)copy->size);
	copy->fd = memfd_create("finder", MFD_CLOEXEC);
	assert_true(copy->fd >= 0);
	assert_int_equal(pwrite(copy->fd, copy->bytes, copy->size, 0), (ssize_t)copy->size);
}

static void copy_free(struct copy *copy)
{
	free(copy->bytes);
	close(copy->fd);
}

static void patch(const struct copy *copy, size_t at, uint8_t value)
{
	assert_int_equal(pwrite(copy->fd, &value, 1, (off_t)at), 1);
}

/* Renames a dynamic symbol by its first letter. */
static void hide_symbol(const struct copy *copy, const char *name)
{
	size_t length = strlen(name) + 1, i;

	for (i = 1; i + length <= copy->size; i++) {
		if (copy->bytes[i - 1] == 0 && memcmp(copy->bytes + i, name, length) == 0) {
			patch(copy, i, 'X');
			return;
		}
	}
	fail_msg("%s is not in the file", name);
}

static void a_missing_symbol_is_named(void **state)
{
	static const char *const names[] = {"lua_gc", "lua_tolstring"};
	struct finder_result r;
	struct copy copy;
	char expected[64];
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(names); i++) {
		copy_read(&copy, LUAJIT);
		hide_symbol(&copy, names[i]);
		finder_examine(copy.fd, -1, &r);
		snprintf(expected, sizeof(expected), "%s is not exported", names[i]);
		assert_int_equal(r.is_found, 0);
		assert_string_equal(r.name, "luajit");
		assert_string_equal(r.why, expected);
		copy_free(&copy);
	}
}

/* Without its mark, -3 stored to the VM state, the winner of the vote is not believed. */
static void a_step_that_does_not_set_the_vm_state_is_refused(void **state)
{
	struct finder_result r;
	struct copy copy;
	size_t i, patched = 0;

	(void)state;
	copy_read(&copy, LUAJIT);
	for (i = 0; i + 4 <= copy.size; i++) {
		if (memcmp(copy.bytes + i, "\xfd\xff\xff\xff", 4) == 0) {
			patch(&copy, i, 0xf0);
			patched++;
		}
	}
	assert_true(patched > 0);
	finder_examine(copy.fd, -1, &r);
	assert_int_equal(r.is_found, 0);
	assert_non_null(strstr(r.why, "is not lj_gc_step"));
	copy_free(&copy);
}

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*seed >> 33);
}

static void assert_sane(const struct finder_result *r, uint64_t size)
{
	assert_true(finder_result_is_sane(r, size));
	assert_int_equal(r->is_found && r->why[0], 0);
}

static void cut_files_are_survived(void **state)
{
	struct finder_result r;
	struct copy copy;
	size_t cut;

	(void)state;
	copy_read(&copy, LUAJIT);
	for (cut = copy.size; cut > 0; cut = cut * 15 / 16) {
		assert_int_equal(ftruncate(copy.fd, (off_t)cut), 0);
		finder_examine(copy.fd, -1, &r);
		assert_sane(&r, cut);
		/* The section headers lie at the end. */
		assert_int_equal(r.is_found, cut == copy.size);
	}
	copy_free(&copy);
}

/* Half of the damage goes where the structure is: headers at both ends. */
static size_t pick_offset(const struct copy *copy, uint64_t *seed)
{
	uint32_t kind = next_random(seed) % 4;

	if (kind == 0)
		return next_random(seed) % 1024;
	if (kind == 1)
		return copy->size - 1 - next_random(seed) % 4096;
	return next_random(seed) % copy->size;
}

static void garble(const char *path, unsigned int rounds, uint64_t seed)
{
	struct finder_result r;
	struct copy copy;
	unsigned int i, j;

	copy_read(&copy, path);
	for (i = 0; i < rounds; i++) {
		size_t at[16];

		for (j = 0; j < ARRAY_LEN(at); j++) {
			at[j] = pick_offset(&copy, &seed);
			patch(&copy, at[j],
			      (uint8_t)(next_random(&seed) % 3 ? next_random(&seed) : 0xff));
		}
		finder_examine(copy.fd, -1, &r);
		assert_sane(&r, copy.size);
		for (j = 0; j < ARRAY_LEN(at); j++)
			patch(&copy, at[j], copy.bytes[at[j]]);
	}
	finder_examine(copy.fd, -1, &r);
	assert_int_equal(r.is_found, 1);
	copy_free(&copy);
}

static void garbled_files_are_survived(void **state)
{
	(void)state;
	garble(LUAJIT, 500, 1);
	garble(LIBS "liblua5.3.so.0", 300, 2);
	garble("/usr/bin/caddy", 12, 3);
}

/* ---- the child ---- */

static void the_child_gives_the_same_answer(void **state)
{
	struct finder_result here, there, again;
	int fd = open_or_skip(LUAJIT);

	(void)state;
	finder_examine(fd, -1, &here);
	assert_int_equal(finder_run(fd, 0, &there), 0);
	assert_int_equal(there.is_found, 1);
	assert_int_equal(there.step.offset, here.step.offset);
	assert_memory_equal(&there.step.exits, &here.step.exits, sizeof(here.step.exits));
	assert_int_equal(finder_run(fd, 0, &again), 0);
	assert_memory_equal(&again, &there, sizeof(again));
	close(fd);
	assert_int_equal(finder_run(-1, 0, &there), -EBADF);
}

static void an_answer_out_of_bounds_is_refused(void **state)
{
	struct finder_result r = examine_path(LUAJIT), bad;

	(void)state;
	assert_true(finder_result_is_sane(&r, 1 << 20));
	assert_false(finder_result_is_sane(&r, 4096));
	bad = r;
	bad.step.exit_count = FINDER_EXITS_MAX + 1;
	assert_false(finder_result_is_sane(&bad, 1 << 20));
	bad = r;
	bad.runtime = FINDER_RUNTIMES;
	assert_false(finder_result_is_sane(&bad, 1 << 20));
	bad = r;
	memset(bad.why, 'x', sizeof(bad.why));
	assert_false(finder_result_is_sane(&bad, 1 << 20));
	bad = r;
	bad.confidence = 0.0 / 0.0;
	assert_false(finder_result_is_sane(&bad, 1 << 20));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(luajit_is_found_by_vote),
		cmocka_unit_test(puc_lua_is_found_by_vote),
		cmocka_unit_test(go_is_found_by_its_function_table),
		cmocka_unit_test(nginx_has_no_runtime_and_that_is_no_failure),
		cmocka_unit_test(other_files_say_what_they_are),
		cmocka_unit_test(a_missing_symbol_is_named),
		cmocka_unit_test(a_step_that_does_not_set_the_vm_state_is_refused),
		cmocka_unit_test(cut_files_are_survived),
		cmocka_unit_test(garbled_files_are_survived),
		cmocka_unit_test(the_child_gives_the_same_answer),
		cmocka_unit_test(an_answer_out_of_bounds_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
