/* SPDX-License-Identifier: Apache-2.0 */
/* File of leases. Owned by the steward, which alone writes and reads it. */
#include "drain/lease_file.h"

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAGIC 0x3153454c45444954ULL /* "TIDELES1" */

struct file_head {
	uint64_t magic;
	uint32_t lease_bytes; /* the layout, as far as its size tells */
	uint32_t count;
	char boot_id[40];
	uint32_t crc; /* of boot_id and the leases */
	uint32_t reserved;
};

static int read_boot_id(char boot_id[40])
{
	int r = str_read_file("/proc/sys/kernel/random/boot_id", boot_id, 40);

	return r < 0 ? r : 0;
}

static int write_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

static int read_all(int fd, void *data, size_t size)
{
	char *p = data;

	while (size) {
		ssize_t n = read(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EBADMSG;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

static int sync_directory(const char *path)
{
	char copy[PATH_MAX];
	_cleanup_close_ int fd = -1;

	if (!str_copy(copy, sizeof(copy), path))
		return -ENAMETOOLONG;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int lease_file_save(const char *path, struct lease *const *leases, size_t n, struct err *e)
{
	struct file_head head = {.magic = MAGIC, .lease_bytes = sizeof(struct lease)};
	char temporary[PATH_MAX];
	_cleanup_close_ int fd = -1;
	int r;

	if (n > LEASE_FILE_MOST)
		return err_set(e, -E2BIG, "%s: %zu leases, at most %d", path, n, LEASE_FILE_MOST);
	r = snprintf(temporary, sizeof(temporary), "%s.new", path);
	if (r < 0 || (size_t)r >= sizeof(temporary))
		return err_set(e, -ENAMETOOLONG, "%s: the path is too long", path);
	r = read_boot_id(head.boot_id);
	if (r < 0)
		return err_set(e, r, "boot id: %s", err_text(r));
	head.count = (uint32_t)n;
	head.crc = crc32c(0, head.boot_id, sizeof(head.boot_id));
	for (size_t i = 0; i < n; i++)
		head.crc = crc32c(head.crc, leases[i], sizeof(*leases[i]));
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(e, -errno, "%s: %s", temporary, err_text(-errno));
	r = write_all(fd, &head, sizeof(head));
	for (size_t i = 0; !r && i < n; i++)
		r = write_all(fd, leases[i], sizeof(*leases[i]));
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (!r && rename(temporary, path) < 0)
		r = -errno;
	if (!r)
		r = sync_directory(path);
	if (r < 0)
		return err_set(e, r, "%s: %s", path, err_text(r));
	return 0;
}

/* What a sound file cannot hold; the checksum is no secret. */
static bool is_sane(struct lease *l)
{
	l->gateway[sizeof(l->gateway) - 1] = l->instance[sizeof(l->instance) - 1] = '\0';
	l->driver[sizeof(l->driver) - 1] = l->reason[sizeof(l->reason) - 1] = '\0';
	for (uint32_t i = 0; i < LEASE_STEPS_MAX; i++)
		l->steps[i].text[sizeof(l->steps[i].text) - 1] = '\0';
	for (uint32_t i = 0; i < LEASE_HOOKS_MAX; i++) {
		struct lease_hook *h = &l->hooks[i];

		h->name[sizeof(h->name) - 1] = h->point[sizeof(h->point) - 1] = '\0';
		h->error[sizeof(h->error) - 1] = '\0';
	}
	return l->state < LEASE_STATES && l->step_count <= LEASE_STEPS_MAX &&
	       l->hook_count <= LEASE_HOOKS_MAX && l->pid && l->begin_ns <= l->quiet_until_ns &&
	       l->quiet_until_ns <= l->wait_until_ns && l->wait_until_ns <= l->deadline_ns;
}

static int load_leases(int fd, const struct file_head *head, struct lease *ret[LEASE_FILE_MOST])
{
	uint32_t crc = crc32c(0, head->boot_id, sizeof(head->boot_id));
	int r = 0;

	for (uint32_t i = 0; !r && i < head->count; i++) {
		ret[i] = malloc(sizeof(*ret[i]));
		if (!ret[i])
			return -ENOMEM;
		r = read_all(fd, ret[i], sizeof(*ret[i]));
		if (r < 0)
			return r;
		crc = crc32c(crc, ret[i], sizeof(*ret[i]));
	}
	if (crc != head->crc)
		return -EBADMSG;
	for (uint32_t i = 0; i < head->count; i++)
		if (!is_sane(ret[i]))
			return -EBADMSG;
	return 0;
}

int lease_file_load(const char *path, struct lease *ret[LEASE_FILE_MOST], size_t *ret_n,
		    struct err *e)
{
	struct file_head head;
	char boot_id[40] = "";
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int r;

	memset(ret, 0, LEASE_FILE_MOST * sizeof(*ret));
	*ret_n = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : err_set(e, -errno, "%s: %s", path, err_text(-errno));
	r = read_all(fd, &head, sizeof(head));
	if (!r)
		r = read_boot_id(boot_id);
	if (r < 0)
		return err_set(e, r, "%s: %s", path, err_text(r));
	if (head.magic != MAGIC || head.lease_bytes != sizeof(struct lease) ||
	    memcmp(head.boot_id, boot_id, sizeof(boot_id)) != 0)
		return err_set(e, -ESTALE, "%s: of another boot or version, ignored", path);
	if (head.count > LEASE_FILE_MOST)
		return err_set(e, -EBADMSG, "%s: damaged, ignored", path);
	r = load_leases(fd, &head, ret);
	if (r < 0) {
		for (size_t i = 0; i < LEASE_FILE_MOST; i++) {
			free(ret[i]);
			ret[i] = NULL;
		}
		return err_set(e, r, "%s: damaged, ignored", path);
	}
	*ret_n = head.count;
	return 0;
}
