/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/query.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The tree as text, so that a test is one line. */
static void show(char **at, const struct query_node *n)
{
	static const char *const names[] = {"number", "select", "neg",  "+",        "-",
					    "*",      "/",      "rate", "increase", "quantile",
					    "sum",    "avg",    "min",  "max",      "count"};
	static const char *const signs[] = {"=", "!=", "=~", "!~"};

	if (n->op == QUERY_NUMBER) {
		*at += sprintf(*at, "%g", n->number);
		return;
	}
	*at += sprintf(*at, "(%s", names[n->op]);
	for (unsigned int i = 0; i < n->matcher_count; i++)
		*at += sprintf(*at, " %s%s%s", n->matchers[i].label, signs[n->matchers[i].match],
			       n->matchers[i].value);
	if (n->type == QUERY_RANGE)
		*at += sprintf(*at, " [%lu]", (unsigned long)n->range_ms);
	if (n->label_count || n->is_without)
		*at += sprintf(*at, " %s", n->is_without ? "without" : "by");
	for (unsigned int i = 0; i < n->label_count; i++)
		*at += sprintf(*at, " %s", n->labels[i]);
	for (unsigned int i = 0; i < 2 && n->args[i]; i++) {
		*at += sprintf(*at, " ");
		show(at, n->args[i]);
	}
	*at += sprintf(*at, ")");
}

static void tree(const char *text, const char *want)
{
	char buffer[8192], *at = buffer;
	struct err e = {{0}};
	struct query *q = NULL;
	int r = query_parse(text, &q, &e);

	if (r < 0)
		print_message("# %s: %s\n", text, e.text);
	assert_int_equal(r, 0);
	show(&at, query_root(q));
	assert_string_equal(buffer, want);
	query_free(q);
}

static void refused(const char *text, int why, const char *says)
{
	struct err e = {{0}};
	struct query *q = NULL;
	int r = query_parse(text, &q, &e);

	if (r != why || !strstr(e.text, says))
		print_message("# %.80s: %d %s\n", text, r, e.text);
	assert_int_equal(r, why);
	assert_null(q);
	assert_non_null(strstr(e.text, says));
}

static void selectors(void **state)
{
	(void)state;
	tree("up", "(select __name__=up)");
	tree(" a:b_c1 { } ", "(select __name__=a:b_c1)");
	tree("m{a=\"b\",c!='d',e=~`f\\.`,g!~\"h\",}", "(select __name__=m a=b c!=d e=~f\\. g!~h)");
	tree("{__name__=~\"tidegate_.+\"}", "(select __name__=~tidegate_.+)");
	tree("m{a=\"q\\\"\\\\\\n\"}", "(select __name__=m a=q\"\\\n)");
	tree("m{a=\"\"}", "(select __name__=m a=)");
	/* Words of the language are names where a name stands. */
	tree("sum", "(select __name__=sum)");
	tree("rate{by=\"x\"}", "(select __name__=rate by=x)");
}

static void functions(void **state)
{
	(void)state;
	tree("rate(m[5m])", "(rate (select __name__=m [300000]))");
	tree("increase(m{a=\"b\"}[1h30m])", "(increase (select __name__=m a=b [5400000]))");
	tree("sum(m)", "(sum (select __name__=m))");
	tree("sum by (a, b,) (rate(m[15s]))", "(sum by a b (rate (select __name__=m [15000])))");
	tree("avg(m) without (a)", "(avg without a (select __name__=m))");
	tree("sum without () (m)", "(sum without (select __name__=m))");
	tree("max(min by (a) (count(m))) by (b)",
	     "(max by b (min by a (count (select __name__=m))))");
}

static void operators(void **state)
{
	(void)state;
	tree("1+1", "(+ 1 1)"); /* how Grafana asks whether anybody is there */
	tree("1-2-3", "(- (- 1 2) 3)");
	tree("1+2*3/4", "(+ 1 (/ (* 2 3) 4))");
	tree("(1+2)*-m", "(* (+ 1 2) (neg (select __name__=m)))");
	tree("1e3 * .5", "(* 1000 0.5)");
	tree("sum(a)/sum(b)", "(/ (sum (select __name__=a)) (sum (select __name__=b)))");
	tree("histogram_quantile(0.99, sum by (le) (rate(m_bucket[1m])))",
	     "(quantile 0.99 (sum by le (rate (select __name__=m_bucket [60000]))))");
}

static void what_is_not_in_it(void **state)
{
	(void)state;
	refused("", -EINVAL, "a metric, function or number is missing at character 1");
	refused("topk(3, m)", -EINVAL, "unknown function with name \"topk\"");
	refused("m offset 5m", -EINVAL, "the query should have ended at character 3");
	refused("m > 1", -EINVAL, "not of the language at character 3");
	refused("m @ 3", -EINVAL, "not of the language");
	refused("rate(m)", -EINVAL, "a range as name[5m] was expected");
	refused("sum(m[5m])", -EINVAL, "an instant vector");
	refused("sum(1)", -EINVAL, "an instant vector");
	refused("m[5m]+1", -EINVAL, "cannot be calculated with");
	refused("-m[5m]", -EINVAL, "cannot be negated");
	refused("histogram_quantile(m, m)", -EINVAL, "a number was expected");
	refused("histogram_quantile(1)", -EINVAL, ", is missing");
	refused("m[5m:1m]", -EINVAL, "");
	refused("m[0s]", -EINVAL, "a duration");
	refused("m[5]", -EINVAL, "a duration");
	refused("m[30m1h]", -EINVAL, "no duration");
	refused("m[401d]", -EINVAL, "one too long");
	refused("m[99999999999999999999999d]", -EINVAL, "one too long");
	refused("{}", -EINVAL, "a selector needs");
	refused("{a=\"\"}", -EINVAL, "a selector needs");
	refused("{a!=\"b\"}", -EINVAL, "a selector needs");
	refused("{a=~\".*\"}", -EINVAL, "a selector needs");
	refused("m{a}", -EINVAL, "=, !=, =~ or !~ is missing");
	refused("m{a=b}", -EINVAL, "a quoted value");
	refused("m{a:b=\"c\"}", -EINVAL, "a label name");
	refused("m{a=\"b\"", -EINVAL, ", or } is missing");
	refused("m{a=\"b", -EINVAL, "a string without end at character 5");
	refused("m{a=\"\\x\"}", -EINVAL, "an unknown escape");
	refused("sum by (a) (m) by (b)", -EINVAL, "twice");
	refused("1 2", -EINVAL, "should have ended");
	refused("0x10", -EINVAL, "no decimal number");
	refused("1e999", -EINVAL, "too large");
	refused("m)", -EINVAL, "should have ended");
	refused("\xff", -EINVAL, "not of the language");
}

static void limits(void **state)
{
	char text[QUERY_TEXT_MAX + 2], *at = text;

	(void)state;
	memset(text, ' ', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	text[0] = 'm';
	refused(text, -E2BIG, "4096 bytes");
	text[QUERY_TEXT_MAX] = '\0';
	tree(text, "(select __name__=m)");

	/* The outermost expression is a level, too. */
	memset(text, '(', QUERY_DEPTH_MAX);
	strcpy(text + QUERY_DEPTH_MAX, "m");
	refused(text, -E2BIG, "16 levels");
	refused(text + 1, -EINVAL, ") is missing");

	for (unsigned int i = 0; i < QUERY_NODES_MAX; i++)
		at += sprintf(at, "1+");
	strcpy(at, "1");
	refused(text, -E2BIG, "64 parts");

	at = text + sprintf(text, "m{");
	for (unsigned int i = 0; i < QUERY_MATCHERS_MAX; i++)
		at += sprintf(at, "a=\"b\",");
	strcpy(at, "}");
	refused(text, -E2BIG, "16 matchers");

	at = text + sprintf(text, "sum by (");
	for (unsigned int i = 0; i <= QUERY_LABELS_MAX; i++)
		at += sprintf(at, "a,");
	strcpy(at, ")(m)");
	refused(text, -E2BIG, "16 labels");
}

static void duration_is(const char *text, int want, uint64_t ms)
{
	uint64_t v = 12345;
	int r = query_duration(text, &v);

	if (r != want)
		print_message("# %s: %d\n", text, r);
	assert_int_equal(r, want);
	assert_int_equal(v, want < 0 ? 12345 : ms); /* untouched on failure */
}

static void durations(void **state)
{
	(void)state;
	duration_is("15", 0, 15000);
	duration_is("0.5", 0, 500);
	duration_is("250ms", 0, 250);
	duration_is("1h30m", 0, 5400000);
	duration_is("1w", 0, 604800000);
	duration_is("400d", 0, QUERY_RANGE_MAX_MS);
	duration_is("401d", -ERANGE, 0);
	duration_is("99999999999", -ERANGE, 0);
	duration_is("", -EINVAL, 0);
	duration_is("-5", -EINVAL, 0);
	duration_is("5x", -EINVAL, 0);
	duration_is("1m1m", -EINVAL, 0);
	duration_is("inf", -EINVAL, 0);
	duration_is("1.2.3", -EINVAL, 0);
	duration_is("5m ", -EINVAL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(selectors), cmocka_unit_test(functions),
		cmocka_unit_test(operators), cmocka_unit_test(what_is_not_in_it),
		cmocka_unit_test(limits),    cmocka_unit_test(durations),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
