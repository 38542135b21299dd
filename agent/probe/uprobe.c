/* SPDX-License-Identifier: Apache-2.0 */
/* Uprobe links. Process: the keeper. Callers own the links. */
#include "probe/uprobe.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Kernel 6.6, commits 89ae89f53d20 ("bpf: Add multi uprobe link") and 0b779b61f651 ("bpf: Add
 * cookies support for uprobe_multi link"): one link for many places, no CAP_SYS_ADMIN. libbpf 1.1
 * and Debian 12's headers do not know it: numbers from include/uapi/linux/bpf.h of those commits.
 */
#define ATTACH_TRACE_UPROBE_MULTI 48

struct link_create_uprobe_multi {
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t path, offsets, ref_ctr_offsets, cookies;
	uint32_t count, multi_flags, pid, reserved;
};

/* Commit a6ca88b241d5 ("trace_uprobe: support reference counter in fd-based uprobe"), 4.20: the
 * counter's offset is the high half of config, as /sys/bus/event_source/devices/uprobe/format says. */
#define PERF_REF_CTR_SHIFT 32

_Static_assert(offsetof(struct link_create_uprobe_multi, path) == 16, "uapi layout");
_Static_assert(offsetof(struct link_create_uprobe_multi, pid) == 56, "uapi layout");

const char *uprobe_how_name(enum uprobe_how how)
{
	return how == UPROBE_MULTI ? "uprobe_multi" : how == UPROBE_PERF ? "perf" : "";
}

unsigned int uprobe_attach_type(enum uprobe_how how)
{
	return how == UPROBE_MULTI ? ATTACH_TRACE_UPROBE_MULTI : 0;
}

static int attach_multi(int program_fd, const char *path, const struct uprobe_place *places,
			size_t count, struct uprobe_links *ret)
{
	uint64_t offsets[UPROBE_PLACES_MAX], cookies[UPROBE_PLACES_MAX];
	uint64_t semaphores[UPROBE_PLACES_MAX];
	bool has_semaphore = false;
	struct link_create_uprobe_multi attr = {
		.prog_fd = (uint32_t)program_fd,
		.attach_type = ATTACH_TRACE_UPROBE_MULTI,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)offsets,
		.cookies = (uintptr_t)cookies,
		.count = (uint32_t)count,
	};
	size_t i;
	int fd;

	for (i = 0; i < count; i++) {
		offsets[i] = places[i].offset;
		cookies[i] = places[i].cookie;
		semaphores[i] = places[i].semaphore;
		has_semaphore |= semaphores[i] != 0;
	}
	if (has_semaphore)
		attr.ref_ctr_offsets = (uintptr_t)semaphores;
	fd = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
	if (fd < 0)
		return -errno;
	ret->fds[0] = fd;
	ret->count = 1;
	return 0;
}

/* The type number of perf's uprobe source; sysfs gives it, no tracefs is needed. */
static int perf_type(uint32_t *ret)
{
	uint64_t type;
	char text[32];
	int r;

	r = str_read_file("/sys/bus/event_source/devices/uprobe/type", text, sizeof(text));
	if (r < 0)
		return r;
	r = str_to_u64(text, &type);
	if (r < 0)
		return r;
	*ret = (uint32_t)type;
	return 0;
}

static int attach_perf_one(uint32_t type, int program_fd, const char *path,
			   const struct uprobe_place *place)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .perf_event.bpf_cookie = place->cookie);
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = type,
		.uprobe_path = (uintptr_t)path,
		.probe_offset = place->offset,
		.config = place->semaphore << PERF_REF_CTR_SHIFT,
	};
	_cleanup_close_ int event = -1;
	int fd;

	/* All processes; which CPU is named does not matter to an attached program. */
	event = (int)syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (event < 0)
		return -errno;
	fd = bpf_link_create(program_fd, event, BPF_PERF_EVENT, &opts);
	return fd < 0 ? -errno : fd;
}

static int attach_perf(int program_fd, const char *path, const struct uprobe_place *places,
		       size_t count, struct uprobe_links *ret)
{
	struct uprobe_links links = {0};
	uint32_t type;
	size_t i;
	int r;

	r = perf_type(&type);
	if (r < 0)
		return r;
	for (i = 0; i < count; i++) {
		r = attach_perf_one(type, program_fd, path, &places[i]);
		if (r < 0) {
			uprobe_detach(&links);
			return r;
		}
		links.fds[links.count++] = r;
	}
	*ret = links;
	return 0;
}

int uprobe_attach(enum uprobe_how how, int program_fd, int file_fd,
		  const struct uprobe_place *places, size_t count, struct uprobe_links *ret)
{
	char path[64];

	if (count == 0 || count > UPROBE_PLACES_MAX)
		return -EINVAL;
	/* The kernel follows this to the very inode that was examined, whatever the name says now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file_fd);
	if (how == UPROBE_MULTI)
		return attach_multi(program_fd, path, places, count, ret);
	return how == UPROBE_PERF ? attach_perf(program_fd, path, places, count, ret) : -ENOTSUP;
}

void uprobe_detach(struct uprobe_links *links)
{
	unsigned int i;

	for (i = 0; i < links->count; i++)
		close(links->fds[i]);
	links->count = 0;
}

static int try_how(enum uprobe_how how, uint64_t own_offset)
{
	static const struct bpf_insn nothing[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = uprobe_attach_type(how));
	const struct uprobe_place place = {.offset = own_offset};
	_cleanup_close_ int program = -1, self = -1;
	struct uprobe_links links = {0};
	int r;

	self = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (self < 0)
		return -errno;
	program = bpf_prog_load(BPF_PROG_TYPE_KPROBE, "tidegate_try", "GPL", nothing,
				ARRAY_LEN(nothing), &opts);
	if (program < 0)
		return -errno;
	r = uprobe_attach(how, program, self, &place, 1, &links);
	uprobe_detach(&links);
	return r;
}

int uprobe_choose(const char *tier, uint64_t own_offset, enum uprobe_how *ret, struct err *e)
{
	int multi = -ENOTSUP, perf = -ENOTSUP;

	if (str_equal(tier, "auto") || str_equal(tier, "uprobe_multi"))
		multi = try_how(UPROBE_MULTI, own_offset);
	if (multi == 0) {
		*ret = UPROBE_MULTI;
		return 0;
	}
	if (str_equal(tier, "auto") || str_equal(tier, "perf"))
		perf = try_how(UPROBE_PERF, own_offset);
	if (perf == 0) {
		*ret = UPROBE_PERF;
		return 0;
	}
	return err_set(
		e, -ENOTSUP,
		"uprobe_multi: %s (needs kernel 6.6 and CAP_BPF, CAP_PERFMON); perf uprobes: "
		"%s (need CAP_PERFMON, and CAP_SYS_ADMIN on kernels since 2025)",
		err_text(multi), err_text(perf));
}
