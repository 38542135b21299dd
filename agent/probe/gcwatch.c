/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The duty cycle's hands: counts steps and CPU time once a tick, attaches and detaches the step
 * probes as gcduty.c says. Owns a descriptor a file. Process: the keeper.
 */
#include "probe/gcwatch.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "base/str.h"
#include "gc_types.h"
#include "probe/gcduty.h"
#include "probe/gcheap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What happened between two readings. */
struct reading {
	uint64_t steps, stepped, step_ns, cpu_ns;
};

struct watched_file {
	struct gcfile file; /* fd -1: free, or not looked at since the keeper began */
	enum uprobe_how how;
	struct gclink links[GC_LINKS];
	struct finder_heap heap;
	struct gc_duty duty;
	uint64_t cost_ns, stepped_cost_ns; /* of one step; more, if it is left at a stepped place */
	uint64_t spent_ns, cpu_ns;         /* since the duty was asked */
	bool is_attached;
	bool is_switching; /* in this tick */
	bool is_used;      /* a live thread of a gateway runs it */
};

struct watched_gateway {
	bool is_known;
	bool is_read; /* steps and step_ns are */
	int file;     /* -1: all is timed */
	struct gc_estimate estimate;
	uint64_t steps, stepped, step_ns; /* counted up to the last reading */
	uint64_t heap_bytes, heap_states; /* as last read; of so many Lua states */
};

#define STATES_MOST   (2 * SLOTS_MOST)    /* as many as slots name */
#define HEAPS_EACH_NS (NS_PER_S * 9 / 10) /* once a tick of the agent */

/* CPU clock of a process, by the slot of its main thread. */
struct watched_process {
	uint32_t tgid, generation;
	uint64_t cpu_ns;
};

struct gcwatch {
	double budget;
	uint64_t read_ns; /* when */
	struct gc_control settings;
	bool is_dirty;
	struct watched_file files[GC_FILES];
	struct watched_gateway gateways[GATEWAYS];
	struct watched_process processes[SLOTS_MOST];
	struct reading readings[GATEWAYS]; /* of the last reading */
	uint64_t heaps_ns;                 /* when they were read */
	struct gcheap_state states[STATES_MOST];
};

struct gcwatch *gcwatch_new(const struct probe_set *set, uint64_t budget_millionths)
{
	struct gcwatch *w = calloc(1, sizeof(*w));
	const uint32_t zero = 0;

	if (!w)
		return NULL;
	w->budget = budget_millionths ? (double)budget_millionths / 1e6 : 1;
	if (bpf_map_lookup_elem(set->gc_settings_fd, &zero, &w->settings) < 0)
		memset(&w->settings, 0, sizeof(w->settings));
	for (unsigned int i = 0; i < GC_FILES; i++)
		w->files[i].file.fd = -1;
	for (unsigned int g = 0; g < GATEWAYS; g++) {
		w->gateways[g].file = -1;
		gc_estimate_begin(&w->gateways[g].estimate, w->settings.missed_ns[g]);
	}
	return w;
}

struct gcwatch *gcwatch_free(struct gcwatch *w)
{
	if (!w)
		return NULL;
	for (unsigned int i = 0; i < GC_FILES; i++)
		if (w->files[i].file.fd >= 0)
			close(w->files[i].file.fd);
	free(w);
	return NULL;
}

void gcwatch_budget_text(const struct probe_set *set, char *buf, size_t size)
{
	double budget = set->gc_watch ? set->gc_watch->budget : 1;

	buf[0] = '\0';
	if (budget < 1)
		snprintf(buf, size, "steps are timed for up to %g%% of the workers' CPU time",
			 budget * 100);
}

/* ---- settings ---- */

/* How and bias are written by whoever calibrates, so only our part is changed. */
static int settings_write(struct probe_set *set)
{
	struct gcwatch *w = set->gc_watch;
	struct gc_control now;
	const uint32_t zero = 0;

	if (bpf_map_lookup_elem(set->gc_settings_fd, &zero, &now) < 0)
		return -errno;
	memcpy(now.files, w->settings.files, sizeof(now.files));
	memcpy(now.missed_ns, w->settings.missed_ns, sizeof(now.missed_ns));
	w->is_dirty = false;
	return bpf_map_update_elem(set->gc_settings_fd, &zero, &now, BPF_ANY) < 0 ? -errno : 0;
}

static int steps_since(struct probe_set *set, unsigned int index, uint64_t ns)
{
	struct gc_file *f = &set->gc_watch->settings.files[index];

	f->steps_since_ns = ns;
	return settings_write(set);
}

/* ---- attaching ---- */

/* An entry without its exit would be taken for a step that goes on: exits come first and go last. */
static int steps_attach(struct probe_set *set, unsigned int index)
{
	struct watched_file *f = &set->gc_watch->files[index];
	bool is_on = gclink_is_attached(set, &f->file, &f->links[GC_STEP_EXIT]) &&
		     gclink_is_attached(set, &f->file, &f->links[GC_STEP_ENTER]);
	int r = 0;

	if (!is_on || set->gc_watch->settings.files[index].steps_since_ns == GC_NOT_TIMED)
		r = steps_since(set, index, clock_mono_ns());
	if (r == 0)
		r = gclink_attach(set, f->how, &f->file, &f->links[GC_STEP_EXIT]);
	if (r == 0)
		r = gclink_attach(set, f->how, &f->file, &f->links[GC_STEP_ENTER]);
	f->is_attached = r == 0;
	return r;
}

static void steps_detach(struct probe_set *set, unsigned int index)
{
	struct watched_file *f = &set->gc_watch->files[index];

	gclink_detach(set, &f->file, &f->links[GC_STEP_ENTER]);
	steps_since(set, index, GC_NOT_TIMED);
	gclink_detach(set, &f->file, &f->links[GC_STEP_EXIT]);
	f->is_attached = false;
}

/* A file that nobody runs any more: replaced by an update, or its gateway is gone. */
static void file_release(struct probe_set *set, unsigned int index)
{
	struct gcwatch *w = set->gc_watch;
	struct watched_file *f = &w->files[index];

	if (f->file.fd >= 0) {
		for (unsigned int i = GC_LINKS; i > 0; i--)
			gclink_detach(set, &f->file, &f->links[i - 1]);
		close(f->file.fd);
	}
	memset(f, 0, sizeof(*f));
	f->file.fd = -1;
	memset(&w->settings.files[index], 0, sizeof(w->settings.files[index]));
	for (unsigned int g = 0; g < GATEWAYS; g++) {
		if (w->gateways[g].is_known && w->gateways[g].file == (int)index)
			w->gateways[g].is_known = false;
	}
}

int gcwatch_index(struct probe_set *set, const struct gcfile *file)
{
	struct gcwatch *w = set->gc_watch;
	int found = -ENOSPC;
	unsigned int i;

	for (i = 0; i < GC_FILES; i++) {
		const struct gc_file *f = &w->settings.files[i];

		if (f->device == file->device && f->inode == file->inode)
			return (int)i;
	}
	for (i = GC_FILES; i > 0; i--) {
		if (!w->settings.files[i - 1].inode)
			found = (int)i - 1;
	}
	for (i = 0; i < GC_FILES && found < 0; i++) {
		if (w->files[i].is_used)
			continue;
		file_release(set, i);
		found = (int)i;
	}
	if (found < 0)
		return found;
	w->settings.files[found].device = file->device;
	w->settings.files[found].inode = file->inode;
	w->settings.files[found].steps_since_ns = GC_NOT_TIMED;
	return found;
}

int gcwatch_attach(struct probe_set *set, unsigned int index, enum uprobe_how how,
		   const struct gcfile *file, const struct gclink links[GC_LINKS], uint64_t cost_ns,
		   uint64_t stepped_cost_ns)
{
	struct watched_file *f = &set->gc_watch->files[index];
	int r;

	if (f->file.fd < 0) {
		f->file = *file;
		f->file.fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
		if (f->file.fd < 0)
			return -errno;
		f->how = how;
		memcpy(f->links, links, sizeof(f->links));
		f->cost_ns = cost_ns;
		f->stepped_cost_ns = stepped_cost_ns;
		gc_duty_begin(&f->duty, set->gc_watch->budget, clock_mono_ns());
	}
	f->is_used = true;
	r = gclink_attach(set, how, file, &f->links[GC_FULL_EXIT]);
	if (r == 0)
		r = gclink_attach(set, how, file, &f->links[GC_FULL_ENTER]);
	if (r == 0 && f->links[GC_CYCLE_END].count)
		r = gclink_attach(set, how, file, &f->links[GC_CYCLE_END]);
	return r == 0 && f->duty.is_on ? steps_attach(set, index) : r;
}

void gcwatch_gateway(struct probe_set *set, unsigned int gateway, int index)
{
	struct watched_gateway *g;

	if (gateway >= GATEWAYS)
		return;
	g = &set->gc_watch->gateways[gateway];
	if (!g->is_known)
		g->is_read = false;
	g->is_known = true;
	g->file = index;
}

/* ---- readings ---- */

static uint64_t cpu_since(struct watched_process *p, const struct slot *slot)
{
	uint64_t now = process_cpu_ns(slot->tgid), used = 0;

	if (p->tgid == slot->tgid && p->generation == slot->generation && now > p->cpu_ns)
		used = now - p->cpu_ns;
	p->tgid = slot->tgid;
	p->generation = slot->generation;
	if (now)
		p->cpu_ns = now;
	return used;
}

static void add_cells(struct reading *sum, const struct cells *c)
{
	sum->steps += __atomic_load_n(&c->gc_steps, __ATOMIC_RELAXED);
	sum->stepped += __atomic_load_n(&c->gc_stepped, __ATOMIC_RELAXED);
	sum->step_ns += __atomic_load_n(&c->gc_sum_ns[GC_STEP], __ATOMIC_RELAXED);
}

static uint64_t since(const struct watched_gateway *g, uint64_t now, uint64_t before)
{
	return g->is_read && now > before ? now - before : 0;
}

/* Sums of all gateways with a collector, then what is new in them. */
static void take_reading(struct probe_set *set)
{
	struct gcwatch *w = set->gc_watch;

	slots_discover(set);
	memset(w->readings, 0, sizeof(w->readings));
	for (unsigned int i = 0; i < GC_FILES; i++)
		w->files[i].is_used = false;
	for (unsigned int i = 0; i < set->threads; i++) {
		const struct slot *s = set->is_used[i] ? set->slots[i] : NULL;

		if (!s || s->state == SLOT_FREE || s->gateway >= GATEWAYS ||
		    !w->gateways[s->gateway].is_known)
			continue;
		add_cells(&w->readings[s->gateway], &s->cells);
		if (s->state != SLOT_LIVE || w->gateways[s->gateway].file < 0)
			continue;
		w->files[w->gateways[s->gateway].file].is_used = true;
		if (s->tid == s->tgid)
			w->readings[s->gateway].cpu_ns += cpu_since(&w->processes[i], s);
	}
	for (unsigned int i = 0; i < set->gateways; i++) {
		struct watched_gateway *g = &w->gateways[i];
		struct reading *now = &w->readings[i], sum;
		const struct bank *bank;

		if (!g->is_known)
			continue;
		bank = cells_bank(set, i, set->control->bank_active[i] & 1);
		if (bank)
			add_cells(now, &bank->cells);
		sum = *now;
		now->steps = since(g, sum.steps, g->steps);
		now->stepped = since(g, sum.stepped, g->stepped);
		now->step_ns = since(g, sum.step_ns, g->step_ns);
		g->steps = sum.steps;
		g->stepped = sum.stepped;
		g->step_ns = sum.step_ns;
		g->is_read = true;
	}
}

/* The estimates of all gateways; what is new for the duty of each file. */
static void estimate_all(struct probe_set *set, uint64_t elapsed_ns)
{
	struct gcwatch *w = set->gc_watch;

	for (unsigned int i = 0; i < set->gateways; i++) {
		struct watched_gateway *g = &w->gateways[i];
		const struct reading *new = &w->readings[i];
		struct gc_elapsed t = {
			.ns = elapsed_ns, .step_ns = new->step_ns, .cpu_ns = new->cpu_ns};
		struct watched_file *f;

		if (!g->is_known || g->file < 0)
			continue;
		f = &w->files[g->file];
		t.probe_ns = new->steps * f->cost_ns + new->stepped * f->stepped_cost_ns;
		t.is_timed = f->is_attached && !f->is_switching;
		gc_estimate_next(&g->estimate, &t);
		if (w->settings.missed_ns[i] != g->estimate.missed_ns) {
			w->settings.missed_ns[i] = g->estimate.missed_ns;
			w->is_dirty = true;
		}
		f->spent_ns += t.probe_ns;
		f->cpu_ns += new->cpu_ns;
	}
}

/* ---- heaps ---- */

void gcwatch_heap(struct probe_set *set, unsigned int index, const struct finder_heap *heap)
{
	set->gc_watch->files[index].heap = *heap;
}

/* A state that is gone is left out; one that no thread ever collected in is not known yet. */
static void heaps_read(struct probe_set *set)
{
	struct gcwatch *w = set->gc_watch;
	size_t count = 0, i;
	uint64_t bytes;

	for (i = 0; i < set->gateways; i++)
		w->gateways[i].heap_bytes = w->gateways[i].heap_states = 0;
	for (i = 0; i < set->threads; i++) {
		const struct slot *s = set->is_used[i] ? set->slots[i] : NULL;

		if (s && s->state == SLOT_LIVE && s->gateway < GATEWAYS &&
		    w->gateways[s->gateway].is_known && w->gateways[s->gateway].file >= 0)
			gcheap_add(w->states, &count, STATES_MOST, s);
	}
	for (i = 0; i < count; i++) {
		struct watched_gateway *g = &w->gateways[w->states[i].gateway];

		if (gcheap_read((pid_t)w->states[i].tgid, w->states[i].globals,
				&w->files[g->file].heap, &bytes) < 0)
			continue;
		g->heap_bytes += bytes;
		g->heap_states++;
	}
}

static void file_switch(struct probe_set *set, unsigned int index, bool is_on)
{
	struct watched_file *f = &set->gc_watch->files[index];
	static struct log_limit limit = {.interval_ns = 60 * NS_PER_S};
	uint64_t swallowed;
	int r = 0;

	if (is_on)
		r = steps_attach(set, index);
	else
		steps_detach(set, index);
	log_debug("probe", is_on ? "GC steps are timed" : "GC steps are not timed",
		  "object=%s cost_ns=%llu credit_ns=%.0f", f->file.path,
		  (unsigned long long)f->cost_ns, f->duty.credit_ns);
	if (r < 0 && log_allowed(&limit, clock_mono_ns(), &swallowed))
		log_warning("probe", "the probes of GC steps cannot be attached again",
			    "object=%s why=\"%s\"", f->file.path, err_text(r));
}

static bool duty_asks(struct watched_file *f, uint64_t now_ns)
{
	bool is_on = gc_duty_next(&f->duty, now_ns, f->spent_ns, f->cpu_ns);

	f->spent_ns = f->cpu_ns = 0;
	f->is_switching = is_on != f->is_attached;
	return f->is_switching;
}

uint64_t probe_gc_tick(struct probe_set *set, uint64_t now_ns)
{
	struct gcwatch *w = set->gc_watch;
	uint64_t after_ns, again_ns = 0;
	bool is_switched = false;

	if (!w)
		return 0;
	take_reading(set);
	/* The first reading is where differences begin. */
	if (w->read_ns && now_ns > w->read_ns)
		estimate_all(set, now_ns - w->read_ns);
	w->read_ns = now_ns;
	for (unsigned int i = 0; i < GC_FILES; i++) {
		struct watched_file *f = &w->files[i];

		if (f->file.fd < 0)
			continue;
		if (duty_asks(f, now_ns)) {
			file_switch(set, i, f->duty.is_on);
			is_switched = true;
		}
		if (f->is_used && f->duty.is_short)
			again_ns = GC_DUTY_BURST_NS;
		else if (f->is_used && f->duty.is_on && w->budget < 1 && !again_ns)
			again_ns = GC_DUTY_LOOK_NS;
	}
	if (is_switched) {
		/* What happens while probes come or go belongs neither to before nor to after. */
		after_ns = clock_mono_ns();
		take_reading(set);
		if (after_ns > now_ns)
			estimate_all(set, after_ns - now_ns);
		w->read_ns = after_ns > now_ns ? after_ns : now_ns;
	}
	for (unsigned int i = 0; i < GC_FILES; i++)
		w->files[i].is_switching = false;
	if (now_ns - w->heaps_ns >= HEAPS_EACH_NS) {
		heaps_read(set);
		w->heaps_ns = now_ns;
	}
	if (w->is_dirty)
		settings_write(set);
	return again_ns;
}

void probe_gc_now(const struct probe_set *set, unsigned int gateway, struct probe_gc_now *ret)
{
	const struct gcwatch *w = set->gc_watch;

	memset(ret, 0, sizeof(*ret));
	if (!w || gateway >= GATEWAYS)
		return;
	ret->is_known = w->gateways[gateway].is_known;
	ret->observed_ratio = w->gateways[gateway].estimate.observed_ratio;
	ret->missed_ns = w->gateways[gateway].estimate.missed_ns;
	ret->has_heap = w->gateways[gateway].heap_states > 0;
	ret->heap_bytes = w->gateways[gateway].heap_bytes;
}
