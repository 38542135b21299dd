/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heaps of Lua states, read from outside: the programs note which global_State a thread last
 * collected in, the keeper reads its fields (process_vm_readv, CAP_SYS_PTRACE). Costs the gateway
 * nothing. Owns nothing but its scratch space. Process: the keeper.
 */
#pragma once

#include "probe/finder.h"
#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct gcheap_state {
	uint32_t tgid, gateway;
	uint64_t globals; /* address of global_State in that process */
};

/* Bytes in use by one Lua state. -ESTALE: there is no global_State at that address (any more); a
 * main thread lies right before it and points to it, as LuaJIT and PUC Lua allocate both at once.
 * -ESRCH, -EPERM as process_vm_readv(2). */
int gcheap_read(pid_t pid, uint64_t globals, const struct finder_heap *heap, uint64_t *ret_bytes);

/* Adds what the thread's slot names, unless it is listed already. False: no room. */
bool gcheap_add(struct gcheap_state *states, size_t *count, size_t most, const struct slot *slot);
