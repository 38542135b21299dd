/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate version`: what this binary is. Everything in it was fixed when it was built; nothing in
 * it depends on the time or the machine of the build. */
#include "base/err.h"
#include "base/str.h"
#include "cmd/verbs.h"

#include <stdio.h>

/* The Makefile hands these in; another build system may leave them out. */
#ifndef TIDEGATE_BUILD
#define TIDEGATE_BUILD "unknown"
#endif
#ifndef TIDEGATE_LIBRARIES
#define TIDEGATE_LIBRARIES "unknown"
#endif

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER " address-sanitizer"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER " thread-sanitizer"
#else
#define SANITIZER ""
#endif

int version_verb(int argc, char **argv)
{
	static const struct option options[] = {{0}};
	static const char *const verbs[] = {
#define VERB(name, function, arguments, help) #name,
#include "cmd/verbs.def"
#undef VERB
	};

	opterr = 0;
	if (getopt_long(argc, argv, ":", options, NULL) != -1)
		return verb_bad_option("version", argv, options);
	if (verb_has_argument("version", argc, argv, NULL))
		return EXIT_USAGE;
	printf("tidegate %s\n", TIDEGATE_VERSION);
	printf("build: %s, %s%s\n", TIDEGATE_BUILD, COMPILER, SANITIZER);
	printf("libraries: %s\n", TIDEGATE_LIBRARIES);
	printf("verbs:");
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		printf(" %s", verbs[i]);
	putchar('\n');
	if (fflush(stdout) != 0) {
		fputs("tidegate version: standard output cannot be written\n", stderr);
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}
