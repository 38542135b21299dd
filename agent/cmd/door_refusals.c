/* SPDX-License-Identifier: Apache-2.0 */
/* What was told of refused connections: a small table, the oldest gives way. Process: door. */
#include "cmd/door_refusals.h"

#include "base/clock.h"
#include "base/str.h"

#include <string.h>

/* A stranger has many ports, and fewer addresses. */
static void host_of(const char *peer, char *host, size_t size)
{
	const char *colon = strrchr(peer, ':');
	size_t n = colon ? (size_t)(colon - peer) : strlen(peer);

	if (n >= size)
		n = size - 1;
	memcpy(host, peer, n);
	host[n] = '\0';
}

static bool has_line(struct refusals *r, uint64_t now_ns)
{
	if (!r->second_ns || now_ns - r->second_ns >= NS_PER_S) {
		r->second_ns = now_ns;
		r->lines = 0;
	}
	return r->lines < REFUSALS_LINES;
}

bool refusals_allow(struct refusals *r, enum turnstile_reason reason, const char *peer,
		    uint64_t now_ns, uint64_t *ret_silent)
{
	char host[sizeof(r->said[0].host)];
	unsigned int place = 0;

	host_of(peer, host, sizeof(host));
	for (unsigned int i = 0; i < REFUSALS_KEPT; i++) {
		if (r->said[i].said_ns && r->said[i].reason == reason &&
		    str_equal(r->said[i].host, host)) {
			place = i;
			break;
		}
		if (r->said[i].said_ns < r->said[place].said_ns)
			place = i;
	}
	if ((r->said[place].said_ns && r->said[place].reason == reason &&
	     str_equal(r->said[place].host, host) &&
	     now_ns - r->said[place].said_ns < REFUSALS_AGAIN_NS) ||
	    !has_line(r, now_ns)) {
		r->silent++;
		return false;
	}
	str_copy(r->said[place].host, sizeof(r->said[place].host), host);
	r->said[place].reason = reason;
	r->said[place].said_ns = now_ns;
	r->lines++;
	*ret_silent = r->silent;
	r->silent = 0;
	return true;
}
