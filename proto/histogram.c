/* SPDX-License-Identifier: Apache-2.0 */
/* The exact histogram: its table, and what cells say. Pure; the library for gateways has it too. */
#include "metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* 2^(m/8), exact to 64 bits of mantissa. */
static const long double eighths[8] = {
	1.0L,
	1.09050773266525765920701065576070797899L,
	1.18920711500272106671749997056047591529L,
	1.29683955465100966593375411779245117564L,
	1.41421356237309504880168872420969807857L,
	1.54221082540794082361229186209073484135L,
	1.68179283050742908606225095246642979008L,
	1.83400808640934246348708318958828892089L,
};

static const uint64_t otel_ms[] = {5,   10,  25,   50,   75,   100,  250,
				   500, 750, 1000, 2500, 5000, 7500, 10000};

static uint64_t thresholds[HIST_THRESHOLDS];
static uint16_t starts[HIST_STARTS];
static bool is_ready;

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void table_fill(void)
{
	uint64_t all[329 + sizeof(otel_ms) / sizeof(otel_ms[0])];
	unsigned int n = 0, distinct = 0, j = 0;

	for (int k = -240; k <= 88; k++)
		all[n++] =
			(uint64_t)floorl(ldexpl(1e9L * eighths[(k + 240) % 8], (k + 240) / 8 - 30));
	for (unsigned int i = 0; i < sizeof(otel_ms) / sizeof(otel_ms[0]); i++)
		all[n++] = otel_ms[i] * 1000000;
	qsort(all, n, sizeof(all[0]), compare_u64);
	for (unsigned int i = 0; i < n; i++) {
		if (i && all[i] == all[i - 1])
			continue;
		if (distinct == HIST_THRESHOLDS)
			abort(); /* the formula was changed */
		thresholds[distinct++] = all[i];
	}
	if (distinct != HIST_THRESHOLDS)
		abort();
	for (unsigned int e = 0; e < 64; e++) {
		for (unsigned int m = 0; m < 8; m++) {
			/* The least value with highest bit e and next three bits m. */
			uint64_t least = e >= 3 ? (uint64_t)(8 + m) << (e - 3)
						: (uint64_t)(8 + m) >> (3 - e);

			while (j < HIST_THRESHOLDS && thresholds[j] < least)
				j++;
			starts[e * 8 + m] = (uint16_t)j;
		}
	}
}

const uint64_t *histogram_thresholds(void)
{
	if (!is_ready) {
		table_fill();
		is_ready = true;
	}
	return thresholds;
}

const uint16_t *histogram_starts(void)
{
	histogram_thresholds();
	return starts;
}

unsigned int histogram_index(uint64_t v_ns)
{
	const uint64_t *t = histogram_thresholds();
	unsigned int e, m, j;

	if (v_ns == 0)
		return 0;
	e = 63 - (unsigned int)__builtin_clzll(v_ns);
	m = (unsigned int)(e >= 3 ? v_ns >> (e - 3) : v_ns << (3 - e)) & 7;
	j = starts[e * 8 + m];
	while (j < HIST_THRESHOLDS && v_ns > t[j])
		j++;
	return j;
}

uint64_t histogram_count(const uint64_t cells[HIST_CELLS])
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < HIST_CELLS; i++)
		n += cells[i];
	return n;
}

double histogram_quantile(const uint64_t cells[HIST_CELLS], double q)
{
	const uint64_t *t = histogram_thresholds();
	uint64_t total = histogram_count(cells), below = 0;
	double rank = q * (double)total;

	if (!total)
		return NAN;
	for (unsigned int i = 0; i < HIST_THRESHOLDS; i++) {
		if (cells[i] && (double)(below + cells[i]) >= rank) {
			double low = i ? (double)t[i - 1] : 0, high = (double)t[i];
			double part = (rank - (double)below) / (double)cells[i];

			return (low + (high - low) * (part < 0 ? 0 : part)) / 1e9;
		}
		below += cells[i];
	}
	return (double)t[HIST_THRESHOLDS - 1] / 1e9;
}

double histogram_sum(const uint64_t cells[HIST_CELLS])
{
	const uint64_t *t = histogram_thresholds();
	double sum = 0;

	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		/* The least and the greatest whole number that the cell counts. */
		double low = i ? (double)t[i - 1] + 1 : 0;
		double high = i < HIST_THRESHOLDS ? (double)t[i] : low;

		sum += (double)cells[i] * sqrt(low * high);
	}
	return sum / 1e9;
}
