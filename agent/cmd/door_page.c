/* SPDX-License-Identifier: Apache-2.0 */
/* The door's counts in shared memory, and as series. Written by the door, read by the core. */
#include "cmd/door_page.h"

#include <stddef.h>
#include <sys/mman.h>

static const struct row {
	enum metric_id id;
	const char *key, *value;
	size_t offset;
} rows[] = {
	{METRIC_ID_DOOR_CONNECTIONS, "what", "client", offsetof(struct door_page, clients)},
	{METRIC_ID_DOOR_CONNECTIONS, "what", "subscriber", offsetof(struct door_page, subscribers)},
	{METRIC_ID_DOOR_ACCEPTED, NULL, NULL, offsetof(struct door_page, counts.accepted)},
	{METRIC_ID_DOOR_DROPPED, NULL, NULL, offsetof(struct door_page, dropped)},
	{METRIC_ID_DOOR_HANDSHAKES, "how", "full",
	 offsetof(struct door_page, counts.handshakes_full)},
	{METRIC_ID_DOOR_HANDSHAKES, "how", "resumed",
	 offsetof(struct door_page, counts.handshakes_resumed)},
	{METRIC_ID_DOOR_CERTIFICATE_LOADS, "state", "done", offsetof(struct door_page, loads)},
	{METRIC_ID_DOOR_CERTIFICATE_LOADS, "state", "failed",
	 offsetof(struct door_page, load_failures)},
	/* The last: absent without TLS. */
	{METRIC_ID_DOOR_CERTIFICATE_EXPIRES, NULL, NULL, offsetof(struct door_page, expires_s)},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

struct door_page *door_page_new(void)
{
	/* layers: anonymous, shared by the supervisor's children, each of which may die */
	void *p = mmap(NULL, sizeof(struct door_page), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void door_page_set(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

void door_page_read(const struct door_page *p, struct door_page *ret)
{
	turnstile_counts_read(&p->counts, &ret->counts);
	ret->clients = __atomic_load_n(&p->clients, __ATOMIC_RELAXED);
	ret->subscribers = __atomic_load_n(&p->subscribers, __ATOMIC_RELAXED);
	ret->dropped = __atomic_load_n(&p->dropped, __ATOMIC_RELAXED);
	ret->loads = __atomic_load_n(&p->loads, __ATOMIC_RELAXED);
	ret->load_failures = __atomic_load_n(&p->load_failures, __ATOMIC_RELAXED);
	ret->expires_s = __atomic_load_n(&p->expires_s, __ATOMIC_RELAXED);
}

size_t door_page_series(const struct door_page *copy)
{
	return TURNSTILE_REASONS + ROWS - (copy->expires_s ? 0 : 1);
}

bool door_page_get(const void *copy, size_t index, struct prometheus_series *ret)
{
	const struct door_page *p = copy;
	struct row row = {METRIC_ID_DOOR_REFUSED, "reason", NULL, 0};
	const struct metric_desc *d;

	if (index < TURNSTILE_REASONS) {
		row.value = turnstile_reason_names[index];
		ret->counter = p->counts.refused[index];
	} else {
		row = rows[index - TURNSTILE_REASONS];
		ret->counter = *(const uint64_t *)(const void *)((const char *)p + row.offset);
	}
	d = &metric_descs[row.id];
	ret->name = d->name;
	ret->unit = d->unit;
	ret->help = d->help;
	ret->kind = d->kind;
	ret->room[0] = (struct segment_label){row.key, row.value};
	ret->labels = ret->room;
	ret->label_count = row.key != NULL;
	ret->gauge = (double)ret->counter;
	return true;
}
