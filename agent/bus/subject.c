/* SPDX-License-Identifier: Apache-2.0 */
/* Names of topics. */
#include "bus/subject.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>

#define METRICS "metrics/"
#define EVENTS  "events/"
#define SCALE   "scale/"

static bool is_plain(unsigned char c)
{
	return c > 0x20 && c != 0x7f && c != '/' && c != '%';
}

/* Appends at most `most` bytes of the part (0: all). -E2BIG. */
static int part_add(char ret[SUBJECT_MAX + 1], size_t *at, const char *part, size_t most)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; part[i] && (!most || i < most); i++) {
		unsigned char c = (unsigned char)part[i];

		if (*at + (is_plain(c) ? 1 : 3) > SUBJECT_MAX) {
			*ret = '\0';
			return -E2BIG;
		}
		if (is_plain(c)) {
			ret[(*at)++] = (char)c;
		} else {
			ret[(*at)++] = '%';
			ret[(*at)++] = digits[c >> 4];
			ret[(*at)++] = digits[c & 15];
		}
	}
	ret[*at] = '\0';
	return 0;
}

static size_t prefix_set(char ret[SUBJECT_MAX + 1], const char *prefix)
{
	str_copy(ret, SUBJECT_MAX + 1, prefix);
	return strlen(prefix);
}

int subject_metrics(const char *gateway, const char *agent, char ret[SUBJECT_MAX + 1])
{
	size_t at = prefix_set(ret, METRICS);
	int r;

	if (!*agent) {
		*ret = '\0';
		return -EINVAL;
	}
	/* A gateway of that very name must not share the topic of none. */
	if (gateway && str_equal(gateway, SUBJECT_NOBODY)) {
		str_copy(ret + at, SUBJECT_MAX + 1 - at, "%2D");
		at += 3;
		r = 0;
	} else {
		r = part_add(ret, &at, gateway && *gateway ? gateway : SUBJECT_NOBODY,
			     SUBJECT_GATEWAY);
	}
	if (r < 0)
		return r;
	if (at == SUBJECT_MAX) {
		*ret = '\0';
		return -E2BIG;
	}
	ret[at++] = '/';
	return part_add(ret, &at, agent, 0);
}

static int one_part(const char *prefix, const char *part, char ret[SUBJECT_MAX + 1])
{
	size_t at = prefix_set(ret, prefix);

	if (!*part) {
		*ret = '\0';
		return -EINVAL;
	}
	return part_add(ret, &at, part, 0);
}

int subject_events(const char *kind, char ret[SUBJECT_MAX + 1])
{
	return one_part(EVENTS, kind, ret);
}

int subject_scale(const char *policy, char ret[SUBJECT_MAX + 1])
{
	return one_part(SCALE, policy, ret);
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A part up to `end`. False: it is not what part_add() writes. */
static bool part_read(const char *from, const char *end, char ret[SUBJECT_MAX + 1])
{
	size_t n = 0;

	for (; from < end; from++) {
		int high, low;

		if (n == SUBJECT_MAX)
			return false;
		if (*from != '%') {
			if (!is_plain((unsigned char)*from))
				return false;
			ret[n++] = *from;
			continue;
		}
		if (end - from < 3)
			return false;
		high = digit(from[1]);
		low = digit(from[2]);
		if (high < 0 || low < 0 || !(high | low))
			return false;
		ret[n++] = (char)(high << 4 | low);
		from += 2;
	}
	ret[n] = '\0';
	return n > 0;
}

bool subject_read_metrics(const char *topic, char ret_gateway[SUBJECT_MAX + 1],
			  char ret_agent[SUBJECT_MAX + 1])
{
	char gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1];
	const char *slash;

	if (!str_starts(topic, METRICS))
		return false;
	topic += strlen(METRICS);
	slash = strchr(topic, '/');
	if (!slash || !part_read(topic, slash, gateway) ||
	    !part_read(slash + 1, slash + strlen(slash), agent))
		return false;
	if (slash == topic + 1 && *topic == '-')
		*gateway = '\0';
	if (ret_gateway)
		str_copy(ret_gateway, SUBJECT_MAX + 1, gateway);
	if (ret_agent)
		str_copy(ret_agent, SUBJECT_MAX + 1, agent);
	return true;
}
