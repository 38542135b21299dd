/* SPDX-License-Identifier: Apache-2.0 */
/* Names of a certificate, and for which agents they speak. Keeps no state. */
#include "bus/passport.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>

#define URI_AGENT      "tidegate://agent/"
#define URI_AGGREGATOR "tidegate://aggregator/"
#define AGGREGATOR     '*' /* begins a name of the latter; no other name has one */

void passport_init(struct passport *p, enum passport_kind kind, const char *peer)
{
	*p = (struct passport){.kind = (uint8_t)kind};
	str_copy(p->peer, sizeof(p->peer), peer);
}

/* Only what reads in one way: no NUL inside, no wildcard, no escape. */
static bool name_is_plain(const char *name, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c <= ' ' || c >= 0x7f || c == '*' || c == '%' || c == '?' || c == '#')
			return false;
	}
	return true;
}

static int add(struct passport *p, const char *name, size_t size, bool is_aggregator)
{
	if (!name_is_plain(name, size))
		return -EINVAL;
	if (size + 1 + is_aggregator > sizeof(p->names) - p->size)
		return -ENOBUFS;
	if (is_aggregator)
		p->names[p->size++] = AGGREGATOR;
	if (size)
		memcpy(p->names + p->size, name, size);
	p->names[p->size + size] = '\0';
	p->size += size + 1;
	return 0;
}

int passport_add_dns(struct passport *p, const char *name, size_t size)
{
	/* An empty name would stand for every agent, which only the URI may say. A DNS name has no
	 * slash: one that has was made to look like something else. */
	if (!size || memchr(name, '/', size))
		return -EINVAL;
	return add(p, name, size, false);
}

int passport_add_uri(struct passport *p, const char *uri, size_t size)
{
	const bool is_aggregator = size >= strlen(URI_AGGREGATOR) &&
				   memcmp(uri, URI_AGGREGATOR, strlen(URI_AGGREGATOR)) == 0;
	const size_t head = strlen(is_aggregator ? URI_AGGREGATOR : URI_AGENT);

	if (!is_aggregator && (size < head || memcmp(uri, URI_AGENT, head) != 0))
		return -EINVAL;
	/* "//" after the head: "/" would cover no id that anybody means. */
	if (size > head && uri[head] == '/')
		return -EINVAL;
	return add(p, uri + head, size - head, is_aggregator);
}

bool passport_name_covers(const char *name, const char *id)
{
	size_t n = strlen(name);

	if (!n)
		return true;
	if (strncmp(id, name, n) != 0)
		return false;
	if (name[n - 1] == '/')
		return id[n] != '\0';
	return id[n] == '\0' || (id[n] == '/' && id[n + 1] != '\0');
}

bool passport_allows(const struct passport *p, const char *agent)
{
	if (p->kind == PASSPORT_LOCAL)
		return true;
	for (size_t at = 0; at < p->size; at += strlen(p->names + at) + 1)
		if (p->names[at] != AGGREGATOR && passport_name_covers(p->names + at, agent))
			return true;
	return false;
}

bool passport_allows_sums(const struct passport *p, const char *id)
{
	if (p->kind == PASSPORT_LOCAL)
		return true;
	for (size_t at = 0; at < p->size; at += strlen(p->names + at) + 1)
		if (p->names[at] == AGGREGATOR && passport_name_covers(p->names + at + 1, id))
			return passport_allows(p, id);
	return false;
}

bool passport_is_under(const struct passport *p, const char *const *names, size_t n)
{
	if (!n || p->kind == PASSPORT_LOCAL)
		return true;
	for (size_t at = 0; at < p->size; at += strlen(p->names + at) + 1)
		for (size_t i = 0; i < n && p->names[at] != AGGREGATOR; i++)
			if (passport_name_covers(names[i], p->names + at))
				return true;
	return false;
}

size_t passport_pack(const struct passport *p, uint8_t out[PASSPORT_BYTES_MAX])
{
	size_t peer = strlen(p->peer);

	out[0] = p->kind;
	out[1] = (uint8_t)peer;
	out[2] = (uint8_t)(p->size >> 8);
	out[3] = (uint8_t)p->size;
	memcpy(out + 4, p->peer, peer);
	memcpy(out + 4 + peer, p->names, p->size);
	return 4 + peer + p->size;
}

int passport_unpack(const uint8_t *data, size_t size, struct passport *ret)
{
	struct passport p = {0};
	size_t peer;

	if (size < 4)
		return -EBADMSG;
	p.kind = data[0];
	peer = data[1];
	p.size = (size_t)data[2] << 8 | data[3];
	if (p.kind > PASSPORT_NAMED || peer > PASSPORT_PEER_MAX || p.size > PASSPORT_NAMES_MAX ||
	    size - 4 < peer + p.size)
		return -EBADMSG;
	memcpy(p.peer, data + 4, peer);
	memcpy(p.names, data + 4 + peer, p.size);
	/* The walks above go from NUL to NUL. */
	if (p.size && p.names[p.size - 1] != '\0')
		return -EBADMSG;
	*ret = p;
	return (int)(4 + peer + p.size);
}
