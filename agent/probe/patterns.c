/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How health checks look on the wire: paths and agents as HTTP/1 writes them, and as HTTP/2 does,
 * plain and in Huffman's code. May change while programs run.
 */
#include "probe/set.h"

#include "base/str.h"
#include "config/config.h"
#include "probe/huffman.h"
#include "probe/skel.h"

#include <string.h>

#define PATTERN_BYTES (PATTERN_WORDS * 8)

/* The first `bits` of bytes; len: those bytes that are wholly or partly compared. */
static void pattern_set_bits(struct pattern *p, const void *bytes, size_t bits)
{
	unsigned char mask[PATTERN_BYTES] = {0};

	memset(mask, 0xff, bits / 8);
	if (bits % 8)
		mask[bits / 8] = (unsigned char)(0xff00u >> bits % 8);
	memset(p, 0, sizeof(*p));
	memcpy(p->word, bytes, PATTERN_BYTES);
	memcpy(p->mask, mask, PATTERN_BYTES);
	p->len = (uint32_t)((bits + 7) / 8);
}

static void pattern_set(struct pattern *p, const char *text)
{
	unsigned char bytes[PATTERN_BYTES] = {0};
	size_t len = strlen(text);

	if (len > sizeof(bytes))
		len = sizeof(bytes);
	memcpy(bytes, text, len);
	pattern_set_bits(p, bytes, len * 8);
}

/* One more pattern of HTTP/2, in the coding that is asked for; none where it does not fit. */
static void field_add(struct pattern *to, uint32_t *count, const char *text, bool is_huffman,
		      bool is_exact)
{
	unsigned char bytes[PATTERN_BYTES] = {0};
	size_t bits = strlen(text) * 8;

	if (is_huffman) {
		if (!huffman_encode(text, bytes, sizeof(bytes), &bits))
			return;
	} else {
		if (bits > sizeof(bytes) * 8)
			return;
		memcpy(bytes, text, bits / 8);
	}
	/* The padding belongs to the whole string. */
	if (is_exact)
		bits = (bits + 7) / 8 * 8;
	to += *count;
	pattern_set_bits(to, bytes, bits);
	to->is_exact = is_exact;
	++*count;
}

static void path_add(struct http2_control *control, const char *path)
{
	char queried[PATTERN_BYTES + 2];

	for (int coding = 0; coding < 2; coding++) {
		struct pattern *to = control->paths[coding];
		uint32_t *count = &control->path_count[coding];

		field_add(to, count, path, coding, true);
		if (strlen(path) < PATTERN_BYTES && str_copy(queried, sizeof(queried) - 1, path)) {
			strcat(queried, "?");
			field_add(to, count, queried, coding, false);
		}
	}
	if (str_equal(path, "/"))
		control->static_paths |= 1;
	if (str_equal(path, "/index.html"))
		control->static_paths |= 2;
}

static void fields_fill(struct http2_control *control, const struct config_list *paths,
			const struct config_list *agents)
{
	uint32_t n = 0;

	control->static_paths = 0;
	memset(control->path_count, 0, sizeof(control->path_count));
	memset(control->agent_count, 0, sizeof(control->agent_count));
	for (size_t i = 0; paths && i < paths->count && n < PATTERNS; i++) {
		if (paths->items[i][0] != '/')
			continue;
		path_add(control, paths->items[i]);
		n++;
	}
	n = 0;
	for (size_t i = 0; agents && i < agents->count && n < PATTERNS; i++) {
		if (!agents->items[i][0])
			continue;
		for (int coding = 0; coding < 2; coding++)
			field_add(control->agents[coding], &control->agent_count[coding],
				  agents->items[i], coding, false);
		n++;
	}
}

static void lines_fill(struct control *control, const struct config_list *paths,
		       const struct config_list *agents)
{
	uint64_t seconds[4] = {0};
	uint32_t n = 0;

	control->path_count = 0;
	control->agent_count = 0;
	for (size_t i = 0; paths && i < paths->count && n < PATTERNS; i++) {
		const char *path = paths->items[i];
		/* The whole path "/" is followed by a space or a question mark. */
		unsigned char second = (unsigned char)path[0] ? (unsigned char)path[1] : 0;

		if (path[0] != '/')
			continue;
		pattern_set(&control->paths[n++], path);
		if (second)
			seconds[second >> 6] |= 1ULL << (second & 63);
		else
			seconds[0] |= 1ULL << ' ' | 1ULL << '?';
	}
	memcpy(control->path_seconds, seconds, sizeof(seconds));
	control->path_count = n;
	n = 0;
	for (size_t i = 0; agents && i < agents->count && n < PATTERNS; i++)
		if (agents->items[i][0])
			pattern_set(&control->agents[n++], agents->items[i]);
	control->agent_count = n;
}

void patterns_fill(struct probe_set *set, const struct probe_options *options)
{
	lines_fill(set->control, options->health_paths, options->health_user_agents);
	fields_fill(set->http2, options->health_paths, options->health_user_agents);
	set->control->slow_ns = options->slow_request_ns ? options->slow_request_ns : UINT64_MAX;
}

void patterns_methods(uint64_t words[2][16])
{
	static const char *const names[] = {
		[HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
		[HTTP_PUT] = "PUT",         [HTTP_DELETE] = "DELETE", [HTTP_CONNECT] = "CONNECT",
		[HTTP_OPTIONS] = "OPTIONS", [HTTP_TRACE] = "TRACE",   [HTTP_PATCH] = "PATCH",
	};
	uint8_t code[8];
	size_t bits;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		memcpy(&words[0][i], names[i], strlen(names[i]));
		if (huffman_encode(names[i], code, sizeof(code), &bits))
			memcpy(&words[1][i], code, (bits + 7) / 8);
	}
}
