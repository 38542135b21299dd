/* SPDX-License-Identifier: Apache-2.0 */
/* Codes of the frame codec: what is written is read, and costs what was said. */
#include "base/str.h"
#include "bus/frame_cells.h"
#include "metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint64_t random_state = 88172645463325252ULL;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void test_codes_round_trip(void **state)
{
	static const uint64_t values[] = {0,   1,   2,          3,          7,         8,
					  255, 256, UINT32_MAX, 1ULL << 63, UINT64_MAX};

	(void)state;
	for (unsigned int k = 0; k <= FRAME_BITS_K_LENGTH; k++) {
		struct frame_bits_writer w = {0};
		struct frame_bits_reader r;

		if (k > FRAME_BITS_K_MOST && k < FRAME_BITS_K_LENGTH)
			continue;
		for (size_t i = 0; i < ARRAY_LEN(values); i++)
			frame_bits_put_code(&w, values[i], k);
		frame_bits_open(&r, w.data, w.size);
		for (size_t i = 0; i < ARRAY_LEN(values); i++)
			assert_int_equal(frame_bits_get_code(&r, k), values[i]);
		assert_true(frame_bits_is_done(&r));
		frame_bits_fini(&w);
	}
}

static const uint64_t code_values[] = {
	0,    1,     2,     3,       7,        8,        255,        256,        1000,
	7000, 10000, 65536, 1000000, 10000000, 30000000, 186778956,  UINT32_MAX, 1ULL << 33,
	1000, 1000,  7,     1000,    0,        0,        1ULL << 63, UINT64_MAX, 1,
};

static void test_trained_codes_round_trip(void **state)
{
	(void)state;
	frame_code_init();
	for (enum frame_code code = 0; code < FRAME_CODES; code++) {
		for (unsigned int k = 0; k < 64; k++) {
			struct frame_bits_writer w = {0};
			struct frame_bits_reader r;
			uint64_t bits = 0;

			for (size_t i = 0; i < ARRAY_LEN(code_values); i++) {
				if (code == FRAME_CODE_COUNTER && code_values[i] >> k == 0)
					continue;
				frame_code_put_shifted(&w, code, code_values[i], k);
				if (!k)
					bits += frame_code_bits(code, code_values[i]);
			}
			if (!k)
				assert_int_equal(w.size, (bits + 7) / 8);
			frame_bits_open(&r, w.data, w.size);
			for (size_t i = 0; i < ARRAY_LEN(code_values); i++)
				if (code != FRAME_CODE_COUNTER || code_values[i] >> k)
					assert_int_equal(frame_code_get_shifted(&r, code, k),
							 code_values[i]);
			assert_true(frame_bits_is_done(&r));
			frame_bits_fini(&w);
		}
	}
}

static void test_counters_round_trip(void **state)
{
	struct frame_code_recent costed = {0}, written = {0}, read = {0};
	struct frame_bits_writer w = {0};
	struct frame_bits_reader r;
	uint64_t bits = 0;

	(void)state;
	frame_code_init();
	for (size_t i = 0; i < ARRAY_LEN(code_values); i++) {
		bits += frame_code_counter_bits(&costed, code_values[i]);
		frame_code_put_counter(&w, &written, code_values[i]);
	}
	assert_int_equal(w.size, (bits + 7) / 8);
	frame_bits_open(&r, w.data, w.size);
	for (size_t i = 0; i < ARRAY_LEN(code_values); i++)
		assert_int_equal(frame_code_get_counter(&r, &read), code_values[i]);
	assert_true(frame_bits_is_done(&r));
	frame_bits_fini(&w);
}

/* Dense and sparse ones, small counts and such whose neighbourhood overflows, multiples. */
static void test_cells_round_trip(void **state)
{
	uint16_t cells[HIST_CELLS], read_cells[HIST_CELLS];
	uint64_t counts[HIST_CELLS], read_counts[HIST_CELLS];

	(void)state;
	frame_code_init();
	for (unsigned int round = 0; round < 3000; round++) {
		unsigned int n = 0, often = 1 + (unsigned int)(random_next() % 20);
		unsigned int width = (unsigned int)(random_next() % 64);
		unsigned int before = (unsigned int)(random_next() % HIST_CELLS), start = before;
		uint64_t d = round % 3 && width < 50 ? 1 + random_next() % 12 : 1;
		struct frame_bits_writer w = {0};
		struct frame_bits_reader r;

		for (unsigned int c = 0; c < HIST_CELLS; c++) {
			if (random_next() % often)
				continue;
			cells[n] = (uint16_t)c;
			counts[n++] = ((random_next() >> (63 - width)) | 1) * d;
		}
		frame_cells_put(&w, cells, counts, n, &start);
		assert_int_equal(start, n ? cells[0] : before);
		start = before;
		frame_bits_open(&r, w.data, w.size);
		assert_int_equal(frame_cells_get_length(&r), n);
		frame_cells_get(&r, read_cells, read_counts, n, &start);
		assert_true(frame_bits_is_done(&r));
		assert_memory_equal(cells, read_cells, n * sizeof(cells[0]));
		assert_memory_equal(counts, read_counts, n * sizeof(counts[0]));
		assert_int_equal(start, n ? cells[0] : before);
		/* Cut anywhere, it is refused or at least stays within its arrays. */
		frame_bits_open(&r, w.data, w.size / 2);
		start = before;
		frame_cells_get(&r, read_cells, read_counts, frame_cells_get_length(&r), &start);
		assert_true(w.size < 4 || r.failed);
		frame_bits_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes_round_trip),
		cmocka_unit_test(test_trained_codes_round_trip),
		cmocka_unit_test(test_counters_round_trip),
		cmocka_unit_test(test_cells_round_trip),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
