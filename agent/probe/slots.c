/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots from the keeper's side: taking, finding, freeing them, and the sums over them. The kernel
 * takes slots at the same time (bpf/life.bpf.h); both sides use compare-and-swap.
 */
#include "probe/set.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FLAG_EXITING 0x4 /* PF_EXITING, in /proc/PID/stat */

static const char *const syscall_names[SYSCALL_COUNT] = {
#define X(name, ...) #name,
	SYSCALL_ROWS(X)
#undef X
};

static const char *const errno_names[ERRNOS] = {"other",
#define X(name, number) #name,
						ERRNO_ROWS(X)
#undef X
};

const char *probe_syscall_name(unsigned int id)
{
	return id < SYSCALL_COUNT ? syscall_names[id] : "other";
}

const char *probe_errno_name(unsigned int cell)
{
	return cell < ERRNOS ? errno_names[cell] : errno_names[0];
}

static void ring_push(struct control *c, unsigned int index)
{
	uint64_t tail = c->ring_tail;

	c->ring[tail & (SLOTS_MOST - 1)] = (uint16_t)index;
	__atomic_store_n(&c->ring_tail, tail + 1, __ATOMIC_RELEASE);
}

static int ring_pop(struct control *c)
{
	uint64_t head = __atomic_load_n(&c->ring_head, __ATOMIC_ACQUIRE);

	while (head != c->ring_tail) {
		uint16_t index = c->ring[head & (SLOTS_MOST - 1)];

		if (__atomic_compare_exchange_n(&c->ring_head, &head, head + 1, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return index;
	}
	return -ENOSPC;
}

static bool lane_swap(struct control *c, uint32_t tid, uint16_t from, uint16_t to)
{
	uint64_t *bucket = &c->tid_buckets[tid & (TID_BUCKETS - 1)];

	for (unsigned int shift = 0; shift < 64; shift += 16) {
		uint64_t old = __atomic_load_n(bucket, __ATOMIC_ACQUIRE);

		while ((uint16_t)(old >> shift) == from) {
			uint64_t new = (old & ~(0xffffULL << shift)) | (uint64_t)to << shift;

			if (__atomic_compare_exchange_n(bucket, &old, new, false, __ATOMIC_SEQ_CST,
							__ATOMIC_SEQ_CST))
				return true;
		}
	}
	return false;
}

void slots_init(struct probe_set *set)
{
	for (unsigned int i = 0; i < set->threads; i++)
		ring_push(set->control, i);
}

void slots_discover(struct probe_set *set)
{
	uint64_t head = __atomic_load_n(&set->control->ring_head, __ATOMIC_ACQUIRE);

	for (; set->ring_seen != head; set->ring_seen++) {
		unsigned int i = set->control->ring[set->ring_seen & (SLOTS_MOST - 1)];

		if (i < set->threads && cells_slot(set, i))
			set->is_used[i] = true;
	}
}

int slots_adopt(struct probe_set *set)
{
	struct control *c = set->control;
	bool is_free[SLOTS_MOST] = {false};
	uint64_t head = c->ring_head;

	for (uint64_t h = head; h != c->ring_tail; h++)
		is_free[c->ring[h & (SLOTS_MOST - 1)] & (SLOTS_MOST - 1)] = true;
	set->ring_seen = head;
	for (unsigned int i = 0; i < set->threads; i++) {
		if (is_free[i])
			continue;
		if (!cells_slot(set, i))
			return -ENOMEM;
		/* Taken this very moment by the kernel, or lost by a keeper that died: the next
		 * fold will know. */
		set->is_leaked[i] = set->slots[i]->state == SLOT_FREE;
		set->has_leaks_to_find |= set->is_leaked[i];
		set->is_used[i] = true;
	}
	return 0;
}

void slots_find_leaks(struct probe_set *set)
{
	if (!set->has_leaks_to_find)
		return;
	set->has_leaks_to_find = false;
	for (unsigned int i = 0; i < set->threads; i++) {
		if (!set->is_leaked[i])
			continue;
		set->is_leaked[i] = false;
		if (set->slots[i]->state == SLOT_FREE && set->slots[i]->tid == 0)
			slots_release(set, i);
	}
}

void slots_release(struct probe_set *set, unsigned int index)
{
	set->is_used[index] = false;
	ring_push(set->control, index);
}

static struct slot *slot_of(struct probe_set *set, uint32_t tid, unsigned int *ret_index)
{
	uint64_t lanes = set->control->tid_buckets[tid & (TID_BUCKETS - 1)];

	for (; lanes; lanes >>= 16) {
		unsigned int lane = lanes & 0xffff;
		struct slot *s = lane ? cells_slot(set, lane - 1) : NULL;

		if (s && s->tid == tid) {
			*ret_index = lane - 1;
			return s;
		}
	}
	return NULL;
}

static bool thread_exists(uint32_t tgid, uint32_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/task/%u", tgid, tid);
	return access(path, F_OK) == 0;
}

/* True also for one on its way out, or waiting to be reaped, whose end the kernel has told already. */
static bool thread_ended(uint32_t tgid, uint32_t tid)
{
	char path[64], text[1024];
	const char *p;
	unsigned int flags;

	snprintf(path, sizeof(path), "/proc/%u/task/%u/stat", tgid, tid);
	if (str_read_file(path, text, sizeof(text)) < 0)
		return true;
	p = strrchr(text, ')');
	return p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
	       flags & FLAG_EXITING;
}

static void slot_end(struct probe_set *set, unsigned int index)
{
	struct slot *s = set->slots[index];

	lane_swap(set->control, s->tid, (uint16_t)(index + 1), 0);
	s->loop_since_ns = 0;
	__atomic_store_n(&s->state, SLOT_EXITED, __ATOMIC_RELEASE);
}

int probe_watch_thread(struct probe_set *set, unsigned int gateway, uint32_t tgid, uint32_t tid,
		       enum slot_role role)
{
	unsigned int found;
	struct slot *s;
	int index;

	if (gateway >= set->gateways || !tid)
		return -EINVAL;
	s = slot_of(set, tid, &found);
	if (s && s->state == SLOT_LIVE) {
		set->is_used[found] = true;
		s->gateway = gateway;
		if (role != ROLE_HELPER)
			s->role = role;
		return 0;
	}
	index = ring_pop(set->control);
	if (index < 0)
		return index;
	s = cells_slot(set, (unsigned int)index);
	if (!s) {
		ring_push(set->control, (unsigned int)index);
		return -ENOMEM;
	}
	s->tid = tid;
	s->tgid = tgid;
	s->index = (uint32_t)index;
	s->gateway = gateway;
	s->role = role;
	s->start_ns = clock_mono_ns();
	__atomic_store_n(&s->state, SLOT_LIVE, __ATOMIC_RELEASE);
	set->is_used[index] = true;
	if (!lane_swap(set->control, tid, 0, (uint16_t)(index + 1))) {
		s->state = SLOT_EXITED;
		__atomic_fetch_add(&set->control->lost[LOST_BUCKET], 1, __ATOMIC_RELAXED);
		return -ENOSPC;
	}
	/* It may have ended before it was entered, and would then never be marked. */
	if (thread_ended(tgid, tid)) {
		slot_end(set, (unsigned int)index);
		return -ESRCH;
	}
	return 0;
}

int probe_set_master(struct probe_set *set, unsigned int gateway, uint32_t pid)
{
	char path[64], text[32];
	uint64_t name[2] = {0};
	int n;

	if (gateway >= set->gateways || gateway >= GATEWAYS)
		return -EINVAL;
	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	n = str_read_file(path, text, sizeof(text));
	if (n <= 0 || (size_t)n >= sizeof(name))
		return n < 0 ? n : -EINVAL;
	memcpy(name, text, (size_t)n);
	memcpy(set->control->names[gateway], name, sizeof(name));
	return 0;
}

const struct slot *slots_of_process(struct probe_set *set, uint32_t tgid)
{
	unsigned int index;
	const struct slot *first = slot_of(set, tgid, &index);

	if (first && first->state == SLOT_LIVE)
		return first;
	slots_discover(set);
	for (unsigned int i = 0; i < set->threads; i++)
		if (set->is_used[i] && set->slots[i]->tgid == tgid &&
		    set->slots[i]->state == SLOT_LIVE)
			return set->slots[i];
	return NULL;
}

bool probe_has_process(struct probe_set *set, uint32_t tgid)
{
	return slots_of_process(set, tgid);
}

void probe_refuse_threads(struct probe_set *set, unsigned int n)
{
	__atomic_fetch_add(&set->control->lost[LOST_THREADS], n, __ATOMIC_RELAXED);
}

void probe_forget_process(struct probe_set *set, uint32_t tgid)
{
	slots_discover(set);
	for (unsigned int i = 0; i < set->threads; i++) {
		struct slot *s = set->is_used[i] ? set->slots[i] : NULL;

		if (!s || s->tgid != tgid || s->state != SLOT_LIVE)
			continue;
		s->is_forgotten = 1;
		slot_end(set, i);
	}
}

void slots_discard(struct probe_set *set, uint32_t tgid)
{
	for (unsigned int i = 0; i < set->threads; i++) {
		struct slot *s = set->is_used[i] ? set->slots[i] : NULL;

		if (!s || s->tgid != tgid)
			continue;
		slot_end(set, i);
		slot_empty(s);
		s->generation++;
		__atomic_store_n(&s->state, SLOT_FREE, __ATOMIC_SEQ_CST);
		slots_release(set, i);
	}
}

struct slot *slots_ledger(struct probe_set *set, unsigned int gateway)
{
	struct slot *s;
	int index;

	for (unsigned int i = 0; i < set->threads; i++) {
		s = set->is_used[i] ? set->slots[i] : NULL;
		if (s && s->tgid == LEDGER_TGID && s->state == SLOT_EXITED && s->gateway == gateway)
			return s;
	}
	index = ring_pop(set->control);
	if (index < 0)
		return NULL;
	s = cells_slot(set, (unsigned int)index);
	if (!s) {
		ring_push(set->control, (unsigned int)index);
		return NULL;
	}
	s->tgid = LEDGER_TGID;
	s->index = (uint32_t)index;
	s->gateway = gateway;
	s->role = ROLE_HELPER;
	__atomic_store_n(&s->state, SLOT_EXITED, __ATOMIC_RELEASE);
	set->is_used[index] = true;
	return s;
}

/* True when no thread of the process is watched any more, this one aside. */
static bool slot_is_last(const struct probe_set *set, unsigned int index)
{
	for (unsigned int i = 0; i < set->threads; i++)
		if (i != index && set->is_used[i] &&
		    set->slots[i]->tgid == set->slots[index]->tgid &&
		    set->slots[i]->state != SLOT_FREE)
			return false;
	return true;
}

void probe_fold(struct probe_set *set, uint64_t now_mono_ns)
{
	slots_find_leaks(set);
	slots_discover(set);
	for (unsigned int i = 0; i < set->threads; i++) {
		struct slot *s = set->is_used[i] ? set->slots[i] : NULL;
		struct bank *banks[2];
		unsigned int g;

		if (!s)
			continue;
		/* Without the probe for ends, ask. */
		if (!set->has_fork && s->state == SLOT_LIVE && !thread_exists(s->tgid, s->tid))
			slot_end(set, i);
		if (s->state != SLOT_EXITED)
			continue;
		g = s->gateway;
		banks[0] = cells_bank(set, g, 0);
		banks[1] = cells_bank(set, g, 1);
		if (!banks[0] || !banks[1])
			continue;
		if (s->tgid == LEDGER_TGID || slot_is_last(set, i))
			retire_connections(set, s, now_mono_ns);
		retire_slot(banks, &set->control->bank_active[g], s, i, NULL);
		slots_release(set, i);
	}
	/* After the fold: what a keeper that died had begun has been brought to its end by then. */
	reconcile_tick(set, now_mono_ns);
	streams_sweep(set);
}

static void integral_read(const struct integral *f, uint64_t *ret_s, uint64_t *ret_n)
{
	uint64_t before, s = 0, n = 0;

	for (unsigned int tries = 0; tries < 1000; tries++) {
		before = __atomic_load_n(&f->seq, __ATOMIC_ACQUIRE);
		s = __atomic_load_n(&f->s, __ATOMIC_RELAXED);
		n = __atomic_load_n(&f->n, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (!(before & 1) && __atomic_load_n(&f->seq, __ATOMIC_RELAXED) == before)
			break;
	}
	*ret_s = s;
	*ret_n = n;
}

/* The turn under way belongs to busy time as far as it has come; it must be neither missed nor
 * counted twice when it ends while the cells are being added up. */
static void slot_add(const struct slot *s, struct cells *sum, uint64_t now)
{
	uint64_t before = sum->loop_busy_ns, busy, since;

	cells_add(sum, &s->cells);
	do {
		since = __atomic_load_n(&s->loop_since_ns, __ATOMIC_ACQUIRE);
		busy = __atomic_load_n(&s->cells.loop_busy_ns, __ATOMIC_ACQUIRE);
	} while (since != __atomic_load_n(&s->loop_since_ns, __ATOMIC_ACQUIRE));
	/* cells_add took busy at an unknown moment: replace it. */
	sum->loop_busy_ns = before + busy + (since && now > since ? now - since : 0);
}

void probe_totals(struct probe_set *set, unsigned int gateway, uint64_t now_mono_ns,
		  struct cells *ret_cells, struct probe_now *ret_now)
{
	struct probe_now now = {.threads = 0};
	uint64_t s_sum = 0, n_sum = 0, s, n;
	const struct bank *bank;

	memset(ret_cells, 0, sizeof(*ret_cells));
	slots_discover(set);
	for (unsigned int i = 0; i < set->threads; i++) {
		struct slot *slot = set->is_used[i] ? set->slots[i] : NULL;

		if (!slot || slot->gateway != gateway || slot->state == SLOT_FREE)
			continue;
		slot_add(slot, ret_cells, now_mono_ns);
		integral_read(&slot->in_flight, &s, &n);
		s_sum += s;
		n_sum += n;
		if ((int64_t)slot->in_flight.max > 0)
			now.in_flight_max += slot->in_flight.max;
		slot->in_flight.max = n;
		if (slot->last_request_ns > now.last_request_ns)
			now.last_request_ns = slot->last_request_ns;
		if (slot->last_accept_ns > now.last_accept_ns)
			now.last_accept_ns = slot->last_accept_ns;
		if (slot->state == SLOT_LIVE && slot->role == ROLE_WORKER)
			now.threads++;
	}
	bank = gateway < set->gateways
		       ? cells_bank(set, gateway, set->control->bank_active[gateway] & 1)
		       : NULL;
	if (bank) {
		cells_add(ret_cells, &bank->cells);
		s_sum += bank->in_flight_s;
		n_sum += bank->in_flight_n;
	}
	now.in_flight = (int64_t)n_sum > 0 ? n_sum : 0;
	now.in_flight_integral_ns = s_sum + n_sum * now_mono_ns;
	now.connections_open = ret_cells->accepts - ret_cells->closes;
	if (gateway < GATEWAYS)
		now.connections_open += set->control->seeded[gateway];
	if ((int64_t)now.connections_open < 0)
		now.connections_open = 0;
	*ret_now = now;
}

void probe_each_thread(struct probe_set *set, unsigned int gateway,
		       void (*fn)(void *data, const struct slot *slot), void *data)
{
	slots_discover(set);
	for (unsigned int i = 0; i < set->threads; i++) {
		const struct slot *s = set->is_used[i] ? set->slots[i] : NULL;

		if (s && s->gateway == gateway && s->state == SLOT_LIVE)
			fn(data, s);
	}
}
