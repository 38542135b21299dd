/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections whose descriptor ended without close(): dup2, close_range, exec. The table is walked, a
 * part a tick; what is found without a socket is claimed, and ended when it still is at the next look.
 * A claim keeps the programs and the keeper from both counting the same end. In the keeper.
 */
#include "probe/set.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WALK_BATCH  64  /* larger than any bucket of the table grows */
#define WALK_FOUND  256 /* looked at after a look that found some: they come by the process */
#define INTERVAL_NS (500 * NS_PER_MS) /* ticks are shorter during a drain */

struct reconcile {
	bool is_within; /* cursor means something */
	bool has_found; /* at the last look */
	uint32_t cursor;
	uint64_t looked_ns;
	uint64_t keys[WALK_BATCH];
	struct connection values[WALK_BATCH];
};

static bool is_socket(const char *link, ssize_t size)
{
	return size >= 7 && !memcmp(link, "socket:", 7);
}

/* False also where nothing can be found out. */
static bool is_suspect(uint64_t key)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%u/fd/%u", (uint32_t)(key >> 32), (uint32_t)key);
	n = readlink(path, link, sizeof(link));
	return n < 0 ? errno == ENOENT : !is_socket(link, n);
}

/* One thread's table: 1 a socket or unknown, 0 none, -ESRCH no such thread. */
static int thread_has_socket(const struct slot *slot, uint32_t fd)
{
	_cleanup_close_ int dir = -1;
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%u/task/%u/fd", slot->tgid, slot->tid);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? -ESRCH : 1;
	snprintf(path, sizeof(path), "%u", fd);
	n = readlinkat(dir, path, link, sizeof(link));
	if (n < 0 && errno != ENOENT)
		return 1;
	return n >= 0 && is_socket(link, n);
}

/* A thread may have descriptors of its own, and the first one may have ended before the others. */
static bool is_gone(const struct probe_set *set, uint64_t key)
{
	uint32_t tgid = (uint32_t)(key >> 32);
	bool is_known = false;

	for (unsigned int i = 0; i < set->threads; i++) {
		const struct slot *s = set->is_used[i] ? set->slots[i] : NULL;
		int r;

		if (!s || s->tgid != tgid || s->state != SLOT_LIVE)
			continue;
		r = thread_has_socket(s, (uint32_t)key);
		if (r > 0)
			return false;
		/* A thread that ends is marked before it gives its descriptors back. */
		is_known |= r == 0 && __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == SLOT_LIVE;
	}
	return is_known;
}

/* From here to the last store no program touches the connection: who began to before it was claimed
 * is long done, and who comes now is told by the claim. */
static void take(struct probe_set *set, uint64_t *claim, uint64_t key, uint64_t now_ns)
{
	uint64_t expected = key;
	const struct slot *slot = slots_of_process(set, (uint32_t)(key >> 32));
	struct slot *ledger = slot ? slots_ledger(set, slot->gateway) : NULL;
	struct connection c;

	if (!ledger) {
		__atomic_compare_exchange_n(claim, &expected, 0, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
		return;
	}
	if (!__atomic_compare_exchange_n(claim, &expected, key | CLAIM_TAKEN, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	if (bpf_map_lookup_elem(set->connections_fd, &key, &c) == 0)
		retire_unseen(set, ledger, key, &c, now_ns);
	__atomic_store_n(claim, 0, __ATOMIC_SEQ_CST);
}

static void claims_settle(struct probe_set *set, uint64_t now_ns)
{
	for (unsigned int i = 0; i < CLAIMS; i++) {
		uint64_t *claim = &set->control->claims[i];
		uint64_t key = __atomic_load_n(claim, __ATOMIC_ACQUIRE);

		if (!key)
			continue;
		if (key & CLAIM_TAKEN) /* by a keeper that died; its intent was finished */
			__atomic_store_n(claim, 0, __ATOMIC_SEQ_CST);
		else if (is_gone(set, key))
			take(set, claim, key, now_ns);
		else
			__atomic_compare_exchange_n(claim, &key, 0, false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST);
	}
}

/* How many of these are suspects now. */
static unsigned int claim_each(struct probe_set *set, const uint64_t *keys, unsigned int count)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < count; i++) {
		uint64_t *claim = &set->control->claims[claim_place(keys[i])];

		/* Only the keeper puts something there. */
		if (*claim || !is_suspect(keys[i]))
			continue;
		__atomic_store_n(claim, keys[i], __ATOMIC_SEQ_CST);
		n++;
	}
	return n;
}

/* By buckets, not by keys: the key where the last look ended may be gone, and then the walk would
 * begin anew for ever. */
static unsigned int walk(struct probe_set *set, struct reconcile *r)
{
	unsigned int seen = 0, suspects = 0, most = r->has_found ? WALK_FOUND : WALK_BATCH;

	while (seen < most) {
		uint32_t next = 0, count = WALK_BATCH;
		int error =
			bpf_map_lookup_batch(set->connections_fd, r->is_within ? &r->cursor : NULL,
					     &next, r->keys, r->values, &count, NULL);

		if (error && error != -ENOENT) {
			r->is_within = false;
			break;
		}
		suspects += claim_each(set, r->keys, count);
		seen += count;
		r->is_within = !error;
		r->cursor = next;
		if (error) /* the end of the table */
			break;
	}
	return suspects;
}

void reconcile_tick(struct probe_set *set, uint64_t now_ns)
{
	struct reconcile *r = set->reconcile;

	if (r->looked_ns && now_ns - r->looked_ns < INTERVAL_NS)
		return;
	r->looked_ns = now_ns;
	claims_settle(set, now_ns);
	/* A program that began before the claim could be seen ends within this call, where the kernel
	 * has it; else before the next look. */
	r->has_found = walk(set, r) > 0;
	if (r->has_found)
		syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

struct reconcile *reconcile_new(void)
{
	return calloc(1, sizeof(struct reconcile));
}

struct reconcile *reconcile_free(struct reconcile *r)
{
	free(r);
	return NULL;
}
