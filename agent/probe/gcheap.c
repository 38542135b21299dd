/* SPDX-License-Identifier: Apache-2.0 */
/* Reading Lua's global_State in other processes. Process: the keeper. */
#include "probe/gcheap.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE         4096u
#define THREAD_BYTES 320u /* more than any lua_State, with what may lie before it */
#define HEAP_MOST    (1ull << 47)

static int read_memory(pid_t pid, uint64_t address, void *buf, size_t size)
{
	struct iovec local = {buf, size}, remote = {(void *)(uintptr_t)address, size};
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	if (n < 0)
		return errno == EFAULT ? -ESTALE : -errno;
	return (size_t)n == size ? 0 : -ESTALE;
}

static uint64_t field(const uint8_t *at, uint32_t width)
{
	uint64_t value = 0;

	memcpy(&value, at, width); /* little-endian, as all that the finder reads */
	return value;
}

/* Does a lua_State before `globals` point to it? */
static int check_main_thread(pid_t pid, uint64_t globals, const struct finder_heap *heap)
{
	uint8_t before[THREAD_BYTES];
	size_t size = sizeof(before), at;
	int r;

	if (globals % 8 != 0 || globals < PAGE + size)
		return -ESTALE;
	r = read_memory(pid, globals - size, before, size);
	/* The state may begin right at its first page. */
	if (r == -ESTALE && globals % PAGE != 0 && globals % PAGE < size) {
		size = globals % PAGE;
		r = read_memory(pid, globals - size, before, size);
	}
	if (r < 0)
		return r;
	for (at = 0; at + heap->pointer_bytes <= size; at += heap->pointer_bytes) {
		if (field(before + at, heap->pointer_bytes) == globals)
			return 0;
	}
	return -ESTALE;
}

int gcheap_read(pid_t pid, uint64_t globals, const struct finder_heap *heap, uint64_t *ret_bytes)
{
	uint64_t sum = 0;
	unsigned int i;
	int r;

	r = check_main_thread(pid, globals, heap);
	for (i = 0; i < heap->count && r == 0; i++) {
		uint8_t bytes[8];

		r = read_memory(pid, globals + heap->parts[i], bytes, heap->width);
		sum += field(bytes, heap->width);
	}
	if (r < 0)
		return r;
	if (heap->width == 4)
		sum = (uint32_t)sum;
	if (sum == 0 || sum >= HEAP_MOST)
		return -ESTALE;
	*ret_bytes = sum;
	return 0;
}

static bool is_listed(const struct gcheap_state *states, size_t count, const struct slot *slot,
		      uint64_t globals)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (states[i].globals == globals && states[i].tgid == slot->tgid)
			return true;
	}
	return false;
}

bool gcheap_add(struct gcheap_state *states, size_t *count, size_t most, const struct slot *slot)
{
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(slot->gc_globals); i++) {
		uint64_t globals = __atomic_load_n(&slot->gc_globals[i], __ATOMIC_RELAXED);

		if (!globals || is_listed(states, *count, slot, globals))
			continue;
		if (*count == most)
			return false;
		states[(*count)++] = (struct gcheap_state){slot->tgid, slot->gateway, globals};
	}
	return true;
}
