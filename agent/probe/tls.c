/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaches the TLS programs to the libraries that the finder understood, once per file for all
 * processes, and clears what they remember of ended ones. The links belong to the probe set. Process:
 * the keeper.
 */
#include "probe/set.h"

#include "base/str.h"
#include "probe/finder.h"
#include "probe/gcfile.h"
#include "probe/gclink.h"
#include "tls_types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TLS_LINKS 8u

/* ---- attaching ---- */

/* Only these; and the executable, which may have the library in it. */
static int rank_of(const char *path, const char *exe)
{
	const char *base = strrchr(path, '/');

	if (str_starts(base ? base + 1 : path, "libssl"))
		return 0;
	return str_equal(path, exe) ? 1 : -1;
}

static uint64_t cookie_of(unsigned int call)
{
	bool is_write = call == FINDER_TLS_WRITE || call == FINDER_TLS_WRITE_EX;
	bool has_count = call == FINDER_TLS_READ_EX || call == FINDER_TLS_WRITE_EX;

	return (is_write ? TLS_COOKIE_WRITE : 0) | (has_count ? TLS_COOKIE_COUNT : 0);
}

static struct gclink at_entry(const char *program, const struct finder_function *f, uint64_t cookie)
{
	return (struct gclink){.program = program,
			       .count = 1,
			       .places[0] = {.offset = f->entry.offset, .cookie = cookie}};
}

static struct gclink at_exits(const char *program, const struct finder_function *f, uint64_t cookie)
{
	struct gclink link = {.program = program, .count = f->exit_count};
	unsigned int i;

	for (i = 0; i < f->exit_count; i++) {
		link.places[i].offset = f->exits[i].offset;
		link.places[i].cookie = cookie;
	}
	return link;
}

/* Exits first: a call whose return is not seen would be taken for one that goes on. */
static int attach_file(struct probe_set *set, const struct gcfile *file,
		       const struct finder_tls *found)
{
	bool is_go = found->kind == FINDER_TLS_GO;
	enum uprobe_how how = (enum uprobe_how)gc_uprobe_how(set);
	unsigned int call, pass;
	struct gclink link;
	int r = 0;

	for (pass = 0; pass < 2; pass++) {
		for (call = 0; call < FINDER_TLS_CALLS && r == 0; call++) {
			const struct finder_function *f = &found->calls[call];

			if (!f->offset || (pass == 0 && !f->exit_count))
				continue;
			if (pass == 0)
				link = at_exits(is_go ? "tls_go_exit" : "tls_exit", f,
						cookie_of(call));
			else if (!f->exit_count)
				link = at_entry(is_go ? "tls_go_handshake" : "tls_handshake", f, 0);
			else
				link = at_entry(is_go ? "tls_go_enter" : "tls_enter", f,
						cookie_of(call));
			r = gclink_attach(set, how, file, &link);
		}
	}
	return r;
}

static const char *kind_name(uint32_t kind)
{
	return kind == FINDER_TLS_OPENSSL ? "openssl" : kind == FINDER_TLS_GO ? "go" : "";
}

/* A process may have two, its own and a library's: all are probed, the first is told of. */
static void attach_each(struct probe_set *set, uint32_t pid, const struct gcfile *files,
			size_t count, struct probe_tls_report *ret)
{
	struct finder_result found;
	size_t i;
	int r;

	for (i = 0; i < count; i++) {
		const struct finder_tls *tls = &found.tls;

		r = finder_run(files[i].fd, pid, &found);
		if (r < 0 || tls->kind == FINDER_TLS_NONE)
			continue;
		r = tls->is_found ? attach_file(set, &files[i], tls) : -ENOTSUP;
		if (ret->state == PROBE_OK || (r < 0 && ret->library[0]))
			continue;
		ret->state = r < 0 ? PROBE_UNAVAILABLE : PROBE_OK;
		str_copy(ret->library, sizeof(ret->library), kind_name(tls->kind));
		str_copy(ret->how, sizeof(ret->how), tls->how);
		str_copy(ret->object, sizeof(ret->object), files[i].path);
		str_copy(ret->why, sizeof(ret->why),
			 r == 0           ? ""
			 : !tls->is_found ? tls->why
					  : err_text(r));
	}
}

int probe_tls_attach(struct probe_set *set, uint32_t pid, struct probe_tls_report *ret)
{
	struct gcfile files[GCFILE_MAX];
	struct err e = {.text = ""};
	size_t count = 0;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->state = PROBE_UNAVAILABLE;
	r = set->has_tls ? gcfile_list_by(pid, rank_of, files, &count, &e)
			 : err_set(&e, -ENOTSUP, "the TLS programs are not loaded");
	if (r < 0) {
		str_copy(ret->why, sizeof(ret->why), e.text);
		return r;
	}
	attach_each(set, pid, files, count, ret);
	gcfile_close(files, count);
	if (ret->library[0])
		return ret->state == PROBE_OK ? 0 : -ENOTSUP;
	str_copy(ret->why, sizeof(ret->why),
		 "no OpenSSL and no crypto/tls in what the process has mapped");
	return -ENOENT;
}

/* ---- forgetting ---- */

/* Keys first: deleting while iterating starts the iteration over. */
static void forget(int map, uint32_t tgid)
{
	struct tls_key key, previous, *keys = NULL, *more;
	const struct tls_key *last = NULL;
	size_t count = 0, room = 0;

	while (bpf_map_get_next_key(map, last, &key) == 0) {
		previous = key;
		last = &previous;
		if (tgid && key.tgid != tgid)
			continue;
		if (count == room) {
			room = room ? room * 2 : 64;
			more = realloc(keys, room * sizeof(*keys));
			if (!more)
				break;
			keys = more;
		}
		keys[count++] = key;
	}
	for (size_t i = 0; i < count; i++)
		bpf_map_delete_elem(map, &keys[i]);
	free(keys);
}

void tls_forget(struct probe_set *set, uint32_t tgid)
{
	if (!set->has_tls)
		return;
	forget(set->tls_ties_fd, tgid);
	forget(set->tls_calls_fd, tgid);
}

void tls_untie(struct probe_set *set, uint32_t tgid, uint64_t object)
{
	struct tls_key key = {.object = object, .tgid = tgid};

	if (object > TLS_UNSEEN)
		bpf_map_delete_elem(set->tls_ties_fd, &key);
}
