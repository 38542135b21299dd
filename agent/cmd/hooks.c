/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tidegate hooks check DIR` and `tidegate hooks run POINT --dry-run`: hooks without a gateway.
 * Every wish of a hook is granted at once and printed; nothing is signalled and nothing is run.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cmd/verbs.h"
#include "config/config.h"
#include "drain/script.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <sys/resource.h>

/* A pattern inside of a C function ends with the whole process. */
#define CPU_LAST_S 10

DEFINE_CLEANUP(struct script_host *, script_close)

static const struct option options[] = {{"dry-run", no_argument, NULL, 'n'},
					{"dir", required_argument, NULL, 'D'},
					{"driver", required_argument, NULL, 'r'},
					{"config", required_argument, NULL, 'c'},
					{NULL, 0, NULL, 0}};

struct hooks_options {
	const char *dir, *driver, *config_file, *words[2];
	unsigned int count;
	bool is_dry;
};

struct hooks_run {
	struct script_host *host;
	unsigned int ran, failed;
};

static void on_call(void *data, const struct script_call *c)
{
	struct hooks_run *run = data;
	struct script_answer a = {.is_ok = true, .text = ""};

	printf("  would %s", script_op_name(c->op));
	if (c->op == SCRIPT_SIGNAL)
		printf(" %s", c->text);
	else if (c->op == SCRIPT_EXEC)
		for (char *const *arg = c->argv; *arg; arg++)
			printf(" %s", *arg);
	else if (c->op != SCRIPT_NUMBERS)
		printf(" %g", c->number);
	putchar('\n');
	script_answer(run->host, c->run, c->call, &a);
}

static void on_hook_done(void *data, uint64_t id, const char *name, bool is_ok, uint32_t ms,
			 const char *error)
{
	(void)data;
	(void)id;
	printf("%s: %s, %u ms%s%s\n", name, is_ok ? "ok" : "failed", ms, is_ok ? "" : ": ", error);
}

static void on_run_done(void *data, uint64_t id, unsigned int ran, unsigned int failed,
			bool has_acted)
{
	struct hooks_run *run = data;

	(void)id;
	(void)has_acted;
	run->ran = ran;
	run->failed = failed;
}

static void on_log(void *data, const char *hook, const char *text)
{
	(void)data;
	printf("  %s: %s\n", hook ? hook : "?", text);
}

static void on_problem(void *data, const char *text)
{
	(void)data;
	fprintf(stderr, "tidegate hooks: %s\n", text);
}

static int parse(int argc, char **argv, struct hooks_options *o)
{
	int c;

	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'n':
			o->is_dry = true;
			break;
		case 'D':
			o->dir = optarg;
			break;
		case 'r':
			o->driver = optarg;
			break;
		case 'c':
			o->config_file = optarg;
			break;
		default:
			verb_bad_option("hooks", argv, options);
			return -EINVAL;
		}
	}
	for (; optind < argc && o->count < ARRAY_LEN(o->words); optind++)
		o->words[o->count++] = argv[optind];
	return optind < argc ? -EINVAL : 0;
}

static int usage(const char *why, const char *what)
{
	fprintf(stderr,
		"tidegate hooks: %s%s%s: `tidegate hooks check DIR` or `tidegate hooks run POINT "
		"--dry-run [--dir DIR] [--driver D]`\n",
		why, *what ? " " : "", what);
	return EXIT_USAGE;
}

static int open_host(const struct config *config, const char *hooks_dir, char lua_dir[PATH_MAX],
		     struct hooks_run *run, struct script_host **ret, struct err *e)
{
	struct script_options so = {.lua_dir = lua_dir,
				    .hooks_dir = hooks_dir,
				    .memory_bytes = config->drain_hook_memory,
				    .cpu_ns = config->drain_hook_cpu,
				    .call = on_call,
				    .hook_done = on_hook_done,
				    .run_done = on_run_done,
				    .log = on_log,
				    .problem = on_problem,
				    .data = run};
	struct rlimit limit = {.rlim_cur = CPU_LAST_S, .rlim_max = CPU_LAST_S};
	int r = script_find_lua_dir(config->drain_lua_dir, lua_dir, PATH_MAX);

	if (r < 0)
		return err_set(e, r, "drain.lua_dir: %s", err_text(r));
	setrlimit(RLIMIT_CPU, &limit);
	r = script_open(&so, ret, e);
	run->host = *ret;
	return r;
}

static int check(struct script_host *host, const char *dir)
{
	unsigned int problems = script_load_dir(host, dir), count = 0;

	for (unsigned int p = 0; script_points[p]; p++) {
		struct script_hook_info info;

		for (unsigned int i = 0; script_hook_at(host, script_points[p], NULL, i, &info);
		     i++, count++)
			printf("%-12s %u. %-24s %s\n", info.point, i + 1, info.name, info.file);
	}
	printf("%u hooks, %u problems\n", count, problems);
	return problems ? EXIT_FAILED : EXIT_DONE;
}

static int dry_run(struct script_host *host, const struct hooks_options *o, struct hooks_run *run)
{
	unsigned int problems = o->dir ? script_load_dir(host, o->dir) : script_load(host);
	struct script_event event = {.run = 1,
				     .point = o->words[1],
				     .gateway = "dry-run",
				     .instance = "dry-run/1",
				     .driver = o->driver ? o->driver : "nginx",
				     .reason = "dry-run",
				     .deadline_ns = clock_mono_ns() + 30 * NS_PER_S};
	int r = script_start(host, &event);

	if (r < 0) {
		fprintf(stderr, "tidegate hooks: %s: %s\n", o->words[1], err_text(r));
		return EXIT_FAILED;
	}
	printf("%u hooks ran at %s for driver %s, %u failed\n", run->ran, event.point, event.driver,
	       run->failed);
	return run->failed || problems ? EXIT_FAILED : EXIT_DONE;
}

static int bad_point(const char *point)
{
	const char *near;
	size_t n = 0;

	while (script_points[n])
		n++;
	near = str_nearest(point, script_points, n);
	fprintf(stderr, "tidegate hooks: no point `%s`%s%s%s\n", point,
		near ? ": did you mean `" : "", near ? near : ": see lua/README.md",
		near ? "`?" : "");
	return EXIT_USAGE;
}

int hooks_verb(int argc, char **argv)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	_cleanup_(script_close_p) struct script_host *host = NULL;
	static const char *const verbs[] = {"check", "run"};
	struct hooks_options o = {0};
	struct hooks_run run = {0};
	struct err e = {.text = ""};
	char lua_dir[PATH_MAX];
	bool is_check;

	if (parse(argc, argv, &o) < 0)
		return EXIT_USAGE;
	if (!o.count)
		return usage("say what to do", "");
	is_check = str_equal(o.words[0], "check");
	if (!is_check && !str_equal(o.words[0], "run")) {
		const char *near = str_nearest(o.words[0], verbs, ARRAY_LEN(verbs));

		return usage(near ? "unknown word, nearest is" : "unknown word",
			     near ? near : o.words[0]);
	}
	if (o.count < 2)
		return usage(is_check ? "which directory?" : "which point?", "");
	if (!is_check && !script_is_point(o.words[1]))
		return bad_point(o.words[1]);
	if (!is_check && !o.is_dry)
		return usage("only with --dry-run", "");
	if (config_load(CONFIG_AGENT, o.config_file, &config, &e) < 0) {
		fprintf(stderr, "tidegate hooks: %s\n", e.text);
		return EXIT_USAGE;
	}
	if (open_host(config, config->drain_hooks_dir, lua_dir, &run, &host, &e) < 0) {
		fprintf(stderr, "tidegate hooks: %s\n", e.text);
		return EXIT_FAILED;
	}
	return is_check ? check(host, o.words[1]) : dry_run(host, &o, &run);
}
