/* SPDX-License-Identifier: Apache-2.0 */
/* CRC32C against the vectors of RFC 3720 B.4, and both of its paths against each other. */
#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_vectors(void **state)
{
	uint8_t buf[32];

	(void)state;
	assert_int_equal(crc32c(0, "", 0), 0);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(crc32c(0, buf, sizeof(buf)), 0x8a9136aau);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(crc32c(0, buf, sizeof(buf)), 0x62a8ab43u);
	for (unsigned int i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, buf, sizeof(buf)), 0x46dd794eu);
}

static void test_both_paths_in_any_cut(void **state)
{
	uint8_t buf[777];

	(void)state;
	srand(7);
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)rand();
	for (int round = 0; round < 2000; round++) {
		size_t from = (size_t)rand() % sizeof(buf);
		size_t len = (size_t)rand() % (sizeof(buf) - from);
		size_t cut = len ? (size_t)rand() % len : 0;
		uint32_t whole = crc32c(0, buf + from, len);

		assert_int_equal(whole, crc32c_portable(0, buf + from, len));
		assert_int_equal(whole, crc32c(crc32c_portable(0, buf + from, cut),
					       buf + from + cut, len - cut));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_both_paths_in_any_cut),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
