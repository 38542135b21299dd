/* SPDX-License-Identifier: Apache-2.0 */
/* Arena: owned by one thread. */
#include "base/arena.h"

#include <errno.h>
#include <stdlib.h>

int arena_init(struct arena *a, size_t size)
{
	unsigned char *base = malloc(size);

	if (!base)
		return -ENOMEM;
	*a = (struct arena){.base = base, .size = size};
	return 0;
}

void arena_fini(struct arena *a)
{
	free(a->base);
	*a = (struct arena){0};
}

void arena_reset(struct arena *a)
{
	a->used = 0;
}

void *arena_alloc(struct arena *a, size_t size)
{
	size_t need = (size + 15) & ~(size_t)15;
	void *p;

	if (need < size || need > a->size - a->used) {
		a->refused++;
		return NULL;
	}
	p = a->base + a->used;
	a->used += need;
	return p;
}
