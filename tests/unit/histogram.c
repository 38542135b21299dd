/* SPDX-License-Identifier: Apache-2.0 */
/* The exact histogram: thresholds against big-integer arithmetic, lookup against a linear scan. */
#include "metrics.h"

#include "base/str.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Unsigned integers of 640 bits, least limb first: enough for (1e9)^8 * 2^240 and x^8 * 2^240. */
#define LIMBS 20

struct big {
	uint32_t limb[LIMBS];
};

static struct big big_from(uint64_t v)
{
	return (struct big){.limb = {(uint32_t)v, (uint32_t)(v >> 32)}};
}

static struct big big_times(struct big a, uint64_t v)
{
	struct big sum = {0}, b = big_from(v);

	for (unsigned int i = 0; i < LIMBS; i++) {
		uint64_t carry = 0;

		for (unsigned int j = 0; i + j < LIMBS; j++) {
			carry += (uint64_t)a.limb[i] * b.limb[j] + sum.limb[i + j];
			sum.limb[i + j] = (uint32_t)carry;
			carry >>= 32;
		}
		assert_int_equal(carry, 0);
	}
	return sum;
}

static struct big big_shift(struct big a, unsigned int bits)
{
	for (; bits >= 32; bits -= 32)
		a = big_times(a, 1ULL << 32);
	return big_times(a, 1ULL << bits);
}

static struct big big_eighth_power(uint64_t v)
{
	struct big p = big_from(1);

	for (unsigned int i = 0; i < 8; i++)
		p = big_times(p, v);
	return p;
}

static int big_compare(struct big a, struct big b)
{
	for (unsigned int i = LIMBS; i--;)
		if (a.limb[i] != b.limb[i])
			return a.limb[i] < b.limb[i] ? -1 : 1;
	return 0;
}

/* Sign of t - floor(1e9 * 2^(k/8)): compares t^8 and (t + 1)^8 with 1e72 * 2^k, all times 2^240. */
static int threshold_compare(uint64_t t, int k)
{
	struct big x = big_shift(big_eighth_power(1000000000), (unsigned int)(k + 240));

	if (big_compare(big_shift(big_eighth_power(t), 240), x) > 0)
		return 1;
	return big_compare(big_shift(big_eighth_power(t + 1), 240), x) > 0 ? 0 : -1;
}

static const uint64_t otel_ms[] = {5,   10,  25,   50,   75,   100,  250,
				   500, 750, 1000, 2500, 5000, 7500, 10000};

static bool is_otel(uint64_t t)
{
	for (size_t i = 0; i < ARRAY_LEN(otel_ms); i++)
		if (t == otel_ms[i] * 1000000)
			return true;
	return false;
}

static void test_thresholds_are_exact(void **state)
{
	const uint64_t *t = histogram_thresholds();
	bool is_power[HIST_THRESHOLDS] = {false};
	unsigned int j = 0, otel = 0;

	(void)state;
	for (unsigned int i = 1; i < HIST_THRESHOLDS; i++)
		assert_true(t[i] > t[i - 1]);
	for (int k = -240; k <= 88; k++) {
		while (threshold_compare(t[j], k) < 0) {
			j++;
			assert_true(j < HIST_THRESHOLDS);
		}
		if (threshold_compare(t[j], k) != 0)
			fail_msg("no threshold for k = %d", k);
		is_power[j] = true;
	}
	for (unsigned int i = 0; i < HIST_THRESHOLDS; i++)
		assert_true(is_power[i] || is_otel(t[i]));
	for (unsigned int i = 0; i < HIST_THRESHOLDS; i++)
		otel += is_otel(t[i]);
	assert_int_equal(otel, ARRAY_LEN(otel_ms));
	assert_int_equal(t[HIST_THRESHOLDS - 1], 2048000000000);
}

static unsigned int scan(uint64_t v)
{
	const uint64_t *t = histogram_thresholds();
	unsigned int j = 0;

	while (j < HIST_THRESHOLDS && v > t[j])
		j++;
	return j;
}

static void test_index(void **state)
{
	const uint64_t *t = histogram_thresholds();
	uint64_t x = 88172645463325252ULL;

	(void)state;
	for (unsigned int i = 0; i < HIST_THRESHOLDS; i++)
		for (uint64_t v = t[i] ? t[i] - 1 : 0; v <= t[i] + 1; v++)
			assert_int_equal(histogram_index(v), scan(v));
	for (uint64_t v = 0; v < 100000; v++)
		assert_int_equal(histogram_index(v), scan(v));
	for (unsigned int i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		assert_int_equal(histogram_index(x >> i % 64), scan(x >> i % 64));
	}
	assert_int_equal(histogram_index(UINT64_MAX), HIST_THRESHOLDS);
	assert_int_equal(histogram_index(0), 0);
}

/* What the BPF side relies on: from its start every lookup ends within HIST_STEPS comparisons. */
static void test_starts(void **state)
{
	const uint16_t *starts = histogram_starts();
	const uint64_t *t = histogram_thresholds();

	(void)state;
	for (unsigned int e = 0; e < 64; e++) {
		for (unsigned int m = 0; m < 8; m++) {
			uint64_t low = e >= 3 ? (uint64_t)(8 + m) << (e - 3)
					      : (uint64_t)(8 + m) >> (3 - e);
			uint64_t high = e >= 3 ? low + (1ULL << (e - 3)) - 1 : low;
			unsigned int start = starts[e * 8 + m];

			if (e < 3 && low << (3 - e) != 8 + m)
				continue; /* no integer has these bits */
			assert_int_equal(start, scan(low));
			assert_true(scan(high) - start <= HIST_STEPS);
			assert_true(start == 0 || low > t[start - 1]);
		}
	}
}

static void test_sum_and_count(void **state)
{
	const uint64_t *t = histogram_thresholds();
	uint64_t x = 88172645463325252ULL;

	(void)state;
	/* One value at a time, so that errors cannot cancel out. */
	for (unsigned int i = 0; i < 20000; i++) {
		uint64_t cells[HIST_CELLS] = {0}, v;
		double sum;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		v = i < 2000 ? i : x % (t[HIST_THRESHOLDS - 1] >> i % 40) + 1;
		cells[histogram_index(v)] = 3;
		sum = histogram_sum(cells);
		assert_int_equal(histogram_count(cells), 3);
		if (fabs(sum - 3e-9 * (double)v) > 0.0443 * 3e-9 * (double)v)
			fail_msg("%llu ns: sum %g", (unsigned long long)v, sum);
	}
}

static void test_quantiles(void **state)
{
	uint64_t cells[HIST_CELLS] = {0};

	(void)state;
	assert_true(isnan(histogram_quantile(cells, 0.5)));
	for (uint64_t ms = 1; ms <= 1000; ms++)
		cells[histogram_index(ms * 1000000)]++;
	assert_true(fabs(histogram_quantile(cells, 0.5) - 0.5) < 0.5 * 0.09);
	assert_true(fabs(histogram_quantile(cells, 0.99) - 0.99) < 0.99 * 0.09);
	assert_true(histogram_quantile(cells, 0) >= 0);
	assert_true(histogram_quantile(cells, 1) <= 1.09);
	memset(cells, 0, sizeof(cells));
	cells[HIST_CELLS - 1] = 1;
	assert_true(histogram_quantile(cells, 0.5) == 2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thresholds_are_exact),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_starts),
		cmocka_unit_test(test_sum_and_count),
		cmocka_unit_test(test_quantiles),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
