/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing the probe set, its sign of life and its own numbers. In the keeper. */
#include "probe/set.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "probe/gcwatch.h"
#include "probe/sample.h"
#include "probe/skel.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const char *const lost_names[LOST_REASONS] = {
	[LOST_THREADS] = "threads",
	[LOST_CONNECTIONS] = "connections",
	[LOST_PARSE] = "parse",
	[LOST_PIPELINE] = "pipeline",
	[LOST_MEMORY] = "memory",
	[LOST_BUCKET] = "bucket",
	[LOST_NOTES] = "notes",
	[LOST_RECORDS] = "records",
	[LOST_STREAMS] = "streams",
	[LOST_UPSTREAM_HTTP2] = "upstream_http2",
	[LOST_TLS] = "tls",
	[LOST_ROWS] = "rows",
	[LOST_UNSEEN_CLOSE] = "unseen_close",
};

DEFINE_CLEANUP(struct probe_set *, probe_close)

static void programs_collect(struct probe_set *set)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, set->skel->obj)
	{
		struct probe_program *to = &set->programs[set->program_count];

		if (!bpf_program__autoload(p) || set->program_count == PROBE_PROGRAMS)
			continue;
		str_copy(to->name, sizeof(to->name), bpf_program__name(p));
		to->fd = bpf_program__fd(p);
		set->program_count++;
	}
}

static int open_fresh(struct probe_set *set, const struct probe_options *options, struct err *e)
{
	uint64_t id = 0;
	int r;

	r = ladder_climb(set, options, e);
	if (r)
		return r;
	set->slots_fd = bpf_map__fd(set->skel->maps.slots);
	set->retired_fd = bpf_map__fd(set->skel->maps.retired);
	set->connections_fd = bpf_map__fd(set->skel->maps.connections);
	set->upstreams_fd = bpf_map__fd(set->skel->maps.upstreams);
	set->upstream_indices_fd = bpf_map__fd(set->skel->maps.upstream_indices);
	set->http2_connections_fd = bpf_map__fd(set->skel->maps.http2_connections);
	set->http2_streams_fd = bpf_map__fd(set->skel->maps.http2_streams);
	set->bss_fd = bpf_map__fd(set->skel->maps.bss);
	set->gc_settings_fd = bpf_map__fd(set->skel->maps.gc_settings);
	set->gc_calibrations_fd = bpf_map__fd(set->skel->maps.gc_calibrations);
	set->records_fd = bpf_map__fd(set->skel->maps.records);
	set->notices_fd = bpf_map__fd(set->skel->maps.notices);
	set->tls_ties_fd = bpf_map__fd(set->skel->maps.tls_ties);
	set->tls_calls_fd = bpf_map__fd(set->skel->maps.tls_calls);
	programs_collect(set);
	r = cells_map_control(set);
	if (r)
		return err_set(e, r, "mapping the BPF maps: %s", err_text(r));
	while (!id)
		if (getrandom(&id, sizeof(id), 0) < 0)
			id = clock_real_ns();
	set->control->maps_id = id;
	set->control->threads = set->threads;
	set->control->tier = set->tier + 1;
	set->control->fork_tier = set->has_fork;
	set->control->links = (uint32_t)set->link_count;
	set->control->knows_kernel = set->skel->rodata->offsets.is_known;
	set->control->uprobe_how = gc_uprobe_how(set);
	slots_init(set);
	return 0;
}

/* The object's instructions, relocations and BTF are more than a megabyte, and not needed once all is
 * attached: what is goes on by its descriptor. */
static int object_drop(struct probe_set *set)
{
	int r = pins_dup_maps(set), fd;

	if (r < 0)
		return r;
	for (size_t i = 0; i < set->program_count; i++) {
		fd = fcntl(set->programs[i].fd, F_DUPFD_CLOEXEC, 3);
		if (fd < 0) {
			r = -errno;
			set->program_count = i;
			break;
		}
		set->programs[i].fd = fd;
	}
	set->owns_fds = true;
	tidegate_bpf__destroy(set->skel);
	set->skel = NULL;
	return r;
}

static void open_pinned(struct probe_set *set, const struct probe_options *options)
{
	struct err e = {.text = ""};

	if (!set->pin_path[0])
		return;
	pins_remove(set->pin_path);
	if (pins_write(set, &e) < 0) {
		ladder_report(set, REPORT_PIN, PROBE_DEGRADED, "none", "%s", e.text);
		return;
	}
	pins_remove_others(options->pin_dir, set->pin_path);
	ladder_report(set, REPORT_PIN, PROBE_OK, "bpffs", "%s", "");
}

static void say_budget(struct probe_set *set)
{
	char budget[128];

	gcwatch_budget_text(set, budget, sizeof(budget));
	if (set->reports[REPORT_GC].state == PROBE_OK)
		ladder_report(set, REPORT_GC, PROBE_OK, gc_how(set), "%s", budget);
}

int probe_open(const struct probe_options *options, uint64_t adopt_maps_id, struct probe_set **ret,
	       struct err *e)
{
	_cleanup_(probe_close_p) struct probe_set *set = calloc(1, sizeof(*set));
	struct err pin_error = {.text = ""};
	int r;

	if (!set)
		return -ENOMEM;
	if (!options->threads || options->threads > SLOTS_MOST || !options->connections ||
	    options->gateways > GATEWAYS)
		return err_set(e, -EINVAL,
			       "probe: threads %u, connections %u or gateways %u out of range",
			       options->threads, options->connections, options->gateways);
	set->threads = options->threads;
	set->gateways = options->gateways ? options->gateways : GATEWAYS;
	set->slots_fd = set->retired_fd = set->connections_fd = set->bss_fd = -1;
	set->gc_settings_fd = set->gc_calibrations_fd = set->records_fd = -1;
	set->notices_fd = -1;
	set->upstreams = options->upstreams;
	set->upstreams_fd = set->upstream_indices_fd = -1;
	set->http2_connections_fd = set->http2_streams_fd = -1;
	set->tls_ties_fd = set->tls_calls_fd = -1;
	for (unsigned int i = 0; i < REPORTS; i++)
		ladder_report(set, i, PROBE_UNAVAILABLE, "none", "%s", "");
	if (!options->pin_dir || !options->pin_dir[0]) {
		ladder_report(set, REPORT_PIN, PROBE_DEGRADED, "none",
			      "probe.bpffs is empty: counting stops while the keeper is away");
	} else if (pins_prepare(options->pin_dir, &pin_error) < 0) {
		ladder_report(set, REPORT_PIN, PROBE_DEGRADED, "none", "%s", pin_error.text);
	} else {
		snprintf(set->pin_path, sizeof(set->pin_path), "%s/%016llx", options->pin_dir,
			 (unsigned long long)layout_hash(options, set->gateways));
		if (adopt_maps_id && pins_adopt(set, adopt_maps_id) == 0) {
			r = slots_adopt(set);
			if (r)
				return err_set(e, r, "mapping the adopted slots: %s", err_text(r));
			ladder_report_adopted(set);
			ladder_report(set, REPORT_PIN, PROBE_OK, "bpffs", "%s", "");
		}
	}
	if (!set->is_adopted) {
		r = open_fresh(set, options, e);
		if (r)
			return r;
		open_pinned(set, options);
		r = object_drop(set);
		if (r < 0)
			return err_set(e, r, "keeping the BPF maps: %s", err_text(r));
	}
	if (set->has_gc) {
		set->gc_watch = gcwatch_new(set, options->gc_budget);
		if (!set->gc_watch)
			return -ENOMEM;
		say_budget(set);
	}
	set->reconcile = reconcile_new();
	if (!set->reconcile)
		return -ENOMEM;
	set->is_query_wanted = options->is_slow_query_wanted;
	r = records_open(set);
	if (r)
		return err_set(e, r, "mapping the ring buffers: %s", err_text(r));
	patterns_fill(set, options);
	probe_heartbeat(set, clock_mono_ns());
	r = sampler_open(set, options);
	if (r)
		return r;
	/* The kernel's BTF and the object were parsed; their megabytes are not needed again. */
	malloc_trim(0);
	*ret = TAKE_PTR(set);
	return 0;
}

struct probe_set *probe_close(struct probe_set *set)
{
	if (!set)
		return NULL;
	for (size_t i = 0; i < set->link_count; i++) {
		struct probe_link *l = &set->links[i];

		if (!l->link) {
			close(l->fd);
		} else if (set->is_pinned) {
			/* Destroying a perf link would also switch its event off. */
			bpf_link__disconnect(l->link);
			bpf_link__destroy(l->link);
			close(l->fd);
		} else {
			bpf_link__destroy(l->link);
		}
	}
	if (set->owns_fds) {
		for (size_t i = 0; i < set->program_count; i++)
			close(set->programs[i].fd);
		pins_close_maps(set);
	}
	reconcile_free(set->reconcile);
	gcwatch_free(set->gc_watch);
	sampler_free(set->sampler);
	ring_buffer__free(set->ring);
	ring_buffer__free(set->notices);
	cells_unmap(set);
	if (set->skel)
		tidegate_bpf__destroy(set->skel);
	free(set);
	return NULL;
}

bool probe_is_adopted(const struct probe_set *set)
{
	return set->is_adopted;
}

uint64_t probe_maps_id(const struct probe_set *set)
{
	return set->control->maps_id;
}

const struct probe_report *probe_reports(const struct probe_set *set, size_t *ret_count)
{
	*ret_count = REPORTS;
	return set->reports;
}

void probe_heartbeat(struct probe_set *set, uint64_t now_mono_ns)
{
	struct control *c = set->control;

	/* Nobody followed the connections meanwhile: forget them before programs wake up. */
	if (c->heartbeat_ns &&
	    (c->is_stale || now_mono_ns > c->heartbeat_ns + HEARTBEAT_LIMIT_NS)) {
		c->is_stale = 1;
		slots_discover(set);
		retire_all_connections(set, now_mono_ns);
	}
	__atomic_store_n(&c->heartbeat_ns, now_mono_ns, __ATOMIC_RELEASE);
	__atomic_store_n(&c->is_stale, 0, __ATOMIC_RELEASE);
}

const struct probe_lost *probe_lost(struct probe_set *set)
{
	for (unsigned int i = 0; i < LOST_REASONS; i++) {
		set->lost[i].reason = lost_names[i];
		set->lost[i].count = set->control->lost[i];
	}
	return set->lost;
}

size_t probe_costs(struct probe_set *set, struct probe_cost *ret, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < set->program_count && n < max; i++) {
		struct bpf_prog_info info = {0};
		uint32_t size = sizeof(info);

		if (bpf_obj_get_info_by_fd(set->programs[i].fd, &info, &size))
			continue;
		ret[n].program = set->programs[i].name;
		ret[n].run_ns = info.run_time_ns;
		ret[n].runs = info.run_cnt;
		n++;
	}
	return n;
}

int probe_program_fd(const struct probe_set *set, const char *name)
{
	for (size_t i = 0; i < set->program_count; i++)
		if (str_equal(set->programs[i].name, name))
			return set->programs[i].fd;
	return -ENOENT;
}

bool probe_has_link(const struct probe_set *set, const char *name)
{
	for (size_t i = 0; i < set->link_count; i++)
		if (str_equal(set->links[i].name, name))
			return true;
	return false;
}

int probe_add_link(struct probe_set *set, const char *name, int fd)
{
	struct probe_link *l = &set->links[set->link_count];
	char path[PROBE_PATH_BYTES + 64];

	if (set->link_count == PROBE_LINKS) {
		close(fd);
		return -ENOSPC;
	}
	str_copy(l->name, sizeof(l->name), name);
	l->link = NULL;
	l->fd = fd;
	set->link_count++;
	if (!set->is_pinned)
		return 0;
	snprintf(path, sizeof(path), "%s/link_%s", set->pin_path, l->name);
	return bpf_obj_pin(fd, path) < 0 ? -errno : 0;
}

void probe_remove_link(struct probe_set *set, const char *name)
{
	char path[PROBE_PATH_BYTES + 64];

	for (size_t i = 0; i < set->link_count; i++) {
		if (!str_equal(set->links[i].name, name))
			continue;
		/* The pin first: what is closed but pinned would go on unseen. */
		if (set->is_pinned) {
			snprintf(path, sizeof(path), "%s/link_%s", set->pin_path, name);
			unlink(path);
		}
		close(set->links[i].fd);
		set->links[i] = set->links[--set->link_count];
		return;
	}
}
