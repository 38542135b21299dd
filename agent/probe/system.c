/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says, parsed; sums over processes that come and go. Runs in the keeper. */
#include "probe/system.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- parsers ---- */

int system_parse_stat(const char *text, struct system_stat *ret)
{
	/* The name may hold anything, parentheses too. */
	const char *p = strrchr(text, ')');
	uint64_t user, system, reaped_user, reaped_system, start;
	unsigned int threads;
	int parent;

	if (!p ||
	    sscanf(p + 1,
		   " %*c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64 " %" SCNu64
		   " %" SCNu64 " %*s %*s %u %*s %" SCNu64,
		   &parent, &user, &system, &reaped_user, &reaped_system, &threads, &start) != 7)
		return -EINVAL;
	*ret = (struct system_stat){
		.parent = parent,
		.own_ticks = user + system,
		.reaped_ticks = reaped_user + reaped_system,
		.start_ticks = start,
		.threads = threads,
	};
	return 0;
}

int system_parse_schedstat(const char *text, uint64_t *ret_run_ns, uint64_t *ret_wait_ns)
{
	uint64_t run, wait;

	if (sscanf(text, "%" SCNu64 " %" SCNu64, &run, &wait) != 2)
		return -EINVAL;
	*ret_run_ns = run;
	*ret_wait_ns = wait;
	return 0;
}

int system_parse_io(const char *text, uint64_t *ret_read, uint64_t *ret_written)
{
	const char *r = strstr(text, "\nread_bytes: "), *w = strstr(text, "\nwrite_bytes: ");
	uint64_t read, written;

	if (!r || !w || sscanf(r, " read_bytes: %" SCNu64, &read) != 1 ||
	    sscanf(w, " write_bytes: %" SCNu64, &written) != 1)
		return -EINVAL;
	*ret_read = read;
	*ret_written = written;
	return 0;
}

int system_parse_statm(const char *text, uint64_t *ret_pages)
{
	uint64_t resident, shared;

	if (sscanf(text, "%*s %" SCNu64 " %" SCNu64, &resident, &shared) != 2)
		return -EINVAL;
	*ret_pages = resident > shared ? resident - shared : 0;
	return 0;
}

int system_parse_pressure(const char *text, const char *kind, uint64_t *ret_ns)
{
	size_t n = strlen(kind);
	uint64_t us;

	for (const char *line = text; line; line = strchr(line, '\n')) {
		const char *total;

		line += *line == '\n';
		if (strncmp(line, kind, n) != 0 || line[n] != ' ')
			continue;
		total = strstr(line, " total=");
		if (!total || sscanf(total, " total=%" SCNu64, &us) != 1)
			return -EINVAL;
		*ret_ns = us * 1000;
		return 0;
	}
	return -ENODATA;
}

static struct system_interface *find_interface(struct system_net *n, const char *name)
{
	for (size_t i = 0; i < n->count; i++)
		if (str_equal(n->rows[i].name, name))
			return &n->rows[i];
	return NULL;
}

static void update_interface(struct system_net *n, const struct system_interface *now,
			     uint64_t *received, uint64_t *sent)
{
	struct system_interface *row = find_interface(n, now->name);
	/* Made after we began: it counts from 0. A driver that reset its counters as well. */
	struct system_interface before = {0};

	if (!row) {
		if (n->count == SYSTEM_INTERFACES) {
			n->refused++;
			return;
		}
		row = &n->rows[n->count++];
		if (!n->has_read)
			before = *now;
	} else {
		before = *row;
	}
	*received +=
		now->received >= before.received ? now->received - before.received : now->received;
	*sent += now->sent >= before.sent ? now->sent - before.sent : now->sent;
	*row = *now;
	row->is_seen = true;
}

int system_net_update(struct system_net *n, const char *text, uint64_t *ret_received,
		      uint64_t *ret_sent)
{
	const char *line = strchr(text, '\n'); /* two lines of headings */
	uint64_t received = 0, sent = 0;
	size_t kept = 0;

	line = line ? strchr(line + 1, '\n') : NULL;
	if (!line)
		return -EINVAL;
	for (size_t i = 0; i < n->count; i++)
		n->rows[i].is_seen = false;
	n->refused = 0;
	for (; line; line = strchr(line, '\n')) {
		struct system_interface now = {0};

		line++;
		if (sscanf(line, " %15[^:]: %" SCNu64 " %*s %*s %*s %*s %*s %*s %*s %" SCNu64,
			   now.name, &now.received, &now.sent) == 3 &&
		    !str_equal(now.name, "lo"))
			update_interface(n, &now, &received, &sent);
	}
	for (size_t i = 0; i < n->count; i++)
		if (n->rows[i].is_seen)
			n->rows[kept++] = n->rows[i];
	n->count = kept;
	n->has_read = true;
	*ret_received = received;
	*ret_sent = sent;
	return 0;
}

uint64_t system_meter_update(struct system_meter *m, uint64_t value)
{
	uint64_t grown = m->has_last && value > m->last ? value - m->last : 0;

	m->last = value;
	m->has_last = true;
	return grown;
}

/* ---- sums ---- */

void system_sum_init(struct system_sum *s, size_t limit)
{
	*s = (struct system_sum){.limit = limit};
}

void system_sum_fini(struct system_sum *s)
{
	free(s->rows);
	*s = (struct system_sum){0};
}

void system_sum_begin(struct system_sum *s)
{
	for (size_t i = 0; i < s->count; i++)
		s->rows[i].is_seen = false;
	s->cursor = s->refused = 0;
	s->grown = s->handed = 0;
}

/* They come in the same order each time: look where the last one was found. */
static struct system_row *find_row(struct system_sum *s, uint64_t id)
{
	for (size_t n = 0; n < s->count; n++) {
		size_t i = (s->cursor + n) % s->count;

		if (s->rows[i].id == id) {
			s->cursor = i + 1;
			return &s->rows[i];
		}
	}
	return NULL;
}

static struct system_row *append_row(struct system_sum *s)
{
	if (s->count == s->limit)
		return NULL;
	if (s->count == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 16;
		struct system_row *rows = realloc(s->rows, cap * sizeof(*rows));

		if (!rows)
			return NULL;
		s->rows = rows;
		s->cap = cap;
	}
	return &s->rows[s->count++];
}

void system_sum_add(struct system_sum *s, uint64_t id, uint64_t value, uint64_t reaped, bool is_old)
{
	struct system_row *row = find_row(s, id);

	if (!row) {
		row = append_row(s);
		if (!row) {
			s->refused++;
			return;
		}
		*row = (struct system_row){.id = id};
		if (is_old)
			*row = (struct system_row){.id = id, .value = value, .reaped = reaped};
	}
	if (value > row->value) {
		s->grown += value - row->value;
		row->value = value;
	}
	if (reaped > row->reaped) {
		s->handed += reaped - row->reaped;
		row->reaped = reaped;
	}
	row->is_seen = true;
}

uint64_t system_sum_end(struct system_sum *s)
{
	size_t kept = 0;
	uint64_t known;

	for (size_t i = 0; i < s->count; i++) {
		if (s->rows[i].is_seen)
			s->rows[kept++] = s->rows[i];
		else
			s->owed += s->rows[i].value;
	}
	s->count = kept;
	/* What a parent was handed of a child that we knew was counted then, as the child's. */
	known = s->handed < s->owed ? s->handed : s->owed;
	if (known > s->grown)
		known = s->grown;
	s->owed = kept ? s->owed - known : 0;
	return s->grown - known;
}

/* ---- readers ---- */

/* One read gives a small file whole; the kernel gives larger ones a page at a time. */
#define ONE_READ_BYTES 2048

static int read_at_start(int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = pread(fd, buf + len, size - len, (off_t)len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		if (len == size)
			return -E2BIG;
	} while (n && len > ONE_READ_BYTES);
	if (len && buf[len - 1] == '\n')
		len--;
	buf[len] = '\0';
	return (int)len;
}

int system_file_read(struct system_file *f, struct system_budget *budget, const char *path,
		     char *buf, size_t size)
{
	int fd, r;

	if (!f->held) {
		if (budget->held >= budget->limit)
			return str_read_file(path, buf, size);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		f->held = fd + 1;
		budget->held++;
	}
	r = read_at_start(f->held - 1, buf, size);
	if (r < 0)
		system_file_close(f, budget);
	return r;
}

void system_file_close(struct system_file *f, struct system_budget *budget)
{
	if (!f->held)
		return;
	close(f->held - 1);
	f->held = 0;
	budget->held--;
}

int system_count_fds(pid_t pid, uint64_t *ret)
{
	char path[64];
	_cleanup_dir_ DIR *dir = NULL;
	const struct dirent *entry;
	struct stat st;
	uint64_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	/* Linux 6.2 and later (f1f1f2569901): the directory's size is the count. */
	if (stat(path, &st) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (st.st_size > 0) {
		*ret = (uint64_t)st.st_size;
		return 0;
	}
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	*ret = n;
	return 0;
}

int system_net_namespace(pid_t pid, uint64_t *ret)
{
	struct stat ours, theirs;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	if (stat(path, &theirs) < 0 || stat("/proc/self/ns/net", &ours) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	*ret = ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev
		       ? 0
		       : (uint64_t)theirs.st_ino;
	return 0;
}
