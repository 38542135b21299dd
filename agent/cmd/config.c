/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate config`: the effective configuration as the daemons would see it now, with sources and
 * documentation; with --man the list of options that the man page is made from. */
#include "config/config.h"

#include "base/cleanup.h"
#include "cmd/verbs.h"

#include <stdio.h>

#define OUTPUT_BYTES_MAX (4 << 20)

static int print(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout) != 0) {
		fputs("tidegate config: standard output cannot be written\n", stderr);
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}

static int print_configuration(enum config_side side, const char *file)
{
	_cleanup_(config_free_p) struct config *c = NULL;
	struct strbuf out;
	struct err e = {0};
	int r;

	r = config_load(side, file, &c, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate config: %s\n", *e.text ? e.text : err_text(r));
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < c->warnings.count; i++)
		fprintf(stderr, "tidegate config: %s\n", c->warnings.items[i]);
	strbuf_init(&out, OUTPUT_BYTES_MAX);
	r = config_print(c, &out);
	r = r < 0 ? EXIT_FAILED : print(out.data);
	strbuf_fini(&out);
	return r;
}

static int print_man(void)
{
	struct strbuf out;
	int r;

	strbuf_init(&out, OUTPUT_BYTES_MAX);
	r = config_print_man(&out);
	r = r < 0 ? EXIT_FAILED : print(out.data);
	strbuf_fini(&out);
	return r;
}

int config_verb(int argc, char **argv)
{
	static const struct option options[] = {
		{"agent", no_argument, NULL, 'a'},      {"aggregator", no_argument, NULL, 'g'},
		{"file", required_argument, NULL, 'f'}, {"config", required_argument, NULL, 'f'},
		{"man", no_argument, NULL, 'm'},        {0}};
	enum config_side side = CONFIG_BOTH;
	const char *file = NULL;
	bool is_man = false;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 'a':
		case 'g':
			if (side != CONFIG_BOTH) {
				fputs("tidegate config: --agent and --aggregator exclude each "
				      "other\n",
				      stderr);
				return EXIT_USAGE;
			}
			side = c == 'a' ? CONFIG_AGENT : CONFIG_AGGREGATOR;
			break;
		case 'f':
			file = optarg;
			break;
		case 'm':
			is_man = true;
			break;
		default:
			return verb_bad_option("config", argv, options);
		}
	}
	if (verb_has_argument("config", argc, argv, NULL))
		return EXIT_USAGE;
	if (is_man)
		return print_man();
	return print_configuration(side == CONFIG_AGGREGATOR ? side : CONFIG_AGENT, file);
}
