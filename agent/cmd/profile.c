/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate profile`: asks a gateway's processes for what their Lua does, merges what they answer. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cmd/profile_output.h"
#include "cmd/verbs.h"
#include "config/config.h"
#include "drain/control.h"
#include "drain/control_client.h"
#include "outlet/stacks.h"
#include "segment/folded.h"
#include "segment/reader.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_S      10
#define GRACE_NS      (5 * NS_PER_S) /* for the processes to write, after the end */
#define LOOK_NS       100000000
#define PROCESSES_MAX 1024
#define PIDS_SHOWN    8

DEFINE_CLEANUP(struct segment_reader *, segment_reader_close)
DEFINE_CLEANUP(struct stacks *, stacks_free)

static const struct option options[] = {{"gateway", required_argument, NULL, 'g'},
					{"seconds", required_argument, NULL, 's'},
					{"svg", required_argument, NULL, 'v'},
					{"folded", required_argument, NULL, 'f'},
					{"instance", required_argument, NULL, 'i'},
					{"config", required_argument, NULL, 'c'},
					{NULL, 0, NULL, 0}};

struct profile_options {
	const char *gateway, *instance, *config_file;
	struct profile_output svg, folded; /* path NULL: not wanted */
	double seconds;
};

struct worker {
	struct folded_process process;
	bool has_answered;
};

struct profile_run {
	const struct profile_options *o;
	char dir[PATH_MAX]; /* …/app */
	uint64_t id, until_ns;
	struct worker *workers; /* PROCESSES_MAX of them */
	unsigned int count;
	unsigned int answered, refused; /* files: taken, left out */
	bool is_short_of_memory;
	struct stacks *stacks;
};

static int usage(const char *text)
{
	fprintf(stderr, "tidegate profile: %s\n", text);
	return -EINVAL;
}

static int parse_seconds(const char *text, double *ret)
{
	char *end;
	double s = strtod(text, &end);

	if (end != text && str_equal(end, "s"))
		end++;
	if (end == text || *end || !(s >= 1) || s > CONTROL_PROFILE_MAX_S) {
		fprintf(stderr,
			"tidegate profile: --seconds `%s` is no number of seconds from 1 to %.0f\n",
			text, CONTROL_PROFILE_MAX_S);
		return -EINVAL;
	}
	*ret = s;
	return 0;
}

static int parse(int argc, char **argv, struct profile_options *o)
{
	int c;

	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'g':
			o->gateway = optarg;
			break;
		case 's':
			if (parse_seconds(optarg, &o->seconds) < 0)
				return -EINVAL;
			break;
		case 'v':
			o->svg.path = optarg;
			break;
		case 'f':
			o->folded.path = optarg;
			break;
		case 'i':
			o->instance = optarg;
			break;
		case 'c':
			o->config_file = optarg;
			break;
		default:
			verb_bad_option("profile", argv, options);
			return -EINVAL;
		}
	}
	if (verb_has_argument("profile", argc, argv, "gateway"))
		return -EINVAL;
	if (!o->gateway && !o->instance)
		return usage("which gateway? Name it with --gateway");
	if (!o->seconds)
		return usage("for how long? Say it with --seconds");
	return 0;
}

/* ---- whom we wait for ---- */

static bool is_meant(const struct profile_options *o, const struct segment_gateway *g)
{
	return g->state == SEGMENT_GATEWAY_LIVE &&
	       (!o->gateway || str_equal(o->gateway, g->name)) &&
	       (!o->instance || str_equal(o->instance, g->instance));
}

/* As the gateway's module finds its record: by its master, else by the name it gives itself. */
static bool is_of(const struct folded_process *p, const struct segment_gateway *g)
{
	return g->master_pid == p->pid || (p->parent && g->master_pid == p->parent) ||
	       (*p->gateway && str_equal(p->gateway, g->name));
}

static int find_workers(struct profile_run *run, const struct segment_reader *host, struct err *e)
{
	_cleanup_free_ struct folded_process *all = calloc(PROCESSES_MAX, sizeof(*all));
	unsigned int meant = 0;
	int n = all ? folded_processes(run->dir, all, PROCESSES_MAX) : -ENOMEM;

	if (n < 0)
		return err_set(e, n, "%s: %s", run->dir, err_text(n));
	for (unsigned int i = 0; i < segment_reader_gateways(host); i++) {
		const struct segment_gateway *g = segment_reader_gateway(host, i);

		if (!is_meant(run->o, g))
			continue;
		meant++;
		for (int j = 0; j < n; j++) {
			if (!all[j].is_alive || !is_of(&all[j], g))
				continue;
			run->workers[run->count++].process = all[j];
			all[j].is_alive = false; /* once */
		}
	}
	if (!meant && run->o->gateway && run->o->instance)
		return err_set(e, -ENODEV, "no instance `%s` of gateway `%s` is known",
			       run->o->instance, run->o->gateway);
	/* Whether there is such a gateway at all is the agent's to say. */
	if (meant && !run->count)
		return err_set(
			e, -ENODEV,
			"no process of gateway `%s` answers: does it use resty.tidegate "
			"(LuaJIT gateways: tg.start() in init_worker_by_lua), and may its user "
			"write to %s?",
			run->o->gateway ? run->o->gateway : run->o->instance, run->dir);
	return 0;
}

static int look(struct profile_run *run, const struct config *config, struct err *e)
{
	_cleanup_(segment_reader_close_p) struct segment_reader *host = NULL;
	char path[PATH_MAX];
	int r;

	snprintf(run->dir, sizeof(run->dir), "%s/app", config->_runtime_dir);
	snprintf(path, sizeof(path), "%s/host.seg", config->_runtime_dir);
	r = segment_reader_open(path, &host, e);
	if (!r)
		r = segment_reader_refresh_gateways(host, e);
	if (r == -ENOENT) {
		err_clear(e);
		return err_set(e, r,
			       "no host.seg in %s: no agent is running there; start `tidegate "
			       "agent`, or set TIDEGATE_RUNTIME_DIR to its directory",
			       config->_runtime_dir);
	}
	return r < 0 ? r : find_workers(run, host, e);
}

/* ---- asking and waiting ---- */

static int ask(struct profile_run *run, const struct config *config, struct err *e)
{
	const struct profile_options *o = run->o;
	const char *id;
	json_t *reply;
	int r = control_client_ask(config->_runtime_dir,
				   json_pack("{s:s,s:s,s:f}", "op", "profile", "gateway",
					     o->instance ? o->instance : o->gateway, "seconds",
					     o->seconds),
				   ANSWER_S, &reply, e);

	if (r < 0)
		return r;
	id = json_string_value(json_object_get(reply, "id"));
	run->id = id ? strtoull(id, NULL, 16) : 0;
	run->until_ns = (uint64_t)json_integer_value(json_object_get(reply, "until_mono_ns"));
	json_decref(reply);
	return run->id ? 0 : err_set(e, -EPROTO, "the agent answered without an id");
}

static unsigned int count_answers(struct profile_run *run)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < run->count; i++) {
		struct worker *w = &run->workers[i];

		w->has_answered =
			w->has_answered || folded_is_there(run->dir, w->process.name, run->id);
		n += w->has_answered;
	}
	return n;
}

/* One that ended will not answer any more. */
static bool is_any_at_work(const struct profile_run *run)
{
	for (unsigned int i = 0; i < run->count; i++)
		if (!run->workers[i].has_answered &&
		    folded_is_alive(run->dir, run->workers[i].process.name))
			return true;
	return false;
}

static void wait_for_answers(struct profile_run *run)
{
	const struct timespec pause = {.tv_nsec = LOOK_NS};
	uint64_t begun_ns = clock_mono_ns(), now_ns = begun_ns;
	bool is_terminal = isatty(STDERR_FILENO);
	unsigned int n;

	while ((n = count_answers(run)) < run->count && now_ns < run->until_ns + GRACE_NS) {
		if (now_ns > run->until_ns && !is_any_at_work(run))
			break;
		if (is_terminal)
			fprintf(stderr, "\r%.0f of %.0f s, %u of %u processes answered ",
				(double)(now_ns - begun_ns) / (double)NS_PER_S, run->o->seconds, n,
				run->count);
		nanosleep(&pause, NULL);
		now_ns = clock_mono_ns();
	}
	if (is_terminal)
		fputs("\r\033[K", stderr);
}

/* ---- what came ---- */

static bool is_trusted(const struct profile_run *run, uid_t uid)
{
	for (unsigned int i = 0; i < run->count; i++)
		if (run->workers[i].process.uid == uid)
			return true;
	return false;
}

static void take(void *data, const char *process, uid_t uid, int error, const char *text,
		 size_t size)
{
	struct profile_run *run = data;

	for (unsigned int i = 0; i < run->count; i++)
		if (str_equal(run->workers[i].process.name, process))
			run->workers[i].has_answered = true;
	if (error == 0 && !is_trusted(run, uid))
		error = -EPERM;
	if (error < 0) {
		fprintf(stderr, "tidegate profile: the answer of process %u is left out: %s\n",
			(unsigned int)strtoul(process, NULL, 10),
			error == -EMSGSIZE ? "larger than 1 MiB"
			: error == -EPERM  ? "of another user"
					   : err_text(error));
		run->refused++;
		return;
	}
	run->answered++;
	if (stacks_add(run->stacks, text, size) < 0)
		run->is_short_of_memory = true;
}

static void say_silent(const struct profile_run *run)
{
	unsigned int shown = 0, silent = 0;
	char text[PIDS_SHOWN * 12] = "";
	size_t used = 0;

	for (unsigned int i = 0; i < run->count; i++) {
		if (run->workers[i].has_answered)
			continue;
		silent++;
		if (shown++ < PIDS_SHOWN)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u",
						 used ? " " : "", run->workers[i].process.pid);
	}
	if (silent)
		fprintf(stderr,
			"tidegate profile: no answer from %u process%s: %s%s; ended, too busy to "
			"look, "
			"or no LuaJIT\n",
			silent, silent > 1 ? "es" : "", text, silent > PIDS_SHOWN ? " …" : "");
}

static int finish(struct profile_run *run, struct err *e)
{
	const char *name = run->o->instance ? run->o->instance : run->o->gateway;
	struct profile_text text = {.gateway = name, .seconds = run->o->seconds};
	struct stacks_stats stats;
	int r = folded_take(run->dir, run->id, take, run);

	if (r < 0 || run->is_short_of_memory)
		return err_set(e, r < 0 ? r : -ENOMEM, "%s: %s", run->dir,
			       err_text(r < 0 ? r : -ENOMEM));
	if (!run->answered) {
		say_silent(run);
		return err_set(e, -ENODATA,
			       "no process of gateway `%s` answered: does its tg.start() run in "
			       "init_worker_by_lua?",
			       name);
	}
	text.stacks = run->stacks;
	text.workers = run->answered;
	r = profile_write(&run->o->svg, &run->o->folded, &text, e);
	if (r < 0)
		return r;
	stacks_stats(run->stacks, &stats);
	say_silent(run);
	fprintf(stderr, "tidegate profile: %u process%s answered, %llu samples%s\n", run->answered,
		run->answered > 1 ? "es" : "", (unsigned long long)stats.samples,
		stats.samples ? "" : ": no Lua ran");
	if (stats.refused || stats.shortened)
		fprintf(stderr,
			"tidegate profile: %llu lines were no stacks, %llu samples are counted at "
			"their callers (too many or too deep)\n",
			(unsigned long long)stats.refused, (unsigned long long)stats.shortened);
	return 0;
}

static int profile_all(struct profile_options *o, const struct config *config, struct err *e)
{
	_cleanup_(stacks_free_p) struct stacks *stacks = NULL;
	_cleanup_free_ struct worker *workers = calloc(PROCESSES_MAX, sizeof(*workers));
	struct profile_run run = {.o = o, .workers = workers};
	int r = workers ? stacks_new(&stacks) : -ENOMEM;

	if (r < 0)
		return err_set(e, r, "%s", err_text(r));
	run.stacks = stacks;
	r = look(&run, config, e);
	/* Before the gateway is troubled: can the answer be written? */
	if (!r)
		r = profile_output_open(&o->svg, e);
	if (!r)
		r = profile_output_open(&o->folded, e);
	if (!r)
		r = ask(&run, config, e);
	if (r < 0)
		return r;
	wait_for_answers(&run);
	return finish(&run, e);
}

int profile_verb(int argc, char **argv)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	struct profile_options o = {.svg.fd = -1, .folded.fd = -1};
	struct err e = {.text = ""};
	int r;

	if (parse(argc, argv, &o) < 0)
		return EXIT_USAGE;
	if (config_load(CONFIG_AGENT, o.config_file, &config, &e) < 0) {
		fprintf(stderr, "tidegate profile: %s\n", e.text);
		return EXIT_USAGE;
	}
	r = profile_all(&o, config, &e);
	profile_output_close(&o.svg, r < 0);
	profile_output_close(&o.folded, r < 0);
	if (r < 0)
		fprintf(stderr, "tidegate profile: %s\n", e.text);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
