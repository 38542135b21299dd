/* SPDX-License-Identifier: Apache-2.0 */
/* Huffman's code against the examples of RFC 7541, appendix C. */
#include "probe/huffman.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct {
	const char *text;
	size_t bytes;
	uint8_t code[64];
} examples[] = {
	{"www.example.com",
	 12,
	 {0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff}},
	{"no-cache", 6, {0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf}},
	{"custom-key", 8, {0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f}},
	{"302", 2, {0x64, 0x02}},
	{"private", 5, {0xae, 0xc3, 0x77, 0x1a, 0x4b}},
	{"Mon, 21 Oct 2013 20:13:21 GMT", 22, {0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44,
					       0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
					       0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff}},
	{"https://www.example.com",
	 17,
	 {0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae,
	  0x43, 0xd3}},
};

static void test_examples(void **state)
{
	uint8_t code[64];
	size_t bits;

	(void)state;
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
		assert_true(huffman_encode(examples[i].text, code, sizeof(code), &bits));
		assert_int_equal((bits + 7) / 8, examples[i].bytes);
		assert_memory_equal(code, examples[i].code, examples[i].bytes);
	}
}

/* No code begins another. */
static void test_prefix_free(void **state)
{
	uint8_t a[8], b[8];
	size_t n, m;

	(void)state;
	for (int i = 32; i < 127; i++) {
		const char x[] = {(char)i, 0};

		assert_true(huffman_encode(x, a, sizeof(a), &n));
		for (int k = 32; k < 127; k++) {
			const char y[] = {(char)k, 0};
			size_t same = 0;

			assert_true(huffman_encode(y, b, sizeof(b), &m));
			if (i == k || m < n)
				continue;
			while (same < n && !((a[same / 8] ^ b[same / 8]) >> (7 - same % 8) & 1))
				same++;
			assert_true(same < n);
		}
	}
}

static void test_limits(void **state)
{
	uint8_t code[2];
	size_t bits;

	(void)state;
	assert_true(huffman_encode("aaa", code, sizeof(code), &bits));
	assert_int_equal(bits, 15);
	assert_false(huffman_encode("aaaa", code, sizeof(code), &bits));
	assert_false(huffman_encode("\xc3\xa9", code, sizeof(code), &bits));
	assert_false(huffman_encode("\n", code, sizeof(code), &bits));
	assert_true(huffman_encode("", code, sizeof(code), &bits));
	assert_int_equal(bits, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_prefix_free),
		cmocka_unit_test(test_limits),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
