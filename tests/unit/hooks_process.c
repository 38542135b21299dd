/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steward and script process as they run, with this test as supervisor and keeper (it writes
 * host.seg) and a child as gateway that ends on SIGQUIT.
 */
#include "base/clock.h"
#include "base/log.h"
#include "cmd/daemon.h"
#include "drain/control_client.h"
#include "drain/target.h"
#include "segment/writer.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_S 30 /* for what comes at once on an idle machine */

struct world {
	char dir[40];
	struct config *config;
	struct segment_writer *writer;
	struct segment_gateway *record;
	int links[LINK_COUNT][2], alive[2];
	pid_t gateway, steward, script;
	bool is_gateway_gone;
	uint64_t requests;
};

static void set_string(char **field, const char *value)
{
	free(*field);
	*field = strdup(value);
}

static void put(const struct world *w, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/hooks/%s", w->dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* One tick of the keeper. */
static void keep(struct world *w)
{
	int status;

	if (!w->is_gateway_gone && waitpid(w->gateway, &status, WNOHANG) == w->gateway)
		w->is_gateway_gone = true;
	segment_writer_tick_begin(w->writer);
	w->record->requests_started = w->record->requests_completed = w->requests;
	w->record->in_flight = w->is_gateway_gone ? 0 : 3;
	segment_writer_tick_end(w->writer, clock_mono_ns(), clock_real_ns(), 50 * NS_PER_MS);
}

static pid_t start_process(struct world *w, int (*entry)(struct daemon_context *), const char *name,
			   int side, unsigned int restarts)
{
	struct daemon_context ctx = {.config = w->config,
				     .name = name,
				     .supervisor_fd = w->alive[0],
				     .restarts = restarts,
				     .group_app = (gid_t)-1,
				     .group_admin = (gid_t)-1};
	pid_t pid = fork();

	if (pid)
		return pid;
	close(w->alive[1]);
	log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
	for (int i = 0; i < LINK_COUNT; i++)
		ctx.links[i] = -1;
	ctx.links[LINK_STEWARD_SCRIPT] = w->links[LINK_STEWARD_SCRIPT][side];
	if (!side) {
		ctx.links[LINK_STEWARD_KEEPER] = w->links[LINK_STEWARD_KEEPER][0];
		ctx.links[LINK_STEWARD_COURIER] = w->links[LINK_STEWARD_COURIER][0];
		ctx.links[LINK_SUPERVISOR_STEWARD] = w->links[LINK_SUPERVISOR_STEWARD][0];
	}
	_exit(entry(&ctx));
}

/* It ends on SIGQUIT; after SIGUSR2 only when SIGWINCH has come as well. */
static pid_t start_gateway(void)
{
	bool is_told = false, is_busy = false;
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		return pid;
	}
	while (!is_told || is_busy) {
		int signal = 0;

		sigwait(&all, &signal);
		is_told |= signal == SIGQUIT;
		is_busy = signal == SIGUSR2 || (is_busy && signal != SIGWINCH);
	}
	_exit(0);
}

/* A gateway that ends at once overtakes the hook that told it to, whose report is then missing. */
static void end_gateway_after_stop_hook(const struct world *w)
{
	assert_int_equal(kill(w->gateway, SIGUSR2), 0);
	put(w, "60-last.lua",
	    "tidegate.hook({name='last', point='drain.stop', after={'tell-to-stop'},\n"
	    "run=function() assert(tidegate.signal('WINCH')) end})");
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char path[80];
	bool is_continued;
	uint64_t start;

	*state = w;
	signal(SIGPIPE, SIG_IGN);
	setenv("TIDEGATE_ANY_FS", "1", 1);
	strcpy(w->dir, "/tmp/tidegate-hooks-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(path, sizeof(path), "%s/hooks", w->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(config_new(CONFIG_AGENT, &w->config), 0);
	set_string(&w->config->drain_hooks_dir, path);
	set_string(&w->config->_runtime_dir, w->dir);
	set_string(&w->config->drain_lua_dir, "lua");
	w->config->drain_quiet = 300 * NS_PER_MS;
	w->config->drain_deadline = 10 * NS_PER_S;
	w->config->drain_hook_cpu = 50 * NS_PER_MS;
	for (int i = 0; i < LINK_COUNT; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
					    0, w->links[i]),
				 0);
	assert_int_equal(pipe(w->alive), 0);
	w->gateway = start_gateway();
	snprintf(path, sizeof(path), "%s/host.seg", w->dir);
	assert_int_equal(segment_writer_open(&(struct segment_options){.path = path,
								       .kind = SEGMENT_HOST,
								       .group = (gid_t)-1,
								       .series = 16,
								       .histograms = 2,
								       .heap_bytes = 4096},
					     &w->writer, &is_continued, NULL),
			 0);
	assert_int_equal(target_start_time((uint32_t)w->gateway, &start), 0);
	assert_true(segment_writer_gateway(w->writer, "edge", "host/1") >= 0);
	segment_writer_change_begin(w->writer);
	w->record = segment_writer_gateway_at(w->writer, 0);
	w->record->state = SEGMENT_GATEWAY_LIVE;
	strcpy(w->record->driver, "nginx");
	w->record->master_pid = (uint32_t)w->gateway;
	w->record->master_start = start;
	w->record->requests_known = 1;
	segment_writer_change_end(w->writer);
	w->requests = 1000;
	keep(w);
	return 0;
}

static void end_process(pid_t pid)
{
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
}

/* It was killed by somebody else, a moment ago. */
static void assert_ended(pid_t *pid)
{
	uint64_t until_ns = clock_mono_ns() + WAIT_S * NS_PER_S;
	pid_t r = 0;

	while (!r && clock_mono_ns() < until_ns) {
		r = waitpid(*pid, NULL, WNOHANG);
		poll(NULL, 0, r ? 0 : 5);
	}
	assert_int_equal(r, *pid);
	*pid = 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[80];

	end_process(w->steward);
	end_process(w->script);
	if (!w->is_gateway_gone)
		end_process(w->gateway);
	segment_writer_close(w->writer);
	config_free(w->config);
	for (int i = 0; i < LINK_COUNT; i++) {
		close(w->links[i][0]);
		close(w->links[i][1]);
	}
	close(w->alive[0]);
	close(w->alive[1]);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	free(w);
	return system(command) == 0 ? 0 : -1;
}

/* A steward does without a script process that is late: so the hooks are loaded before it starts. */
static void start_all(struct world *w)
{
	struct pollfd hello = {.fd = w->links[LINK_STEWARD_SCRIPT][0], .events = POLLIN};

	w->script = start_process(w, script_run, "script", 1, 0);
	assert_int_equal(poll(&hello, 1, WAIT_S * 1000), 1);
	w->steward = start_process(w, steward_run, "steward", 0, 1);
}

static struct control_client *connect_steward(struct world *w)
{
	uint64_t until_ns = clock_mono_ns() + WAIT_S * NS_PER_S;
	struct control_client *c = NULL;

	while (control_client_open(w->dir, &c, NULL) < 0 && clock_mono_ns() < until_ns) {
		keep(w);
		poll(NULL, 0, 10);
	}
	assert_non_null(c);
	return c;
}

/* The next line, while the keeper goes on. NULL when the steward went away or answered an error. */
static json_t *next_line(struct world *w, struct control_client *c, struct err *e)
{
	uint64_t until_ns = clock_mono_ns() + WAIT_S * NS_PER_S;

	while (clock_mono_ns() < until_ns) {
		json_t *m = NULL;
		int r;

		err_clear(e);
		keep(w);
		r = control_client_recv(c, 0.02, &m, e);
		if (r != -ETIMEDOUT)
			return r < 0 ? NULL : m;
	}
	fail_msg("no answer in time");
	return NULL;
}

static struct control_client *ask(struct world *w, const char *request)
{
	struct control_client *c = connect_steward(w);

	assert_int_equal(control_client_send(c, json_loads(request, 0, NULL), NULL), 0);
	return c;
}

static json_t *drain(struct world *w, int *ret_code)
{
	struct control_client *c = ask(w, "{\"op\":\"drain\",\"wait\":true}");
	struct err e;
	json_t *line = next_line(w, c, &e), *report;

	assert_non_null(line);
	assert_true(json_is_true(json_object_get(line, "ok")));
	json_decref(line);
	line = next_line(w, c, &e);
	assert_non_null(line);
	report = json_incref(json_object_get(line, "report"));
	assert_non_null(report);
	json_decref(line);
	line = next_line(w, c, &e);
	assert_non_null(line);
	*ret_code = (int)json_integer_value(json_object_get(line, "code"));
	json_decref(line);
	control_client_close(c);
	return report;
}

/* The hooks after the gateway's end are cut short: so at least so many. */
static void assert_drained(const json_t *report, size_t least, size_t failed)
{
	json_t *item, *list = json_object_get(report, "hooks");
	size_t i, bad = 0;

	json_array_foreach(list, i, item) bad += !json_is_true(json_object_get(item, "ok"));
	if (json_array_size(list) < least || bad != failed)
		json_dumpf(report, stderr, JSON_INDENT(1));
	assert_true(json_array_size(list) >= least);
	if (!least)
		assert_int_equal(json_array_size(list), 0);
	assert_int_equal(bad, failed);
	assert_int_equal(json_integer_value(json_object_get(report, "lost")), 0);
	assert_int_equal(json_integer_value(json_object_get(report, "in_flight_at_start")), 3);
	assert_false(json_is_true(json_object_get(report, "forced")));
}

static void test_shipped_hooks_drain(void **state)
{
	struct world *w = *state;
	json_t *report;
	int code;

	end_gateway_after_stop_hook(w);
	start_all(w);
	report = drain(w, &code);
	assert_drained(report, 2, 0);
	assert_int_equal(code, 0);
	assert_true(w->is_gateway_gone);
	json_decref(report);
}

static void test_no_script_process(void **state)
{
	struct world *w = *state;
	json_t *report;
	int code;

	w->steward = start_process(w, steward_run, "steward", 0, 1);
	report = drain(w, &code);
	assert_drained(report, 0, 0);
	assert_int_equal(code, 0);
	json_decref(report);
}

static void test_syntax_error_leaves_the_builtin_drain(void **state)
{
	struct world *w = *state;
	json_t *report;
	int code;

	put(w, "50-drain.lua", "this is no Lua");
	start_all(w);
	report = drain(w, &code);
	assert_drained(report, 0, 0);
	assert_int_equal(code, 0);
	json_decref(report);
}

static void test_hook_inside_c_is_killed(void **state)
{
	struct world *w = *state;
	json_t *report;
	int code;

	put(w, "10-bad.lua",
	    "tidegate.hook({name='bad', point='drain.begin', run=function()\n"
	    "(('a'):rep(16000)):find(('a-'):rep(30) .. 'b') end})");
	/* Long enough that the silence, not the end of its part, ends the hook. */
	w->config->drain_deadline = 30 * NS_PER_S;
	start_all(w);
	report = drain(w, &code);
	assert_int_equal(code, 0);
	assert_drained(report, 0, 0);
	assert_ended(&w->script);
	json_decref(report);
}

static void test_forbidden_signal(void **state)
{
	struct world *w = *state;
	json_t *report;
	int code;

	put(w, "10-kill.lua",
	    "tidegate.hook({name='kill', point='drain.begin', run=function()\n"
	    "local ok, why = tidegate.signal('KILL') assert(not ok)\n"
	    "error(why) end})");
	end_gateway_after_stop_hook(w);
	start_all(w);
	report = drain(w, &code);
	assert_drained(report, 3, 1);
	assert_int_equal(code, 0);
	json_decref(report);
}

static void test_steward_killed_goes_on(void **state)
{
	struct world *w = *state;
	struct control_client *c;
	uint64_t until_ns;
	struct err e;
	json_t *line;

	w->config->drain_quiet = 2 * NS_PER_S;
	start_all(w);
	c = ask(w, "{\"op\":\"drain\",\"wait\":true}");
	line = next_line(w, c, &e);
	assert_non_null(line);
	json_decref(line);
	end_process(w->steward);
	assert_null(next_line(w, c, &e));
	control_client_close(c);
	assert_false(w->is_gateway_gone);
	w->steward = start_process(w, steward_run, "steward", 0, 2);
	until_ns = clock_mono_ns() + WAIT_S * NS_PER_S;
	while (!w->is_gateway_gone && clock_mono_ns() < until_ns) {
		keep(w);
		poll(NULL, 0, 20);
	}
	assert_true(w->is_gateway_gone);
}

static void test_undrain_over_the_socket(void **state)
{
	struct world *w = *state;
	struct control_client *c, *u;
	struct err e;
	json_t *line, *report;

	w->config->drain_quiet = 10 * NS_PER_S;
	w->config->drain_deadline = 60 * NS_PER_S;
	start_all(w);
	c = ask(w, "{\"op\":\"drain\",\"gateway\":\"edge\",\"wait\":true}");
	line = next_line(w, c, &e);
	assert_non_null(line);
	json_decref(line);
	u = ask(w, "{\"op\":\"undrain\",\"gateway\":\"host/1\"}");
	line = next_line(w, u, &e);
	assert_int_equal(json_integer_value(json_object_get(line, "undrained")), 1);
	json_decref(line);
	control_client_close(u);
	line = next_line(w, c, &e);
	report = json_object_get(line, "report");
	assert_true(json_is_true(json_object_get(report, "undrained")));
	json_decref(line);
	control_client_close(c);
	assert_false(w->is_gateway_gone);
	u = ask(w, "{\"op\":\"undrain\"}");
	assert_null(next_line(w, u, &e));
	assert_non_null(strstr(e.text, "no drain is under way"));
	control_client_close(u);
}

static void test_unknown_gateway_is_named(void **state)
{
	struct world *w = *state;
	struct control_client *c;
	struct err e;

	start_all(w);
	c = ask(w, "{\"op\":\"drain\",\"gateway\":\"egde\"}");
	assert_null(next_line(w, c, &e));
	assert_non_null(strstr(e.text, "there are: edge"));
	control_client_close(c);
}

static void test_terminate(void **state)
{
	static const char packet[] = "{\"type\":\"terminate\",\"reason\":\"pod\",\"drain\":true}";
	struct world *w = *state;
	uint64_t until_ns = clock_mono_ns() + WAIT_S * NS_PER_S;
	char answer[256] = "";
	bool said_draining = false;

	put(w, "60-t.lua",
	    "tidegate.hook({name='t', point='terminate', run=function(ctx)\n"
	    "assert(ctx.reason == 'pod') end})");
	start_all(w);
	assert_true(send(w->links[LINK_SUPERVISOR_STEWARD][1], packet, strlen(packet), 0) > 0);
	while (clock_mono_ns() < until_ns && !answer[0]) {
		char text[4096];

		keep(w);
		poll(NULL, 0, 20);
		while (daemon_link_recv(w->links[LINK_STEWARD_KEEPER][1], text, sizeof(text)) > 0)
			said_draining |= strstr(text, "\"on\":true") != NULL;
		daemon_link_recv(w->links[LINK_SUPERVISOR_STEWARD][1], answer, sizeof(answer));
	}
	assert_string_equal(answer, "{\"type\":\"terminated\",\"code\":0}");
	assert_true(w->is_gateway_gone);
	assert_true(said_draining);
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_shipped_hooks_drain),
		WORLD_TEST(test_no_script_process),
		WORLD_TEST(test_syntax_error_leaves_the_builtin_drain),
		WORLD_TEST(test_hook_inside_c_is_killed),
		WORLD_TEST(test_forbidden_signal),
		WORLD_TEST(test_steward_killed_goes_on),
		WORLD_TEST(test_undrain_over_the_socket),
		WORLD_TEST(test_unknown_gateway_is_named),
		WORLD_TEST(test_terminate),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
