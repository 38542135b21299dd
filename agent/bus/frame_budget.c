/* SPDX-License-Identifier: Apache-2.0 */
/* Budgeted memory: chunks that double. One owner, one thread. */
#include "bus/frame_budget.h"

#include <stdalign.h>
#include <stdlib.h>

#define CHUNK_LEAST 4096u
#define CHUNK_MOST  (256u << 10)

struct frame_budget_chunk {
	struct frame_budget_chunk *next;
	size_t size, used;
	alignas(16) unsigned char data[];
};

static void *allocator_alloc(void *data, size_t size)
{
	return frame_budget_alloc(data, size);
}

static void allocator_free(void *data, void *pointer)
{
	(void)data;
	(void)pointer;
}

void frame_budget_init(struct frame_budget *b, size_t limit)
{
	*b = (struct frame_budget){
		.allocator = {.alloc = allocator_alloc,
			      .free = allocator_free,
			      .allocator_data = b},
		.left = limit,
	};
}

void frame_budget_fini(struct frame_budget *b)
{
	struct frame_budget_chunk *chunk = b->chunks, *next;

	for (; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	b->chunks = NULL;
}

void *frame_budget_alloc(struct frame_budget *b, size_t size)
{
	struct frame_budget_chunk *chunk = b->chunks;
	size_t need = (size + 15) & ~(size_t)15, bytes;
	void *p;

	if (need < size || need > b->left) {
		b->is_spent = true;
		return NULL;
	}
	if (!chunk || need > chunk->size - chunk->used) {
		bytes = chunk ? chunk->size * 2 : CHUNK_LEAST;
		if (bytes > CHUNK_MOST)
			bytes = CHUNK_MOST;
		if (bytes < need)
			bytes = need;
		chunk = malloc(sizeof(*chunk) + bytes);
		if (!chunk) {
			b->is_failed = true;
			return NULL;
		}
		chunk->next = b->chunks;
		chunk->size = bytes;
		chunk->used = 0;
		b->chunks = chunk;
	}
	p = chunk->data + chunk->used;
	chunk->used += need;
	b->left -= need;
	return p;
}

void *frame_budget_array(struct frame_budget *b, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		b->is_spent = true;
		return NULL;
	}
	return frame_budget_alloc(b, bytes ? bytes : 1);
}
