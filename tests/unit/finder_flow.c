/* SPDX-License-Identifier: Apache-2.0 */
/* Control flow, Go's function table and file names, on literal bytes. */
#include "base/str.h"
#include "probe/flow.h"
#include "probe/gcfile.h"
#include "probe/gopclntab.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define START 0x1000

static struct flow flow;

static int points(const uint8_t *code, size_t size, bool with_exits, struct finder_function *ret)
{
	assert_int_equal(flow_decode(&flow, EM_X86_64, START, code, size), 0);
	return flow_points(&flow, with_exits, ret);
}

static void a_branch_between_two_returns_is_the_exit(void **state)
{
	static const uint8_t code[] = {
		0x53,                               /* 0: push %rbx */
		0x48, 0x83, 0xec, 0x10,             /* 1: sub $16, %rsp */
		0x85, 0xff,                         /* 5: test %edi, %edi */
		0x74, 0x08,                         /* 7: je 17 */
		0x31, 0xc0,                         /* 9: xor %eax, %eax */
		0x48, 0x83, 0xc4, 0x10,             /* 11: add $16, %rsp */
		0x5b, 0xc3,                         /* 15: pop; ret */
		0x48, 0x83, 0xc4, 0x10, 0x5b, 0xc3, /* 17: add; pop; ret */
	};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(code, sizeof(code), true, &f), 0);
	assert_int_equal(f.entry.offset, START);
	assert_int_equal(f.entry.flags, 0);
	assert_int_equal(f.exit_count, 1);
	assert_int_equal(f.exits[0].offset, START + 7);
	assert_int_equal(f.exits[0].frame, 24);
	assert_int_equal(f.exits[0].flags, 0);
}

static void a_return_of_one_ends_a_cycle(void **state)
{
	static const uint8_t code[] = {
		0x55,                         /* 0: push %rbp */
		0x85, 0xff, 0x75, 0x07,       /* 1: test; jne 12 */
		0xb8, 0x01, 0x00, 0x00, 0x00, /* 5: mov $1, %eax */
		0x5d, 0xc3,                   /* 10: pop; ret */
		0x31, 0xc0, 0x5d, 0xc3,       /* 12: xor; pop; ret */
	};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(code, sizeof(code), true, &f), 0);
	assert_int_equal(f.exit_count, 2);
	assert_int_equal(f.exits[0].offset, START + 11);
	assert_int_equal(f.exits[0].flags, FINDER_STEPPED | FINDER_CYCLE);
	assert_int_equal(f.exits[1].offset, START + 15);
	assert_int_equal(f.exits[1].flags, FINDER_STEPPED);
	assert_int_equal(f.exits[1].frame, 0);
}

static void a_tail_call_is_an_exit(void **state)
{
	static const uint8_t code[] = {
		0x53, 0x5b,                   /* push; pop */
		0xe9, 0x00, 0x10, 0x00, 0x00, /* 2: jmp far away */
	};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(code, sizeof(code), true, &f), 0);
	assert_int_equal(f.exit_count, 1);
	assert_int_equal(f.exits[0].offset, START + 2);
	assert_int_equal(f.exits[0].flags, 0);
}

static void the_entry_goes_to_what_can_be_emulated(void **state)
{
	static const uint8_t endbr[] = {0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x55, 0x41, 0x5d, 0xc3};
	static const uint8_t sub[] = {0x48, 0x83, 0xec, 0x08, 0x48, 0x83, 0xc4, 0x08, 0xc3};
	/* Jumped back to: the first instruction runs more than once a call. */
	static const uint8_t loop[] = {0x85, 0xff, 0x75, 0xfc, 0xc3};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(endbr, sizeof(endbr), true, &f), 0);
	assert_int_equal(f.entry.offset, START + 4);
	assert_int_equal(f.entry.frame, 0);
	assert_int_equal(f.entry.flags, 0);
	assert_int_equal(points(sub, sizeof(sub), true, &f), 0);
	assert_int_equal(f.entry.offset, START);
	assert_int_equal(f.entry.flags, FINDER_STEPPED);
	assert_int_equal(points(loop, sizeof(loop), true, &f), 0);
	assert_int_equal(f.entry.offset, START);
	assert_int_equal(f.entry.flags, FINDER_STEPPED);
}

static void a_function_without_an_exit_is_refused(void **state)
{
	static const uint8_t forever[] = {0x55, 0xeb, 0xfe};
	static const uint8_t nonsense[] = {0x06, 0x06};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(forever, sizeof(forever), true, &f), -ENOENT);
	assert_int_equal(points(forever, sizeof(forever), false, &f), 0);
	assert_int_equal(flow_decode(&flow, EM_X86_64, START, nonsense, sizeof(nonsense)),
			 -ENOEXEC);
	assert_int_equal(flow_decode(&flow, EM_X86_64, START, nonsense, 0), -ENOEXEC);
}

static void too_many_exits_are_refused(void **state)
{
	uint8_t code[FINDER_EXITS_MAX + 1];
	struct finder_function f;

	(void)state;
	memset(code, 0xc3, sizeof(code));
	assert_int_equal(points(code, sizeof(code), true, &f), -E2BIG);
	assert_int_equal(points(code, sizeof(code) - 1, true, &f), 0);
	assert_int_equal(f.exit_count, FINDER_EXITS_MAX);
}

/* ---- .gopclntab ---- */

struct table {
	uint8_t bytes[512];
};

static void put64(struct table *t, size_t at, uint64_t v)
{
	memcpy(t->bytes + at, &v, 8);
}

static void put32(struct table *t, size_t at, uint32_t v)
{
	memcpy(t->bytes + at, &v, 4);
}

/* Two functions, a.b at 0x400010 and c.d at 0x400020; the text ends at 0x400040. */
static struct table make_go118(void)
{
	struct table t = {{0}};

	put32(&t, 0, 0xfffffff1);
	t.bytes[6] = 1;
	t.bytes[7] = 8;
	put64(&t, 8, 2);         /* functions */
	put64(&t, 24, 0x400000); /* text */
	put64(&t, 32, 128);      /* names */
	put64(&t, 64, 256);      /* rows */
	memcpy(t.bytes + 128, "\0a.b\0c.d", 9);
	put32(&t, 256, 0x10);
	put32(&t, 260, 64);
	put32(&t, 264, 0x20);
	put32(&t, 268, 72);
	put32(&t, 272, 0x40);
	put32(&t, 256 + 64 + 4, 1);
	put32(&t, 256 + 72 + 4, 5);
	return t;
}

static void go_functions_are_named(void **state)
{
	struct gopclntab_function f[] = {{.name = "c.d"}, {.name = "x.y"}, {.name = "a.b"}};
	struct table t = make_go118();
	struct gopclntab_info info;
	struct err e = {.text = ""};

	(void)state;
	assert_int_equal(gopclntab_find(t.bytes, sizeof(t.bytes), 0, f, 3, &info, &e), 0);
	assert_string_equal(info.version, "go1.20");
	assert_int_equal(f[0].start, 0x400020);
	assert_int_equal(f[0].end, 0x400040);
	assert_int_equal(f[1].start, 0);
	assert_int_equal(f[2].start, 0x400010);
	assert_int_equal(f[2].end, 0x400020);
}

static void damaged_go_tables_are_refused(void **state)
{
	struct gopclntab_function f[] = {{.name = "c.d"}};
	struct gopclntab_info info;
	struct table t;
	size_t size, at;
	struct err e;

	(void)state;
	for (size = 0; size < 276; size++) {
		/* On the heap and exact, so that a sanitizer sees one byte too many. */
		uint8_t *cut = test_malloc(size ? size : 1);

		t = make_go118();
		memcpy(cut, t.bytes, size);
		err_clear(&e);
		assert_true(gopclntab_find(cut, size, 0, f, 1, &info, &e) < 0);
		assert_true(e.text[0] != 0);
		test_free(cut);
	}
	/* Any offset may be anything: an error or an answer, never a read outside. */
	for (at = 0; at < 340; at++) {
		uint8_t *whole = test_malloc(sizeof(t.bytes));

		t = make_go118();
		memcpy(whole, t.bytes, sizeof(t.bytes));
		whole[at] = 0xff;
		if (at + 1 < sizeof(t.bytes))
			whole[at + 1] = 0xff;
		gopclntab_find(whole, sizeof(t.bytes), 0, f, 1, &info, NULL);
		test_free(whole);
	}
	t = make_go118();
	put32(&t, 0, 0xfffffffb);
	assert_int_equal(gopclntab_find(t.bytes, sizeof(t.bytes), 0, f, 1, &info, NULL), -ENOTSUP);
}

/* Where the text begins is said by the dynamic linker (external linking), or not at all (1.26). */
static void a_go_table_may_not_know_its_text(void **state)
{
	struct gopclntab_function f[] = {{.name = "a.b"}};
	struct gopclntab_info info;
	struct table t = make_go118();

	(void)state;
	put64(&t, 24, 0);
	assert_int_equal(gopclntab_find(t.bytes, sizeof(t.bytes), 0, f, 1, &info, NULL), 0);
	assert_true(info.is_relative);
	assert_int_equal(f[0].start, 0x10);
	assert_int_equal(f[0].end, 0x20);
	assert_int_equal(gopclntab_find(t.bytes, sizeof(t.bytes), 0x7000, f, 1, &info, NULL), 0);
	assert_false(info.is_relative);
	assert_int_equal(f[0].start, 0x7010);
}

static void a_go_table_is_found_among_other_data(void **state)
{
	static uint8_t data[1024];
	struct table t = make_go118();
	size_t at = 0;

	(void)state;
	memcpy(data + 256, t.bytes, sizeof(t.bytes));
	memcpy(data + 64, t.bytes, 4); /* the magic alone is not enough */
	assert_int_equal(gopclntab_search(data, sizeof(data), 0, &at), 0);
	assert_int_equal(at, 256);
	assert_int_equal(gopclntab_search(data, sizeof(data), 257, &at), -ENOENT);
	assert_int_equal(gopclntab_search(data, 263, 0, &at), -ENOENT);
	assert_int_equal(gopclntab_search(data, 0, 0, &at), -ENOENT);
}

static void files_are_ranked_by_name(void **state)
{
	(void)state;
	assert_int_equal(gcfile_rank("/usr/lib/libluajit-5.1.so.2.1.0", "/usr/sbin/nginx"), 0);
	assert_int_equal(gcfile_rank("/usr/lib/liblua5.3.so.0.0.0", "/usr/sbin/haproxy"), 1);
	assert_int_equal(gcfile_rank("/usr/lib64/liblua-5.4.so", "/usr/sbin/haproxy"), 1);
	assert_int_equal(gcfile_rank("/usr/sbin/nginx", "/usr/sbin/nginx"), 2);
	assert_int_equal(gcfile_rank("/m/ngx_http_lua_module.so", "/usr/sbin/nginx"), 3);
	assert_int_equal(gcfile_rank("/usr/lib/libc.so.6", "/usr/sbin/nginx"), -1);
	assert_int_equal(gcfile_rank("/opt/lua/libx.so", "/usr/sbin/nginx"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_branch_between_two_returns_is_the_exit),
		cmocka_unit_test(a_return_of_one_ends_a_cycle),
		cmocka_unit_test(a_tail_call_is_an_exit),
		cmocka_unit_test(the_entry_goes_to_what_can_be_emulated),
		cmocka_unit_test(a_function_without_an_exit_is_refused),
		cmocka_unit_test(too_many_exits_are_refused),
		cmocka_unit_test(go_functions_are_named),
		cmocka_unit_test(damaged_go_tables_are_refused),
		cmocka_unit_test(a_go_table_may_not_know_its_text),
		cmocka_unit_test(a_go_table_is_found_among_other_data),
		cmocka_unit_test(files_are_ranked_by_name),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
