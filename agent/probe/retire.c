/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ended threads counted goes into their gateway's bank, exactly once, whenever the keeper is
 * killed: two banks, one of which counts; the other is written whole and then made to count by one
 * store.
 */
#include "probe/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* One store after which the process may die. False: the test's time is up. */
static bool step(unsigned int *steps)
{
	barrier();
	return !steps || (*steps)-- > 0;
}

void slot_empty(struct slot *slot)
{
	memset(&slot->tid, 0, offsetof(struct slot, gateway) - offsetof(struct slot, tid));
	memset(&slot->role, 0, sizeof(*slot) - offsetof(struct slot, role));
}

bool retire_slot(struct bank *const banks[2], uint32_t *active, struct slot *slot, uint32_t index,
		 unsigned int *steps)
{
	const struct bank *from = banks[*active & 1];
	struct bank *to = banks[~*active & 1];

	if (!from->is_used || from->slot != index || from->generation != slot->generation) {
		if (!step(steps))
			return false;
		memcpy(&to->cells, &from->cells, sizeof(to->cells));
		if (!step(steps))
			return false;
		cells_add(&to->cells, &slot->cells);
		to->in_flight_s = from->in_flight_s + slot->in_flight.s;
		to->in_flight_n = from->in_flight_n + slot->in_flight.n;
		if (!step(steps))
			return false;
		to->slot = index;
		to->generation = slot->generation;
		to->is_used = 1;
		if (!step(steps))
			return false;
		__atomic_store_n(active, ~*active & 1, __ATOMIC_SEQ_CST);
	}
	/* Emptied before its generation changes: whoever finds a new one with values in it would
	 * count them again. */
	if (!step(steps))
		return false;
	slot_empty(slot);
	if (!step(steps))
		return false;
	slot->generation++;
	if (!step(steps))
		return false;
	__atomic_store_n(&slot->state, SLOT_FREE, __ATOMIC_SEQ_CST);
	return step(steps);
}

void retire_connection_begin(struct slot *slot, uint64_t key, uint32_t pending, enum retire_as as,
			     uint64_t now_ns)
{
	if (as == RETIRE_UPSTREAM)
		pending = 0;
	slot->intent.lost = slot->cells.requests_lost + (as == RETIRE_LOST ? pending : 0);
	slot->intent.aborted = slot->cells.requests_aborted + (as == RETIRE_ABORTED ? pending : 0);
	slot->intent.closes = slot->cells.closes + (as != RETIRE_UPSTREAM);
	slot->intent.s = slot->in_flight.s + now_ns * pending;
	slot->intent.n = slot->in_flight.n - pending;
	barrier();
	slot->intent.key = key;
	barrier();
}

void retire_connection_apply(struct slot *slot)
{
	slot->cells.requests_lost = slot->intent.lost;
	slot->cells.requests_aborted = slot->intent.aborted;
	slot->cells.closes = slot->intent.closes;
	slot->in_flight.s = slot->intent.s;
	slot->in_flight.n = slot->intent.n;
	barrier();
}

void retire_connection_end(struct slot *slot)
{
	slot->intent.key = 0;
	barrier();
}

/* Keys first: deleting while iterating starts the iteration over. tgid 0: all. NULL without any. */
static uint64_t *connection_keys(struct probe_set *set, uint32_t tgid, size_t *ret_count)
{
	size_t count = 0, room = 0;
	uint64_t key, *keys = NULL, *more;
	const uint64_t *last = NULL;
	uint64_t previous;

	while (bpf_map_get_next_key(set->connections_fd, last, &key) == 0) {
		previous = key;
		last = &previous;
		if (tgid && (uint32_t)(key >> 32) != tgid)
			continue;
		if (count == room) {
			room = room ? room * 2 : 256;
			more = realloc(keys, room * sizeof(*keys));
			if (!more)
				break;
			keys = more;
		}
		keys[count++] = key;
	}
	*ret_count = count;
	return keys;
}

/* What was pending there is nobody's fault; it counts nowhere, and so goes at once. */
static bool connection_is_upstream(struct probe_set *set, const struct connection *c, uint64_t key)
{
	if (!(c->flags & CONNECTION_UPSTREAM))
		return false;
	bpf_map_delete_elem(set->connections_fd, &key);
	return true;
}

/* The connection last: as long as it is there, its number is known. */
static void connection_delete(struct probe_set *set, uint64_t key, const struct connection *c)
{
	if (c->flags & CONNECTION_HTTP2)
		streams_forget(set, c->http2);
	tls_untie(set, (uint32_t)(key >> 32), c->tls_object);
	bpf_map_delete_elem(set->connections_fd, &key);
}

/* From the intent on; done again by the next keeper if this one dies before its end. */
static void intent_finish(struct probe_set *set, struct slot *slot)
{
	uint64_t key = slot->intent.key;
	struct connection c;

	retire_connection_apply(slot);
	/* Nobody else writes this one. */
	if (slot->tgid == LEDGER_TGID)
		set->control->lost[LOST_UNSEEN_CLOSE] = slot->intent.unseen;
	if (bpf_map_lookup_elem(set->connections_fd, &key, &c) == 0)
		connection_delete(set, key, &c);
	retire_connection_end(slot);
}

void retire_unseen(struct probe_set *set, struct slot *ledger, uint64_t key,
		   const struct connection *c, uint64_t now_ns)
{
	enum retire_as as = c->flags & CONNECTION_UPSTREAM      ? RETIRE_UPSTREAM
			    : c->flags & CONNECTION_CLIENT_GONE ? RETIRE_ABORTED
								: RETIRE_LOST;

	ledger->intent.unseen = set->control->lost[LOST_UNSEEN_CLOSE] + 1;
	retire_connection_begin(ledger, key, c->started - c->ended, as, now_ns);
	intent_finish(set, ledger);
}

void retire_connections(struct probe_set *set, struct slot *slot, uint64_t now_ns)
{
	struct connection c;
	uint64_t *keys;
	size_t count;

	if (slot->intent.key)
		intent_finish(set, slot);
	if (slot->tgid == LEDGER_TGID)
		return;
	keys = connection_keys(set, slot->tgid, &count);
	for (size_t i = 0; i < count; i++) {
		if (bpf_map_lookup_elem(set->connections_fd, &keys[i], &c))
			continue;
		if (connection_is_upstream(set, &c, keys[i]))
			continue;
		retire_connection_begin(slot, keys[i], c.started - c.ended,
					slot->is_forgotten ? RETIRE_UNCOUNTED : RETIRE_LOST,
					now_ns);
		retire_connection_apply(slot);
		connection_delete(set, keys[i], &c);
		retire_connection_end(slot);
	}
	free(keys);
	tls_forget(set, slot->tgid);
}

/* No program does anything meanwhile (control.is_stale), so all slots may be written to. */
void retire_all_connections(struct probe_set *set, uint64_t now_ns)
{
	struct connection c;
	uint64_t *keys;
	size_t count;

	keys = connection_keys(set, 0, &count);
	for (unsigned int i = 0; i < set->threads; i++) {
		struct slot *s = set->is_used[i] ? set->slots[i] : NULL;

		if (!s || s->state != SLOT_LIVE)
			continue;
		s->loop_since_ns = 0;
		s->enter_ns = 0;
		s->args_id = 0;
		s->gc_since_ns = 0;
		s->tls_object = 0;
		for (size_t k = 0; keys && k < count; k++) {
			if ((uint32_t)(keys[k] >> 32) != s->tgid ||
			    bpf_map_lookup_elem(set->connections_fd, &keys[k], &c) ||
			    connection_is_upstream(set, &c, keys[k]))
				continue;
			retire_connection_begin(s, keys[k], c.started - c.ended, RETIRE_UNCOUNTED,
						now_ns);
			retire_connection_apply(s);
			connection_delete(set, keys[k], &c);
			retire_connection_end(s);
		}
	}
	free(keys);
	memset(set->control->claims, 0, sizeof(set->control->claims));
	tls_forget(set, 0);
}
