/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of gateway processes, summed into app.seg. Owns the files that are read, and room for their
 * contents, used for one after the other. In the courier, one thread.
 */
#include "segment/gather.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "segment/fold.h"
#include "segment/gather_file.h"
#include "segment/gather_series.h"
#include "segment/gather_sums.h"
#include "segment/gather_waiting.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNKNOWN INT32_MIN
#define LEFT_NS (60 * NS_PER_S) /* then an unlocked unfinished file is rubbish */

struct gather {
	struct gather_options o;
	char *dir;
	DIR *stream; /* open while a pass over the directory goes on */
	struct segment_writer *w;
	struct gather_names *names;
	struct gather_sums *sums;
	struct gather_waiting *waiting;
	struct gather_file *files; /* o.files of them */
	ino_t *inodes;             /* of the files, side by side: looked at for each name */
	unsigned int count, turn;
	uint32_t new_series;  /* that may still be found in this tick */
	bool is_begun_here;   /* in this pass: the file of the fold that was begun, not taken */
	bool is_begun_waited; /* … or in the last pass, or there was no pass yet */
	struct gather_room entries, heap, cells;
	struct gather_stats stats;
	struct log_limit damaged_limit;
	bool has_begun;
};

const char *gather_refusal_name(enum gather_refusal refusal)
{
	static const char *const names[GATHER_REFUSALS] = {
		[GATHER_FILES] = "files",   [GATHER_OWNER] = "owner", [GATHER_DAMAGED] = "damaged",
		[GATHER_SERIES] = "series", [GATHER_NAME] = "name",   [GATHER_KIND] = "kind",
	};

	return names[refusal];
}

/* ---- files ---- */

static void damaged_log(struct gather *g, const char *name, const struct err *e)
{
	uint64_t swallowed;

	if (log_allowed(&g->damaged_limit, clock_mono_ns(), &swallowed))
		log_warning("gather", "a file of a process is left out", "file=%s error=\"%s\"",
			    name, e->text);
}

/* Only if the name still is this file's: its owner may have made another. */
static void name_remove(const struct gather *g, const struct gather_file *f)
{
	struct stat st;
	int dir = dirfd(g->stream);

	if (fstatat(dir, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_ino != f->inode)
		return;
	if (unlinkat(dir, f->name, 0) < 0 && errno != ENOENT)
		log_warning("gather", "cannot remove the file of a process that ended",
			    "path=%s/%s error=\"%s\"", g->dir, f->name, err_text(-errno));
}

static void file_drop(struct gather *g, struct gather_file *f)
{
	size_t i = (size_t)(f - g->files);

	gather_file_close(f);
	*f = g->files[--g->count];
	g->inodes[i] = g->inodes[g->count];
	g->files[g->count] = (struct gather_file){.fd = -1};
}

struct share {
	uint64_t files, entries, cells;
};

/* Nobody takes the last quarter from the others. */
static bool is_within(uint64_t all, uint64_t own, uint64_t need, uint64_t most)
{
	uint64_t least = most / 4 ? most - most / 4 : most;

	return all + need <= most && own + need <= least;
}

static bool has_share(const struct gather *g, uid_t uid, const struct share *need)
{
	struct share all = {0}, own = {0};

	for (unsigned int i = 0; i < g->count; i++) {
		const struct gather_file *f = &g->files[i];

		all.files++;
		all.entries += f->granted_entries;
		all.cells += f->granted_cells;
		if (f->uid != uid)
			continue;
		own.files++;
		own.entries += f->granted_entries;
		own.cells += f->granted_cells;
	}
	return is_within(all.files, own.files, need->files, g->o.files) &&
	       is_within(all.entries, own.entries, need->entries, GATHER_ENTRIES) &&
	       is_within(all.cells, own.cells, need->cells, GATHER_CELLS);
}

static void refuse(struct gather *g, ino_t inode, enum gather_refusal why)
{
	if (gather_waiting_count(g->waiting, inode, why))
		g->stats.refused[why]++;
}

static bool file_own(const struct gather *g, struct gather_file *f)
{
	char raw[SEGMENT_NAME_BYTES], name[SEGMENT_NAME_BYTES];
	struct gather_writer w = {f->uid, f->h.writer_pid, f->h.writer_parent, name};

	memcpy(raw, f->h.gateway, sizeof(raw));
	raw[sizeof(raw) - 1] = '\0';
	str_clean(name, sizeof(name), raw);
	return g->o.owner(g->o.data, &w, &f->owner);
}

static bool has_life(const struct gather *g, uint64_t life)
{
	for (unsigned int i = 0; i < g->count; i++)
		if (g->files[i].h.life == life)
			return true;
	return false;
}

/* Whether f was taken; if not, why is counted, and what no living writer holds is removed. */
static bool file_take(struct gather *g, struct gather_file *f, uint64_t since, uint64_t now)
{
	const struct share one = {.files = 1};

	if (has_life(g, f->h.life))
		return false; /* file_follow() looks after it */
	if (!file_own(g, f)) {
		if (now - since > GATHER_OWNER_NS && !gather_file_has_writer(f)) {
			refuse(g, f->inode, GATHER_OWNER);
			name_remove(g, f);
		}
		return false;
	}
	if (!has_share(g, f->uid, &one)) {
		refuse(g, f->inode, GATHER_FILES);
		return false;
	}
	g->inodes[g->count] = f->inode;
	g->files[g->count++] = *f;
	return true;
}

static void name_look(struct gather *g, const struct dirent *d, uint64_t now)
{
	uint64_t since = gather_waiting_since(g->waiting, d->d_ino, now);
	struct gather_file f = {.fd = -1};
	struct err e = {0};
	int r = gather_file_named(d->d_name)
			? gather_file_open(dirfd(g->stream), d->d_name, g->o.bytes, &f, &e)
			: -EBADMSG;
	bool is_taken = false;

	if (r == 0) {
		is_taken = file_take(g, &f, since, now);
		g->is_begun_here |= !is_taken && f.h.life == segment_writer_header(g->w)->fold_life;
	} else if (r == -EMFILE || r == -ENFILE) {
		refuse(g, d->d_ino, GATHER_FILES);
	} else {
		if (r == -EBADMSG && *e.text)
			damaged_log(g, d->d_name, &e);
		refuse(g, d->d_ino, GATHER_DAMAGED);
		if (f.fd >= 0 && !gather_file_has_writer(&f))
			name_remove(g, &f);
	}
	if (!is_taken)
		gather_file_close(&f);
}

/* A writer that died before its file had its name. */
static void unfinished_remove(const struct gather *g, const char *name)
{
	int dir = dirfd(g->stream), fd;
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
	    clock_real_ns() < (uint64_t)st.st_mtim.tv_sec * NS_PER_S + LEFT_NS)
		return;
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlinkat(dir, name, 0);
	close(fd);
}

static bool is_read(const struct gather *g, ino_t inode)
{
	for (unsigned int i = 0; i < g->count; i++)
		if (g->inodes[i] == inode)
			return true;
	return false;
}

/* Goes on with a pass over the directory, a bounded part of it in one tick. */
static void names_scan(struct gather *g, uint64_t now)
{
	const struct dirent *d = NULL;

	for (unsigned int i = 0; i < GATHER_LOOKS && (d = readdir(g->stream)); i++) {
		if (!str_ends(d->d_name, ".seg") || is_read(g, d->d_ino))
			continue;
		if (d->d_name[0] == '.')
			unfinished_remove(g, d->d_name);
		else
			name_look(g, d, now);
	}
	if (d)
		return;
	gather_waiting_sweep(g->waiting);
	g->is_begun_waited = g->is_begun_here;
	g->is_begun_here = false;
	rewinddir(g->stream);
}

/* The writer found its name gone and made its file again, with all that it counted: same life, same
 * counters. It lets go of the old one after that, so whoever lives no more is looked up first. */
static void file_follow(struct gather *g, struct gather_file *f)
{
	struct gather_file next = {.fd = -1};
	struct stat st;

	if (fstatat(dirfd(g->stream), f->name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st.st_ino == f->inode || st.st_uid != f->uid)
		return;
	if (gather_file_open(dirfd(g->stream), f->name, g->o.bytes, &next, NULL) == 0 &&
	    next.uid == f->uid) {
		next.owner = f->owner;
		next.is_dead = !gather_file_has_writer(&next);
		gather_file_close(f);
		*f = next;
		g->inodes[f - g->files] = f->inode;
	} else {
		gather_file_close(&next);
	}
}

/* ---- series ---- */

static void entry_find(struct gather *g, struct gather_file *f, const struct segment_view *v,
		       const struct segment_entry *d, struct gather_entry *ret)
{
	enum gather_refusal refusal = GATHER_DAMAGED;
	struct segment_series s;

	*ret = (struct gather_entry){.series = -EINVAL};
	if (segment_series_of(v, d, &s)) {
		ret->is_valid = true;
		ret->kind = d->kind;
		ret->cell = (uint32_t)d->value_cell;
		ret->series = gather_series_find(g->names, g->w, &f->owner, &s, &refusal);
		if (ret->series >= 0 && gather_sums_add(g->sums, ret->series, s.kind, s.merge) < 0)
			ret->series = -ENOMEM;
	}
	if (refusal != GATHER_REFUSALS)
		g->stats.refused[refusal]++;
}

/* Room for what the file holds now; false: the file goes on as it was. */
static bool file_grant(struct gather *g, struct gather_file *f)
{
	const struct share need = {0, f->h.directory_count - f->granted_entries,
				   f->h.cells_used - f->granted_cells};
	struct gather_entry *entries;

	if (!need.entries && !need.cells)
		return true;
	if (!has_share(g, f->uid, &need)) {
		g->stats.refused[GATHER_FILES] += !f->is_oversized;
		f->is_oversized = true;
		return false;
	}
	entries = reallocarray(f->entries, f->h.directory_count + 1u, sizeof(*entries));
	if (!entries)
		return false;
	f->entries = entries;
	f->granted_entries = f->h.directory_count;
	f->granted_cells = f->h.cells_used;
	return true;
}

static int file_find_series(struct gather *g, struct gather_file *f, struct err *e)
{
	uint32_t n = g->new_series;
	struct segment_view v;
	int r;

	if (f->entries_known == f->h.directory_count || !n || !file_grant(g, f))
		return 0;
	r = gather_file_entries(f, &g->entries, &g->heap, &n, &v, e);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++)
		entry_find(g, f, &v, (const struct segment_entry *)g->entries.data + i,
			   &f->entries[f->entries_known + i]);
	f->entries_known += n;
	g->new_series -= n;
	return 0;
}

/* What the writer itself had no room for. */
static void file_find_overflow(struct gather *g, struct gather_file *f)
{
	const char *labels[2][2] = {{"gateway", f->owner.gateway}, {"instance", f->owner.instance}};

	if (f->overflow != UNKNOWN || !f->h.refused)
		return;
	f->overflow = segment_writer_gathered(g->w, &metric_descs[METRIC_ID_APP_OVERFLOW],
					      (const char *const(*)[2])labels,
					      f->owner.instance[0] ? 2 : 1);
	if (f->overflow >= 0 &&
	    gather_sums_add(g->sums, f->overflow, METRIC_COUNTER, METRIC_SUM) < 0)
		f->overflow = -ENOMEM;
}

static void file_damaged(struct gather *g, struct gather_file *f, const struct err *e)
{
	f->is_damaged = true;
	g->stats.refused[GATHER_DAMAGED]++;
	damaged_log(g, f->name, e);
}

static void file_collect(struct gather *g, struct gather_file *f)
{
	struct err e = {0};
	int r;

	/* Asked before it is read: what a dead one holds is final. A fold that was begun is of one
	 * that was dead, whoever holds its lock now. */
	f->is_dead =
		!gather_file_has_writer(f) || f->h.life == segment_writer_header(g->w)->fold_life;
	file_follow(g, f);
	if (f->is_damaged)
		return;
	r = gather_file_refresh(f, &e);
	if (r == 0)
		r = file_find_series(g, f, &e);
	if (r == 0)
		file_find_overflow(g, f);
	else if (r != -ENOMEM)
		file_damaged(g, f, &e);
}

/* ---- the dead ---- */

static int file_fold(struct gather *g, struct gather_file *f)
{
	const uint64_t *cells;
	struct err e = {0};
	struct fold fold;
	uint64_t n = 0;
	int r = gather_file_cells(f, &g->cells, &e);

	if (r == -EBADMSG)
		file_damaged(g, f, &e);
	if (r < 0)
		return r;
	cells = g->cells.data;
	segment_writer_fold_begin(g->w, f->h.life, &fold);
	for (uint32_t i = 0; i < f->entries_known; i++) {
		const struct gather_entry *d = &f->entries[i];
		uint32_t count = d->kind == METRIC_HISTOGRAM ? HIST_CELLS : 1;

		if (!d->is_valid || d->kind == METRIC_GAUGE)
			continue;
		for (uint32_t j = 0; d->series >= 0 && j < count; j++)
			segment_writer_fold(g->w, &fold, n + j, d->series, j, cells[d->cell + j]);
		n += count;
	}
	if (f->overflow >= 0)
		segment_writer_fold(g->w, &fold, n, f->overflow, 0, f->h.refused);
	log_debug("gather", "values of an ended process were kept", "file=%s gateway=%s", f->name,
		  f->owner.gateway);
	name_remove(g, f);
	fold_end(&fold);
	g->stats.folded++;
	return 0;
}

static bool is_complete(const struct gather_file *f)
{
	return f->is_dead && !f->is_damaged && f->entries_known == f->h.directory_count;
}

/* One that was begun by a courier before us comes first: its record must not be overwritten. True:
 * there is none any more. */
static bool begun_fold(struct gather *g)
{
	uint64_t begun = segment_writer_header(g->w)->fold_life;

	for (unsigned int i = 0; begun && i < g->count; i++) {
		struct gather_file *f = &g->files[i];

		if (f->h.life != begun || f->is_damaged)
			continue;
		if (!is_complete(f) || file_fold(g, f) < 0)
			return false;
		file_drop(g, f);
		return true;
	}
	return !begun || !g->is_begun_waited;
}

static void dead_fold(struct gather *g)
{
	bool is_free = begun_fold(g);

	for (unsigned int i = g->count; i-- > 0;) {
		struct gather_file *f = &g->files[i];

		if (f->is_dead && f->is_damaged) {
			name_remove(g, f);
			file_drop(g, f);
		} else if (is_free && is_complete(f) && file_fold(g, f) == 0) {
			file_drop(g, f);
		}
	}
}

/* ---- outside ---- */

int gather_new(const struct gather_options *options, struct segment_writer *w, struct gather **ret)
{
	struct gather *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	g->o = *options;
	g->w = w;
	g->dir = strdup(options->dir);
	g->files = calloc(options->files, sizeof(*g->files));
	g->inodes = calloc(options->files, sizeof(*g->inodes));
	g->damaged_limit.interval_ns = 60 * NS_PER_S;
	g->is_begun_waited = true;
	if (!g->dir || !g->files || !g->inodes || gather_names_new(w, &g->names) < 0 ||
	    gather_sums_new(&g->sums) < 0 || gather_waiting_new(&g->waiting) < 0) {
		gather_free(g);
		return -ENOMEM;
	}
	*ret = g;
	return 0;
}

struct gather *gather_free(struct gather *g)
{
	if (!g)
		return NULL;
	for (unsigned int i = 0; i < g->count; i++)
		gather_file_close(&g->files[i]);
	if (g->stream)
		closedir(g->stream);
	gather_names_free(g->names);
	gather_sums_free(g->sums);
	gather_waiting_free(g->waiting);
	free(g->entries.data);
	free(g->heap.data);
	free(g->cells.data);
	free(g->files);
	free(g->inodes);
	free(g->dir);
	free(g);
	return NULL;
}

/* The directory, which may have been removed and made again. */
static bool stream_open(struct gather *g)
{
	struct stat ours, there;

	if (g->stream && (stat(g->dir, &there) < 0 || fstat(dirfd(g->stream), &ours) < 0 ||
			  ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)) {
		closedir(g->stream);
		g->stream = NULL;
	}
	if (!g->stream)
		g->stream = opendir(g->dir);
	return g->stream;
}

void gather_collect(struct gather *g, uint64_t now_mono_ns)
{
	if (!stream_open(g))
		return;
	g->new_series = GATHER_NEW_SERIES;
	names_scan(g, now_mono_ns);
	/* Another begins each time, so that nobody's new series keep out the others'. */
	g->turn++;
	for (unsigned int i = 0; i < g->count; i++)
		file_collect(g, &g->files[(g->turn + i) % g->count]);
	dead_fold(g);
}

void gather_write(struct gather *g)
{
	if (!g->has_begun)
		segment_writer_gathered_begin(g->w);
	g->has_begun = true;
	gather_sums_begin(g->sums);
	g->stats.files = 0;
	for (unsigned int i = 0; i < g->count; i++) {
		struct gather_file *f = &g->files[i];
		struct err e = {0};
		int r;

		if (f->is_damaged)
			continue;
		r = gather_file_cells(f, &g->cells, &e);
		if (r == 0) {
			g->stats.files++;
			gather_sums_file(g->sums, f, g->cells.data);
		} else if (r == -EBADMSG) {
			file_damaged(g, f, &e);
		}
	}
	gather_sums_write(g->sums, g->w);
}

void gather_stats(const struct gather *g, struct gather_stats *ret)
{
	*ret = g->stats;
}
