/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/sheaf.h"
#include "sealed.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define START 1700000040000ull

/* Frames by their sequences: "312". */
static struct sheaf *with(const char *sequences)
{
	struct sheaf *s;

	assert_int_equal(sheaf_new(START, &s), 0);
	for (; *sequences; sequences++) {
		uint64_t sequence = (uint64_t)(*sequences - '0');

		assert_int_equal(sealed_add(s, sequence, START + sequence * 1000, sequence * 100),
				 1);
	}
	return s;
}

static int on_sample(void *data, const struct minute_sample *s)
{
	char *text = data;

	sprintf(text + strlen(text), "%lu@%lu=%lu ", (unsigned long)s->sequence,
		(unsigned long)(s->time_ms - START), (unsigned long)s->counter);
	return 0;
}

static void is(struct sheaf *s, uint64_t until_ms, const char *want)
{
	char text[1024] = "";
	struct minute *m;

	assert_int_equal(sheaf_minute(s, 0, until_ms, &m), 0);
	assert_int_equal(minute_each(m, on_sample, text), 0);
	assert_string_equal(text, want);
	minute_free(m);
}

#define ALL "1@1000=100 2@2000=200 3@3000=300 4@4000=400 "

static void it_is_a_union(void **state)
{
	static const char *const pairs[][2] = {{"12", "34"}, {"34", "12"},   {"124", "1234"},
					       {"", "1234"}, {"1234", "23"}, {"1234", ""}};

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		struct sheaf *a = with(pairs[i][0]), *b = with(pairs[i][1]);

		assert_int_equal(sheaf_merge(a, b), 4 - (int)strlen(pairs[i][0]));
		is(a, UINT64_MAX, ALL);
		assert_int_equal(sheaf_merge(a, b), 0);
		is(a, UINT64_MAX, ALL);
		is(a, START + 2500, "1@1000=100 2@2000=200 ");
		sheaf_free(a);
		sheaf_free(b);
	}
}

static void bytes_and_back(void **state)
{
	struct sheaf *s = with("2413"), *back, *copy;
	struct pack p = {0}, again = {0};

	(void)state;
	assert_int_equal(sheaf_encode(s, &p), 0);
	assert_int_equal(sheaf_decode(p.data, p.size, &back), 0);
	is(back, UINT64_MAX, ALL);
	assert_int_equal(sheaf_start_ms(back), START);
	assert_int_equal(sheaf_frames(back), 4);
	assert_int_equal(sheaf_sequence(back, 3), 4);
	assert_int_equal(sheaf_copy(back, &copy), 0);
	assert_int_equal(sheaf_encode(copy, &again), 0);
	assert_int_equal(again.size, p.size);
	assert_memory_equal(again.data, p.data, p.size);
	for (size_t i = 0; i < p.size * 8; i++) {
		struct sheaf *none = NULL;

		p.data[i / 8] ^= (uint8_t)(1u << (i % 8));
		assert_int_equal(sheaf_decode(p.data, p.size, &none), -EBADMSG);
		p.data[i / 8] ^= (uint8_t)(1u << (i % 8));
		assert_int_equal(sheaf_decode(p.data, i / 8, &none), -EBADMSG);
	}
	sheaf_free(s);
	sheaf_free(back);
	sheaf_free(copy);
	pack_fini(&p);
	pack_fini(&again);
}

static void what_is_not_of_it(void **state)
{
	static const uint8_t junk[1 << 20];
	struct sheaf *s = with("1"), *other;
	struct minute *m;

	(void)state;
	assert_int_equal(sheaf_new(START + MINUTE_MS, &other), 0);
	assert_int_equal(sheaf_merge(s, other), -ERANGE);
	assert_int_equal(sealed_add(s, 2, START - 1, 1), -ERANGE);
	assert_int_equal(sealed_add(s, 2, START + MINUTE_MS, 1), -ERANGE);
	assert_int_equal(sealed_add(s, 1, START, 1), 0);
	assert_int_equal(sheaf_add(s, 2, START, false, junk, 0), -EBADMSG);
	/* What cannot be decoded is counted, and the rest is there. */
	assert_int_equal(sheaf_add(s, 7, START, false, junk, 100), 1);
	assert_int_equal(sheaf_minute(s, 0, UINT64_MAX, &m), 1);
	assert_int_equal(sealed_total(m), 100);
	minute_free(m);
	/* Bounds: of bytes and of frames. */
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(sheaf_add(s, 10 + i, START, false, junk, sizeof(junk)), 1);
	assert_int_equal(sheaf_add(s, 20, START, false, junk, sizeof(junk)), -ENOSPC);
	for (uint64_t i = 0; i < MINUTE_TICKS_MAX; i++)
		assert_int_equal(sheaf_add(other, i + 1, START + MINUTE_MS, false, junk, 1), 1);
	assert_int_equal(sheaf_add(other, 1 << 20, START + MINUTE_MS, false, junk, 1), -ENOSPC);
	sheaf_free(s);
	sheaf_free(other);
}

/* From a key frame on, whose rest may be in the next. */
static void from_a_key_frame(void **state)
{
	static const uint64_t keys[] = {3, 4, 8};
	struct sheaf *s;
	struct minute *m;

	(void)state;
	assert_int_equal(sheaf_new(START, &s), 0);
	for (uint64_t i = 9; i >= 1; i--) {
		bool is_key = i == keys[0] || i == keys[1] || i == keys[2];
		const uint8_t *data;
		size_t size;

		sealed_frame(i, START + i * 1000, i, &data, &size);
		assert_int_equal(sheaf_add(s, i, START + i * 1000, is_key, data, size), 1);
	}
	static const struct {
		uint64_t from_s;
		size_t ticks;
		bool has_key;
	} wants[] = {{0, 9, false}, {2, 9, false}, {3, 7, true}, {4, 7, true},
		     {7, 7, true},  {8, 2, true},  {90, 2, true}};

	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
		uint64_t from_ms = START + wants[i].from_s * 1000;

		assert_int_equal(sheaf_has_key(s, from_ms), wants[i].has_key);
		assert_int_equal(sheaf_minute(s, from_ms, UINT64_MAX, &m), 0);
		assert_int_equal(minute_ticks(m), wants[i].ticks);
		minute_free(m);
	}
	sheaf_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_a_union),
		cmocka_unit_test(from_a_key_frame),
		cmocka_unit_test(bytes_and_back),
		cmocka_unit_test(what_is_not_of_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
