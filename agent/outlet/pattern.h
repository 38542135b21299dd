/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions of =~ and !~, matched against the whole value. Pure, and linear: a value of n
 * characters costs at most n times the length of the program, whatever was asked. (The C library's
 * regcomp takes memory and time without bound from "(((a*)*)*){255}": not for strangers' text.)
 *
 * The part of RE2 that selectors are written in: characters, ".", [a-z] [^a-z] (ASCII), \d \w \s
 * \D \W \S, \ before a sign, ( ) (?: ), |, * + ?. Anchors, counts {n}, flags and lazy operators are
 * an error.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>

#define PATTERN_TEXT_MAX  512u
#define PATTERN_STEPS_MAX 512u
#define PATTERN_DEPTH_MAX 16u

struct pattern;

/* -EINVAL: e says what cannot be read, -E2BIG: a limit above, -ENOMEM. */
int pattern_new(const char *text, struct pattern **ret, struct err *e);
struct pattern *pattern_free(struct pattern *p);
bool pattern_matches(const struct pattern *p, const char *value);
