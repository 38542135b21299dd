/* SPDX-License-Identifier: Apache-2.0 */
/* config: what a file, the environment and nothing at all give; what each mistake is told. */
#include "config/config.h"

#include "base/clock.h"
#include "config/value.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/tidegate-config-XXXXXX";
static char path[64];

extern char **environ;

static void write_bytes(const char *text, size_t size)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, size, f), size);
	assert_int_equal(fclose(f), 0);
}

static void write_file(const char *text)
{
	write_bytes(text, strlen(text));
}

static struct config *load(enum config_side side, const char *text)
{
	struct config *c = NULL;
	struct err e = {0};

	write_file(text);
	if (config_load(side, path, &c, &e) < 0)
		print_error("%s\n", e.text);
	assert_non_null(c);
	return c;
}

/* The message without the directory: "agent.yaml:3: ...". */
static const char *failure(enum config_side side, const char *text)
{
	static struct err e;
	struct config *c = NULL;

	e = (struct err){0};
	write_file(text);
	assert_int_equal(config_load(side, path, &c, &e), -EINVAL);
	assert_null(c);
	assert_null(strchr(e.text, '\n'));
	return strncmp(e.text, dir, strlen(dir)) == 0 ? e.text + strlen(dir) + 1 : e.text;
}

static struct {
	char text[16][512];
	size_t count;
} warned;

static void on_warning(void *data, const char *text)
{
	assert_ptr_equal(data, &warned);
	assert_true(warned.count < ARRAY_LEN(warned.text));
	str_copy(warned.text[warned.count++], sizeof(warned.text[0]), text);
}

static struct config *lenient(enum config_side side, const char *file)
{
	struct config *c = NULL;

	warned.count = 0;
	assert_int_equal(config_load_lenient(side, file, on_warning, &warned, &c), 0);
	assert_non_null(c);
	return c;
}

static int clear_environment(void **state)
{
	char *names[64];
	size_t n = 0;

	(void)state;
	for (char **v = environ; *v && n < 64; v++)
		if (str_starts(*v, "TIDEGATE_") || str_starts(*v, "POD_") ||
		    str_starts(*v, "NODE_NAME"))
			names[n++] = strndup(*v, strcspn(*v, "="));
	while (n) {
		unsetenv(names[--n]);
		free(names[n]);
	}
	return 0;
}

static void defaults_are_the_rows(void **state)
{
	struct config *c = NULL;
	char host[256] = "";

	(void)state;
	gethostname(host, sizeof(host) - 1);
	assert_int_equal(config_new(CONFIG_AGENT, &c), 0);
	assert_null(c->file);
	assert_string_equal(c->_runtime_dir, "/run/tidegate");
	assert_string_equal(c->bus_address, "ipc:///run/tidegate/bus");
	assert_string_equal(c->agent_id, host);
	assert_string_equal(c->log_level, "info");
	assert_true(c->agent_tick == NS_PER_S);
	assert_true(c->drain_deadline == 30 * NS_PER_S);
	assert_true(c->spool_bytes == 256ULL << 20);
	assert_string_equal(c->spool_dir, "/var/lib/tidegate/spool");
	assert_int_equal(c->uplink_aggregators.count, 1);
	assert_string_equal(c->uplink_aggregators.items[0], "tcp://127.0.0.1:9466");
	assert_true(c->probe_gc);
	assert_true(c->probe_gc_budget == 10000);
	assert_int_equal(c->gateways_match.count, 0);
	assert_int_equal(c->health_paths.count, 5);
	assert_string_equal(c->health_paths.items[4], "/ping");
	assert_null(config_free(c));
	assert_int_equal(config_new(CONFIG_AGGREGATOR, &c), 0);
	assert_string_equal(c->_runtime_dir, "/run/tidegate-aggregator");
	/* It must not feed itself by default. */
	assert_int_equal(c->uplink_aggregators.count, 0);
	assert_string_equal(c->spool_dir, "/var/lib/tidegate/ferry");
	assert_true(strncmp(c->uplink_id, "aggregator/", 11) == 0);
	assert_string_equal(c->uplink_id + 11, host);
	config_free(c);
	assert_null(config_free(NULL));
}

static void file_gives_every_type(void **state)
{
	struct config *c = load(CONFIG_AGENT, "# a comment\n"
					      "runtime_dir: /tmp/tg/\n"
					      "user: ~\n"
					      "agent: {id: \"pod 1\", tick: 0.5}\n"
					      "probe:\n"
					      "  gc: off\n"
					      "  sample: 16\n"
					      "  tier: raw_tp\n"
					      "spool:\n"
					      "  bytes: 64MiB\n"
					      "  age: 1h\n"
					      "http:\n"
					      "  address: \"\"\n"
					      "health:\n"
					      "  paths: []\n"
					      "  user_agents:\n"
					      "    - kube-probe\n"
					      "    - \"a, b\"\n"
					      "log:\n");

	(void)state;
	assert_string_equal(c->file, path);
	assert_string_equal(c->_runtime_dir, "/tmp/tg");
	assert_string_equal(c->bus_address, "ipc:///tmp/tg/bus");
	assert_string_equal(c->_user, "tidegate");
	assert_int_equal(c->source[CONFIG_OPTION__user], CONFIG_DEFAULT);
	assert_string_equal(c->agent_id, "pod 1");
	assert_true(c->agent_tick == NS_PER_S / 2);
	assert_false(c->probe_gc);
	assert_int_equal(c->probe_sample, 16);
	assert_string_equal(c->probe_tier, "raw_tp");
	assert_true(c->spool_bytes == 64 << 20);
	assert_true(c->spool_age == 3600 * NS_PER_S);
	assert_string_equal(c->http_address, "");
	assert_int_equal(c->source[CONFIG_OPTION_http_address], CONFIG_FILE);
	assert_int_equal(c->health_paths.count, 0);
	assert_int_equal(c->source[CONFIG_OPTION_health_paths], CONFIG_FILE);
	assert_int_equal(c->health_user_agents.count, 2);
	assert_string_equal(c->health_user_agents.items[1], "a, b");
	assert_string_equal(c->log_format, "text");
	config_free(c);
}

static void empty_files_are_fine(void **state)
{
	static const char *const texts[] = {
		"",     "\n",  "# nothing\n", "---\n",     "---\n...\n",
		"{}\n", "~\n", "log:\n",      "log: {}\n", "agent:\n  id:\nlog:\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		config_free(load(CONFIG_AGENT, texts[i]));
}

static void wrong_files_are_told_where(void **state)
{
	static const struct {
		const char *text, *message;
	} rows[] = {
		{"drain:\n  quiet: 1s\n  dedline: 3s\n",
		 "agent.yaml:3: unknown key `drain.dedline`, did you mean `drain.deadline`?"},
		{"user: a\n\n\ndrian:\n  deadline: 3s\n",
		 "agent.yaml:4: unknown key `drian`, did you mean `drain`?"},
		{"deadline: 3s\n",
		 "agent.yaml:1: unknown key `deadline`, did you mean `drain.deadline`?"},
		{"nothing_like_it: 1\n",
		 "agent.yaml:1: unknown key `nothing_like_it`, `tidegate config` lists all"},
		{"log:\n  level: inf\n",
		 "agent.yaml:2: `log.level`: `inf` is none of debug|info|warning|error, did you "
		 "mean `info`?"},
		{"log:\n  level: loud\n",
		 "agent.yaml:2: `log.level`: `loud` is none of debug|info|warning|error"},
		{"log:\n  level: Info\n",
		 "agent.yaml:2: `log.level`: `Info` is none of debug|info|warning|error, did you "
		 "mean `info`?"},
		{"drain:\n  deadline: soon\n",
		 "agent.yaml:2: `drain.deadline`: `soon` is not a duration, as 30s, 500ms, 2m, 1h "
		 "or a number of seconds"},
		{"drain:\n  deadline: 999ms\n",
		 "agent.yaml:2: `drain.deadline`: `999ms` is less than the least, 1s"},
		{"drain:\n  deadline: 25h\n",
		 "agent.yaml:2: `drain.deadline`: `25h` is more than the most, 1d"},
		{"drain:\n  deadline: -1\n",
		 "agent.yaml:2: `drain.deadline`: `-1` is not a duration, as 30s, 500ms, 2m, 1h or "
		 "a number of seconds"},
		{"spool: {bytes: 1k}\n",
		 "agent.yaml:1: `spool.bytes`: `1k` is less than the least, 1MiB"},
		{"spool: {bytes: 99999999TiB}\n",
		 "agent.yaml:1: `spool.bytes`: `99999999TiB` is not within range: it is too large"},
		{"spool: {bytes: lots}\n",
		 "agent.yaml:1: `spool.bytes`: `lots` is not a size, as 64MiB, 10MB, 512k or a "
		 "number of bytes"},
		{"gateways:\n  most: 0x10\n",
		 "agent.yaml:2: `gateways.most`: `0x10` is not a whole number"},
		{"gateways:\n  most: 65\n",
		 "agent.yaml:2: `gateways.most`: `65` is more than the most, 64"},
		{"probe:\n  gc: maybe\n",
		 "agent.yaml:2: `probe.gc`: `maybe` is not true or false (yes, no, on, off)"},
		{"probe:\n  gc_budget: 101%\n",
		 "agent.yaml:2: `probe.gc_budget`: `101%` is more than the most, 100%"},
		{"probe:\n  gc_budget: 0\n",
		 "agent.yaml:2: `probe.gc_budget`: `0` is less than the least, 0.01%"},
		{"probe:\n  gc_budget: some\n",
		 "agent.yaml:2: `probe.gc_budget`: `some` is not a share, as 1%, 0.5% or a number "
		 "between 0 and 1"},
		{"spool:\n  dir: var/spool\n",
		 "agent.yaml:2: `spool.dir`: `var/spool` is not an absolute path"},
		{"user: \"a\\nb\"\n",
		 "agent.yaml:1: `user`: `a?b` is not one line of text without control characters"},
		{"user: [a]\n", "agent.yaml:1: `user` takes one value, not a list"},
		{"user: {a: b}\n", "agent.yaml:1: `user` takes one value, not keys of its own"},
		{"health:\n  paths: /a\n",
		 "agent.yaml:2: `health.paths` takes a list: write [a, b], or one `- a` a line"},
		{"health:\n  paths: {a: b}\n",
		 "agent.yaml:2: `health.paths` takes a list, not keys of its own"},
		{"health:\n  paths:\n    - /a\n    - [/b]\n",
		 "agent.yaml:4: `health.paths` takes a list of plain values"},
		{"health:\n  paths: [/a, \"\"]\n",
		 "agent.yaml:2: `health.paths`: entry 2 is empty"},
		{"health:\n  paths: [a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a]\n",
		 "agent.yaml:2: `health.paths`: 17 entries are more than the most, 16"},
		{"health:\n  paths: "
		 "[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\n",
		 "agent.yaml:2: `health.paths`: 65 bytes are more than the most, 64"},
		{"log: debug\n",
		 "agent.yaml:1: `log` is a section: its keys stand below it, indented"},
		{"log: [debug]\n",
		 "agent.yaml:1: `log` is a section: its keys stand below it, indented"},
		{"user: a\nlog:\nuser: b\n",
		 "agent.yaml:3: `user` stands a second time, first in line 1"},
		{"log: {level: info}\nlog: {format: json}\n",
		 "agent.yaml:2: `log` stands a second time, first in line 1"},
		{"log:\n  level: info\n  level: info\n",
		 "agent.yaml:3: `log.level` stands a second time, first in line 2"},
		{"log:\n\nfleet:\n  stale: 3s\n",
		 "agent.yaml:3: `fleet` belongs into aggregator.yaml, this is the agent's "
		 "configuration"},
		{"- user\n", "agent.yaml:1: expected `section:` with keys below it"},
		{"user\n", "agent.yaml:1: expected `section:` with keys below it"},
		{"? [a]\n: b\n", "agent.yaml:1: a key must be a word"},
		{"user: &a b\n",
		 "agent.yaml:1: anchors and aliases (& and *) are not accepted, write the value "
		 "out"},
		{"user: a\nlog: *a\n",
		 "agent.yaml:2: anchors and aliases (& and *) are not accepted, write the value "
		 "out"},
		{"user: a\n---\nuser: b\n",
		 "agent.yaml:2: a second document begins here, one file is one document"},
		{"log:\n\tlevel: info\n",
		 "agent.yaml:2: not YAML: found character that cannot start any token while "
		 "scanning for the next token"},
		{"user: \"a\n",
		 "agent.yaml:2: not YAML: found unexpected end of stream while scanning a quoted "
		 "scalar"},
		{"user: a\xff\n", "agent.yaml:1: not UTF-8 text: invalid leading UTF-8 octet"},
		{"\"a\\nbcdef\": c\n",
		 "agent.yaml:1: unknown key `a?bcdef`, `tidegate config` lists all"},
		{"a: {b: {c: {d: {e: {f: {g: {h: {i: {j: {k: {l: {m: {n: {o: {p: {q: {r: {s: "
		 "1}}}}}}}}}}}}}}}}}}\n",
		 "agent.yaml:1: nested more than 16 deep"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(failure(CONFIG_AGENT, rows[i].text), rows[i].message);
	assert_string_equal(failure(CONFIG_AGGREGATOR, "fleet:\n  stale: 3s\n  quiet: 1\n"),
			    "agent.yaml:3: unknown key `fleet.quiet`, `tidegate config` lists all");
	assert_string_equal(failure(CONFIG_AGGREGATOR, "drain:\n"),
			    "agent.yaml:1: `drain` belongs into agent.yaml, this is the "
			    "aggregator's configuration");
}

/* Text that is as long as its repetition wants; the caller frees it. */
static char *repeated(const char *head, const char *part, size_t times, const char *tail)
{
	struct strbuf b;

	strbuf_init(&b, 4 << 20);
	strbuf_puts(&b, head);
	for (size_t i = 0; i < times; i++)
		strbuf_puts(&b, part);
	strbuf_puts(&b, tail);
	assert_false(b.failed);
	return b.data;
}

static void huge_files_end_early(void **state)
{
	static const struct {
		const char *head, *part;
		size_t times;
		const char *tail, *message;
	} rows[] = {
		{"user: ", "x", 1 << 20, "\n", "agent.yaml: larger than 1048576 bytes"},
		{"", "[", 1 << 20, "", "agent.yaml:1: expected `section:` with keys below it"},
		{"log: ", "{a: ", 200000, "", "agent.yaml:1: nested more than 16 deep"},
		{"", "? ", 500000, "", "agent.yaml:1: a key must be a word"},
		{"", "#\n", 1025, "user: [\n",
		 "agent.yaml:1027: not YAML: did not find expected node content while parsing a "
		 "flow node"},
		{"health: {paths: [", "a,", 500000, "]}",
		 "agent.yaml:1: `health.paths`: 500000 entries are more than the most, 16"},
		{"log: {", "a: b,", 2000, "}", "agent.yaml:1: more than 1024 keys"},
		{"user: ", "x", 5000, "\n",
		 "agent.yaml:1: `user`: 5000 bytes are more than the most, 4096"},
	};
	uint64_t begin = clock_mono_ns();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *text = repeated(rows[i].head, rows[i].part, rows[i].times, rows[i].tail);

		assert_string_equal(failure(CONFIG_AGENT, text), rows[i].message);
		free(text);
	}
	assert_true(clock_mono_ns() - begin < 20 * NS_PER_S);
}

static void file_errors_keep_their_errno(void **state)
{
	struct config *c = NULL;
	struct err e = {0};

	(void)state;
	assert_int_equal(config_load(CONFIG_AGENT, "/nonexistent/agent.yaml", &c, &e), -ENOENT);
	assert_string_equal(e.text, "/nonexistent/agent.yaml: No such file or directory");
	err_clear(&e);
	assert_int_equal(config_load(CONFIG_AGENT, dir, &c, &e), -EINVAL);
	assert_non_null(strstr(e.text, "not a file"));
	assert_null(c);
	assert_int_equal(config_load(CONFIG_AGENT, "/dev/null", &c, NULL), 0);
	config_free(c);
	write_bytes("user: a\0b\n", 10);
	assert_int_equal(config_load(CONFIG_AGENT, path, &c, &e), -EINVAL);
}

static void environment_wins_over_the_file(void **state)
{
	struct config *c;

	(void)state;
	setenv("TIDEGATE_DRAIN_DEADLINE", "45", 1);
	setenv("TIDEGATE_RUNTIME_DIR", "/tmp/env", 1);
	setenv("TIDEGATE_HEALTH_PATHS", "/a, /b,/c", 1);
	setenv("TIDEGATE_GATEWAYS_MATCH", "", 1);
	setenv("TIDEGATE_HTTP_ADDRESS", "", 1);
	setenv("TIDEGATE_DOOR_CONNECTIONS", "not for an agent", 1);
	setenv("TIDEGATE_DRAIN_DEDLINE", "3", 1);
	setenv("TIDEGATE_SERVICE_PORT_9465_TCP_ADDR", "10.0.0.1", 1);
	c = load(CONFIG_AGENT, "drain: {deadline: 10s, quiet: 3s}\ngateways: {match: [a=b]}\n");
	assert_true(c->drain_deadline == 45 * NS_PER_S);
	assert_true(c->drain_quiet == 3 * NS_PER_S);
	assert_int_equal(c->source[CONFIG_OPTION_drain_deadline], CONFIG_ENVIRONMENT);
	assert_int_equal(c->source[CONFIG_OPTION_drain_quiet], CONFIG_FILE);
	assert_int_equal(c->source[CONFIG_OPTION_drain_exec], CONFIG_DEFAULT);
	assert_string_equal(c->_runtime_dir, "/tmp/env");
	assert_string_equal(c->bus_address, "ipc:///tmp/env/bus");
	assert_string_equal(c->http_address, "");
	assert_int_equal(c->health_paths.count, 3);
	assert_string_equal(c->health_paths.items[1], "/b");
	assert_int_equal(c->gateways_match.count, 0);
	assert_int_equal(c->warnings.count, 1);
	assert_string_equal(c->warnings.items[0],
			    "unknown variable TIDEGATE_DRAIN_DEDLINE ignored, did you mean "
			    "TIDEGATE_DRAIN_DEADLINE?");
	config_free(c);
	setenv("TIDEGATE_DRAIN_DEADLINE", "x", 1);
	assert_string_equal(failure(CONFIG_AGENT, ""),
			    "TIDEGATE_DRAIN_DEADLINE: `drain.deadline`: `x` is not a duration, as "
			    "30s, 500ms, 2m, 1h or a number of seconds");
}

static void downward_api_names_the_pod(void **state)
{
	struct config *c;

	(void)state;
	setenv("POD_NAMESPACE", "edge", 1);
	setenv("POD_NAME", "gw-0", 1);
	setenv("NODE_NAME", "n1", 1);
	c = load(CONFIG_AGENT, "");
	assert_string_equal(c->agent_id, "edge/gw-0");
	assert_string_equal(c->agent_node, "n1");
	assert_int_equal(c->source[CONFIG_OPTION_agent_node], CONFIG_ENVIRONMENT);
	config_free(c);
	c = load(CONFIG_AGENT, "agent: {pod: other}\n");
	assert_string_equal(c->agent_id, "edge/other");
	config_free(c);
	c = load(CONFIG_AGENT, "agent: {id: mine}\n");
	assert_string_equal(c->agent_id, "mine");
	config_free(c);
	setenv("POD_NAME", "a\nb", 1);
	assert_string_equal(failure(CONFIG_AGENT, ""),
			    "POD_NAME: `agent.pod`: `a?b` is not one line of text without control "
			    "characters");
}

static void runtime_dir_must_leave_room(void **state)
{
	char *text = repeated("runtime_dir: /", "x", 80, "\n");

	(void)state;
	assert_string_equal(failure(CONFIG_AGENT, text),
			    "`runtime_dir`: 81 bytes are more than 80: the path of a socket in it "
			    "would not fit");
	config_free(lenient(CONFIG_AGENT, path));
	assert_int_equal(warned.count, 1);
	free(text);
}

static void lenient_applies_all_that_is_valid(void **state)
{
	struct config *c;

	(void)state;
	setenv("TIDEGATE_AGENT_TICK", "never", 1);
	setenv("TIDEGATE_LOG_LEVEL", "debug", 1);
	write_file("drain:\n"
		   "  dedline: 3s\n"
		   "  deadline: 7s # with a comment\n"
		   "  deadline: 8s\n"
		   "  quiet: [1s]\n"
		   "  hook_cpu: 90h\n"
		   "log: {lvl: x, format: json, \xc3\xa4: [\xc3\xb6, b], level: warning}\n"
		   "drian: {exec: [a]}\n"
		   "fleet:\n"
		   "  stale: 3s\n"
		   "spool: big\n"
		   "gateways:\n"
		   "  mots: 3\n"
		   "probe:\n"
		   "  sample: 32\n");
	c = lenient(CONFIG_AGENT, path);
	assert_true(c->drain_deadline == 7 * NS_PER_S);
	assert_true(c->drain_quiet == 2 * NS_PER_S);
	assert_true(c->drain_hook_cpu == NS_PER_S);
	assert_string_equal(c->log_format, "json");
	assert_string_equal(c->log_level, "debug");
	assert_int_equal(c->probe_sample, 32);
	assert_true(c->agent_tick == NS_PER_S);
	assert_int_equal(warned.count, 11);
	assert_non_null(strstr(warned.text[0], "agent.yaml:2: unknown key `drain.dedline`"));
	assert_non_null(strstr(warned.text[10], "TIDEGATE_AGENT_TICK: "));
	config_free(c);
}

static void lenient_survives_any_file(void **state)
{
	static const char *const texts[] = {"user: \"a\n",
					    "- a\n",
					    "? a\n? b\n",
					    "{a, b: c}",
					    "{drain: {a, deadline: 9s}, b}",
					    "log: {",
					    "\xff",
					    "a: &a [*a]",
					    "log:\n  level: |\n    debug\n  x: y\n"};
	struct config *c;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		write_file(texts[i]);
		c = lenient(CONFIG_AGENT, path);
		assert_true(warned.count > 0);
		assert_true(c->drain_deadline == (i == 4 ? 9 : 30) * NS_PER_S);
		config_free(c);
	}
	config_free(lenient(CONFIG_AGENT, "/nonexistent"));
	assert_int_equal(warned.count, 1);
	assert_string_equal(warned.text[0], "/nonexistent: No such file or directory");
	config_free(lenient(CONFIG_AGGREGATOR, dir));
	assert_int_equal(warned.count, 1);
}

static char *printed(const struct config *c)
{
	struct strbuf b;

	strbuf_init(&b, 1 << 20);
	assert_int_equal(config_print(c, &b), 0);
	return b.data;
}

/* The lines that are values. */
static char *without_comments(char *text)
{
	struct strbuf b;
	char *save = NULL;

	strbuf_init(&b, 1 << 20);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (line[strspn(line, " ")] != '#')
			strbuf_printf(&b, "%s\n", line);
	free(text);
	return b.data;
}

static void printed_configuration_loads_again(void **state)
{
	static const char *const texts[] = {
		"", "agent: {id: 'a\"b\\c # d: e', cluster: \"yes\", pod: \"~\", tick: 1.5}\n"
		    "health: {paths: [\"/a, b\", '\"', \"- x\", \"\xc3\xa4\"], user_agents: []}\n"
		    "spool: {bytes: 1234567, age: 90061s}\ndrain: {quiet: 123456789ns, "
		    "hook_memory: 10MB}\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct config *c = load(CONFIG_AGENT, texts[i]), *again;
		char *first = printed(c), *second;

		again = load(CONFIG_AGENT, first);
		second = printed(again);
		first = without_comments(first);
		second = without_comments(second);
		assert_string_equal(first, second);
		assert_true(c->spool_bytes == again->spool_bytes);
		assert_true(c->drain_quiet == again->drain_quiet);
		free(first);
		free(second);
		config_free(c);
		config_free(again);
	}
	for (int side = CONFIG_AGENT; side <= CONFIG_AGGREGATOR; side++) {
		struct config *c = NULL;
		char *text;

		assert_int_equal(config_new((enum config_side)side, &c), 0);
		text = printed(c);
		assert_int_equal(strstr(text, "\ndrain:\n") != NULL, side == CONFIG_AGENT);
		assert_int_equal(strstr(text, "\nfleet:\n") != NULL, side == CONFIG_AGGREGATOR);
		config_free(load((enum config_side)side, text));
		config_free(c);
		free(text);
	}
}

static void print_names_the_source(void **state)
{
	struct config *c;
	char *text;

	(void)state;
	setenv("TIDEGATE_LOG_LEVEL", "debug", 1);
	c = load(CONFIG_AGENT, "log:\n  format: json\n");
	text = printed(c);
	assert_non_null(strstr(text, "# source: environment, TIDEGATE_LOG_LEVEL\n  level:"));
	assert_non_null(strstr(text, "agent.yaml; overridden by TIDEGATE_LOG_FORMAT\n  format:"));
	assert_non_null(strstr(text, "# source: default; overridden by TIDEGATE_AGENT_TICK"));
	free(text);
	config_free(c);
}

static void man_has_every_row(void **state)
{
	static const char *const names[] = {
#define OPTION(side_, section, name, type, def, min, max, words, help) #section "." #name,
#include "config/options.def"
#undef OPTION
	};
	struct strbuf b;

	(void)state;
	strbuf_init(&b, 1 << 20);
	assert_int_equal(config_print_man(&b), 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char line[96];

		snprintf(line, sizeof(line), "\n.B %s\n", names[i] + (names[i][0] == '.'));
		assert_non_null(strstr(b.data, line));
	}
	strbuf_fini(&b);
}

static void durations_and_sizes(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t ns;
	} rows[] = {
		{"30s", 0, 30000000000},
		{"500ms", 0, 500000000},
		{"2m", 0, 120000000000},
		{"1h", 0, 3600000000000},
		{"250us", 0, 250000},
		{"7ns", 0, 7},
		{"1d", 0, 86400000000000},
		{"0", 0, 0},
		{"3", 0, 3000000000},
		{"1.5", 0, 1500000000},
		{"0.000000001", 0, 1},
		{"1.0000000019", 0, 1000000001},
		{"1.5h", 0, 5400000000000},
		{"10 s", 0, 10000000000},
		{"18446744073s", 0, 18446744073000000000ULL},
		{"18446744074s", -ERANGE, 0},
		{"99999999999999999999", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"s", -EINVAL, 0},
		{".5", -EINVAL, 0},
		{"1.", -EINVAL, 0},
		{"1.s", -EINVAL, 0},
		{"-1s", -EINVAL, 0},
		{"+1s", -EINVAL, 0},
		{" 1s", -EINVAL, 0},
		{"1s ", -EINVAL, 0},
		{"1x", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
		{"1s1", -EINVAL, 0},
		{"0x1s", -EINVAL, 0},
	};
	char buf[VALUE_TEXT_BYTES];
	uint64_t v, again;
	bool b;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(value_parse_duration(rows[i].text, &v), rows[i].r);
		if (rows[i].r)
			continue;
		assert_true(v == rows[i].ns);
		assert_int_equal(value_parse_duration(value_print_duration(v, buf), &again), 0);
		assert_true(again == v);
	}
	assert_int_equal(value_parse_bytes("64MiB", &v), 0);
	assert_true(v == 64 << 20);
	assert_int_equal(value_parse_bytes("10MB", &v), 0);
	assert_true(v == 10000000);
	assert_int_equal(value_parse_bytes("512k", &v), 0);
	assert_true(v == 512000);
	assert_int_equal(value_parse_bytes("1.5Gi", &v), 0);
	assert_true(v == 3ULL << 29);
	assert_int_equal(value_parse_bytes("7", &v), 0);
	assert_true(v == 7);
	assert_string_equal(value_print_bytes(1 << 20, buf), "1MiB");
	assert_string_equal(value_print_bytes(10000000, buf), "10000000");
	assert_int_equal(value_parse_bytes("16777216TiB", &v), -ERANGE);
	assert_int_equal(value_parse_bytes("1s", &v), -EINVAL);
	assert_int_equal(value_parse_ratio("1%", &v), 0);
	assert_true(v == 10000);
	assert_int_equal(value_parse_ratio("0.25", &v), 0);
	assert_true(v == 250000);
	assert_int_equal(value_parse_ratio("12.5 %", &v), 0);
	assert_true(v == 125000);
	assert_int_equal(value_parse_ratio("1s", &v), -EINVAL);
	assert_string_equal(value_print_ratio(10000, buf), "1%");
	assert_string_equal(value_print_ratio(1000000, buf), "100%");
	assert_string_equal(value_print_ratio(125000, buf), "12.5%");
	assert_string_equal(value_print_ratio(1, buf), "0.0001%");
	assert_int_equal(value_parse_bool("On", &b), 0);
	assert_true(b);
	assert_int_equal(value_parse_bool("no", &b), 0);
	assert_false(b);
	assert_int_equal(value_parse_bool("1", &b), -EINVAL);
}

/* No variable of whoever runs the tests, or of the test before, may change one. */
#define CONFIG_TEST(fn) cmocka_unit_test_setup(fn, clear_environment)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFIG_TEST(durations_and_sizes),
		CONFIG_TEST(defaults_are_the_rows),
		CONFIG_TEST(file_gives_every_type),
		CONFIG_TEST(empty_files_are_fine),
		CONFIG_TEST(wrong_files_are_told_where),
		CONFIG_TEST(huge_files_end_early),
		CONFIG_TEST(file_errors_keep_their_errno),
		CONFIG_TEST(environment_wins_over_the_file),
		CONFIG_TEST(downward_api_names_the_pod),
		CONFIG_TEST(runtime_dir_must_leave_room),
		CONFIG_TEST(lenient_applies_all_that_is_valid),
		CONFIG_TEST(lenient_survives_any_file),
		CONFIG_TEST(printed_configuration_loads_again),
		CONFIG_TEST(print_names_the_source),
		CONFIG_TEST(man_has_every_row),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/agent.yaml", dir);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	failed = cmocka_run_group_tests_name("config", tests, NULL, NULL);
	unlink(path);
	rmdir(dir);
	return failed;
}
