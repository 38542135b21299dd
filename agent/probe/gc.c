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
#include "probe/uprobe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define GC_PROBES_MAX 4u /* programs attached to one file */

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
		if (str_starts(bpf_program__name(p), "gc_"))
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

const char *gc_how(const struct probe_set *set)
{
	struct gc_control settings;
	enum uprobe_how how = chosen;

	/* An adopted set was loaded by another keeper. */
	if (set->is_adopted && read_settings(set, &settings) == 0 && settings.how)
		how = (enum uprobe_how)settings.how;
	return how == UPROBE_NONE ? "none" : uprobe_how_name(how);
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
				 &ret->bias_ns[kind], e);
		if (r < 0)
			return r;
	}
	if (bpf_map_update_elem(set->gc_settings_fd, &zero, ret, BPF_ANY) < 0)
		return err_set(e, -errno, "cannot set the bias: %s", err_text(-errno));
	return 0;
}

/* ---- attaching ---- */

struct attachment {
	const char *program;
	size_t count;
	struct uprobe_place places[UPROBE_PLACES_MAX];
};

static uint64_t cookie_of(const struct finder_point *p, bool has_cycles)
{
	return p->frame | (p->flags & FINDER_STEPPED ? GC_COOKIE_STEPPED : 0) |
	       (has_cycles && p->flags & FINDER_CYCLE ? GC_COOKIE_CYCLE : 0);
}

static struct attachment at_entry(const char *program, const struct finder_function *f)
{
	return (struct attachment){
		.program = program,
		.count = 1,
		.places[0] = {f->entry.offset, cookie_of(&f->entry, false)},
	};
}

static struct attachment at_exits(const char *program, const struct finder_function *f,
				  bool has_cycles)
{
	struct attachment a = {.program = program, .count = f->exit_count};
	unsigned int i;

	for (i = 0; i < f->exit_count; i++) {
		a.places[i].offset = f->exits[i].offset;
		a.places[i].cookie = cookie_of(&f->exits[i], has_cycles);
	}
	return a;
}

/* Exits first: an exit without its entry counts nothing. */
static size_t plan(const struct finder_result *found, struct attachment *ret)
{
	bool is_jit = found->runtime == FINDER_LUAJIT;

	if (found->runtime == FINDER_GO) {
		ret[0] = at_entry("gc_world_start", &found->start);
		ret[1] = at_entry("gc_world_stop", &found->stop);
		ret[2] = at_entry("gc_world_cycle", &found->cycle);
		return 3;
	}
	/* Only LuaJIT's step returns 1 at the end of a cycle; PUC Lua's returns nothing. */
	ret[0] = at_exits("gc_step_exit", &found->step, is_jit);
	ret[1] = at_exits("gc_full_exit", &found->full, false);
	ret[2] = at_entry("gc_step_enter", &found->step);
	ret[3] = at_entry("gc_full_enter", &found->full);
	return 4;
}

/* Name of a link: by file, program and places, so that another keeper knows what is attached. */
static void link_name(const struct gcfile *file, const struct attachment *a, unsigned int i,
		      char *buf, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325;
	const char *c;
	size_t j;

	hash = (hash ^ (uint64_t)file->device) * 0x100000001b3;
	hash = (hash ^ (uint64_t)file->inode) * 0x100000001b3;
	for (c = a->program; *c; c++)
		hash = (hash ^ (uint64_t)*c) * 0x100000001b3;
	for (j = 0; j < a->count; j++) {
		hash = (hash ^ a->places[j].offset) * 0x100000001b3;
		hash = (hash ^ a->places[j].cookie) * 0x100000001b3;
	}
	snprintf(buf, size, "gc_%016" PRIx64 "_%u", hash, i);
}

static int attach_one(struct probe_set *set, enum uprobe_how how, const struct gcfile *file,
		      const struct attachment *a)
{
	int program = probe_program_fd(set, a->program), r;
	struct uprobe_links links = {0};
	char name[PROBE_NAME_BYTES];
	unsigned int i;

	link_name(file, a, 0, name, sizeof(name));
	if (probe_has_link(set, name))
		return 0;
	if (program < 0)
		return program;
	r = uprobe_attach(how, program, file->fd, a->places, a->count, &links);
	/* The first link stands for all: it comes last. */
	for (i = links.count; r == 0 && i > 0; i--) {
		link_name(file, a, i - 1, name, sizeof(name));
		r = probe_add_link(set, name, links.fds[i - 1]);
		links.count--;
	}
	uprobe_detach(&links);
	return r;
}

static int attach_file(struct probe_set *set, enum uprobe_how how, const struct gcfile *file,
		       const struct finder_result *found, struct err *e)
{
	struct attachment attachments[GC_PROBES_MAX];
	size_t count = plan(found, attachments), i;
	int r;

	for (i = 0; i < count; i++) {
		r = attach_one(set, how, file, &attachments[i]);
		if (r < 0)
			return err_set(e, r, "attaching %s by %s: %s", attachments[i].program,
				       uprobe_how_name(how), err_text(r));
	}
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
	ret->confidence = found->confidence;
}

static int attach_best(struct probe_set *set, enum uprobe_how how, const struct gcfile *files,
		       size_t count, struct probe_gc_report *ret)
{
	struct finder_result found;
	struct err e = {0};
	size_t i;
	int r;

	for (i = 0; i < count; i++) {
		r = finder_run(files[i].fd, &found);
		if (r < 0)
			return r;
		if (!found.is_found) {
			/* The first file that should have had one says why it has not. */
			if ((found.runtime != FINDER_NONE || files[i].rank < 2) && !ret->why[0])
				report_found(how, &files[i], &found, ret);
			continue;
		}
		report_found(how, &files[i], &found, ret);
		r = attach_file(set, how, &files[i], &found, &e);
		ret->state = r < 0 ? PROBE_UNAVAILABLE : PROBE_OK;
		str_copy(ret->why, sizeof(ret->why), e.text);
		if (r == 0 && found.runtime == FINDER_PUC) {
			ret->state = PROBE_DEGRADED;
			str_copy(ret->why, sizeof(ret->why),
				 "cycles: PUC Lua does not say when one ends; only full "
				 "collections are counted");
		}
		return r;
	}
	if (!ret->why[0])
		str_copy(ret->why, sizeof(ret->why),
			 "no LuaJIT, Lua or Go runtime in what the process has mapped");
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

	(void)gateway; /* one attachment serves all: programs look for the thread's slot */
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
	r = attach_best(set, (enum uprobe_how)settings.how, files, count, ret);
	gcfile_close(files, count);
	if (r < 0 && !ret->why[0])
		str_copy(ret->why, sizeof(ret->why), err_text(r));
	return r;
}
