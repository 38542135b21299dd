/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaches the GC programs to the files that the finder understood, once per file for all processes.
 * Owns the links. Process: the keeper.
 */
#include "probe/gc.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "gc_types.h"
#include "probe/finder.h"
#include "probe/gcfile.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define GC_FILES_MAX  32u /* different libraries and executables; more are told as unavailable */
#define GC_PROBES_MAX 4u  /* programs attached to one file */

_Static_assert(UPROBE_PLACES_MAX >= FINDER_EXITS_MAX, "all exits fit in one attachment");

struct gc_file {
	dev_t device;
	ino_t inode;
	unsigned int count;
	struct uprobe_links links[GC_PROBES_MAX];
};

struct gc {
	enum uprobe_how how;
	struct gc_programs programs;
	struct gc_control control;
	char pin_dir[256]; /* "": do not pin */
	unsigned int file_count;
	struct gc_file files[GC_FILES_MAX];
};

int gc_choose(const char *tier, enum uprobe_how *ret, struct err *e)
{
	return uprobe_choose(tier, bias_entry_offset(BIAS_EMULATED), ret, e);
}

int gc_open(enum uprobe_how how, const struct gc_programs *programs, const char *pin_dir,
	    struct gc **ret, struct err *e)
{
	_cleanup_free_ struct gc *gc = NULL;
	const uint32_t zero = 0;
	unsigned int kind;
	int r;

	gc = calloc(1, sizeof(*gc));
	if (!gc)
		return err_set(e, -ENOMEM, "no memory for GC probes");
	gc->how = how;
	gc->programs = *programs;
	if (pin_dir && !str_copy(gc->pin_dir, sizeof(gc->pin_dir), pin_dir))
		return err_set(e, -ENAMETOOLONG, "%s: too long", pin_dir);
	for (kind = 0; kind < BIAS_KINDS; kind++) {
		r = bias_measure(how, programs->bias_enter, programs->bias_exit,
				 programs->calibrations, kind, &gc->control.bias_ns[kind], e);
		if (r < 0)
			return r;
	}
	if (bpf_map_update_elem(programs->settings, &zero, &gc->control, BPF_ANY) < 0)
		return err_set(e, -errno, "cannot set the bias: %s", err_text(-errno));
	*ret = TAKE_PTR(gc);
	return 0;
}

static void detach_file(struct gc_file *file)
{
	unsigned int i;

	for (i = 0; i < file->count; i++)
		uprobe_detach(&file->links[i]);
	file->count = 0;
}

struct gc *gc_close(struct gc *gc)
{
	unsigned int i;

	if (!gc)
		return NULL;
	for (i = 0; i < gc->file_count; i++)
		detach_file(&gc->files[i]);
	free(gc);
	return NULL;
}

uint64_t gc_bias_ns(const struct gc *gc)
{
	return gc ? gc->control.bias_ns[BIAS_EMULATED] : 0;
}

/* ---- attaching ---- */

struct attachment {
	const char *name; /* in the pin's file name */
	int program_fd;
	size_t count;
	struct uprobe_place places[UPROBE_PLACES_MAX];
};

static uint64_t cookie_of(const struct finder_point *p, bool has_cycles)
{
	return p->frame | (p->flags & FINDER_STEPPED ? GC_COOKIE_STEPPED : 0) |
	       (has_cycles && p->flags & FINDER_CYCLE ? GC_COOKIE_CYCLE : 0);
}

static struct attachment at_entry(const char *name, int fd, const struct finder_function *f)
{
	return (struct attachment){
		.name = name,
		.program_fd = fd,
		.count = 1,
		.places[0] = {f->entry.offset, cookie_of(&f->entry, false)},
	};
}

static struct attachment at_exits(const char *name, int fd, const struct finder_function *f,
				  bool has_cycles)
{
	struct attachment a = {.name = name, .program_fd = fd, .count = f->exit_count};
	unsigned int i;

	for (i = 0; i < f->exit_count; i++) {
		a.places[i].offset = f->exits[i].offset;
		a.places[i].cookie = cookie_of(&f->exits[i], has_cycles);
	}
	return a;
}

/* Exits first: an exit without its entry counts nothing. */
static size_t plan(const struct gc *gc, const struct finder_result *found, struct attachment *ret)
{
	const struct gc_programs *p = &gc->programs;

	if (found->runtime == FINDER_GO) {
		ret[0] = at_entry("start", p->world_start, &found->start);
		ret[1] = at_entry("stop", p->world_stop, &found->stop);
		ret[2] = at_entry("cycle", p->world_cycle, &found->cycle);
		return 3;
	}
	/* Only LuaJIT's step returns 1 at the end of a cycle; PUC Lua's returns nothing. */
	ret[0] = at_exits("step_exit", p->step_exit, &found->step, found->runtime == FINDER_LUAJIT);
	ret[1] = at_exits("full_exit", p->full_exit, &found->full, false);
	ret[2] = at_entry("step", p->step_enter, &found->step);
	ret[3] = at_entry("full", p->full_enter, &found->full);
	return 4;
}

/* Names of one file's pins: by inode, and by what is attached, so that a rebuilt finder that puts
 * probes elsewhere does not take the old ones for its own. */
static void pin_name(const struct gcfile *file, const struct attachment *a, char *buf, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325;
	size_t i;

	for (i = 0; i < a->count; i++)
		hash = (hash ^ a->places[i].offset ^ a->places[i].cookie << 20) * 0x100000001b3;
	snprintf(buf, size, "gc_%" PRIx64 "_%" PRIx64 "_%s_%08" PRIx64, (uint64_t)file->device,
		 (uint64_t)file->inode, a->name, hash & 0xffffffff);
}

static int attach_one(const struct gc *gc, const struct gcfile *file, const struct attachment *a,
		      struct uprobe_links *ret)
{
	struct uprobe_links links = {0};
	char name[128];
	int r;

	pin_name(file, a, name, sizeof(name));
	if (gc->pin_dir[0] && uprobe_adopt(gc->how, a->count, gc->pin_dir, name, ret) == 0)
		return 0;
	r = uprobe_attach(gc->how, a->program_fd, file->fd, a->places, a->count, &links);
	if (r < 0)
		return r;
	if (gc->pin_dir[0]) {
		r = uprobe_pin(&links, gc->pin_dir, name);
		if (r < 0) {
			uprobe_detach(&links);
			return r;
		}
	}
	*ret = links;
	return 0;
}

static int attach_file(struct gc *gc, const struct gcfile *file, const struct finder_result *found,
		       struct err *e)
{
	struct attachment attachments[GC_PROBES_MAX];
	struct gc_file new = {.device = file->device, .inode = file->inode};
	size_t count, i;
	int r;

	for (i = 0; i < gc->file_count; i++) {
		if (gc->files[i].device == file->device && gc->files[i].inode == file->inode)
			return 0;
	}
	if (gc->file_count == GC_FILES_MAX)
		return err_set(e, -ENOSPC, "probes are on %u files already, which is the limit",
			       GC_FILES_MAX);
	count = plan(gc, found, attachments);
	for (i = 0; i < count; i++) {
		r = attach_one(gc, file, &attachments[i], &new.links[i]);
		if (r < 0) {
			detach_file(&new);
			return err_set(e, r, "attaching %s by %s: %s", attachments[i].name,
				       uprobe_how_name(gc->how), err_text(r));
		}
		new.count++;
	}
	gc->files[gc->file_count++] = new;
	return 0;
}

/* ---- reports ---- */

static void report_found(const struct gc *gc, const struct gcfile *file,
			 const struct finder_result *found, struct probe_gc_report *ret)
{
	str_copy(ret->runtime, sizeof(ret->runtime), found->name);
	str_copy(ret->how, sizeof(ret->how), found->how);
	str_copy(ret->object, sizeof(ret->object), file->path);
	str_copy(ret->attach, sizeof(ret->attach), uprobe_how_name(gc->how));
	str_copy(ret->why, sizeof(ret->why), found->why);
	ret->confidence = found->confidence;
}

static int attach_best(struct gc *gc, const struct gcfile *files, size_t count,
		       struct probe_gc_report *ret)
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
				report_found(gc, &files[i], &found, ret);
			continue;
		}
		report_found(gc, &files[i], &found, ret);
		r = attach_file(gc, &files[i], &found, &e);
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

int gc_attach(struct gc *gc, uint32_t pid, struct probe_gc_report *ret)
{
	struct gcfile files[GCFILE_MAX];
	struct err e = {0};
	size_t count = 0;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->state = PROBE_UNAVAILABLE;
	r = gcfile_list(pid, files, &count, &e);
	if (r < 0) {
		str_copy(ret->why, sizeof(ret->why), e.text);
		return r;
	}
	r = attach_best(gc, files, count, ret);
	gcfile_close(files, count);
	if (r < 0 && !ret->why[0])
		str_copy(ret->why, sizeof(ret->why), err_text(r));
	return r;
}
