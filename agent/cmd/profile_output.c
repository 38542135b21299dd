/* SPDX-License-Identifier: Apache-2.0 */
/* Output of `tidegate profile`. Owns the files. */
#include "cmd/profile_output.h"

#include "base/cleanup.h"
#include "outlet/flame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define FOLDED_OUT_BYTES (256u << 20)

int profile_output_open(struct profile_output *out, struct err *e)
{
	if (!out->path)
		return 0;
	out->fd = open(out->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	out->is_new = out->fd >= 0;
	if (out->fd < 0 && errno == EEXIST)
		out->fd = open(out->path, O_WRONLY | O_CLOEXEC);
	if (out->fd < 0)
		return err_set(e, -errno, "%s cannot be written: %s", out->path, err_text(-errno));
	return 0;
}

void profile_output_close(struct profile_output *out, bool has_failed)
{
	if (out->fd < 0)
		return;
	close(out->fd);
	out->fd = -1;
	if (has_failed && out->is_new)
		unlink(out->path);
}

static int write_whole(int fd, const struct strbuf *text)
{
	size_t at = 0;

	while (at < text->len) {
		ssize_t n = write(fd, text->data + at, text->len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	return 0;
}

static int write_output(const struct profile_output *out, const struct strbuf *text, struct err *e)
{
	int r = 0;

	/* A pipe or device has no length. */
	if (ftruncate(out->fd, 0) < 0 && errno != EINVAL)
		r = -errno;
	if (!r)
		r = write_whole(out->fd, text);
	return r < 0 ? err_set(e, r, "%s cannot be written: %s", out->path, err_text(r)) : 0;
}

static int write_svg(const struct profile_output *svg, const struct profile_text *text,
		     struct err *e)
{
	_cleanup_(strbuf_fini) struct strbuf out;
	struct stacks_stats stats;
	char title[256];
	int r;

	stacks_stats(text->stacks, &stats);
	snprintf(title, sizeof(title), "Lua of %s: %llu samples of %u process%s in %g s",
		 text->gateway, (unsigned long long)stats.samples, text->workers,
		 text->workers > 1 ? "es" : "", text->seconds);
	strbuf_init(&out, FLAME_BYTES);
	r = flame_print(text->stacks, title, &out);
	return r < 0 ? err_set(e, r, "the graph would be larger than 64 MiB")
		     : write_output(svg, &out, e);
}

int profile_write(const struct profile_output *svg, const struct profile_output *folded,
		  const struct profile_text *text, struct err *e)
{
	_cleanup_(strbuf_fini) struct strbuf out;
	int r = svg->fd >= 0 ? write_svg(svg, text, e) : 0;

	if (r < 0 || (svg->fd >= 0 && folded->fd < 0))
		return r;
	strbuf_init(&out, FOLDED_OUT_BYTES);
	r = stacks_print(text->stacks, &out);
	if (r < 0)
		return err_set(e, r, "the folded stacks would be larger than 256 MiB");
	if (folded->fd >= 0)
		return write_output(folded, &out, e);
	r = write_whole(STDOUT_FILENO, &out);
	return r < 0 ? err_set(e, r, "standard output: %s", err_text(r)) : 0;
}
