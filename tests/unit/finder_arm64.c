/* SPDX-License-Identifier: Apache-2.0 */
/* Control flow of aarch64 functions, on literal words (as GNU as makes them). */
#include "base/str.h"
#include "probe/flow.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define START 0x1000

static struct flow flow;

static void decode(const uint32_t *words, size_t count)
{
	assert_int_equal(flow_decode(&flow, EM_AARCH64, START, (const uint8_t *)words, count * 4),
			 0);
	assert_int_equal(flow.count, count);
}

/* The shape of lj_gc_step as gcc makes it. */
static const uint32_t step[] = {
	0xa9bd7bfd, /* 0: stp x29, x30, [sp, #-48]! */
	0x12800043, /* 4: mov w3, #-3 */
	0xf9400814, /* 8: ldr x20, [x0, #16] */
	0xb900ba83, /* 12: str w3, [x20, #184] */
	0x940003fc, /* 16: bl far away */
	0x35000081, /* 20: cbnz w1, 36 */
	0x52800020, /* 24: mov w0, #1 */
	0xa8c37bfd, /* 28: ldp x29, x30, [sp], #48 */
	0xd65f03c0, /* 32: ret */
	0xf100001f, /* 36: cmp x0, #0 */
	0x54000088, /* 40: b.hi 56 */
	0x12800000, /* 44: mov w0, #-1 */
	0xa8c37bfd, /* 48: ldp x29, x30, [sp], #48 */
	0xd65f03c0, /* 52: ret */
	0x52800000, /* 56: mov w0, #0 */
	0xa8c37bfd, /* 60: ldp x29, x30, [sp], #48 */
	0xd65f03c0, /* 64: ret */
};

static void a_step_is_entered_and_left(void **state)
{
	struct finder_function f;

	(void)state;
	decode(step, ARRAY_LEN(step));
	assert_true(flow_stores_gc(&flow));
	assert_int_equal(flow.insns[4].kind, FLOW_CALL);
	assert_int_equal(flow.insns[4].target, START + 0x1000);
	assert_int_equal(flow_points(&flow, true, &f), 0);
	/* stp cannot be simulated, and nothing else in the entry block before a call can */
	assert_int_equal(f.entry.offset, START);
	assert_int_equal(f.entry.flags, FINDER_STEPPED);
	assert_int_equal(f.exit_count, 2);
	assert_int_equal(f.exits[0].offset, START + 40);
	assert_int_equal(f.exits[0].frame, 48);
	assert_int_equal(f.exits[0].flags, 0);
	/* ret is simulated there, unlike on x86 */
	assert_int_equal(f.exits[1].offset, START + 32);
	assert_int_equal(f.exits[1].frame, 0);
	assert_int_equal(f.exits[1].flags, FINDER_CYCLE);
}

static void another_number_is_not_the_mark(void **state)
{
	uint32_t words[ARRAY_LEN(step)];
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(step); i++)
		words[i] = step[i];
	words[1] = 0x12800063; /* mov w3, #-4 */
	decode(words, ARRAY_LEN(words));
	assert_false(flow_stores_gc(&flow));
	words[1] = step[1];
	words[2] = 0xf9400803; /* ldr x3: the register is written in between */
	decode(words, ARRAY_LEN(words));
	assert_false(flow_stores_gc(&flow));
}

static void comparisons_of_memory_are_seen(void **state)
{
	static const uint32_t words[] = {
		0xf9400c01, /* ldr x1, [x0, #24] */
		0xf100003f, /* cmp x1, #0 */
		0xa9470c02, /* ldp x2, x3, [x0, #112] */
		0xeb02007f, /* cmp x3, x2 */
		0xf100013f, /* cmp x9, #0: was not loaded */
		0xf9400401, /* ldr x1, [x0, #8] */
		0xf100043f, /* cmp x1, #1 */
		0xf100083f, /* cmp x1, #2 */
		0xd10083ff, /* sub sp, sp, #0x20 */
		0x910083ff, /* add sp, sp, #0x20 */
		0x140007e8, /* b far away */
	};
	struct finder_function f;

	(void)state;
	decode(words, ARRAY_LEN(words));
	assert_true(flow.insns[1].compares_zero);
	assert_false(flow.insns[1].compares_memory);
	assert_true(flow.insns[3].compares_memory);
	assert_false(flow.insns[4].compares_zero);
	assert_true(flow.insns[6].compares_zero);
	assert_false(flow.insns[7].compares_zero);
	/* A jump out of the function with its frame taken down is a tail call. */
	assert_int_equal(flow_points(&flow, true, &f), 0);
	assert_int_equal(f.exit_count, 1);
	assert_int_equal(f.exits[0].offset, START + 40);
}

/* The shape of lua_gc: a table of bytes, each the distance in words from the first case. */
static void one_case_of_a_switch_can_be_kept(void **state)
{
	static const uint32_t words[] = {
		0x71000c3f, /* 0: cmp w1, #3 */
		0x540001c8, /* 4: b.hi 60 */
		0x90000002, /* 8: adrp x2, 0x1000 */
		0x91048042, /* 12: add x2, x2, #0x120 */
		0x38614842, /* 16: ldrb w2, [x2, w1, uxtw] */
		0x10000063, /* 20: adr x3, 32 */
		0x8b228862, /* 24: add x2, x3, w2, sxtb #2 */
		0xd61f0040, /* 28: br x2 */
		0x52800020, /* 32: mov w0, #1 */
		0xd65f03c0, /* 36: ret */
		0x528000e0, /* 40: mov w0, #7 */
		0xd65f03c0, /* 44: ret */
		0x940003da, /* 48: bl far away */
		0x52800000, /* 52: mov w0, #0 */
		0xd65f03c0, /* 56: ret */
		0x12800000, /* 60: mov w0, #-1 */
		0xd65f03c0, /* 64: ret */
	};
	struct finder_function f;

	(void)state;
	decode(words, ARRAY_LEN(words));
	assert_int_equal(flow.leap.table, 0x1120);
	assert_int_equal(flow.leap.base, START + 32);
	assert_int_equal(flow.leap.width, 1);
	assert_int_equal(flow.leap.shift, 2);
	assert_true(flow.leap.is_signed);
	assert_int_equal(flow_only_case(&flow, flow.leap.base + (4 << flow.leap.shift)), 0);
	assert_int_equal(flow_points(&flow, true, &f), 0);
	assert_int_equal(f.exit_count, 1);
	assert_int_equal(f.exits[0].offset, START + 56);
}

static void a_signed_return_takes_no_probe(void **state)
{
	static const uint32_t words[] = {0xd503233f, 0xd65f0bff}; /* paciasp, retaa */
	struct finder_function f;

	(void)state;
	decode(words, ARRAY_LEN(words));
	assert_int_equal(flow.insns[1].kind, FLOW_RET);
	assert_int_equal(flow_points(&flow, true, &f), -ENOTSUP);
	assert_int_equal(flow_points(&flow, false, &f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_step_is_entered_and_left),
		cmocka_unit_test(another_number_is_not_the_mark),
		cmocka_unit_test(comparisons_of_memory_are_seen),
		cmocka_unit_test(one_case_of_a_switch_can_be_kept),
		cmocka_unit_test(a_signed_return_takes_no_probe),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
