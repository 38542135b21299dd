/* SPDX-License-Identifier: Apache-2.0 */
/* The binary: finds the verb and runs it. */
#include "base/err.h"
#include "base/str.h"
#include "cmd/verbs.h"

#include <stdio.h>

static const struct verb {
	const char *name, *arguments, *help;
	int (*run)(int argc, char **argv);
} verbs[] = {
#define VERB(name_, function, arguments_, help_) \
	{.name = #name_, .arguments = arguments_, .help = help_, .run = function},
#include "cmd/verbs.def"
#undef VERB
};

static void usage(FILE *out)
{
	fputs("usage: tidegate VERB [options]\n\n", out);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		fprintf(out, "  %-10s %s\n             %s\n", verbs[i].name, verbs[i].help,
			verbs[i].arguments);
	fputs("\nExit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 deadline.\n", out);
}

static int unknown_verb(const char *word)
{
	const char *words[ARRAY_LEN(verbs)], *nearest;

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		words[i] = verbs[i].name;
	nearest = str_nearest(word, words, ARRAY_LEN(words));
	if (nearest)
		fprintf(stderr, "tidegate: unknown verb `%s`: did you mean `%s`?\n", word, nearest);
	else
		fprintf(stderr, "tidegate: unknown verb `%s`: see `tidegate --help`\n", word);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (str_equal(argv[1], "--help") || str_equal(argv[1], "-h") ||
	    str_equal(argv[1], "help")) {
		usage(stdout);
		return EXIT_DONE;
	}
	if (str_equal(argv[1], "--version")) {
		argv[1][0] = '\0';
		return version_verb(1, argv + 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (str_equal(argv[1], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	return unknown_verb(argv[1]);
}
