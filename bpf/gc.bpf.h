/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Garbage collection: entry and exit probes on the collectors of LuaJIT, PUC Lua and Go. Plain
 * uprobes only: a return probe replaces the return address, and LuaJIT's error unwinder (an error in
 * a __gc metamethod) and Go's stack copier end the process when they meet it.
 *
 * The cookie of a probe is its distance below the stack pointer at entry, and flags; so an exit is
 * matched to the entry of the same call, and collections inside a collection are part of it. An
 * entry left by longjmp is forgotten at the next entry above it and at the end of the loop's turn;
 * a step whose end was not seen because the step probes went meanwhile, at the next collection.
 */
#pragma once

#include "slot.bpf.h"

#include "gc_types.h"

#define LUA_GCCOLLECT 2 /* lua.h, the same in Lua 5.1 to 5.4 and LuaJIT */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct gc_control);
} gc_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct gc_calibration);
} gc_calibrations SEC(".maps");

/* Since when the world of a Go process is stopped: its goroutine may start it on another thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u64);
} gc_stopped SEC(".maps");

#define GC_FLAGS (GC_SLOT_FULL | GC_SLOT_STEPPED)

/* Steps of the file that the probe is in are timed since then. */
static __always_inline u64 gc_steps_since(const struct gc_control *c, u64 cookie)
{
	u64 file = cookie >> GC_COOKIE_FILE;

	BOUND(file, GC_FILES - 1);
	return c->files[file].steps_since_ns;
}

/* Is the step under way one that ended unseen? */
static __always_inline bool gc_is_left(const struct slot *slot, u64 cookie)
{
	const struct gc_control *c;
	u32 zero = 0;

	if (slot->gc_sp & GC_SLOT_FULL)
		return 0;
	c = bpf_map_lookup_elem(&gc_settings, &zero);
	return c && slot->gc_since_ns < gc_steps_since(c, cookie);
}

/* Which Lua the thread collects in, for the keeper to read; coroutines of one share it. At the first
 * instruction of both functions lua_State is the first argument. */
static __always_inline void gc_globals_note(struct pt_regs *ctx, struct slot *slot, u64 cookie)
{
	u64 offset = (cookie >> GC_COOKIE_GLOBALS & 63) * 4, globals = 0;

	if (!offset || slot->gc_lua == ctx->di)
		return;
	if (bpf_probe_read_user(&globals, cookie & GC_COOKIE_SHORT ? 4 : 8,
				(void *)(ctx->di + offset)))
		return;
	slot->gc_lua = ctx->di;
	if (slot->gc_globals[0] != globals) {
		slot->gc_globals[1] = slot->gc_globals[0];
		slot->gc_globals[0] = globals;
	}
}

static __always_inline void gc_begin(struct pt_regs *ctx, u64 kind)
{
	struct slot *slot = slot_current();
	u64 cookie, sp;

	if (!slot)
		return;
	cookie = bpf_get_attach_cookie(ctx);
	gc_globals_note(ctx, slot, cookie);
	sp = ctx->sp + (u32)cookie;
	if (slot->gc_since_ns && sp < (slot->gc_sp & ~(u64)GC_FLAGS) && !gc_is_left(slot, cookie))
		return;
	if (cookie & GC_COOKIE_STEPPED)
		kind |= GC_SLOT_STEPPED;
	slot->gc_sp = sp | kind;
	/* Last, so that the lookup above is not in the measure. */
	slot->gc_since_ns = bpf_ktime_get_ns();
}

static __always_inline void gc_end(struct pt_regs *ctx, u64 kind)
{
	u64 now_ns = bpf_ktime_get_ns(), cookie, ns, bias;
	struct slot *slot = slot_current();
	struct gc_control *control_gc;
	u32 zero = 0;

	if (!slot || !slot->gc_since_ns)
		return;
	cookie = bpf_get_attach_cookie(ctx);
	if (ctx->sp + (u32)cookie != (slot->gc_sp & ~(u64)GC_FLAGS) ||
	    (slot->gc_sp & GC_SLOT_FULL) != kind)
		return;
	ns = now_ns - slot->gc_since_ns;
	slot->gc_since_ns = 0;
	control_gc = bpf_map_lookup_elem(&gc_settings, &zero);
	if (!control_gc || !keeper_lives(now_ns))
		return;
	bias = control_gc->bias_ns[!!(slot->gc_sp & GC_SLOT_STEPPED)];
	ns = ns > bias ? ns - bias : 0;
	if (kind) {
		histogram_add(slot->cells.gc_ns[GC_FULL], ns);
		slot->cells.gc_sum_ns[GC_FULL] += ns;
	} else {
		histogram_add(slot->cells.gc_ns[GC_STEP], ns);
		slot->cells.gc_sum_ns[GC_STEP] += ns;
		slot->cells.gc_steps++;
		if (cookie & GC_COOKIE_STEPPED)
			slot->cells.gc_stepped++;
	}
	if (kind)
		slot->cells.gc_cycles++;
	/* A turn of which the steps were not timed is not known. */
	if (!kind || gc_steps_since(control_gc, cookie) <= now_ns)
		slot->gc_turn_ns += ns;
}

SEC("uprobe")
int gc_step_enter(struct pt_regs *ctx)
{
	gc_begin(ctx, 0);
	return 0;
}

SEC("uprobe")
int gc_step_exit(struct pt_regs *ctx)
{
	gc_end(ctx, 0);
	return 0;
}

/* The end of a cycle made of steps; never detached, as it comes but once a cycle. */
SEC("uprobe")
int gc_cycle_end(struct pt_regs *ctx)
{
	struct slot *slot = slot_current();
	u64 sp;

	if (!slot || !keeper_lives(bpf_ktime_get_ns()))
		return 0;
	sp = ctx->sp + (u32)bpf_get_attach_cookie(ctx);
	/* Inside a full collection it is part of that. */
	if (slot->gc_since_ns && slot->gc_sp & GC_SLOT_FULL && sp < (slot->gc_sp & ~(u64)GC_FLAGS))
		return 0;
	slot->cells.gc_cycles++;
	return 0;
}

SEC("uprobe")
int gc_full_enter(struct pt_regs *ctx)
{
	if ((u32)ctx->si == LUA_GCCOLLECT)
		gc_begin(ctx, GC_SLOT_FULL);
	return 0;
}

SEC("uprobe")
int gc_full_exit(struct pt_regs *ctx)
{
	gc_end(ctx, GC_SLOT_FULL);
	return 0;
}

/* Lowest bit of gc_stopped: the world stands for the end of marking. */
#define GC_STOPPED_MARKED 1ull

SEC("uprobe")
int gc_world_stop(struct pt_regs *ctx)
{
	struct slot *slot = slot_current();
	u64 since;
	u32 tgid;

	if (!slot)
		return 0;
	tgid = slot->tgid;
	since = bpf_ktime_get_ns() & ~GC_STOPPED_MARKED;
	bpf_map_update_elem(&gc_stopped, &tgid, &since, BPF_ANY);
	return 0;
}

static __always_inline void gc_world_runs(struct slot *slot, u64 now_ns, bool is_marked)
{
	u32 tgid = slot->tgid, zero = 0;
	struct gc_control *control_gc;
	u64 *since, ns, bias;

	since = bpf_map_lookup_elem(&gc_stopped, &tgid);
	control_gc = bpf_map_lookup_elem(&gc_settings, &zero);
	if (!since || !control_gc || (is_marked && !(*since & GC_STOPPED_MARKED)))
		return;
	ns = now_ns - *since;
	bpf_map_delete_elem(&gc_stopped, &tgid);
	if (!keeper_lives(now_ns))
		return;
	bias = control_gc->bias_ns[0];
	ns = ns > bias ? ns - bias : 0;
	histogram_add(slot->cells.gc_ns[GC_STW], ns);
	slot->cells.gc_sum_ns[GC_STW] += ns;
}

SEC("uprobe")
int gc_world_start(struct pt_regs *ctx)
{
	u64 now_ns = bpf_ktime_get_ns();
	struct slot *slot = slot_current();

	if (slot)
		gc_world_runs(slot, now_ns, 0);
	return 0;
}

/* Go counts the pause at the end of marking up to here, that at its beginning until the processors run
 * again, which is where gc_world_start is then. */
SEC("uprobe")
int gc_world_starts(struct pt_regs *ctx)
{
	u64 now_ns = bpf_ktime_get_ns();
	struct slot *slot = slot_current();

	if (slot)
		gc_world_runs(slot, now_ns, 1);
	return 0;
}

SEC("uprobe")
int gc_world_cycle(struct pt_regs *ctx)
{
	struct slot *slot = slot_current();

	if (slot && keeper_lives(bpf_ktime_get_ns()))
		slot->cells.gc_cycles++;
	return 0;
}

SEC("uprobe")
int gc_world_marked(struct pt_regs *ctx)
{
	struct slot *slot = slot_current();
	u64 *since;
	u32 tgid;

	if (!slot || !keeper_lives(bpf_ktime_get_ns()))
		return 0;
	tgid = slot->tgid;
	slot->cells.gc_cycles++;
	since = bpf_map_lookup_elem(&gc_stopped, &tgid);
	if (since)
		*since |= GC_STOPPED_MARKED;
	return 0;
}

/* The same two moments, on a function of the agent that does nothing. */
SEC("uprobe")
int gc_bias_enter(struct pt_regs *ctx)
{
	struct gc_calibration *c;
	u32 zero = 0;

	if (slot_current()) /* never: looking costs the real ones time too */
		return 0;
	c = bpf_map_lookup_elem(&gc_calibrations, &zero);
	if (c)
		c->since_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("uprobe")
int gc_bias_exit(struct pt_regs *ctx)
{
	u64 now_ns = bpf_ktime_get_ns();
	struct gc_calibration *c;
	u32 zero = 0;

	if (slot_current())
		return 0;
	c = bpf_map_lookup_elem(&gc_calibrations, &zero);
	if (!c || !c->since_ns)
		return 0;
	c->samples[c->count++ & (GC_SAMPLES - 1)] = now_ns - c->since_ns;
	histogram_add(c->cells, now_ns - c->since_ns);
	c->since_ns = 0;
	return 0;
}
