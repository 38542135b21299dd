/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs are told before they load, as read-only data: histogram table, errors, offsets of
 * kernel fields.
 */
#include "probe/set.h"

#include "base/str.h"
#include "config/config.h"
#include "probe/skel.h"

#include <bpf/btf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define INIT_PID_NAMESPACE 0xEFFFFFFCu /* PROC_PID_INIT_INO */

struct tidegate_bpf *layout_open(void)
{
	return tidegate_bpf__open();
}

static int32_t struct_of(const struct btf *btf, const char *name)
{
	return btf__find_by_name_kind(btf, name, BTF_KIND_STRUCT);
}

/* Byte offset of a member, also inside anonymous structs and unions; -1: none. */
static int64_t member_offset(const struct btf *btf, int32_t id, const char *name,
			     unsigned int depth)
{
	const struct btf_type *t = id > 0 ? btf__type_by_id(btf, (uint32_t)id) : NULL;
	const struct btf_member *m;

	if (!t || !btf_is_composite(t) || depth > 4)
		return -1;
	m = btf_members(t);
	for (unsigned int i = 0; i < btf_vlen(t); i++, m++) {
		const char *member = btf__name_by_offset(btf, m->name_off);
		int64_t offset = btf_member_bit_offset(t, i) / 8, inner;

		if (str_equal(member, name))
			return offset;
		if (member && member[0])
			continue;
		inner = member_offset(btf, btf__resolve_type(btf, m->type), name, depth + 1);
		if (inner >= 0)
			return offset + inner;
	}
	return -1;
}

static void offsets_fill(struct offsets *o, const struct btf *btf)
{
	const struct {
		const char *type, *member;
		uint32_t *to;
	} rows[] = {
		{"task_struct", "pid", &o->task_pid},
		{"task_struct", "tgid", &o->task_tgid},
		{"task_struct", "group_leader", &o->task_leader},
		{"task_struct", "thread_pid", &o->task_thread_pid},
		{"task_struct", "files", &o->task_files},
		{"pid", "level", &o->pid_level},
		{"pid", "numbers", &o->pid_numbers},
		{"upid", "nr", &o->upid_number},
		{"upid", "ns", &o->upid_ns},
		{"files_struct", "fdt", &o->files_fdt},
		{"fdtable", "fd", &o->fdt_fd},
		{"file", "private_data", &o->file_private},
		{"socket", "sk", &o->socket_sk},
		{"sock_common", "skc_family", &o->sock_family},
		{"sock_common", "skc_state", &o->sock_state},
		{"sock", "sk_shutdown", &o->sock_shutdown},
		{"sock", "sk_type", &o->sock_type},
		{"sock", "sk_err", &o->sock_error},
	};
	int64_t size, ns, inum;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t at = member_offset(btf, struct_of(btf, rows[i].type), rows[i].member, 0);

		if (at < 0)
			return;
		*rows[i].to = (uint32_t)at;
	}
	size = btf__resolve_size(btf, (uint32_t)struct_of(btf, "upid"));
	ns = member_offset(btf, struct_of(btf, "pid_namespace"), "ns", 0);
	inum = member_offset(btf, struct_of(btf, "ns_common"), "inum", 0);
	if (size <= 0 || ns < 0 || inum < 0)
		return;
	o->upid_size = (uint32_t)size;
	o->ns_inum = (uint32_t)(ns + inum);
	o->is_known = 1;
}

int layout_fill(struct tidegate_bpf *skel, const struct probe_options *options,
		unsigned int gateways, bool *ret_has_btf)
{
	static const uint8_t errnos[] = {
#define X(name, number) [number] = ERRNO_CELL_##name,
		ERRNO_ROWS(X)
#undef X
	};
	static const uint16_t numbers[SYSCALL_COUNT] = {
#define X(name, number, ...) [SYSCALL_##name] = number,
		SYSCALL_ROWS(X)
#undef X
	};
	const uint64_t *thresholds = histogram_thresholds();
	const uint16_t *starts = histogram_starts();
	struct btf *btf = btf__load_vmlinux_btf();
	struct offsets offsets = {0};
	uint64_t methods[2][16] = {{0}};
	struct stat st;
	int r;

	for (size_t i = 0; i < ARRAY_LEN(skel->rodata->hist_thresholds); i++)
		skel->rodata->hist_thresholds[i] = i < HIST_THRESHOLDS ? thresholds[i] : INT64_MAX;
	for (size_t i = 0; i < HIST_STARTS; i++)
		skel->rodata->hist_starts[i] = starts[i];
	for (uint8_t i = 0; i < 64; i++)
		skel->rodata->log2_cells[(1ULL << i) * LOG2_FACTOR >> 58] = i;
	for (size_t i = 0; i < ARRAY_LEN(errnos); i++)
		skel->rodata->errno_cells[i] = errnos[i];
	for (unsigned int i = 0; i < SYSCALL_COUNT; i++)
		skel->rodata->syscall_ids[numbers[i]] = (uint8_t)(i + 1);
	skel->rodata->syscall_ids[SYSCALL_LISTEN_NUMBER] = SYSCALL_LISTENS;
	patterns_methods(methods);
	memcpy(&skel->rodata->method_words, methods, sizeof(methods));
	if (stat("/proc/self/ns/pid", &st) == 0 && st.st_ino != INIT_PID_NAMESPACE) {
		skel->rodata->pidns_dev = st.st_dev;
		skel->rodata->pidns_ino = st.st_ino;
	}
	*ret_has_btf = btf != NULL;
	if (btf)
		offsets_fill(&offsets, btf);
	btf__free(btf);
	memcpy(&skel->rodata->offsets, &offsets, sizeof(offsets));
	r = bpf_map__set_max_entries(skel->maps.slots, options->threads);
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.retired, gateways * 2);
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.connections, options->connections);
	skel->rodata->upstream_pool = options->upstreams;
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.upstreams, options->upstreams + gateways);
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.upstream_indices,
					     options->upstreams ? options->upstreams : 1);
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.http2_connections, options->connections);
	r = bpf_map__set_max_entries(skel->maps.tls_ties, options->connections);
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.tls_calls, 2 * options->connections);
	return r;
}

static uint64_t hash_add(uint64_t h, const void *data, size_t size)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < size; i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h;
}

uint64_t layout_hash(const struct probe_options *options, unsigned int gateways)
{
	struct {
		uint64_t ino, threads, connections, upstreams, gateways, want_gc, want_tls;
	} sizes = {0};
	uint64_t h = 0xcbf29ce484222325ULL;
	struct stat st;
	const void *elf;
	size_t size;

	sizes.ino = stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
	sizes.threads = options->threads;
	sizes.connections = options->connections;
	sizes.upstreams = options->upstreams;
	sizes.gateways = gateways;
	sizes.want_gc = options->want_gc;
	sizes.want_tls = options->want_tls;
	elf = tidegate_bpf__elf_bytes(&size);
	h = hash_add(h, elf, size);
	h = hash_add(h, options->tier, strlen(options->tier));
	return hash_add(h, &sizes, sizeof(sizes));
}
