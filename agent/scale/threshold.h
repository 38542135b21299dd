/* SPDX-License-Identifier: Apache-2.0 */
/* How many replicas a load wants: the formula of Kubernetes' HorizontalPodAutoscaler v2. Pure. */
#pragma once

#include "base/err.h"

#include <stdint.h>

enum scale_aggregation {
	SCALE_MEAN, /* the value is a mean over replicas: desired = ceil(current * value / target) */
	SCALE_SUM,  /* the value is a total: desired = ceil(value / target) */
};

#define SCALE_COVERAGE_IN    0.9 /* below: never fewer replicas than now */
#define SCALE_COVERAGE_LEAST 0.5 /* below: no answer */

struct scale_policy {
	const char *name, *metric;
	enum scale_aggregation aggregation;
	double target;    /* per replica, above 0 */
	double tolerance; /* no change while |1 - value / target| is within it */
	uint32_t min, max;
	uint64_t stale_ns; /* a value older than this is none */
};

struct scale_input {
	double value; /* NAN: unknown */
	uint64_t at_ns;
	uint32_t replicas; /* now */
	uint32_t reporting,
		expected; /* sources of the value: those that said it, those there are */
};

struct scale_decision {
	uint32_t desired;
	double ratio, coverage;
	uint64_t age_ns;
	char reason[160];
};

/* -EINVAL (policy), -ENODATA (unknown, or coverage below SCALE_COVERAGE_LEAST), -ESTALE; e says
 * why. An unknown load is never taken for none. */
int scale_threshold(const struct scale_policy *policy, const struct scale_input *input,
		    uint64_t now_ns, struct scale_decision *ret, struct err *e);
