/* SPDX-License-Identifier: Apache-2.0 */
/* Effective configuration: defaults, file, environment, then what follows from them. Read once by
 * the supervisor before it forks, and again on SIGHUP. */
#include "config/config.h"

#include "base/cleanup.h"
#include "config/file.h"
#include "config/option.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

extern char **environ;

#define ENV_PREFIX   "TIDEGATE_"
#define WARNINGS_MAX 64
/* The longest socket below it ("/control.sock" and room) must fit into sun_path. */
#define RUNTIME_DIR_MAX 80

struct config *config_free(struct config *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++)
		option_clear(&option_rows[i], c);
	config_list_fini(&c->warnings);
	free(c->file);
	free(c);
	return NULL;
}

static int config_defaults(enum config_side side, struct config **ret)
{
	_cleanup_(config_free_p) struct config *c = calloc(1, sizeof(*c));
	struct err e = {0};

	if (!c)
		return -ENOMEM;
	c->side = side;
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
		int r = option_set(&option_rows[i], c, option_rows[i].fallback, &e);

		if (r == -ENOMEM)
			return r;
		CHECK(r == 0); /* a row with a default that it refuses */
	}
	*ret = TAKE_PTR(c);
	return 0;
}

static int replace(char **at, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

/* The names under which Kubernetes' downward API hands them in by custom. */
static int derive_labels(struct config *c, const struct problems *p)
{
	static const struct {
		const char *env;
		enum config_option option;
	} rows[] = {
		{"POD_NAMESPACE", CONFIG_OPTION_agent_namespace},
		{"POD_NAME", CONFIG_OPTION_agent_pod},
		{"NODE_NAME", CONFIG_OPTION_agent_node},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *value = getenv(rows[i].env);
		struct err inner = {0};
		int r;

		if (!value || c->source[rows[i].option] != CONFIG_DEFAULT)
			continue;
		r = option_set(&option_rows[rows[i].option], c, value, &inner);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			r = problem_report(p, "%s: %s", rows[i].env, inner.text);
		else
			c->source[rows[i].option] = CONFIG_ENVIRONMENT;
		if (r < 0)
			return r;
	}
	return 0;
}

static int derive_id(struct config *c)
{
	char id[HOST_NAME_MAX + 1] = "";

	if (*c->agent_id)
		return 0;
	if (*c->agent_namespace && *c->agent_pod) {
		_cleanup_free_ char *text = NULL;

		if (asprintf(&text, "%s/%s", c->agent_namespace, c->agent_pod) < 0)
			return -ENOMEM;
		return replace(&c->agent_id, text);
	}
	if (gethostname(id, sizeof(id) - 1) < 0 || !*id)
		str_copy(id, sizeof(id), "localhost");
	return replace(&c->agent_id, id);
}

static int derive_uplink(struct config *c)
{
	bool is_aggregator = c->side == CONFIG_AGGREGATOR;

	if (!*c->spool_dir) {
		int r = replace(&c->spool_dir, is_aggregator ? "/var/lib/tidegate/ferry"
							     : "/var/lib/tidegate/spool");

		if (r < 0)
			return r;
	}
	if (!is_aggregator)
		return 0;
	/* The default is where aggregators listen: itself. */
	if (c->source[CONFIG_OPTION_uplink_aggregators] == CONFIG_DEFAULT)
		config_list_fini(&c->uplink_aggregators);
	if (!*c->uplink_id) {
		_cleanup_free_ char *text = NULL;

		if (asprintf(&text, "aggregator/%s", c->agent_id) < 0)
			return -ENOMEM;
		return replace(&c->uplink_id, text);
	}
	return 0;
}

static int derive(struct config *c, const struct problems *p)
{
	const char *runtime =
		c->side == CONFIG_AGGREGATOR ? "/run/tidegate-aggregator" : "/run/tidegate";
	size_t len;
	int r;

	for (len = strlen(c->_runtime_dir); len > 1 && c->_runtime_dir[len - 1] == '/'; len--)
		c->_runtime_dir[len - 1] = '\0';
	if (len > RUNTIME_DIR_MAX) {
		r = problem_report(
			p,
			"`runtime_dir`: %zu bytes are more than %d: the path of a socket "
			"in it would not fit",
			len, RUNTIME_DIR_MAX);
		if (r < 0)
			return r;
		c->_runtime_dir[0] = '\0';
		c->source[CONFIG_OPTION__runtime_dir] = CONFIG_DEFAULT;
	}
	if (!*c->_runtime_dir) {
		r = replace(&c->_runtime_dir, runtime);
		if (r < 0)
			return r;
	}
	r = derive_labels(c, p);
	if (r >= 0)
		r = derive_id(c);
	if (r >= 0)
		r = derive_uplink(c);
	if (r < 0)
		return r;
	if (!*c->bus_address) {
		_cleanup_free_ char *text = NULL;

		if (asprintf(&text, "ipc://%s/bus", c->_runtime_dir) < 0)
			return -ENOMEM;
		return replace(&c->bus_address, text);
	}
	return 0;
}

int config_new(enum config_side side, struct config **ret)
{
	const struct problems problems = {0};
	_cleanup_(config_free_p) struct config *c = NULL;
	int r;

	r = config_defaults(side, &c);
	if (r < 0)
		return r;
	r = derive(c, &problems);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

static int warn(struct config *c, const struct problems *p, const char *text)
{
	if (p->warn)
		p->warn(p->data, text);
	if (c->warnings.count >= WARNINGS_MAX)
		return 0;
	return config_list_add(&c->warnings, text, strlen(text));
}

/* A variable with our prefix that is no option's, but looks like a slip of the pen. Others pass:
 * container platforms invent variables from service names. */
static int check_unknown(struct config *c, const struct problems *p, const char *name)
{
	char names[CONFIG_OPTION_COUNT][OPTION_PATH_BYTES];
	const char *words[CONFIG_OPTION_COUNT], *near;
	char text[256];

	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++)
		words[i] = option_env(&option_rows[i], names[i]) + strlen(ENV_PREFIX);
	near = str_nearest(name + strlen(ENV_PREFIX), words, CONFIG_OPTION_COUNT);
	if (!near)
		return 0;
	snprintf(text, sizeof(text), "unknown variable %.80s ignored, did you mean %s%s?", name,
		 ENV_PREFIX, near);
	return warn(c, p, text);
}

static int environment_apply(struct config *c, const struct problems *p)
{
	for (char **v = environ; v && *v; v++) {
		const char *eq = strchr(*v, '=');
		char name[2 * OPTION_PATH_BYTES], env[OPTION_PATH_BYTES];
		const struct option *o = NULL;
		struct err inner = {0};
		int r;

		if (!eq || !str_starts(*v, ENV_PREFIX))
			continue;
		if ((size_t)(eq - *v) >= sizeof(name))
			continue;
		memcpy(name, *v, (size_t)(eq - *v));
		name[eq - *v] = '\0';
		for (size_t i = 0; i < CONFIG_OPTION_COUNT && !o; i++)
			if (str_equal(option_env(&option_rows[i], env), name))
				o = &option_rows[i];
		if (!o) {
			r = check_unknown(c, p, name);
			if (r < 0)
				return r;
			continue;
		}
		/* Agent and aggregator of one host may share an environment. */
		if (!option_is_for(o, c->side))
			continue;
		r = option_set(o, c, eq + 1, &inner);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			r = problem_report(p, "%s: %s", name, inner.text);
		else
			c->source[o - option_rows] = CONFIG_ENVIRONMENT;
		if (r < 0)
			return r;
	}
	return 0;
}

static int load(enum config_side side, const char *file, const struct problems *p,
		struct config **ret)
{
	_cleanup_(config_free_p) struct config *c = NULL;
	const char *path = file;
	int r;

	r = config_defaults(side, &c);
	if (r < 0)
		return r;
	if (!path)
		path = side == CONFIG_AGGREGATOR ? "/etc/tidegate/aggregator.yaml"
						 : "/etc/tidegate/agent.yaml";
	if (file || access(path, F_OK) == 0) {
		r = file_apply(c, path, p);
		if (r < 0)
			return r;
	}
	r = environment_apply(c, p);
	if (r >= 0)
		r = derive(c, p);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

int config_load(enum config_side side, const char *file, struct config **ret, struct err *e)
{
	const struct problems problems = {.e = e};

	return load(side, file, &problems, ret);
}

int config_load_lenient(enum config_side side, const char *file,
			void (*warn_fn)(void *data, const char *text), void *data,
			struct config **ret)
{
	const struct problems problems = {.is_lenient = true, .warn = warn_fn, .data = data};

	return load(side, file, &problems, ret);
}
