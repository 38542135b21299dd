/* SPDX-License-Identifier: Apache-2.0 */
/* bus/bundle: what goes in comes out; damaged bytes are an error, never a read beyond them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bundle.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void round_trip(void **state)
{
	static uint8_t large[BUNDLE_BYTES * 3];
	struct bundle b = {0};
	const uint8_t *message;
	size_t at = 0, size;

	(void)state;
	memset(large, 7, sizeof(large));
	assert_int_equal(bundle_add(&b, "he", 2, "llo", 3), 0);
	assert_int_equal(bundle_add(&b, NULL, 0, NULL, 0), 0);
	assert_int_equal(bundle_add(&b, "x", 1, large, sizeof(large)), 0);
	assert_int_equal(b.count, 3);
	assert_int_equal(b.size, 3 * BUNDLE_HEAD + 5 + 1 + sizeof(large));
	assert_int_equal(bundle_next(b.data, b.size, &at, &message, &size), 1);
	assert_int_equal(size, 5);
	assert_memory_equal(message, "hello", 5);
	assert_int_equal(bundle_next(b.data, b.size, &at, &message, &size), 1);
	assert_int_equal(size, 0);
	assert_int_equal(bundle_next(b.data, b.size, &at, &message, &size), 1);
	assert_int_equal(size, 1 + sizeof(large));
	assert_memory_equal(message + 1, large, sizeof(large));
	assert_int_equal(bundle_next(b.data, b.size, &at, &message, &size), 0);
	bundle_reset(&b);
	assert_int_equal(b.size + b.count, 0);
	bundle_fini(&b);
	assert_null(b.data);
}

/* Every cut of a bundle, in memory that ends where the bundle ends: for the sanitizers. */
static void cut_anywhere(void **state)
{
	struct bundle b = {0};

	(void)state;
	assert_int_equal(bundle_add(&b, "abc", 3, NULL, 0), 0);
	assert_int_equal(bundle_add(&b, NULL, 0, "de", 2), 0);
	for (size_t n = 0; n <= b.size; n++) {
		uint8_t *copy = malloc(n ? n : 1);
		bool is_end = n == 0 || n == 7 || n == b.size;
		const uint8_t *message;
		size_t at = 0, size;
		int r;

		assert_non_null(copy);
		memcpy(copy, b.data, n);
		while ((r = bundle_next(copy, n, &at, &message, &size)) > 0)
			assert_true(message + size <= copy + n);
		assert_int_equal(r, is_end ? 0 : -EPROTO);
		free(copy);
	}
	bundle_fini(&b);
}

static void promises_too_much(void **state)
{
	static const uint8_t lies[] = {0xff, 0xff, 0xff, 0xff, 1};
	const uint8_t *message;
	size_t at = 0, size;

	(void)state;
	assert_int_equal(bundle_next(lies, sizeof(lies), &at, &message, &size), -EPROTO);
	assert_int_equal(at, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(promises_too_much),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
