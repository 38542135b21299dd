/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verb doctor: what works on this kernel and on these gateways, how, and if not why. Tries each
 * thing for real (loads, attaches, detaches again) and needs no agent.
 */
#include "cmd/doctor.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cmd/keeper.h"
#include "cmd/verbs.h"
#include "probe/gateways.h"
#include "probe/sight.h"

#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

#define TMPFS_MAGIC_NUMBER 0x01021994
#define BPFFS_MAGIC_NUMBER 0xcafe4a11

static const char *const state_names[] = {
	[PROBE_UNAVAILABLE] = "unavailable", [PROBE_DEGRADED] = "degraded", [PROBE_OK] = "ok"};

/* What is unavailable when no program can be loaded at all. */
static const char *const probe_names[] = {"syscalls", "loop", "requests", "fork", "gc", "tls"};

/* Paths are their owners' choice: of any bytes, and doctor is read on terminals. */
static json_t *text(const char *s)
{
	char clean[512];

	str_clean(clean, sizeof(clean), s);
	return json_string(clean);
}

void doctor_add(struct doctor *d, const char *name, enum probe_state state, const char *how,
		const char *why)
{
	json_array_append_new(d->checks,
			      json_pack("{s:s, s:s, s:o, s:o}", "name", name, "state",
					state_names[state], "how", text(how), "why", text(why)));
}

/* ---- the machine ---- */

/* Gives up what the keeper would not have either: what works here works there. */
static void check_capabilities(struct doctor *d)
{
	gid_t group = getegid();
	uint64_t missing = 0;
	char names[256], why[400];

	process_confine(geteuid(), group, &group, 1, KEEPER_CAPS, &missing, NULL);
	process_cap_names(KEEPER_CAPS, names, sizeof(names));
	if (!missing) {
		doctor_add(d, "capabilities", PROBE_OK, names, "");
		return;
	}
	process_cap_names(missing, names, sizeof(names));
	snprintf(why, sizeof(why),
		 "missing %s; run as root, or grant them (AmbientCapabilities= in the unit, "
		 "securityContext.capabilities.add in the pod)",
		 names);
	doctor_add(d, "capabilities", missing == KEEPER_CAPS ? PROBE_UNAVAILABLE : PROBE_DEGRADED,
		   "", why);
}

static void check_btf(struct doctor *d)
{
	bool has = access("/sys/kernel/btf/vmlinux", R_OK) == 0;

	doctor_add(d, "btf", has ? PROBE_OK : PROBE_UNAVAILABLE,
		   has ? "/sys/kernel/btf/vmlinux" : "",
		   has ? ""
		       : "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); raw tracepoints or "
			 "tracepoints are used instead");
}

static void check_file_system(struct doctor *d, const char *name, const char *path,
			      unsigned long magic, enum probe_state otherwise, const char *why)
{
	struct statfs fs;
	bool is_right = statfs(path, &fs) == 0 && (unsigned long)fs.f_type == magic;

	doctor_add(d, name, is_right ? PROBE_OK : otherwise, is_right ? path : "",
		   is_right ? "" : why);
}

/* The directory that exists already, in which runtime_dir will be. */
static const char *runtime_parent(const struct config *config, char *buf, size_t size)
{
	char *slash;

	str_copy(buf, size, config->_runtime_dir);
	while (access(buf, F_OK) < 0 && (slash = strrchr(buf, '/')) && slash != buf)
		*slash = '\0';
	return buf;
}

static void check_lockdown(struct doctor *d)
{
	char buf[128];
	const char *word = "none";

	if (str_read_file("/sys/kernel/security/lockdown", buf, sizeof(buf)) < 0)
		word = "unknown";
	else if (strstr(buf, "[confidentiality]"))
		word = "confidentiality";
	else if (strstr(buf, "[integrity]"))
		word = "integrity";
	doctor_add(d, "lockdown", str_equal(word, "confidentiality") ? PROBE_DEGRADED : PROBE_OK,
		   word,
		   str_equal(word, "confidentiality")
			   ? "under confidentiality BPF reads no kernel memory"
			   : "");
}

/* ---- probes and gateways ---- */

static void check_probes(struct doctor *d, const struct probe_set *set, const struct config *config)
{
	size_t n;
	const struct probe_report *reports = probe_reports(set, &n);

	for (size_t i = 0; i < n; i++) {
		/* We pin nothing; what the agent could is said at bpffs. */
		if (str_equal(reports[i].name, "pin"))
			continue;
		doctor_add(d, reports[i].name, reports[i].state, reports[i].how, reports[i].why);
		/* What nobody wants is not missing. */
		if ((str_equal(reports[i].name, "gc") && !config->probe_gc) ||
		    (str_equal(reports[i].name, "tls") && !config->probe_tls))
			continue;
		if (reports[i].state == PROBE_UNAVAILABLE)
			d->is_needed_missing = true;
	}
}

/* What the machine can do is said in the checks, here what of this gateway is seen. */
static json_t *requests_of(const struct probe_set *set, const struct gateway_found *f)
{
	struct sight sight = {.state = PROBE_UNAVAILABLE, .why = "no BPF program could be loaded"};

	if (set)
		sight_look(f, &sight);
	return json_pack("{s:s, s:o}", "state", state_names[sight.state], "why", text(sight.why));
}

static void check_gateway(struct doctor *d, struct probe_set *set, unsigned int index,
			  const struct gateway_found *f, const struct config *config)
{
	struct probe_tls_report tls = {0};
	struct probe_gc_report gc = {0};
	pid_t pid = f->master;
	json_t *ports = json_array();

	for (unsigned int i = 0; i < f->process_count; i++)
		if (f->processes[i].role == ROLE_WORKER)
			pid = f->processes[i].pid;
	if (!config->probe_gc)
		str_copy(gc.why, sizeof(gc.why), "probe.gc is off");
	else if (!set)
		str_copy(gc.why, sizeof(gc.why), "no BPF program could be loaded");
	else
		probe_gc_attach(set, index, (uint32_t)pid, &gc);
	if (!config->probe_tls)
		str_copy(tls.why, sizeof(tls.why), "probe.tls is off");
	else if (!set)
		str_copy(tls.why, sizeof(tls.why), "no BPF program could be loaded");
	else
		probe_tls_attach(set, (uint32_t)pid, &tls);
	for (unsigned int i = 0; i < f->port_count; i++)
		json_array_append_new(ports, json_integer(f->ports[i]));
	json_array_append_new(
		d->gateways,
		json_pack("{s:s, s:i, s:o, s:s, s:s, s:i, s:o, s:o, s:{s:s, s:s, s:s, "
			  "s:f, s:o, s:o, s:o}, s:{s:s, s:s, s:s, s:o, s:o}}",
			  "name", f->name, "pid", (int)f->master, "exe", text(f->exe), "runtime",
			  gc.runtime, "driver", f->driver, "processes", (int)f->process_count,
			  "ports", ports, "requests", requests_of(set, f), "gc", "state",
			  state_names[gc.state], "how", gc.how, "attach", gc.attach, "confidence",
			  gc.confidence, "reason", text(gc.reason), "object", text(gc.object),
			  "why", text(gc.why), "tls", "state", state_names[tls.state], "library",
			  tls.library, "how", tls.how, "object", text(tls.object), "why",
			  text(tls.why)));
}

static void check_discovery(struct doctor *d, int found, unsigned int unreadable)
{
	char why[256];

	/* With it, what stays hidden is in another user namespace, and so no gateway of ours. */
	if (process_caps() & PROCESS_CAP(CAP_SYS_PTRACE))
		unreadable = 0;

	snprintf(
		why, sizeof(why),
		"%u processes of other users cannot be looked at: CAP_SYS_PTRACE missing; gateways "
		"among them are not found; grant it or run as root",
		unreadable);
	if (!unreadable)
		doctor_add(d, "gateways", PROBE_OK, "/proc", "");
	else
		doctor_add(d, "gateways", found > 0 ? PROBE_DEGRADED : PROBE_UNAVAILABLE, "/proc",
			   why);
	d->is_needed_missing |= unreadable && found <= 0;
}

static int check_gateways(struct doctor *d, struct probe_set *set, const struct config *config,
			  struct err *e)
{
	_cleanup_free_ struct gateway_found *found = NULL;
	struct gateways *gateways;
	uint64_t refused;
	int n;

	n = gateways_open(&config->gateways_match, &gateways, e);
	if (n < 0)
		return n;
	found = calloc(config->gateways_most, sizeof(found[0]));
	n = found ? gateways_scan(gateways, found, (unsigned int)config->gateways_most, &refused)
		  : 0;
	for (int i = 0; i < n; i++)
		check_gateway(d, set, (unsigned int)i, &found[i], config);
	check_discovery(d, n, gateways_unreadable(gateways));
	gateways_close(gateways);
	return 0;
}

/* ---- output ---- */

static void print_text(const struct doctor *d, const char *kernel)
{
	const json_t *row;
	size_t i;

	printf("kernel %s\n", kernel);
	json_array_foreach(d->checks, i, row)
	{
		const char *how = json_string_value(json_object_get(row, "how"));
		const char *why = json_string_value(json_object_get(row, "why"));

		printf("%-14s %-12s %s%s%s\n", json_string_value(json_object_get(row, "name")),
		       json_string_value(json_object_get(row, "state")), how,
		       *how && *why ? " — " : "", why);
	}
	if (!json_array_size(d->gateways))
		puts("no gateway found: nothing that matches has a listening socket");
	json_array_foreach(d->gateways, i, row)
	{
		const json_t *gc = json_object_get(row, "gc");
		const json_t *tls = json_object_get(row, "tls");
		const json_t *requests = json_object_get(row, "requests");

		printf("gateway %s: pid %lld, %lld processes, %s\n",
		       json_string_value(json_object_get(row, "name")),
		       (long long)json_integer_value(json_object_get(row, "pid")),
		       (long long)json_integer_value(json_object_get(row, "processes")),
		       json_string_value(json_object_get(row, "exe")));
		printf("  requests %s %s\n", json_string_value(json_object_get(requests, "state")),
		       json_string_value(json_object_get(requests, "why")));
		printf("  gc %s %s %s %s %s\n", json_string_value(json_object_get(gc, "state")),
		       json_string_value(json_object_get(row, "runtime")),
		       json_string_value(json_object_get(gc, "how")),
		       json_string_value(json_object_get(gc, "attach")),
		       json_string_value(json_object_get(gc, "why")));
		printf("  tls %s %s %s %s\n", json_string_value(json_object_get(tls, "state")),
		       json_string_value(json_object_get(tls, "library")),
		       json_string_value(json_object_get(tls, "how")),
		       json_string_value(json_object_get(tls, "why")));
	}
}

static void doctor_run(struct doctor *d, const struct config *config)
{
	struct probe_options options = keeper_probe_options(config, "");
	struct probe_set *set = NULL;
	char parent[512];
	struct err e = {0};

	check_capabilities(d);
	check_btf(d);
	check_lockdown(d);
	check_file_system(d, "bpffs", config->probe_bpffs, BPFFS_MAGIC_NUMBER, PROBE_DEGRADED,
			  "no bpffs there: counting pauses while the keeper restarts; "
			  "mount -t bpf bpf /sys/fs/bpf");
	check_file_system(
		d, "shared-memory", runtime_parent(config, parent, sizeof(parent)),
		TMPFS_MAGIC_NUMBER, PROBE_UNAVAILABLE,
		"runtime_dir is on no tmpfs, writers of shared memory would stall: set it");
	doctor_system(d);
	if (probe_open(&options, 0, &set, &e) < 0) {
		for (size_t i = 0; i < ARRAY_LEN(probe_names); i++)
			doctor_add(d, probe_names[i], PROBE_UNAVAILABLE, "", e.text);
		d->is_needed_missing = true;
		set = NULL;
	} else {
		check_probes(d, set, config);
	}
	err_clear(&e);
	if (check_gateways(d, set, config, &e) < 0)
		doctor_add(d, "gateways", PROBE_UNAVAILABLE, "", e.text);
	probe_close(set);
}

int doctor_verb(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"config", required_argument, NULL, 'c'}, {0}};
	_cleanup_(config_free_p) struct config *config = NULL;
	struct doctor d = {0};
	struct utsname uts;
	const char *file = NULL;
	bool is_json = false;
	struct err e = {0};
	json_t *root;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == 'j')
			is_json = true;
		else if (c == 'c')
			file = optarg;
		else
			return verb_bad_option("doctor", argv, options);
	}
	if (config_load(CONFIG_AGENT, file, &config, &e) < 0) {
		fprintf(stderr, "tidegate doctor: %s\n", e.text);
		return EXIT_USAGE;
	}
	log_setup(LOG_WARNING, LOG_FORMAT_TEXT); /* what was tried is in the answer */
	uname(&uts);
	d.checks = json_array();
	d.gateways = json_array();
	doctor_run(&d, config);
	root = json_pack("{s:s, s:O, s:O}", "kernel", uts.release, "checks", d.checks, "gateways",
			 d.gateways);
	if (is_json) {
		json_dumpf(root, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_text(&d, uts.release);
	}
	json_decref(root);
	json_decref(d.checks);
	json_decref(d.gateways);
	return d.is_needed_missing ? EXIT_FAILED : EXIT_DONE;
}
