/* SPDX-License-Identifier: Apache-2.0 */
/* What all verbs share: the one-line answers to a wrong option and to an argument too many. */
#include "cmd/verbs.h"

#include "base/err.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

int verb_bad_option(const char *verb, char **argv, const struct option *options)
{
	const char *given = argv[optind - 1], *words[32], *nearest;
	char name[64];
	size_t n = 0;

	for (; n < ARRAY_LEN(words) && options[n].name; n++)
		words[n] = options[n].name;
	str_copy(name, sizeof(name), given + strspn(given, "-"));
	name[strcspn(name, "=")] = '\0';
	for (size_t i = 0; i < n; i++) {
		if (!str_equal(name, words[i]))
			continue;
		fprintf(stderr, "tidegate %s: option `--%s` %s\n", verb, name,
			options[i].has_arg == required_argument ? "needs a value"
								: "takes no value");
		return EXIT_USAGE;
	}
	nearest = str_nearest(name, words, n);
	if (nearest)
		fprintf(stderr, "tidegate %s: unknown option `%s`: did you mean `--%s`?\n", verb,
			given, nearest);
	else
		fprintf(stderr, "tidegate %s: unknown option `%s`: see `tidegate --help`\n", verb,
			given);
	return EXIT_USAGE;
}

bool verb_has_argument(const char *verb, int argc, char **argv, const char *option)
{
	if (optind >= argc)
		return false;
	fprintf(stderr, "tidegate %s: unexpected argument `%s`", verb, argv[optind]);
	if (option)
		fprintf(stderr, ": did you mean `--%s %s`?", option, argv[optind]);
	fputc('\n', stderr);
	return true;
}
