/* SPDX-License-Identifier: Apache-2.0 */
/* Verb aggregator: the central daemon; its rows of processes. */
#include "cmd/dispatch.h"
#include "cmd/supervisor.h"
#include "cmd/verbs.h"

#include <stdio.h>

enum { ROW_DOOR, ROW_GATE, ROW_CORE, ROW_FERRY };

static bool has_upper(const struct config *config)
{
	return config->uplink_aggregators.count > 0;
}

static const struct supervisor_process processes[] = {
	[ROW_DOOR] = {.spec = {.name = "door",
			       .user_suffix = "door",
			       .fallback_id = 10,
			       .filter = PROCESS_FILTER_NETWORK},
		      .entry = door_run},
	[ROW_GATE] = {.spec = {.name = "gate",
			       .user_suffix = "gate",
			       .fallback_id = 11,
			       .filter = PROCESS_FILTER_NETWORK},
		      .entry = gate_run},
	[ROW_CORE] = {.spec = {.name = "core",
			       .user_suffix = "core",
			       .fallback_id = 12,
			       .filter = PROCESS_FILTER_NETWORK},
		      .entry = core_run},
	[ROW_FERRY] = {.spec = {.name = "ferry",
				.user_suffix = "ferry",
				.fallback_id = 13,
				.filter = PROCESS_FILTER_NETWORK},
		       .entry = ferry_run,
		       .is_needed = has_upper},
};

static int prepare(const struct supervisor_plan *plan, const struct config *config, struct err *e)
{
	gid_t run = supervisor_gid_run(config);
	char private[512];
	int r;

	(void)plan;
	snprintf(private, sizeof(private), "%s/private", config->_runtime_dir);
	r = supervisor_make_dir(config->_runtime_dir, 01771, 0, run, e);
	if (r >= 0)
		r = supervisor_make_dir(private, 01770, 0, run, e);
	if (r >= 0)
		r = supervisor_make_dir(config->fleet_data_dir, 0700,
					supervisor_uid(config, &processes[ROW_CORE].spec), run, e);
	if (r >= 0 && has_upper(config))
		r = supervisor_make_dir(config->spool_dir, 0700,
					supervisor_uid(config, &processes[ROW_FERRY].spec), run, e);
	return r < 0 ? r : dispatch_check(config, e);
}

static size_t addresses(const struct config *config, const char **ret, size_t max)
{
	const char *all[] = {config->door_address, config->door_bus_address,
			     config->door_snapshot_address, config->api_address};
	size_t n = 0;

	for (; n < ARRAY_LEN(all) && n < max; n++)
		ret[n] = all[n];
	return n;
}

int aggregator_verb(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {0}};
	struct supervisor_plan plan = {
		.verb = "aggregator",
		.side = CONFIG_AGGREGATOR,
		.processes = processes,
		.process_count = ARRAY_LEN(processes),
		.prepare = prepare,
		.addresses = addresses,
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c != 'c')
			return verb_bad_option("aggregator", argv, options);
		plan.config_file = optarg;
	}
	if (verb_has_argument("aggregator", argc, argv, NULL))
		return EXIT_USAGE;
	return supervisor_run(&plan);
}
