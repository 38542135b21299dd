/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sorts series of one moment into bus bodies by gateway, because topics are by gateway. A few
 * bodies are open at a time: a host has one or two gateways, and a hostile one must not make many
 * bodies of one series dearer than that. Pure.
 */
#pragma once

#include "fleet/body.h"

#define SHELF_BODIES  4
#define SHELF_GATEWAY 256 /* bytes of a name that are looked at, NUL included */

struct shelf;

/* A full body, or one at the end; it is borrowed for the call. gateway "": series about none. */
typedef void (*shelf_fn)(void *data, const char *gateway, Tidegate__BusBody *body);

int shelf_new(shelf_fn fn, void *data, struct shelf **ret);
struct shelf *shelf_free(struct shelf *s);
/* Forgets what was not given out. */
void shelf_begin(struct shelf *s, uint64_t time_ms);
/* Copies. -ENOMEM, also for a series larger than a body: it is left out, the others are not. */
int shelf_add(struct shelf *s, const struct merge_series *series);
/* Gives out the rest. Then begin again. */
void shelf_end(struct shelf *s);
