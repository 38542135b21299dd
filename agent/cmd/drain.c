/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate drain`: asks the steward for a lease and waits until it is over. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/verbs.h"
#include "config/config.h"
#include "drain/control.h"
#include "drain/control_client.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* After its deadline a lease needs a moment to report; a silent agent is not waited for longer. */
#define GRACE_S 15

DEFINE_CLEANUP(struct control_client *, control_client_close)

static const struct option options[] = {{"gateway", required_argument, NULL, 'g'},
					{"deadline", required_argument, NULL, 'd'},
					{"json", no_argument, NULL, 'j'},
					{"config", required_argument, NULL, 'c'},
					{NULL, 0, NULL, 0}};

struct drain_options {
	const char *gateway, *config_file;
	double deadline_s; /* 0: as configured */
	bool is_json;
};

static int parse(int argc, char **argv, struct drain_options *o)
{
	char *end;
	int c;

	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'g':
			o->gateway = optarg;
			break;
		case 'd':
			o->deadline_s = strtod(optarg, &end);
			if (end != optarg && str_equal(end, "s"))
				end++;
			if (end == optarg || *end || !(o->deadline_s >= 1) ||
			    o->deadline_s > CONTROL_DEADLINE_MAX_S) {
				fprintf(stderr,
					"tidegate drain: --deadline `%s` is no number of seconds "
					"from 1 to %.0f\n",
					optarg, CONTROL_DEADLINE_MAX_S);
				return -EINVAL;
			}
			break;
		case 'j':
			o->is_json = true;
			break;
		case 'c':
			o->config_file = optarg;
			break;
		default:
			verb_bad_option("drain", argv, options);
			return -EINVAL;
		}
	}
	if (verb_has_argument("drain", argc, argv, "gateway"))
		return -EINVAL;
	return 0;
}

static void print_number(const json_t *report, const char *key, const char *label)
{
	const json_t *v = json_object_get(report, key);

	if (json_is_integer(v))
		printf("  %-22s %lld\n", label, (long long)json_integer_value(v));
	else
		printf("  %-22s unknown\n", label);
}

static void print_text(const json_t *report)
{
	const json_t *item;
	size_t i;

	printf("gateway %s (%s), %s\n", json_string_value(json_object_get(report, "gateway")),
	       json_string_value(json_object_get(report, "instance")),
	       json_is_true(json_object_get(report, "undrained")) ? "taken back"
	       : json_is_true(json_object_get(report, "expired")) ? "expired, traffic returns"
	       : json_is_true(json_object_get(report, "forced"))  ? "stopped by force"
	       : json_is_true(json_object_get(report, "failed"))  ? "not stopped"
								  : "drained");
	json_array_foreach(json_object_get(report, "steps"), i, item)
		printf("  %8.3f s  %s\n", json_number_value(json_object_get(item, "at_s")),
		       json_string_value(json_object_get(item, "text")));
	json_array_foreach(json_object_get(report, "hooks"), i, item)
	{
		const char *error = json_string_value(json_object_get(item, "error"));

		printf("  hook %s at %s: %s, %.3f s%s%s\n",
		       json_string_value(json_object_get(item, "name")),
		       json_string_value(json_object_get(item, "point")),
		       json_is_true(json_object_get(item, "ok")) ? "ok" : "failed",
		       json_number_value(json_object_get(item, "seconds")), error ? ": " : "",
		       error ? error : "");
	}
	print_number(report, "in_flight_at_start", "in flight at start");
	print_number(report, "arrived", "arrived meanwhile");
	print_number(report, "completed", "completed");
	print_number(report, "aborted", "aborted by clients");
	print_number(report, "lost", "lost");
	printf("  %-22s %.3f s\n", "waited",
	       json_number_value(json_object_get(report, "waited_s")));
}

static int print_report(const json_t *report, bool is_json)
{
	_cleanup_free_ char *text = NULL;

	if (is_json) {
		text = json_dumps(report, JSON_COMPACT | JSON_REAL_PRECISION(10));
		if (!text)
			return -ENOMEM;
		puts(text);
	} else {
		print_text(report);
	}
	return fflush(stdout) == EOF ? -EIO : 0;
}

/* Prints each report until the last line. Gives the exit code. */
static int follow(struct control_client *client, const struct drain_options *o, double deadline_s,
		  int *ret_code, struct err *e)
{
	for (;;) {
		json_t *m, *report;
		bool is_done;
		int r = control_client_recv(client, deadline_s + GRACE_S, &m, e);

		if (r < 0)
			return r;
		report = json_object_get(m, "report");
		if (report)
			r = print_report(report, o->is_json);
		is_done = json_is_true(json_object_get(m, "done"));
		if (is_done)
			*ret_code = (int)json_integer_value(json_object_get(m, "code"));
		json_decref(m);
		if (r < 0)
			return err_set(e, r, "standard output: %s", err_text(r));
		if (is_done)
			return 0;
	}
}

int drain_verb(int argc, char **argv)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	_cleanup_(control_client_close_p) struct control_client *client = NULL;
	struct drain_options o = {0};
	struct err e = {.text = ""};
	double deadline_s;
	int r, code = EXIT_FAILED;
	json_t *request;

	if (parse(argc, argv, &o) < 0)
		return EXIT_USAGE;
	r = config_load(CONFIG_AGENT, o.config_file, &config, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate drain: %s\n", e.text);
		return EXIT_USAGE;
	}
	deadline_s = o.deadline_s > 0 ? o.deadline_s : (double)config->drain_deadline / 1e9;
	request = json_pack("{s:s,s:s?,s:b}", "op", "drain", "gateway", o.gateway, "wait", 1);
	if (o.deadline_s > 0)
		json_object_set_new(request, "deadline_s", json_real(o.deadline_s));
	r = control_client_open(config->_runtime_dir, &client, &e);
	if (r < 0)
		json_decref(request);
	else
		r = control_client_send(client, request, &e);
	if (!r)
		r = follow(client, &o, deadline_s, &code, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate drain: %s\n", e.text);
		return EXIT_FAILED;
	}
	return code;
}
