/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaches the GC programs to the files that the finder understood, once per file for all processes.
 * The links belong to the probe set, which pins them; an adopted set is known by their names.
 * Process: the keeper.
 */
#include "probe/set.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "gc_types.h"
#include "probe/bias.h"
#include "probe/finder.h"
#include "probe/gcfile.h"
#include "probe/gcwatch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

_Static_assert(UPROBE_PLACES_MAX >= FINDER_EXITS_MAX, "all exits fit in one attachment");

/* What this kernel allows does not change while we run. */
static enum uprobe_how chosen;

int gc_prepare(struct bpf_object *object, struct err *e)
{
	struct bpf_program *p;
	int r;

	if (chosen == UPROBE_NONE) {
		r = uprobe_choose("auto", bias_entry_offset(BIAS_EMULATED), &chosen, e);
		if (r < 0)
			return r;
	}
	bpf_object__for_each_program(p, object)
	{
		const char *name = bpf_program__name(p);

		if (str_starts(name, "gc_") || str_starts(name, "tls_"))
			bpf_program__set_expected_attach_type(p, uprobe_attach_type(chosen));
	}
	return 0;
}

static int read_settings(const struct probe_set *set, struct gc_control *ret)
{
	const uint32_t zero = 0;

	memset(ret, 0, sizeof(*ret));
	return bpf_map_lookup_elem(set->gc_settings_fd, &zero, ret) < 0 ? -errno : 0;
}

unsigned int gc_uprobe_how(const struct probe_set *set)
{
	/* An adopted set was loaded by another keeper. */
	return set->is_adopted ? set->control->uprobe_how : chosen;
}

const char *gc_how(const struct probe_set *set)
{
	enum uprobe_how how = (enum uprobe_how)gc_uprobe_how(set);

	return how == UPROBE_NONE ? "none" : uprobe_how_name(how);
}

uint64_t probe_gc_cost_ns(const struct probe_set *set)
{
	struct gc_control settings;

	return set->has_gc && read_settings(set, &settings) == 0 ? settings.cost_ns[BIAS_EMULATED]
								 : 0;
}

uint64_t probe_gc_bias_ns(const struct probe_set *set)
{
	struct gc_control settings;

	return set->has_gc && read_settings(set, &settings) == 0 ? settings.bias_ns[BIAS_EMULATED]
								 : 0;
}

/* Measures the bias once in the life of the maps, when the first collector is found. */
static int calibrate(const struct probe_set *set, struct gc_control *ret, struct err *e)
{
	int enter = probe_program_fd(set, "gc_bias_enter");
	int leave = probe_program_fd(set, "gc_bias_exit");
	const uint32_t zero = 0;
	unsigned int kind;
	int r;

	r = read_settings(set, ret);
	if (r < 0)
		return err_set(e, r, "cannot read the GC settings: %s", err_text(r));
	if (ret->how)
		return 0;
	if (enter < 0 || leave < 0 || chosen == UPROBE_NONE)
		return err_set(e, -ENOTSUP, "the GC programs are not loaded");
	ret->how = chosen;
	for (kind = 0; kind < BIAS_KINDS; kind++) {
		r = bias_measure(chosen, enter, leave, set->gc_calibrations_fd, kind,
				 &ret->bias_ns[kind], &ret->cost_ns[kind], e);
		if (r < 0)
			return r;
	}
	if (bpf_map_update_elem(set->gc_settings_fd, &zero, ret, BPF_ANY) < 0)
		return err_set(e, -errno, "cannot set the bias: %s", err_text(-errno));
	return 0;
}

/* ---- attaching ---- */

static uint64_t cookie_of(const struct finder_point *p, int index)
{
	return p->frame | (p->flags & FINDER_STEPPED ? GC_COOKIE_STEPPED : 0) |
	       (uint64_t)(index < 0 ? 0 : index) << GC_COOKIE_FILE;
}

/* lua_State is where the first argument is only as long as no instruction has run. */
static uint64_t cookie_of_heap(const struct finder_function *f, const struct finder_heap *heap)
{
	if (!heap->count || f->entry.offset != f->offset)
		return 0;
	return (uint64_t)(heap->globals / 4) << GC_COOKIE_GLOBALS |
	       (heap->pointer_bytes == 4 ? GC_COOKIE_SHORT : 0);
}

static struct gclink at_entry(const char *program, const struct finder_function *f, int index)
{
	return (struct gclink){
		.program = program,
		.count = 1,
		.places[0] = {.offset = f->entry.offset, .cookie = cookie_of(&f->entry, index)},
	};
}

static struct gclink at_exits(const char *program, const struct finder_function *f, int index)
{
	struct gclink link = {.program = program, .count = f->exit_count};
	unsigned int i;

	for (i = 0; i < f->exit_count; i++) {
		link.places[i].offset = f->exits[i].offset;
		link.places[i].cookie = cookie_of(&f->exits[i], index);
		link.places[i].semaphore = f->semaphore;
	}
	return link;
}

static int attach_go(struct probe_set *set, enum uprobe_how how, const struct gcfile *file,
		     const struct finder_result *found)
{
	const struct gclink links[] = {
		found->start.exit_count ? at_exits("gc_world_start", &found->start, -1)
					: at_entry("gc_world_start", &found->start, -1),
		at_entry("gc_world_starts", &found->start, -1),
		at_entry("gc_world_stop", &found->stop, -1),
		at_entry("gc_world_marked", &found->cycle, -1),
	};
	unsigned int i;
	int r = 0;

	for (i = 0; i < ARRAY_LEN(links) && r == 0; i++)
		r = gclink_attach(set, how, file, &links[i]);
	return r;
}

/* At a collection's end two programs see the same place. The pause is long over for the worker when
 * the second one runs. */
static int attach_openjdk(struct probe_set *set, enum uprobe_how how, const struct gcfile *file,
			  const struct finder_result *found)
{
	const struct gclink links[] = {
		at_exits("gc_world_start", &found->start, -1),
		at_exits("gc_world_stop", &found->stop, -1),
		at_exits("gc_world_cycle", &found->cycle, -1),
	};
	unsigned int i;
	int r = 0;

	for (i = 0; i < ARRAY_LEN(links) && r == 0; i++)
		r = gclink_attach(set, how, file, &links[i]);
	return r;
}

static int attach_lua(struct probe_set *set, const struct gc_control *settings,
		      const struct gcfile *file, const struct finder_result *found, int index)
{
	uint64_t emulated = settings->cost_ns[BIAS_EMULATED];
	uint64_t stepped = settings->cost_ns[BIAS_STEPPED];
	struct gclink links[GC_LINKS];

	/* Never less than what is seen from inside: a machine under load measures strange things. */
	if (emulated < settings->bias_ns[BIAS_EMULATED])
		emulated = settings->bias_ns[BIAS_EMULATED];
	if (stepped < emulated)
		stepped = emulated;
	links[GC_STEP_EXIT] = at_exits("gc_step_exit", &found->step, index);
	links[GC_STEP_ENTER] = at_entry("gc_step_enter", &found->step, index);
	links[GC_STEP_ENTER].places[0].cookie |= cookie_of_heap(&found->step, &found->heap);
	links[GC_FULL_EXIT] = at_exits("gc_full_exit", &found->full, index);
	links[GC_FULL_ENTER] = at_entry("gc_full_enter", &found->full, index);
	links[GC_FULL_ENTER].places[0].cookie |= cookie_of_heap(&found->full, &found->heap);
	links[GC_CYCLE_END] = at_exits("gc_cycle_end", &found->cycle, index);
	gcwatch_heap(set, (unsigned int)index, &found->heap);
	return gcwatch_attach(set, (unsigned int)index, (enum uprobe_how)settings->how, file, links,
			      found->step.entry.flags & FINDER_STEPPED ? stepped : emulated,
			      stepped - emulated);
}

static int attach_file(struct probe_set *set, const struct gc_control *settings,
		       unsigned int gateway, const struct gcfile *file,
		       const struct finder_result *found, struct err *e)
{
	enum uprobe_how how = (enum uprobe_how)settings->how;
	int index = -1, r;

	if (found->runtime == FINDER_GO) {
		r = attach_go(set, how, file, found);
	} else if (found->runtime == FINDER_OPENJDK) {
		r = attach_openjdk(set, how, file, found);
	} else {
		index = gcwatch_index(set, file);
		if (index < 0)
			return err_set(e, index,
				       "collectors in more than %u files are in use at once",
				       GC_FILES);
		r = attach_lua(set, settings, file, found, index);
	}
	if (r < 0)
		return err_set(e, r, "attaching by %s: %s", uprobe_how_name(how), err_text(r));
	gcwatch_gateway(set, gateway, index);
	return 0;
}

/* ---- reports ---- */

static void report_found(enum uprobe_how how, const struct gcfile *file,
			 const struct finder_result *found, struct probe_gc_report *ret)
{
	str_copy(ret->runtime, sizeof(ret->runtime), found->name);
	str_copy(ret->how, sizeof(ret->how), found->how);
	str_copy(ret->object, sizeof(ret->object), file->path);
	str_copy(ret->attach, sizeof(ret->attach), uprobe_how_name(how));
	str_copy(ret->why, sizeof(ret->why), found->why);
	str_copy(ret->reason, sizeof(ret->reason), found->reason);
	ret->confidence = found->confidence;
}

/* What of a Lua could not be read from its code. */
static void report_missing(const struct finder_result *found, struct probe_gc_report *ret)
{
	if (found->cycle.exit_count && found->heap.count)
		return;
	ret->state = PROBE_DEGRADED;
	snprintf(ret->why, sizeof(ret->why), "%s%s",
		 found->cycle.exit_count
			 ? ""
			 : "cycles: where a step ends one is not known, only full collections are "
			   "counted; ",
		 found->heap.count ? "" : "heap: lua_gc does not look as expected, absent");
}

static int attach_best(struct probe_set *set, const struct gc_control *settings,
		       unsigned int gateway, uint32_t pid, const struct gcfile *files, size_t count,
		       struct probe_gc_report *ret)
{
	enum uprobe_how how = (enum uprobe_how)settings->how;
	struct finder_result found;
	struct err e = {0};
	size_t i;
	int r;

	for (i = 0; i < count; i++) {
		r = finder_run(files[i].fd, pid, &found);
		if (r < 0)
			return r;
		if (!found.is_found) {
			/* The first file that should have had one says why it has not. */
			if ((found.runtime != FINDER_NONE || files[i].rank < 2) && !ret->why[0])
				report_found(how, &files[i], &found, ret);
			continue;
		}
		report_found(how, &files[i], &found, ret);
		r = attach_file(set, settings, gateway, &files[i], &found, &e);
		ret->state = r < 0 ? PROBE_UNAVAILABLE : PROBE_OK;
		str_copy(ret->why, sizeof(ret->why), e.text);
		if (r == 0 && found.runtime != FINDER_GO && found.runtime != FINDER_OPENJDK)
			report_missing(&found, ret);
		return r;
	}
	if (!ret->why[0])
		str_copy(ret->why, sizeof(ret->why),
			 "no LuaJIT, Lua, Go or Java runtime in what the process has mapped");
	return -ENOENT;
}

int probe_gc_attach(struct probe_set *set, unsigned int gateway, uint32_t pid,
		    struct probe_gc_report *ret)
{
	struct gc_control settings = {.how = UPROBE_NONE};
	struct gcfile files[GCFILE_MAX];
	struct err e = {.text = ""};
	size_t count = 0;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->state = PROBE_UNAVAILABLE;
	r = set->has_gc ? calibrate(set, &settings, &e)
			: err_set(&e, -ENOTSUP, "the GC programs are not loaded");
	if (r == 0)
		r = gcfile_list(pid, files, &count, &e);
	if (r < 0) {
		str_copy(ret->why, sizeof(ret->why), e.text);
		return r;
	}
	r = attach_best(set, &settings, gateway, pid, files, count, ret);
	gcfile_close(files, count);
	if (r < 0 && !ret->why[0])
		str_copy(ret->why, sizeof(ret->why), err_text(r));
	return r;
}
