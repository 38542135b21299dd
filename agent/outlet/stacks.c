/* SPDX-License-Identifier: Apache-2.0 */
/* Folded stacks merged into a tree. Owns nodes, their names, and a table that finds a node by its
 * caller and name. `tidegate profile`; one thread. */
#include "outlet/stacks.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOT   0u
#define NONE   UINT32_MAX
#define TABLE  (STACKS_FRAMES * 2) /* a power of 2 */
#define PROBES 1024                /* in the table; more only for names that were made for it */

struct node {
	uint32_t parent, name; /* name: offset in names */
	uint32_t hash;
	uint32_t first, count; /* of what it calls, in order[]; once sorted */
	uint64_t own, total;
};

struct stacks {
	struct node *nodes;
	uint32_t count, size;
	char *names;
	uint32_t names_used, names_size;
	uint32_t *table; /* index of a node + 1; 0: free */
	uint32_t *order; /* nodes by caller, then name; NULL: not sorted */
	struct stacks_stats stats;
};

int stacks_new(struct stacks **ret)
{
	struct stacks *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->size = 256;
	s->names_size = 4096;
	s->nodes = calloc(s->size, sizeof(*s->nodes));
	s->names = calloc(1, s->names_size);
	s->table = calloc(TABLE, sizeof(*s->table));
	if (!s->nodes || !s->names || !s->table) {
		stacks_free(s);
		return -ENOMEM;
	}
	s->nodes[ROOT].parent = NONE;
	s->count = 1;
	s->names_used = 1;
	*ret = s;
	return 0;
}

struct stacks *stacks_free(struct stacks *s)
{
	if (!s)
		return NULL;
	free(s->nodes);
	free(s->names);
	free(s->table);
	free(s->order);
	free(s);
	return NULL;
}

/* ---- adding ---- */

static uint32_t hash_of(uint32_t parent, const char *name, size_t size)
{
	uint32_t h = 2166136261u ^ parent * 2654435761u;

	for (size_t i = 0; i < size; i++)
		h = (h ^ (unsigned char)name[i]) * 16777619u;
	return h ^ h >> 15;
}

static int names_grow(struct stacks *s, size_t need)
{
	uint32_t size = s->names_size;
	char *names;

	if (s->names_used + need <= size)
		return 0;
	if (s->names_used + need > STACKS_TEXT)
		return -ENOSPC;
	while (size < s->names_used + need)
		size *= 2;
	names = realloc(s->names, size);
	if (!names)
		return -ENOMEM;
	s->names = names;
	s->names_size = size;
	return 0;
}

static int nodes_grow(struct stacks *s)
{
	struct node *nodes;

	if (s->count < s->size)
		return 0;
	if (s->size >= STACKS_FRAMES)
		return -ENOSPC;
	nodes = reallocarray(s->nodes, (size_t)s->size * 2, sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	s->nodes = nodes;
	s->size *= 2;
	return 0;
}

/* What a caller calls by this name, made when it is not there. -ENOSPC: no room for more. */
static int child(struct stacks *s, uint32_t parent, const char *name, size_t size, uint32_t *ret)
{
	uint32_t hash = hash_of(parent, name, size), at = hash & (TABLE - 1);
	unsigned int probes = 0;
	int r;

	for (; s->table[at]; at = (at + 1) & (TABLE - 1)) {
		const struct node *n = &s->nodes[s->table[at] - 1];

		if (n->hash == hash && n->parent == parent && str_equal(s->names + n->name, name)) {
			*ret = s->table[at] - 1;
			return 0;
		}
		if (++probes == PROBES)
			return -ENOSPC;
	}
	r = nodes_grow(s);
	if (!r)
		r = names_grow(s, size + 1);
	if (r < 0)
		return r;
	memcpy(s->names + s->names_used, name, size + 1);
	s->nodes[s->count] = (struct node){.parent = parent, .name = s->names_used, .hash = hash};
	s->names_used += (uint32_t)size + 1;
	s->table[at] = ++s->count;
	*ret = s->count - 1;
	return 0;
}

/* Length of what may be shown as it is; 0: it may not. Terminals obey C1, XML knows no U+FFFE. */
static size_t shown(const char *text, size_t left)
{
	char c[5] = "";
	size_t n;

	memcpy(c, text, left < 4 ? left : 4);
	n = str_utf8_length(c);
	if ((n == 1 && ((unsigned char)*c < ' ' || *c == 0x7f)) ||
	    (n == 2 && c[0] == '\xc2' && (unsigned char)c[1] < 0xa0) ||
	    (n == 3 && c[0] == '\xef' && c[1] == '\xbf' && (unsigned char)c[2] >= 0xbe))
		return 0;
	return n;
}

static size_t clean(const char *text, size_t size, char name[STACKS_NAME])
{
	size_t used = 0;

	for (size_t at = 0; at < size;) {
		size_t n = shown(text + at, size - at);

		if (used + (n ? n : 1) >= STACKS_NAME)
			break;
		if (n)
			memcpy(name + used, text + at, n);
		else
			name[used] = '?';
		used += n ? n : 1;
		at += n ? n : 1;
	}
	if (!used)
		name[used++] = '?';
	name[used] = '\0';
	return used;
}

/* "frames count": gives the length of frames, 0 when it is no stack. */
static size_t parse_line(const char *line, size_t size, uint64_t *ret_count)
{
	size_t at = size;
	uint64_t n = 0;

	while (at && line[at - 1] >= '0' && line[at - 1] <= '9')
		at--;
	if (at == size || at < 2 || line[at - 1] != ' ' || size - at > 10)
		return 0;
	for (size_t i = at; i < size; i++)
		n = n * 10 + (uint64_t)(line[i] - '0');
	*ret_count = n;
	return n && n <= STACKS_COUNT_MAX ? at - 1 : 0;
}

static int add_stack(struct stacks *s, const char *frames, size_t size, uint64_t count)
{
	uint32_t at = ROOT, next;
	unsigned int depth = 0;
	char name[STACKS_NAME];
	int r = 0;

	for (const char *end = frames + size; frames <= end;) {
		const char *stop = memchr(frames, ';', (size_t)(end - frames));
		size_t n = (size_t)((stop ? stop : end) - frames);

		if (depth == STACKS_DEPTH) {
			r = -ENOSPC;
			break;
		}
		r = child(s, at, name, clean(frames, n, name), &next);
		if (r < 0)
			break;
		at = next;
		depth++;
		frames += n + 1;
	}
	if (r == -ENOMEM)
		return r;
	s->nodes[at].own += count;
	s->stats.samples += count;
	s->stats.shortened += r < 0 ? count : 0;
	s->stats.depth = depth > s->stats.depth ? depth : s->stats.depth;
	return 0;
}

int stacks_add(struct stacks *s, const char *text, size_t size)
{
	for (const char *end = text + size; text < end;) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		size_t line = (size_t)((stop ? stop : end) - text), frames;
		uint64_t count = 0;
		int r = 0;

		frames = parse_line(text, line, &count);
		if (frames)
			r = add_stack(s, text, frames, count);
		else
			s->stats.refused += line > 0;
		if (r < 0)
			return r;
		text += line + 1;
	}
	return 0;
}

void stacks_stats(const struct stacks *s, struct stacks_stats *ret)
{
	*ret = s->stats;
	ret->frames = s->count - 1;
}

/* ---- walking ---- */

static int compare(const void *a, const void *b, void *data)
{
	const struct stacks *s = data;
	const struct node *x = &s->nodes[*(const uint32_t *)a],
			  *y = &s->nodes[*(const uint32_t *)b];

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return strcmp(s->names + x->name, s->names + y->name);
}

static int sort(struct stacks *s)
{
	uint32_t *order;

	if (s->order)
		return 0;
	order = malloc(s->count * sizeof(*order));
	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->count; i++) {
		order[i] = i;
		s->nodes[i].total = s->nodes[i].own;
	}
	/* A caller was made before what it calls. */
	for (uint32_t i = s->count; i-- > 1;)
		s->nodes[s->nodes[i].parent].total += s->nodes[i].total;
	qsort_r(order, s->count, sizeof(*order), compare, s);
	for (uint32_t i = 0; i < s->count; i++) {
		struct node *parent;

		if (order[i] == ROOT)
			continue;
		parent = &s->nodes[s->nodes[order[i]].parent];
		if (!parent->count++)
			parent->first = i;
	}
	s->order = order;
	return 0;
}

int stacks_walk(struct stacks *s, bool (*visit)(void *data, const struct stacks_frame *f),
		void *data)
{
	struct {
		const struct node *node;
		uint32_t next;
		uint64_t from; /* of what it calls next */
	} path[STACKS_DEPTH + 1];
	struct stacks_frame f = {.name = s->names};
	unsigned int depth = 0;
	int r = sort(s);

	if (r < 0)
		return r;
	path[0].node = &s->nodes[ROOT];
	path[0].next = path[0].from = 0;
	f.total = path[0].node->total;
	f.own = path[0].node->own;
	if (!visit(data, &f))
		return 0;
	for (;;) {
		const struct node *n = path[depth].node;

		if (path[depth].next == n->count) {
			if (!depth)
				return 0;
			depth--;
			continue;
		}
		n = &s->nodes[s->order[n->first + path[depth].next++]];
		f = (struct stacks_frame){s->names + n->name, depth + 1, path[depth].from, n->total,
					  n->own};
		path[depth].from += n->total;
		if (!visit(data, &f))
			continue;
		depth++;
		path[depth].node = n;
		path[depth].next = 0;
		path[depth].from = f.from;
	}
}

struct printer {
	struct strbuf *out;
	const char *path[STACKS_DEPTH + 1];
};

static bool print_frame(void *data, const struct stacks_frame *f)
{
	struct printer *p = data;

	p->path[f->depth] = f->name;
	if (f->own && f->depth) {
		for (unsigned int i = 1; i <= f->depth; i++) {
			strbuf_puts(p->out, i > 1 ? ";" : "");
			strbuf_puts(p->out, p->path[i]);
		}
		strbuf_printf(p->out, " %llu\n", (unsigned long long)f->own);
	}
	return !p->out->failed;
}

int stacks_print(struct stacks *s, struct strbuf *out)
{
	struct printer p = {.out = out};
	int r = stacks_walk(s, print_frame, &p);

	return r < 0 ? r : out->failed ? -E2BIG : 0;
}
