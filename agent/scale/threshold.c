/* SPDX-License-Identifier: Apache-2.0 */
/* Threshold policy. No state. */
#include "scale/threshold.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

static int policy_check(const struct scale_policy *p, struct err *e)
{
	if (!(p->target > 0) || !isfinite(p->target))
		return err_set(e, -EINVAL, "policy %s: target %g must be above 0", p->name,
			       p->target);
	if (!(p->tolerance >= 0 && p->tolerance < 1))
		return err_set(e, -EINVAL, "policy %s: tolerance %g must be in [0, 1)", p->name,
			       p->tolerance);
	if (p->min > p->max || !p->max)
		return err_set(e, -EINVAL, "policy %s: min %u and max %u leave no room", p->name,
			       p->min, p->max);
	return 0;
}

static int input_check(const struct scale_policy *p, const struct scale_input *in, uint64_t age_ns,
		       double coverage, struct err *e)
{
	if (!in->reporting || !isfinite(in->value) || in->value < 0)
		return err_set(e, -ENODATA, "%s is unknown: no gateway reports it", p->metric);
	if (age_ns > p->stale_ns)
		return err_set(e, -ESTALE, "%s is stale: last known %.1f s ago", p->metric,
			       (double)age_ns / 1e9);
	if (coverage < SCALE_COVERAGE_LEAST)
		return err_set(e, -ENODATA, "%s is known of %u of %u gateways only", p->metric,
			       in->reporting, in->expected);
	return 0;
}

static uint32_t wanted(const struct scale_policy *p, const struct scale_input *in, double ratio)
{
	/* 0.7 * 10 / 0.7 must not become 11 for the last bit of a quotient. */
	double n =
		p->aggregation == SCALE_MEAN ? (double)in->replicas * ratio : in->value / p->target;

	n = ceil(n - 1e-9);
	return n >= (double)UINT32_MAX ? UINT32_MAX : (uint32_t)(n < 0 ? 0 : n);
}

int scale_threshold(const struct scale_policy *policy, const struct scale_input *input,
		    uint64_t now_ns, struct scale_decision *ret, struct err *e)
{
	uint64_t age_ns = now_ns > input->at_ns ? now_ns - input->at_ns : 0;
	double coverage = input->expected && input->reporting < input->expected
				  ? (double)input->reporting / input->expected
				  : 1;
	uint32_t desired, now = input->replicas;
	const char *why;
	double ratio;
	int r = policy_check(policy, e);

	if (r >= 0)
		r = input_check(policy, input, age_ns, coverage, e);
	if (r < 0)
		return r;
	ratio = policy->aggregation == SCALE_MEAN || !now
			? input->value / policy->target
			: input->value / (policy->target * (double)now);
	desired = wanted(policy, input, ratio);
	why = desired > now ? "above target" : desired < now ? "below target" : "on target";
	if (now && fabs(1 - ratio) <= policy->tolerance) {
		desired = now;
		why = "within tolerance";
	} else if (desired < now && coverage < SCALE_COVERAGE_IN) {
		desired = now;
		why = "below target, but too few gateways report to scale in";
	}
	if (desired < policy->min || desired > policy->max) {
		desired = desired < policy->min ? policy->min : policy->max;
		why = desired == policy->min ? "held at the minimum" : "held at the maximum";
	}
	*ret = (struct scale_decision){
		.desired = desired, .ratio = ratio, .coverage = coverage, .age_ns = age_ns};
	snprintf(ret->reason, sizeof(ret->reason), "%s: %.3g, target %.3g, %u of %u report", why,
		 input->value, policy->target, input->reporting, input->expected);
	return 0;
}
