/* SPDX-License-Identifier: Apache-2.0 */
/* Parser of control requests. Owns nothing; steward, and the fuzzer. */
#include "drain/control.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

static const char *const ops[] = {[CONTROL_DRAIN] = "drain",
				  [CONTROL_UNDRAIN] = "undrain",
				  [CONTROL_STATUS] = "status",
				  [CONTROL_PROFILE] = "profile"};
static const char *const keys[] = {"op", "gateway", "deadline_s", "wait", "seconds"};

static int parse_op(const json_t *root, struct control_request *q, struct err *e)
{
	const char *op = json_string_value(json_object_get(root, "op"));
	const char *near;

	if (!op)
		return err_set(e, -EINVAL, "\"op\" is missing: drain, undrain, profile or status");
	for (unsigned int i = 0; i < ARRAY_LEN(ops); i++) {
		if (str_equal(ops[i], op)) {
			q->op = (enum control_op)i;
			return 0;
		}
	}
	near = str_nearest(op, ops, ARRAY_LEN(ops));
	return err_set(e, -EINVAL, "unknown op \"%.40s\"%s%s", op, near ? ", meant: " : "",
		       near ? near : "");
}

static int parse_keys(json_t *root, struct err *e)
{
	const char *key;
	json_t *value;

	json_object_foreach(root, key, value)
	{
		const char *near;
		bool is_known = false;

		for (size_t i = 0; i < ARRAY_LEN(keys); i++)
			is_known |= str_equal(keys[i], key);
		if (is_known)
			continue;
		near = str_nearest(key, keys, ARRAY_LEN(keys));
		return err_set(e, -EINVAL, "unknown key \"%.40s\"%s%s", key,
			       near ? ", meant: " : "", near ? near : "");
	}
	return 0;
}

static int parse_gateway(const json_t *root, struct control_request *q, struct err *e)
{
	const json_t *v = json_object_get(root, "gateway");

	if (!v || json_is_null(v))
		return 0;
	if (!json_is_string(v) || !json_string_length(v))
		return err_set(e, -EINVAL, "\"gateway\" must be a name, or null for all");
	if (!str_copy(q->gateway, sizeof(q->gateway), json_string_value(v)))
		return err_set(e, -EINVAL, "\"gateway\" is longer than %zu bytes",
			       sizeof(q->gateway) - 1);
	return 0;
}

static int parse_deadline(const json_t *root, struct control_request *q, struct err *e)
{
	const json_t *v = json_object_get(root, "deadline_s");
	double s;

	if (!v || json_is_null(v))
		return 0;
	s = json_number_value(v);
	if (!json_is_number(v) || !isfinite(s) || s < 1 || s > CONTROL_DEADLINE_MAX_S)
		return err_set(e, -EINVAL, "\"deadline_s\" must be a number from 1 to %.0f",
			       CONTROL_DEADLINE_MAX_S);
	q->deadline_ns = (uint64_t)(s * (double)NS_PER_S);
	return 0;
}

static int parse_profile(const json_t *root, struct control_request *q, struct err *e)
{
	const json_t *v = json_object_get(root, "seconds");
	double s = json_number_value(v);

	if (q->op != CONTROL_PROFILE)
		return v ? err_set(e, -EINVAL, "\"seconds\" belongs to a profile") : 0;
	if (!q->gateway[0])
		return err_set(e, -EINVAL, "\"gateway\" is missing: a profile is of one gateway");
	if (!json_is_number(v) || !isfinite(s) || s < 1 || s > CONTROL_PROFILE_MAX_S)
		return err_set(e, -EINVAL, "\"seconds\" must be a number from 1 to %.0f",
			       CONTROL_PROFILE_MAX_S);
	q->profile_ns = (uint64_t)(s * (double)NS_PER_S);
	return 0;
}

static int parse_request(json_t *root, struct control_request *q, struct err *e)
{
	const json_t *wait = json_object_get(root, "wait");
	int r;

	if (!json_is_object(root))
		return err_set(e, -EINVAL, "a request is one JSON object a line");
	r = parse_keys(root, e);
	if (!r)
		r = parse_op(root, q, e);
	if (!r)
		r = parse_gateway(root, q, e);
	if (!r)
		r = parse_deadline(root, q, e);
	if (!r)
		r = parse_profile(root, q, e);
	if (r < 0)
		return r;
	if (wait && !json_is_boolean(wait))
		return err_set(e, -EINVAL, "\"wait\" must be true or false");
	q->is_wait = json_is_true(wait);
	return 0;
}

int control_parse(const char *line, size_t size, struct control_request *ret, struct err *e)
{
	struct control_request q = {0};
	json_error_t why;
	json_t *root;
	int r;

	if (size > CONTROL_LINE_MAX)
		return err_set(e, -EINVAL, "the line is longer than %d bytes", CONTROL_LINE_MAX);
	/* jansson bounds the depth (2,048 levels) and refuses NUL bytes in strings. */
	root = json_loadb(line, size, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return err_set(e, -EINVAL, "no JSON object: %.100s", why.text);
	r = parse_request(root, &q, e);
	json_decref(root);
	if (!r)
		*ret = q;
	return r;
}
