/* SPDX-License-Identifier: Apache-2.0 */
/* A program of steps with relative jumps; matching keeps the set of steps that are possible after
 * each character (Thompson 1968), so there is no backtracking to explode. */
#include "outlet/pattern.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum step_op { STEP_CHAR, STEP_SET, STEP_JUMP, STEP_SPLIT, STEP_MATCH };

struct step {
	enum step_op op;
	int to, or_to;    /* jumps, relative; SPLIT takes both */
	uint32_t c;       /* CHAR: a code point */
	uint64_t set[2];  /* SET: of ASCII */
	bool has_foreign; /* SET: all that is not ASCII, too */
};

struct pattern {
	unsigned int count;
	struct step steps[PATTERN_STEPS_MAX];
};

struct compiler {
	struct pattern *p;
	const char *at;
	struct err *e;
	unsigned int depth;
};

/* The next code point; a byte that is not UTF-8 stands for itself, above all code points. */
static uint32_t character(const char **at)
{
	const unsigned char *s = (const unsigned char *)*at;
	unsigned int more = s[0] < 0xc2   ? 0
			    : s[0] < 0xe0 ? 1
			    : s[0] < 0xf0 ? 2
			    : s[0] < 0xf5 ? 3
					  : 0;
	uint32_t c = more ? s[0] & (0x3fu >> more) : s[0];

	for (unsigned int i = 1; i <= more; i++) {
		if ((s[i] & 0xc0) != 0x80) {
			more = 0;
			break;
		}
		c = c << 6 | (s[i] & 0x3f);
	}
	*at += 1 + more;
	return more || s[0] < 0x80 ? c : 0x110000u + s[0];
}

static int fail(struct compiler *k, const char *what)
{
	return err_set(k->e, -EINVAL, "%s in a pattern", what);
}

static int emit(struct compiler *k, enum step_op op, struct step **ret)
{
	if (k->p->count == PATTERN_STEPS_MAX)
		return err_set(k->e, -E2BIG, "a pattern of more than %u steps", PATTERN_STEPS_MAX);
	*ret = &k->p->steps[k->p->count++];
	**ret = (struct step){.op = op};
	return 0;
}

/* A SPLIT before what was written from start on: to it, or behind it (skip steps more). */
static int insert_split(struct compiler *k, unsigned int start, int skip)
{
	struct step *s = NULL;
	int size = (int)(k->p->count - start);
	int r = emit(k, STEP_SPLIT, &s);

	if (r < 0)
		return r;
	memmove(&k->p->steps[start + 1], &k->p->steps[start], (size_t)size * sizeof(*s));
	k->p->steps[start] = (struct step){.op = STEP_SPLIT, .to = 1, .or_to = size + 1 + skip};
	return 0;
}

/* -------- sets -------- */

static void set_add(struct step *s, unsigned int first, unsigned int last)
{
	for (unsigned int c = first; c <= last; c++)
		s->set[c / 64] |= 1ull << (c % 64);
}

static void set_invert(struct step *s)
{
	s->set[0] = ~s->set[0];
	s->set[1] = ~s->set[1];
	s->has_foreign = !s->has_foreign;
}

/* \d and the like; false: c is none of them. */
static bool set_class(struct step *s, char c)
{
	struct step class = {.op = STEP_SET};

	switch (tolower((unsigned char)c)) {
	case 'w':
		set_add(&class, 'a', 'z');
		set_add(&class, 'A', 'Z');
		set_add(&class, '_', '_');
		set_add(&class, '0', '9');
		break;
	case 'd':
		set_add(&class, '0', '9');
		break;
	case 's':
		set_add(&class, '\t', '\n');
		set_add(&class, '\f', '\r');
		set_add(&class, ' ', ' ');
		break;
	default:
		return false;
	}
	if (isupper((unsigned char)c))
		set_invert(&class);
	s->set[0] |= class.set[0];
	s->set[1] |= class.set[1];
	s->has_foreign = s->has_foreign || class.has_foreign;
	return true;
}

/* A character within [ ]: 1 when it was a class, which no range can begin with. */
static int set_item(struct compiler *k, struct step *s, unsigned int *ret)
{
	unsigned char c = (unsigned char)*k->at++;

	if (c >= 0x80)
		return fail(k, "a character beyond ASCII within [ ]");
	if (c == '[' && *k->at == ':')
		return fail(k, "[: within [ ]");
	if (c == '\\') {
		c = (unsigned char)*k->at++;
		if (set_class(s, (char)c))
			return 1;
		if (!ispunct(c))
			return fail(k, "an unknown escape");
	}
	*ret = c;
	return 0;
}

static int set(struct compiler *k)
{
	bool is_inverted, is_first = true;
	unsigned int first, last;
	struct step *s = NULL;
	int r = emit(k, STEP_SET, &s);

	if (r < 0)
		return r;
	is_inverted = *++k->at == '^';
	k->at += is_inverted;
	for (; *k->at != ']' || is_first; is_first = false) {
		if (!*k->at)
			return fail(k, "[ without ]");
		r = set_item(k, s, &first);
		if (r < 0)
			return r;
		if (r > 0)
			continue;
		last = first;
		if (k->at[0] == '-' && k->at[1] && k->at[1] != ']') {
			k->at++;
			r = set_item(k, s, &last);
			if (r)
				return r < 0 ? r : fail(k, "a range to a class");
		}
		if (last < first)
			return fail(k, "a range that falls");
		set_add(s, first, last);
	}
	k->at++;
	if (is_inverted)
		set_invert(s);
	return 0;
}

/* -------- grammar: alternatives of sequences of repeated atoms -------- */

static int alternatives(struct compiler *k);

static int group(struct compiler *k)
{
	int r;

	k->at++;
	if (*k->at == '?') {
		if (k->at[1] != ':')
			return fail(k, "(? without :");
		k->at += 2;
	}
	if (k->depth == PATTERN_DEPTH_MAX)
		return err_set(k->e, -E2BIG, "more than %u brackets in brackets in a pattern",
			       PATTERN_DEPTH_MAX);
	k->depth++;
	r = alternatives(k);
	k->depth--;
	if (r < 0)
		return r;
	if (*k->at != ')')
		return fail(k, "( without )");
	k->at++;
	return 0;
}

static int single(struct compiler *k)
{
	struct step *s = NULL;
	int r = emit(k, STEP_CHAR, &s);

	if (r < 0)
		return r;
	if (*k->at == '.') {
		s->op = STEP_SET;
		set_add(s, '\n', '\n');
		set_invert(s);
		k->at++;
	} else if (*k->at == '\\') {
		k->at += 2;
		s->op = STEP_SET;
		if (k->at[-1] && set_class(s, k->at[-1]))
			return 0;
		s->op = STEP_CHAR;
		s->c = (unsigned char)k->at[-1];
		if (!ispunct((int)s->c))
			return fail(k, "an unknown escape");
	} else {
		s->c = character(&k->at);
	}
	return 0;
}

static int atom(struct compiler *k)
{
	if (*k->at == '(')
		return group(k);
	if (*k->at == '[')
		return set(k);
	if (strchr("*+?", *k->at))
		return fail(k, "*, + or ? after nothing");
	if (strchr("^$", *k->at))
		return fail(k, "^ or $ (a pattern matches the whole value)");
	if (*k->at == '{')
		return fail(k, "{ (write \\{)");
	return single(k);
}

static int repeat(struct compiler *k, unsigned int start)
{
	int size = (int)(k->p->count - start), r;
	char c = *k->at;
	struct step *s = NULL;

	if (!c || !strchr("*+?{", c))
		return 0;
	if (c == '{' || (k->at[1] && strchr("*+?{", k->at[1])))
		return fail(k, "a count or two operators");
	k->at++;
	if (c == '?')
		return insert_split(k, start, 0);
	if (c == '+') {
		r = emit(k, STEP_SPLIT, &s);
		if (r >= 0)
			s->to = -size, s->or_to = 1;
		return r;
	}
	r = insert_split(k, start, 1);
	if (r >= 0)
		r = emit(k, STEP_JUMP, &s);
	if (r >= 0)
		s->to = -(size + 1);
	return r;
}

static int alternatives(struct compiler *k)
{
	unsigned int start = k->p->count, jump;
	struct step *s = NULL;
	int r = 0;

	while (r >= 0 && *k->at && *k->at != '|' && *k->at != ')') {
		unsigned int first = k->p->count;

		r = atom(k);
		if (r >= 0)
			r = repeat(k, first);
	}
	if (r < 0 || *k->at != '|')
		return r;
	/* Each alternative is a level of the C stack: the text's limit bounds it. */
	k->at++;
	r = insert_split(k, start, 1);
	if (r < 0)
		return r;
	jump = k->p->count;
	r = emit(k, STEP_JUMP, &s);
	if (r >= 0)
		r = alternatives(k);
	if (r >= 0)
		k->p->steps[jump].to = (int)(k->p->count - jump);
	return r;
}

int pattern_new(const char *text, struct pattern **ret, struct err *e)
{
	struct compiler k = {.at = text, .e = e};
	struct step *s = NULL;
	int r;

	if (strlen(text) > PATTERN_TEXT_MAX)
		return err_set(e, -E2BIG, "a pattern of more than %u bytes", PATTERN_TEXT_MAX);
	k.p = calloc(1, sizeof(*k.p));
	if (!k.p)
		return -ENOMEM;
	r = alternatives(&k);
	if (r >= 0 && *k.at)
		r = fail(&k, ") without (");
	if (r >= 0)
		r = emit(&k, STEP_MATCH, &s);
	if (r < 0) {
		free(k.p);
		return r;
	}
	*ret = k.p;
	return 0;
}

struct pattern *pattern_free(struct pattern *p)
{
	free(p);
	return NULL;
}

/* -------- matching -------- */

struct threads {
	unsigned int count;
	uint16_t at[PATTERN_STEPS_MAX];
	uint64_t seen[PATTERN_STEPS_MAX / 64];
};

/* A step, and all that follow it without a character. A step is put down once, so twice the steps
 * is room enough for those to be looked at. */
static void threads_add(const struct pattern *p, struct threads *t, unsigned int first)
{
	unsigned int stack[2 * PATTERN_STEPS_MAX + 1], depth = 0;

	stack[depth++] = first;
	while (depth) {
		unsigned int i = stack[--depth];
		const struct step *s = &p->steps[i];

		if (t->seen[i / 64] >> (i % 64) & 1)
			continue;
		t->seen[i / 64] |= 1ull << (i % 64);
		if (s->op == STEP_JUMP || s->op == STEP_SPLIT)
			stack[depth++] = (unsigned int)((int)i + s->to);
		if (s->op == STEP_SPLIT)
			stack[depth++] = (unsigned int)((int)i + s->or_to);
		if (s->op != STEP_JUMP && s->op != STEP_SPLIT)
			t->at[t->count++] = (uint16_t)i;
	}
}

static bool step_takes(const struct step *s, uint32_t c)
{
	if (s->op == STEP_CHAR)
		return s->c == c;
	if (s->op != STEP_SET)
		return false;
	return c < 128 ? s->set[c / 64] >> (c % 64) & 1 : s->has_foreign;
}

bool pattern_matches(const struct pattern *p, const char *value)
{
	struct threads lists[2] = {{0}}, *now = &lists[0], *next = &lists[1];

	threads_add(p, now, 0);
	while (*value && now->count) {
		uint32_t c = character(&value);
		struct threads *swap = now;

		next->count = 0;
		memset(next->seen, 0, sizeof(next->seen));
		for (unsigned int i = 0; i < now->count; i++)
			if (step_takes(&p->steps[now->at[i]], c))
				threads_add(p, next, now->at[i] + 1u);
		now = next;
		next = swap;
	}
	for (unsigned int i = 0; i < now->count; i++)
		if (p->steps[now->at[i]].op == STEP_MATCH)
			return true; /* threads are left only where the value ended */
	return false;
}
