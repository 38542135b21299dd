/* SPDX-License-Identifier: Apache-2.0 */
/* Stable topological order of hooks. Owns nothing. */
#include "drain/order.h"

#include "base/str.h"

#include <errno.h>
#include <stdio.h>

static bool names(const char *const list[ORDER_NAMES_MAX], const char *name)
{
	for (unsigned int i = 0; i < ORDER_NAMES_MAX && list[i]; i++)
		if (str_equal(list[i], name))
			return true;
	return false;
}

/* True when a must run before b. */
static bool precedes(const struct order_hook *a, const struct order_hook *b)
{
	return names(a->before, b->name) || names(b->after, a->name);
}

static bool is_blocked(const struct order_hook *hooks, size_t n, const bool *done, size_t i)
{
	for (size_t k = 0; k < n; k++)
		if (!done[k] && precedes(&hooks[k], &hooks[i]))
			return true;
	return false;
}

/* Walks back along the conditions from a blocked hook until one comes twice: that is the cycle. */
static int report_cycle(const struct order_hook *hooks, size_t n, const bool *done, struct err *e)
{
	unsigned int path[ORDER_HOOKS_MAX], at[ORDER_HOOKS_MAX] = {0}, len = 0, i = 0;
	char text[256];
	size_t used = 0;

	while (done[i])
		i++;
	while (!at[i]) {
		path[len++] = i;
		at[i] = len;
		for (unsigned int k = 0; k < n; k++) {
			if (!done[k] && precedes(&hooks[k], &hooks[i])) {
				i = k;
				break;
			}
		}
	}
	text[0] = '\0';
	for (unsigned int k = len; k >= at[i] && used < sizeof(text); k--) {
		int w = snprintf(text + used, sizeof(text) - used, "\"%s\" -> ",
				 hooks[path[k - 1]].name);

		used += w > 0 ? (size_t)w : 0;
	}
	return err_set(e, -ELOOP, "the hooks wait for each other in a circle: %s\"%s\"", text,
		       hooks[path[len - 1]].name);
}

int order_hooks(const struct order_hook *hooks, size_t n, unsigned int *ret_order, struct err *e)
{
	unsigned int order[ORDER_HOOKS_MAX];
	bool done[ORDER_HOOKS_MAX] = {false};

	if (n > ORDER_HOOKS_MAX)
		return err_set(e, -E2BIG, "%zu hooks at one point, at most %d", n, ORDER_HOOKS_MAX);
	for (size_t placed = 0; placed < n; placed++) {
		size_t i = 0;

		while (i < n && (done[i] || is_blocked(hooks, n, done, i)))
			i++;
		if (i == n)
			return report_cycle(hooks, n, done, e);
		done[i] = true;
		order[placed] = (unsigned int)i;
	}
	for (size_t i = 0; i < n; i++)
		ret_order[i] = order[i];
	return 0;
}
