/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate undrain`: gives a gateway back to its traffic, as long as it was not told to stop. */
#include "base/cleanup.h"
#include "cmd/verbs.h"
#include "config/config.h"
#include "drain/control_client.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#define ANSWER_S 10

static const struct option options[] = {{"gateway", required_argument, NULL, 'g'},
					{"config", required_argument, NULL, 'c'},
					{NULL, 0, NULL, 0}};

int undrain_verb(int argc, char **argv)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	const char *gateway = NULL, *file = NULL;
	struct err e = {.text = ""};
	json_t *reply;
	int c;

	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'g')
			gateway = optarg;
		else if (c == 'c')
			file = optarg;
		else
			return verb_bad_option("undrain", argv, options);
	}
	if (verb_has_argument("undrain", argc, argv, "gateway"))
		return EXIT_USAGE;
	if (config_load(CONFIG_AGENT, file, &config, &e) < 0) {
		fprintf(stderr, "tidegate undrain: %s\n", e.text);
		return EXIT_USAGE;
	}
	if (control_client_ask(config->_runtime_dir,
			       json_pack("{s:s,s:s?}", "op", "undrain", "gateway", gateway),
			       ANSWER_S, &reply, &e) < 0) {
		fprintf(stderr, "tidegate undrain: %s\n", e.text);
		return EXIT_FAILED;
	}
	printf("%lld taken back, %lld too late\n",
	       (long long)json_integer_value(json_object_get(reply, "undrained")),
	       (long long)json_integer_value(json_object_get(reply, "late")));
	json_decref(reply);
	return EXIT_DONE;
}
