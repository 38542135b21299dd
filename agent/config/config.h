/* SPDX-License-Identifier: Apache-2.0 */
/* Effective configuration: defaults < file < environment. A service: read-only after loading. */
#pragma once

#include "base/cleanup.h"
#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum config_side { CONFIG_BOTH, CONFIG_AGENT, CONFIG_AGGREGATOR };
enum config_source { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT };

struct config_list {
	char **items;
	size_t count;
};

#define CONFIG_TYPE_STRING   char *
#define CONFIG_TYPE_LIST     struct config_list
#define CONFIG_TYPE_BOOL     bool
#define CONFIG_TYPE_INT      uint64_t
#define CONFIG_TYPE_DURATION uint64_t
#define CONFIG_TYPE_BYTES    uint64_t
#define CONFIG_TYPE_RATIO    uint64_t
#define CONFIG_TYPE_ENUM     char *

/* Index of a row, for config->source[]. */
enum config_option {
#define OPTION(side_, section, name, type, def, min, max, words, help) \
	CONFIG_OPTION_##section##_##name,
#include "config/options.def"
#undef OPTION
	CONFIG_OPTION_COUNT
};

/* One field a row of options.def, named section_name: config->drain_deadline, config->log_level;
 * top-level ones are _runtime_dir and so on. Strings are never NULL. */
struct config {
	enum config_side side;
	char *file; /* NULL: none was read */
	/* What the caller should log: nothing here kept the configuration from loading. */
	struct config_list warnings;
	unsigned char source[CONFIG_OPTION_COUNT]; /* enum config_source */
#define OPTION(side_, section, name, type, def, min, max, words, help) \
	CONFIG_TYPE_##type section##_##name;
#include "config/options.def"
#undef OPTION
};

/* Reads file (NULL: the side's default path, which may be missing), then the environment. On
 * failure e says what, which key, which line, why, and the nearest right word; -EINVAL for the
 * contents, else the errno of the file. Derived defaults (runtime_dir, agent.id, bus.address) are
 * filled in. */
int config_load(enum config_side side, const char *file, struct config **ret, struct err *e);

/* As config_load, but a bad key, value or file is reported through warn and its default used:
 * with --sidecar a typo must not take gateways down. Fails only for want of memory. */
int config_load_lenient(enum config_side side, const char *file,
			void (*warn)(void *data, const char *text), void *data,
			struct config **ret);

/* Defaults alone, for tests. */
int config_new(enum config_side side, struct config **ret);
struct config *config_free(struct config *c);
DEFINE_CLEANUP(struct config *, config_free)

/* YAML with every option of the side, its value, its source and its help; parseable as a
 * configuration file again. */
int config_print(const struct config *c, struct strbuf *out);

/* roff (man page) list of all options. */
int config_print_man(struct strbuf *out);
