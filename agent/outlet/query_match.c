/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/query_match.h"

#include "outlet/pattern.h"

#include <errno.h>
#include <stdlib.h>

struct query_filter {
	const struct query_node *selector;
	struct pattern *patterns[QUERY_MATCHERS_MAX];
};

#define NAME "__name__"

int query_filter_new(const struct query_node *selector, struct query_filter **ret, struct err *e)
{
	struct query_filter *f = calloc(1, sizeof(*f));
	int r = 0;

	if (!f)
		return -ENOMEM;
	f->selector = selector;
	for (unsigned int i = 0; i < selector->matcher_count && r >= 0; i++) {
		const struct query_matcher *m = &selector->matchers[i];

		if (m->match == QUERY_REGEX || m->match == QUERY_NOT_REGEX)
			r = pattern_new(m->value, &f->patterns[i], e);
	}
	if (r < 0) {
		query_filter_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

struct query_filter *query_filter_free(struct query_filter *f)
{
	if (!f)
		return NULL;
	for (unsigned int i = 0; i < QUERY_MATCHERS_MAX; i++)
		pattern_free(f->patterns[i]);
	free(f);
	return NULL;
}

static bool matches(const struct query_filter *f, unsigned int i, const char *value)
{
	const struct query_matcher *m = &f->selector->matchers[i];

	switch (m->match) {
	case QUERY_EQUAL:
		return str_equal(value, m->value);
	case QUERY_NOT_EQUAL:
		return !str_equal(value, m->value);
	case QUERY_REGEX:
		return pattern_matches(f->patterns[i], value);
	case QUERY_NOT_REGEX:
		return !pattern_matches(f->patterns[i], value);
	}
	return false;
}

bool query_filter_name(const struct query_filter *f, const char *name)
{
	for (unsigned int i = 0; i < f->selector->matcher_count; i++)
		if (str_equal(f->selector->matchers[i].label, NAME) && !matches(f, i, name))
			return false;
	return true;
}

bool query_filter_labels(const struct query_filter *f, const struct segment_label *labels, size_t n)
{
	for (unsigned int i = 0; i < f->selector->matcher_count; i++) {
		const char *label = f->selector->matchers[i].label, *value = "";

		if (str_equal(label, NAME))
			continue;
		for (size_t k = 0; k < n; k++)
			if (str_equal(labels[k].key, label))
				value = labels[k].value;
		if (!matches(f, i, value))
			return false;
	}
	return true;
}
