/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ladder: which programs load and attach on this kernel is found by trying, best first. What
 * the kernel said to each try is kept for the reports.
 */
#include "probe/set.h"

#include "base/log.h"
#include "base/process.h"
#include "base/str.h"
#include "probe/skel.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const tier_names[TIERS] = {"fentry", "tp_btf", "raw_tp", "tracepoint"};
static const char *const report_names[REPORTS] = {"syscalls", "loop", "requests", "fork",
						  "gc",       "tls",  "pin"};

/* What a try failed at. */
struct failure {
	char program[PROBE_NAME_BYTES];
	char said[160];
};

/* libbpf prints through a global function: the first program it complains about in this try. */
static struct failure *listening;

static void failure_note(const char *line)
{
	const char *p = strstr(line, "prog '"), *end;

	if (!listening || listening->program[0] || !p)
		return;
	p += strlen("prog '");
	end = strchr(p, '\'');
	if (!end || (size_t)(end - p) >= sizeof(listening->program))
		return;
	memcpy(listening->program, p, (size_t)(end - p));
	listening->program[end - p] = '\0';
	str_copy(listening->said, sizeof(listening->said), str_starts(end, "': ") ? end + 3 : end);
}

__attribute__((format(printf, 2, 0))) static int libbpf_log(enum libbpf_print_level level,
							    const char *fmt, va_list ap)
{
	char line[1024];
	char *end;

	vsnprintf(line, sizeof(line), fmt, ap);
	end = strchr(line, '\n');
	if (end)
		*end = '\0';
	if (level == LIBBPF_WARN)
		failure_note(line);
	if (level != LIBBPF_DEBUG)
		log_debug("libbpf", line, "%s", "");
	return 0;
}

const char *ladder_tier_name(enum probe_tier tier)
{
	return tier < TIERS ? tier_names[tier] : "none";
}

void ladder_report(struct probe_set *set, enum probe_report_id id, enum probe_state state,
		   const char *how, const char *fmt, ...)
{
	struct probe_report *r = &set->reports[id];
	va_list ap;

	r->name = report_names[id];
	r->state = state;
	str_copy(r->how, sizeof(r->how), how);
	va_start(ap, fmt);
	vsnprintf(r->why, sizeof(r->why), fmt, ap);
	va_end(ap);
}

/* "CAP_PERFMON is missing: …", "" when none of those that BPF needs is. */
static const char *missing_capabilities(char *buf, size_t size)
{
	uint64_t caps = process_caps(), missing = 0;
	char names[128];

	buf[0] = '\0';
	if (!(caps >> CAP_SYS_ADMIN & 1)) {
		missing |= caps >> CAP_BPF & 1 ? 0 : 1ULL << CAP_BPF;
		missing |= caps >> CAP_PERFMON & 1 ? 0 : 1ULL << CAP_PERFMON;
	}
	if (missing)
		snprintf(buf, size,
			 "%s missing; grant it (systemd: CapabilityBoundingSet=; containers: "
			 "securityContext.capabilities.add, uid 0)",
			 process_cap_names(missing, names, sizeof(names)));
	return buf;
}

static bool program_is(const struct bpf_program *p, const char *prefix)
{
	return str_starts(bpf_program__name(p), prefix);
}

static bool program_is_gc(const struct bpf_program *p)
{
	return program_is(p, "gc_");
}

static bool program_is_tls(const struct bpf_program *p)
{
	return program_is(p, "tls_");
}

static bool program_is_life(const struct bpf_program *p)
{
	return program_is(p, "fork_") || program_is(p, "exit_life_") || program_is(p, "exec_");
}

/* What a rung may go without. */
struct companions {
	bool gc, tls, life;
};

static bool name_is_life(const char *name)
{
	return str_starts(name, "fork_") || str_starts(name, "exit_life_") ||
	       str_starts(name, "exec_");
}

/* Typed rungs bring typed life programs, the others raw ones (there is no slower way). */
static bool program_wanted(const struct bpf_program *p, enum probe_tier tier,
			   const struct companions *with)
{
	const char *name = bpf_program__name(p);
	bool is_typed = tier == TIER_FENTRY || tier == TIER_TP_BTF;

	if (program_is_gc(p))
		return with->gc;
	if (program_is_tls(p))
		return with->tls;
	if (program_is_life(p))
		return with->life && str_ends(name, is_typed ? "_tp_btf" : "_raw_tp");
	if (tier == TIER_FENTRY)
		return program_is(p, "fentry_") || program_is(p, "fexit_");
	return str_ends(name, tier_names[tier]);
}

static void links_drop(struct probe_set *set)
{
	for (size_t i = 0; i < set->link_count; i++)
		bpf_link__destroy(set->links[i].link);
	set->link_count = 0;
}

static int attach_all(struct probe_set *set, struct failure *ret)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, set->skel->obj)
	{
		const char *name = bpf_program__name(p);
		struct probe_link *l = &set->links[set->link_count];
		struct bpf_link *link;

		if (!bpf_program__autoload(p) || program_is_gc(p) || program_is_tls(p))
			continue;
		if (set->link_count == PROBE_LINKS)
			return -ENOSPC;
		link = bpf_program__attach(p);
		if (!link) {
			int r = -errno;

			str_copy(ret->program, sizeof(ret->program), name);
			if (!ret->said[0])
				snprintf(ret->said, sizeof(ret->said), "attach: %s", err_text(r));
			return r;
		}
		str_copy(l->name, sizeof(l->name), name);
		l->link = link;
		l->fd = bpf_link__fd(link);
		set->link_count++;
	}
	return 0;
}

/* How uprobes attach is part of loading their programs. */
static int prepare_uprobes(struct probe_set *set, const struct companions *with,
			   struct failure *ret)
{
	struct err e = {.text = ""};
	int r = gc_prepare(set->skel->obj, &e);

	if (r) {
		str_copy(ret->program, sizeof(ret->program), with->gc ? "gc_" : "tls_");
		str_copy(ret->said, sizeof(ret->said), e.text);
	}
	return r;
}

static int attempt(struct probe_set *set, const struct probe_options *options, enum probe_tier tier,
		   const struct companions *with, bool *ret_has_btf, struct failure *ret)
{
	struct bpf_program *p;
	int r;

	memset(ret, 0, sizeof(*ret));
	set->skel = layout_open();
	if (!set->skel)
		return -errno;
	bpf_object__for_each_program(p, set->skel->obj)
		bpf_program__set_autoload(p, program_wanted(p, tier, with));
	listening = ret;
	r = layout_fill(set->skel, options, set->gateways, ret_has_btf);
	if (!r && tier <= TIER_TP_BTF && !*ret_has_btf) {
		str_copy(ret->said, sizeof(ret->said), "no kernel BTF (/sys/kernel/btf/vmlinux)");
		r = -ENOENT;
	}
	if (!r && (with->gc || with->tls))
		r = prepare_uprobes(set, with, ret);
	if (!r)
		r = tidegate_bpf__load(set->skel);
	if (!r)
		r = attach_all(set, ret);
	listening = NULL;
	if (!r)
		return 0;
	if (!ret->said[0])
		str_copy(ret->said, sizeof(ret->said), err_text(r));
	links_drop(set);
	tidegate_bpf__destroy(set->skel);
	set->skel = NULL;
	return r;
}

static void report_tls(struct probe_set *set, bool is_wanted, const struct failure *failure)
{
	if (set->has_tls && set->tier == TIER_TRACEPOINT)
		ladder_report(
			set, REPORT_TLS, PROBE_DEGRADED, gc_how(set),
			"tracepoints do not show which goroutine calls: TLS of Go is not seen");
	else if (set->has_tls)
		ladder_report(set, REPORT_TLS, PROBE_OK, gc_how(set), "%s", "");
	else if (is_wanted)
		ladder_report(set, REPORT_TLS, PROBE_UNAVAILABLE, "none", "%s: %s",
			      failure->program, failure->said);
	else
		ladder_report(set, REPORT_TLS, PROBE_UNAVAILABLE, "none", "probe.tls is false");
}

/* A failure of a companion costs only the companion. */
static int rung(struct probe_set *set, const struct probe_options *options, enum probe_tier tier,
		bool *ret_has_btf, struct failure *ret)
{
	struct companions with = {options->want_gc, options->want_tls, true};
	struct failure gc = {.said = ""}, tls = {.said = ""}, life = {.said = ""};
	int r;

	for (;;) {
		r = attempt(set, options, tier, &with, ret_has_btf, ret);
		if (!r)
			break;
		if (with.gc && str_starts(ret->program, "gc_")) {
			gc = *ret;
			with.gc = false;
		} else if (with.tls && str_starts(ret->program, "tls_")) {
			tls = *ret;
			with.tls = false;
		} else if (with.life && name_is_life(ret->program)) {
			life = *ret;
			with.life = false;
		} else {
			return r;
		}
	}
	set->tier = tier;
	set->has_gc = with.gc;
	set->has_tls = with.tls;
	set->has_fork = with.life;
	report_tls(set, options->want_tls, &tls);
	if (with.gc)
		ladder_report(set, REPORT_GC, PROBE_OK, gc_how(set), "%s", "");
	else if (options->want_gc)
		ladder_report(set, REPORT_GC, PROBE_UNAVAILABLE, "none", "%s: %s", gc.program,
			      gc.said);
	else
		ladder_report(set, REPORT_GC, PROBE_UNAVAILABLE, "none", "probe.gc is false");
	if (!with.life)
		ladder_report(set, REPORT_FORK, PROBE_UNAVAILABLE, "none",
			      "%s: %s; new workers are found at the next scan", life.program,
			      life.said);
	else if (tier <= TIER_TP_BTF)
		ladder_report(set, REPORT_FORK, PROBE_OK, "tp_btf", "%s", "");
	else if (set->skel->rodata->offsets.is_known)
		ladder_report(set, REPORT_FORK, PROBE_OK, "raw_tp", "%s", "");
	else
		ladder_report(set, REPORT_FORK, PROBE_DEGRADED, "raw_tp",
			      "no kernel BTF: new workers are found at the next scan only");
	return 0;
}

static void report_counting(struct probe_set *set, const char *tried, bool knows_sockets)
{
	const char *how = tier_names[set->tier];

	ladder_report(set, REPORT_SYSCALLS, PROBE_OK, how, "%s", tried);
	ladder_report(set, REPORT_LOOP, PROBE_OK, how, "%s", tried);
	if (knows_sockets)
		ladder_report(set, REPORT_REQUESTS, PROBE_OK, how, "%s", tried);
	else
		ladder_report(
			set, REPORT_REQUESTS, PROBE_DEGRADED, how,
			"no kernel BTF: a request whose client left unread counts as lost%s%s",
			tried[0] ? "; " : "", tried);
}

int ladder_climb(struct probe_set *set, const struct probe_options *options, struct err *e)
{
	bool is_auto = str_equal(options->tier, "auto"), has_btf = false;
	char tried[256] = "", caps[224];
	struct failure failure;
	int r = -EINVAL;

	libbpf_set_print(libbpf_log);
	missing_capabilities(caps, sizeof(caps));
	for (unsigned int tier = 0; tier < TIERS; tier++) {
		size_t used;

		if (!is_auto && !str_equal(options->tier, tier_names[tier]))
			continue;
		r = rung(set, options, tier, &has_btf, &failure);
		if (!r) {
			report_counting(set, tried, set->skel->rodata->offsets.is_known);
			log_info("probe", "programs attached", "tier=%s programs=%zu why=\"%s\"",
				 tier_names[tier], set->link_count, tried);
			return 0;
		}
		used = strlen(tried);
		snprintf(tried + used, sizeof(tried) - used, "%s%s: %s", used ? "; " : "",
			 tier_names[tier], failure.said);
		log_info("probe", "step of the ladder refused", "tier=%s program=%s said=\"%s\"",
			 tier_names[tier], failure.program[0] ? failure.program : "-",
			 failure.said);
	}
	for (unsigned int i = 0; i < REPORT_PIN; i++)
		ladder_report(set, i, PROBE_UNAVAILABLE, "none", "%s", caps[0] ? caps : tried);
	if (!tried[0])
		return err_set(e, -EINVAL,
			       "probe.tier=%s is not one of auto, fentry, tp_btf, raw_tp, "
			       "tracepoint",
			       options->tier);
	return err_set(e, r, "no probe can be loaded: %s", caps[0] ? caps : tried);
}

void ladder_report_adopted(struct probe_set *set)
{
	report_counting(set, "", set->control->knows_kernel);
	ladder_report(set, REPORT_FORK, set->has_fork ? PROBE_OK : PROBE_UNAVAILABLE,
		      set->tier <= TIER_TP_BTF ? "tp_btf" : "raw_tp", "%s",
		      set->has_fork ? "" : "not attached when these programs were loaded");
	ladder_report(set, REPORT_GC, set->has_gc ? PROBE_OK : PROBE_UNAVAILABLE, gc_how(set), "%s",
		      set->has_gc ? "" : "not loaded");
	report_tls(set, true, &(struct failure){.program = "tls_", .said = "not loaded"});
}
