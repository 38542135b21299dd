/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens of the query language. query.c's. */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum query_token {
	QUERY_TOKEN_END,
	QUERY_TOKEN_WORD,
	QUERY_TOKEN_STRING,
	QUERY_TOKEN_NUMBER,
	QUERY_TOKEN_DURATION,
	QUERY_TOKEN_LEFT,
	QUERY_TOKEN_RIGHT,
	QUERY_TOKEN_LEFT_BRACE,
	QUERY_TOKEN_RIGHT_BRACE,
	QUERY_TOKEN_LEFT_BRACKET,
	QUERY_TOKEN_RIGHT_BRACKET,
	QUERY_TOKEN_COMMA,
	QUERY_TOKEN_EQUAL,
	QUERY_TOKEN_NOT_EQUAL,
	QUERY_TOKEN_REGEX,
	QUERY_TOKEN_NOT_REGEX,
	QUERY_TOKEN_PLUS,
	QUERY_TOKEN_MINUS,
	QUERY_TOKEN_STAR,
	QUERY_TOKEN_SLASH,
};

struct query_lex {
	const char *begin, *at, *start; /* borrowed; start: of the current token */
	char *strings, *free;           /* texts of tokens, all kept until fini */
	enum query_token token;
	const char *text;     /* of a word or string */
	double number;        /* of a number */
	uint64_t duration_ms; /* of a duration */
};

/* Borrows text until the last next. -ENOMEM. */
int query_lex_init(struct query_lex *lex, const char *text);
void query_lex_fini(struct query_lex *lex);
/* -EINVAL: e says what cannot be read, and where. */
int query_lex_next(struct query_lex *lex, struct err *e);
/* Of the current token, from 1. */
size_t query_lex_place(const struct query_lex *lex);
