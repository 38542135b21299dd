/* SPDX-License-Identifier: Apache-2.0 */
/* Notes of statically defined tracepoints: whole, moved by prelink, damaged. */
#include "probe/sdt.h"

#include "base/str.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static uint8_t notes[4096];
static size_t size;

static void put(const void *bytes, size_t n)
{
	memcpy(notes + size, bytes, n);
	size += n;
}

static void put_note(uint64_t place, uint64_t base, uint64_t semaphore, const char *name)
{
	uint32_t head[] = {8, (uint32_t)(24 + sizeof("hotspot") + strlen(name) + 2), 3};
	const uint64_t addresses[] = {place, base, semaphore};

	put(head, sizeof(head));
	put("stapsdt", 8);
	put(addresses, sizeof(addresses));
	put("hotspot", sizeof("hotspot"));
	put(name, strlen(name) + 1);
	put("", 1);
	size = (size + 3) & ~(size_t)3;
}

static int read_notes(uint64_t base, struct sdt_probe probes[2])
{
	memset(probes, 0, 2 * sizeof(*probes));
	probes[0].provider = probes[1].provider = "hotspot";
	probes[0].name = "gc__begin";
	probes[1].name = "gc__end";
	return sdt_find(notes, size, base, probes, 2);
}

static int setup(void **state)
{
	(void)state;
	memset(notes, 0, sizeof(notes));
	size = 0;
	put_note(0x1000, 0x9000, 0, "safepoint__begin");
	put_note(0x2000, 0x9000, 0, "gc__begin");
	put_note(0x3000, 0x9000, 0xa000, "gc__end");
	put_note(0x4000, 0x9000, 0xa000, "gc__end");
	return 0;
}

static void the_wanted_are_found(void **state)
{
	struct sdt_probe p[2];

	(void)state;
	assert_int_equal(read_notes(0x9000, p), 0);
	assert_int_equal(p[0].count, 1);
	assert_int_equal(p[0].places[0], 0x2000);
	assert_int_equal(p[0].semaphore, 0);
	assert_int_equal(p[1].count, 2);
	assert_int_equal(p[1].places[1], 0x4000);
	assert_int_equal(p[1].semaphore, 0xa000);
	assert_int_equal(read_notes(0, p), 0);
	assert_int_equal(p[0].places[0], 0x2000);
}

static void a_moved_file_moves_them(void **state)
{
	struct sdt_probe p[2];

	(void)state;
	assert_int_equal(read_notes(0x19000, p), 0);
	assert_int_equal(p[0].places[0], 0x12000);
	assert_int_equal(p[1].semaphore, 0x1a000);
}

/* Cut anywhere, or with any byte wrong: an error or fewer places, and nothing read beyond. */
static void damaged_notes_end_the_reading(void **state)
{
	size_t whole = size;
	struct sdt_probe p[2];

	(void)state;
	for (size = 0; size < whole; size++) {
		read_notes(0x9000, p);
		assert_true(p[1].count <= 2);
	}
	size = 12 + 8 + 24 + 3; /* in the provider's name */
	assert_int_equal(read_notes(0x9000, p), -EBADMSG);
	size = whole;
	for (size_t i = 0; i < whole; i++) {
		uint8_t good = notes[i];

		notes[i] = 0xff;
		read_notes(0x9000, p);
		assert_true(p[0].count <= 2 && p[1].count <= 3);
		notes[i] = good;
	}
	memset(notes + 4, 0xff, 4); /* the size of the first description */
	assert_int_equal(read_notes(0x9000, p), -EBADMSG);
}

static void too_many_places_are_refused(void **state)
{
	struct sdt_probe p[2];

	(void)state;
	size = 0;
	for (unsigned int i = 0; i <= SDT_PLACES_MAX; i++)
		put_note(0x1000 + i, 0x9000, 0, "gc__begin");
	assert_int_equal(read_notes(0x9000, p), -E2BIG);
	assert_int_equal(p[0].count, SDT_PLACES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_wanted_are_found, setup),
		cmocka_unit_test_setup(a_moved_file_moves_them, setup),
		cmocka_unit_test_setup(damaged_notes_end_the_reading, setup),
		cmocka_unit_test_setup(too_many_places_are_refused, setup),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
