/* SPDX-License-Identifier: Apache-2.0 */
/* Verbs of the binary: one row in verbs.def and one file a verb. argv[0] is the verb. Each returns
 * an enum exit_code and has printed its own one-line error on stderr
 * ("tidegate VERB: what, which, why, what to do"). */
#pragma once

#define VERB(name, function, arguments, help) int function(int argc, char **argv);
#include "cmd/verbs.def"
#undef VERB

#include <getopt.h>
#include <stdbool.h>

/* After getopt_long returned '?' or ':' (opterr is 0): says which option is wrong, with the
 * nearest right one, on stderr. Returns EXIT_USAGE. */
int verb_bad_option(const char *verb, char **argv, const struct option *options);

/* After the options of a verb that takes no argument: says which one is left over, and if `option` is
 * given that it may be what was meant. */
bool verb_has_argument(const char *verb, int argc, char **argv, const char *option);
