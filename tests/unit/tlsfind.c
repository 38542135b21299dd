/* SPDX-License-Identifier: Apache-2.0 */
/* Probe points of TLS calls: in code written here, and in the distribution's stripped files. */
#include "probe/callpoint.h"
#include "probe/finder.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define START 0x1000u

static struct flow flow;

static int points(const uint8_t *code, size_t size, bool is_go, struct finder_function *ret)
{
	assert_int_equal(flow_decode(&flow, EM_X86_64, START, code, size), 0);
	return callpoint_find(&flow, is_go, ret);
}

/* As gcc protects a function: a test of the third argument, a canary, a call that never returns. */
static const uint8_t protected[] = {
	0x48, 0x83, 0xec, 0x18,       /*  0 sub $0x18,%rsp */
	0x31, 0xc0,                   /*  4 xor %eax,%eax */
	0x85, 0xd2,                   /*  6 test %edx,%edx */
	0x78, 0x15,                   /*  8 js 31 */
	0xe8, 0x00, 0x01, 0x00, 0x00, /* 10 call elsewhere */
	0x48, 0x8b, 0x54, 0x24, 0x08, /* 15 mov 8(%rsp),%rdx */
	0x48, 0x29, 0xca,             /* 20 sub %rcx,%rdx */
	0x75, 0x0d,                   /* 23 jne 38 */
	0x48, 0x83, 0xc4, 0x18,       /* 25 add $0x18,%rsp */
	0x31, 0xff,                   /* 29 xor %edi,%edi */
	0xc3,                         /* 31 ret -- replaced below where a test says so */
	0x90,                         /* 32 nop */
	0xb8, 0xff, 0xff, 0xff, 0xff, /* 33 mov $-1,%eax */
	0xe8, 0x00, 0x01, 0x00, 0x00, /* 38 call __stack_chk_fail */
};

static void the_canary_is_checked_where_the_result_is_there(void **state)
{
	struct finder_function f;
	uint8_t code[sizeof(protected)];

	(void)state;
	memcpy(code, protected, sizeof(code));
	assert_int_equal(points(code, sizeof(code), false, &f), 0);
	assert_int_equal(f.offset, START);
	assert_int_equal(f.entry.offset, START + 8);
	assert_int_equal(f.entry.flags, 0);
	/* The js leads to the ret itself: only there all ways meet. */
	assert_int_equal(f.exit_count, 1);
	assert_int_equal(f.exits[0].offset, START + 31);
	assert_int_equal(f.exits[0].flags, FINDER_STEPPED);
	/* It leads before the check. */
	code[9] = 15 - 10;
	assert_int_equal(points(code, sizeof(code), false, &f), 0);
	assert_int_equal(f.exits[0].offset, START + 23);
	assert_int_equal(f.exits[0].flags, 0);
	/* xor %eax,%eax behind the check: the result comes later. */
	code[30] = 0xc0;
	assert_int_equal(points(code, sizeof(code), false, &f), 0);
	assert_int_equal(f.exits[0].offset, START + 31);
}

static void an_entry_lies_before_arguments_change(void **state)
{
	static const uint8_t code[] = {
		0x31, 0xff, /* 0 xor %edi,%edi */
		0x50,       /* 2 push %rax */
		0x58,       /* 3 pop %rax */
		0xc3,       /* 4 ret */
	};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(code, sizeof(code), false, &f), 0);
	assert_int_equal(f.entry.offset, START);
	assert_int_equal(f.entry.flags, FINDER_STEPPED);
	/* For Go rdi is the fourth word, which nobody reads. */
	assert_int_equal(points(code, sizeof(code), true, &f), 0);
	assert_int_equal(f.entry.offset, START + 2);
	assert_int_equal(f.exits[0].offset, START + 4);
}

static void what_is_left_by_a_jump_is_refused(void **state)
{
	static const uint8_t tail[] = {0x50, 0x58, 0xe9, 0x00, 0x10, 0x00, 0x00};
	static const uint8_t leap[] = {0x50, 0x58, 0xff, 0xe0};
	static const uint8_t never[] = {0x50, 0xeb, 0xfd};
	struct finder_function f;

	(void)state;
	assert_int_equal(points(tail, sizeof(tail), false, &f), -ENOTSUP);
	assert_int_equal(points(leap, sizeof(leap), false, &f), -ENOTSUP);
	assert_int_equal(points(never, sizeof(never), false, &f), -ENOENT);
}

static void examine(const char *path, struct finder_result *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		print_message("# SKIP %s is not installed\n", path);
		skip();
	}
	finder_examine(fd, -1, ret);
	close(fd);
}

static void openssl_is_found_by_name(void **state)
{
	struct finder_result r;
	unsigned int i;

	(void)state;
	examine("/usr/lib/x86_64-linux-gnu/libssl.so.3", &r);
	assert_int_equal(r.runtime, FINDER_NONE);
	assert_string_equal(r.tls.why, "");
	assert_int_equal(r.tls.kind, FINDER_TLS_OPENSSL);
	assert_int_equal(r.tls.is_found, 1);
	assert_string_equal(r.tls.how, "dynsym");
	for (i = 0; i < FINDER_TLS_CALLS; i++) {
		assert_int_equal(r.tls.calls[i].offset > 0, i != FINDER_TLS_CLIENT);
		assert_int_equal(r.tls.calls[i].exit_count > 0,
				 i != FINDER_TLS_HANDSHAKE && i != FINDER_TLS_CLIENT);
	}
}

static void go_is_found_in_a_stripped_program(void **state)
{
	struct finder_result r;

	(void)state;
	examine("/usr/bin/caddy", &r);
	assert_int_equal(r.runtime, FINDER_GO);
	assert_string_equal(r.tls.why, "");
	assert_int_equal(r.tls.kind, FINDER_TLS_GO);
	assert_int_equal(r.tls.is_found, 1);
	assert_true(r.tls.calls[FINDER_TLS_READ].exit_count > 1);
	assert_true(r.tls.calls[FINDER_TLS_WRITE].exit_count > 1);
	assert_true(r.tls.calls[FINDER_TLS_HANDSHAKE].offset > 0);
	assert_true(r.tls.calls[FINDER_TLS_CLIENT].offset > 0);
	assert_int_equal(r.tls.calls[FINDER_TLS_READ_EX].offset, 0);
}

static void a_program_without_a_library_has_none(void **state)
{
	struct finder_result r;

	(void)state;
	examine("/bin/true", &r);
	assert_int_equal(r.tls.kind, FINDER_TLS_NONE);
	assert_int_equal(r.tls.is_found, 0);
	assert_string_equal(r.tls.why, "");
}

static void an_answer_out_of_bounds_is_refused(void **state)
{
	struct finder_result r;

	(void)state;
	examine("/usr/lib/x86_64-linux-gnu/libssl.so.3", &r);
	assert_true(finder_result_is_sane(&r, 1u << 30));
	assert_false(finder_result_is_sane(&r, r.tls.calls[FINDER_TLS_READ].offset));
	r.tls.kind = FINDER_TLS_KINDS;
	assert_false(finder_result_is_sane(&r, 1u << 30));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_canary_is_checked_where_the_result_is_there),
		cmocka_unit_test(an_entry_lies_before_arguments_change),
		cmocka_unit_test(what_is_left_by_a_jump_is_refused),
		cmocka_unit_test(openssl_is_found_by_name),
		cmocka_unit_test(go_is_found_in_a_stripped_program),
		cmocka_unit_test(a_program_without_a_library_has_none),
		cmocka_unit_test(an_answer_out_of_bounds_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
