/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of gateway processes, summed into app.seg. Owns a reader and a descriptor per file; the
 * descriptor asks for the lock that the writer holds while it lives. In the courier, one thread.
 */
#include "segment/gather.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "segment/fold.h"
#include "segment/gather_series.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 64
#define UNKNOWN        INT_MIN
#define LEFT_NS        (60 * NS_PER_S) /* then an unlocked unfinished file is rubbish */

struct file {
	char name[NAME_MAX_BYTES];
	struct segment_reader *reader;
	int fd;
	uid_t uid;
	uint64_t seen_ns;
	bool is_here, is_dead, is_owned, is_damaged;
	struct gather_owner owner;
	int *series; /* of each entry: index in app.seg, negative: refused */
	unsigned int series_count;
	int overflow; /* series that counts what the writer itself refused */
};

/* What a series of app.seg is told in this tick. */
struct sum {
	uint64_t at; /* in cells */
	uint8_t kind, merge;
	bool is_known, is_told;
	uint64_t newest_ns; /* of METRIC_LAST */
};

struct gather {
	struct gather_options o;
	char *dir;
	struct segment_writer *w;
	struct gather_names *names;
	struct file *files; /* o.files of them */
	unsigned int count;
	struct sum *sums; /* by index in app.seg */
	uint32_t sums_count;
	uint64_t *cells;
	uint64_t cells_used, cells_size;
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

static void file_close(struct file *f)
{
	segment_reader_close(f->reader);
	if (f->fd >= 0)
		close(f->fd);
	free(f->series);
	*f = (struct file){.fd = -1};
}

static void path_of(const struct gather *g, const char *name, char buf[PATH_MAX])
{
	snprintf(buf, PATH_MAX, "%s/%s", g->dir, name);
}

static void file_remove(struct gather *g, struct file *f)
{
	char path[PATH_MAX];

	path_of(g, f->name, path);
	if (unlink(path) < 0 && errno != ENOENT)
		log_warning("gather", "cannot remove the file of a process that ended",
			    "path=%s error=\"%s\"", path, err_text(-errno));
	file_close(f);
	*f = g->files[--g->count];
	g->files[g->count] = (struct file){.fd = -1};
}

static struct file *file_find(struct gather *g, const char *name)
{
	for (unsigned int i = 0; i < g->count; i++)
		if (str_equal(g->files[i].name, name))
			return &g->files[i];
	return NULL;
}

static void file_open(struct gather *g, const char *name, uint64_t now)
{
	struct file *f;
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (g->count == g->o.files) {
		g->stats.refused[GATHER_FILES]++;
		return;
	}
	path_of(g, name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	f = &g->files[g->count++];
	*f = (struct file){.fd = fd, .uid = st.st_uid, .seen_ns = now, .overflow = UNKNOWN};
	str_copy(f->name, sizeof(f->name), name);
	f->is_here = true;
	f->is_damaged = st.st_size < 0 || (uint64_t)st.st_size > g->o.bytes ||
			segment_reader_open(path, &f->reader, NULL) < 0;
	g->stats.refused[GATHER_DAMAGED] += f->is_damaged;
}

/* A writer that died before its file had its name. */
static void unfinished_remove(const struct gather *g, const char *name)
{
	struct stat st;
	char path[PATH_MAX];
	int fd;

	path_of(g, name, path);
	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
	    clock_real_ns() < (uint64_t)st.st_mtim.tv_sec * NS_PER_S + LEFT_NS)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlink(path);
	close(fd);
}

static void files_scan(struct gather *g, uint64_t now)
{
	_cleanup_dir_ DIR *dir = opendir(g->dir);
	const struct dirent *d;

	for (unsigned int i = 0; i < g->count; i++)
		g->files[i].is_here = false;
	while (dir && (d = readdir(dir))) {
		struct file *f;

		if (strlen(d->d_name) >= NAME_MAX_BYTES || !str_ends(d->d_name, ".seg"))
			continue;
		if (d->d_name[0] == '.') {
			unfinished_remove(g, d->d_name);
			continue;
		}
		f = file_find(g, d->d_name);
		if (f)
			f->is_here = true;
		else
			file_open(g, d->d_name, now);
	}
}

/* Whoever holds the lock lives. It is given back at once. */
static bool file_has_writer(const struct file *f)
{
	if (flock(f->fd, LOCK_EX | LOCK_NB) < 0)
		return true;
	flock(f->fd, LOCK_UN);
	return false;
}

static bool file_own(struct gather *g, struct file *f)
{
	const struct segment_header *h = segment_reader_header(f->reader);
	char name[SEGMENT_NAME_BYTES];
	struct gather_writer w = {f->uid, h->writer_pid, h->writer_parent, name};

	if (f->is_owned)
		return true;
	memcpy(name, h->gateway, sizeof(name));
	name[sizeof(name) - 1] = '\0';
	f->is_owned = g->o.owner(g->o.data, &w, &f->owner);
	return f->is_owned;
}

static void file_damaged(struct gather *g, struct file *f, const struct err *e)
{
	uint64_t swallowed;

	f->is_damaged = true;
	g->stats.refused[GATHER_DAMAGED]++;
	if (log_allowed(&g->damaged_limit, clock_mono_ns(), &swallowed))
		log_warning("gather", "a file of a process is left out", "file=%s error=\"%s\"",
			    f->name, e->text);
}

/* Copies what the file holds. False: nothing of it is told in this tick. */
static bool file_read(struct gather *g, struct file *f)
{
	struct err e = {0};
	int r;

	if (f->is_damaged)
		return false;
	r = segment_reader_refresh(f->reader, &e);
	/* One that ended in the middle of a change, which a writer of processes never makes. */
	if (r == -ENOENT || (r == -EAGAIN && !f->is_dead) || r == -ENOMEM)
		return false;
	if (r == 0 && segment_reader_header(f->reader)->kind != SEGMENT_PROCESS)
		r = err_set(&e, -EBADMSG, "segment of kind %u",
			    segment_reader_header(f->reader)->kind);
	if (r < 0)
		file_damaged(g, f, &e);
	return r == 0;
}

/* ---- series ---- */

static int sums_grow(struct gather *g, uint32_t count)
{
	struct sum *sums;

	if (count <= g->sums_count)
		return 0;
	count = count < 256 ? 256 : count * 2;
	sums = reallocarray(g->sums, count, sizeof(*sums));
	if (!sums)
		return -ENOMEM;
	memset(sums + g->sums_count, 0, (count - g->sums_count) * sizeof(*sums));
	g->sums = sums;
	g->sums_count = count;
	return 0;
}

static int sum_add(struct gather *g, int index, enum metric_kind kind, enum metric_merge merge)
{
	uint64_t need = kind == METRIC_HISTOGRAM ? HIST_CELLS : 1, size;
	uint64_t *cells;
	struct sum *sum;

	if (sums_grow(g, (uint32_t)index + 1) < 0)
		return -ENOMEM;
	sum = &g->sums[index];
	if (sum->is_known)
		return 0;
	if (g->cells_used + need > g->cells_size) {
		size = g->cells_size ? g->cells_size * 2 : 1024;
		size = size < g->cells_used + need ? g->cells_used + need : size;
		cells = reallocarray(g->cells, size, sizeof(*cells));
		if (!cells)
			return -ENOMEM;
		g->cells = cells;
		g->cells_size = size;
	}
	*sum = (struct sum){g->cells_used, (uint8_t)kind, (uint8_t)merge, true, false, 0};
	g->cells_used += need;
	return 0;
}

static void file_find_series(struct gather *g, struct file *f)
{
	unsigned int count = segment_reader_series_count(f->reader);
	struct segment_series s;
	int *series;

	if (count <= f->series_count)
		return;
	series = reallocarray(f->series, count, sizeof(*series));
	if (!series)
		return;
	f->series = series;
	for (unsigned int i = f->series_count; i < count; i++) {
		enum gather_refusal refusal = GATHER_DAMAGED;

		series[i] = -EINVAL;
		if (segment_reader_series(f->reader, i, &s))
			series[i] = gather_series_find(g->names, g->w, &f->owner, &s, &refusal);
		if (refusal != GATHER_REFUSALS)
			g->stats.refused[refusal]++;
		if (series[i] >= 0 && sum_add(g, series[i], s.kind, s.merge) < 0)
			series[i] = -ENOMEM;
	}
	f->series_count = count;
}

/* What the writer itself had no room for. */
static void file_find_overflow(struct gather *g, struct file *f)
{
	const char *labels[2][2] = {{"gateway", f->owner.gateway}, {"instance", f->owner.instance}};

	if (f->overflow != UNKNOWN || !segment_reader_header(f->reader)->refused)
		return;
	f->overflow = segment_writer_gathered(g->w, &metric_descs[METRIC_ID_APP_OVERFLOW],
					      (const char *const(*)[2])labels,
					      f->owner.instance[0] ? 2 : 1);
	if (f->overflow >= 0 && sum_add(g, f->overflow, METRIC_COUNTER, METRIC_SUM) < 0)
		f->overflow = -ENOMEM;
}

/* ---- the dead ---- */

static void file_fold(struct gather *g, struct file *f)
{
	uint64_t life = segment_reader_header(f->reader)->life, n = 0;
	struct segment_series s;
	struct fold fold;

	segment_writer_fold_begin(g->w, life, &fold);
	for (unsigned int i = 0; i < f->series_count; i++) {
		unsigned int cells;

		if (!segment_reader_series(f->reader, i, &s) || s.kind == METRIC_GAUGE)
			continue;
		cells = s.kind == METRIC_HISTOGRAM ? HIST_CELLS : 1;
		for (unsigned int j = 0; f->series[i] >= 0 && j < cells; j++)
			segment_writer_fold(g->w, &fold, n + j, f->series[i], j,
					    s.cells ? s.cells[j] : s.counter);
		n += cells;
	}
	if (f->overflow >= 0)
		segment_writer_fold(g->w, &fold, n, f->overflow, 0,
				    segment_reader_header(f->reader)->refused);
	log_debug("gather", "values of an ended process were kept", "file=%s gateway=%s", f->name,
		  f->owner.gateway);
	file_remove(g, f);
	fold_end(&fold);
	g->stats.folded++;
}

/* One that was begun by a courier before us comes first: its record must not be overwritten. */
static void dead_fold(struct gather *g)
{
	uint64_t begun = segment_writer_header(g->w)->fold_life;

	for (unsigned int pass = begun ? 0 : 1; pass < 2; pass++) {
		for (unsigned int i = g->count; i-- > 0;) {
			struct file *f = &g->files[i];

			if (!f->is_dead || !f->is_owned || f->is_damaged || !f->reader)
				continue;
			if (pass == 1 || segment_reader_header(f->reader)->life == begun)
				file_fold(g, f);
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
	g->damaged_limit.interval_ns = 60 * NS_PER_S;
	if (!g->dir || !g->files || gather_names_new(&g->names) < 0) {
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
		file_close(&g->files[i]);
	gather_names_free(g->names);
	free(g->files);
	free(g->sums);
	free(g->cells);
	free(g->dir);
	free(g);
	return NULL;
}

static void file_collect(struct gather *g, struct file *f, uint64_t now)
{
	/* Asked before it is read: what a dead one holds is final. */
	f->is_dead = !file_has_writer(f);
	if (file_read(g, f) && file_own(g, f)) {
		file_find_series(g, f);
		file_find_overflow(g, f);
	}
	if (f->is_dead && f->is_damaged) {
		file_remove(g, f);
	} else if (f->is_dead && !f->is_owned && now - f->seen_ns > GATHER_OWNER_NS) {
		g->stats.refused[GATHER_OWNER]++;
		file_remove(g, f);
	}
}

void gather_collect(struct gather *g, uint64_t now_mono_ns)
{
	files_scan(g, now_mono_ns);
	for (unsigned int i = g->count; i-- > 0;) {
		struct file *f = &g->files[i];

		if (!f->is_here) { /* somebody removed it */
			file_close(f);
			*f = g->files[--g->count];
			g->files[g->count] = (struct file){.fd = -1};
			continue;
		}
		file_collect(g, f, now_mono_ns);
	}
	dead_fold(g);
}

static void sum_tell(struct gather *g, const struct file *f, int index,
		     const struct segment_series *s)
{
	uint64_t written = segment_reader_header(f->reader)->heartbeat_ns;
	struct sum *sum = &g->sums[index];
	uint64_t *to = g->cells + sum->at;
	double value;

	if (s->kind == METRIC_COUNTER) {
		*to += s->counter;
	} else if (s->kind == METRIC_HISTOGRAM) {
		for (unsigned int j = 0; j < HIST_CELLS; j++)
			to[j] += s->cells[j];
	} else {
		memcpy(&value, to, sizeof(value));
		if (!sum->is_told || (sum->merge == METRIC_MAX && s->gauge > value) ||
		    (sum->merge == METRIC_LAST && written > sum->newest_ns)) {
			value = s->gauge;
			sum->newest_ns = written;
		} else if (sum->merge == METRIC_SUM) {
			value += s->gauge;
		}
		memcpy(to, &value, sizeof(value));
	}
	sum->is_told = true;
}

static void file_tell(struct gather *g, const struct file *f)
{
	struct segment_series s;

	for (unsigned int i = 0; i < f->series_count; i++)
		if (f->series[i] >= 0 && segment_reader_series(f->reader, i, &s) &&
		    (s.is_present || s.kind != METRIC_GAUGE))
			sum_tell(g, f, f->series[i], &s);
	if (f->overflow >= 0) {
		g->cells[g->sums[f->overflow].at] += segment_reader_header(f->reader)->refused;
		g->sums[f->overflow].is_told = true;
	}
}

void gather_write(struct gather *g)
{
	double value;

	if (!g->has_begun)
		segment_writer_gathered_begin(g->w);
	g->has_begun = true;
	memset(g->cells, 0, g->cells_used * sizeof(*g->cells));
	for (uint32_t i = 0; i < g->sums_count; i++)
		g->sums[i].is_told = false;
	g->stats.files = 0;
	for (unsigned int i = 0; i < g->count; i++) {
		if (!g->files[i].is_owned || g->files[i].is_damaged)
			continue;
		g->stats.files++;
		file_tell(g, &g->files[i]);
	}
	for (uint32_t i = 0; i < g->sums_count; i++) {
		const struct sum *sum = &g->sums[i];

		if (!sum->is_known)
			continue;
		if (sum->kind == METRIC_COUNTER) {
			segment_writer_counter(g->w, (int)i, g->cells[sum->at]);
		} else if (sum->kind == METRIC_HISTOGRAM) {
			segment_writer_histogram(g->w, (int)i, g->cells + sum->at);
		} else if (sum->is_told) {
			memcpy(&value, g->cells + sum->at, sizeof(value));
			segment_writer_gauge(g->w, (int)i, value);
		} else {
			segment_writer_absent(g->w, (int)i);
		}
	}
}

void gather_stats(const struct gather *g, struct gather_stats *ret)
{
	*ret = g->stats;
}
