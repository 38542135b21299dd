/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the garbage collector's functions in an ELF file, stripped or not. The file is hostile: it
 * is read by a child without capabilities, under a seccomp filter and limits, that gives back one
 * struct of fixed size. Process: the keeper, and one child per file.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum finder_runtime {
	FINDER_NONE,
	FINDER_LUAJIT,
	FINDER_PUC,
	FINDER_GO,
	FINDER_OPENJDK,
	FINDER_RUNTIMES
};

enum finder_flag {
	FINDER_STEPPED = 1, /* the kernel cannot emulate the instruction: it single-steps it */
	FINDER_CYCLE = 2,   /* leaving here means that a collection cycle is complete */
};

/* Where to put a probe: file offset, and how far the stack pointer lies below its value at the
 * function's entry, so that entry and exit of one call can be told from those of a nested one. */
struct finder_point {
	uint64_t offset;
	uint32_t frame;
	uint32_t flags;
};

#define FINDER_EXITS_MAX 24u

struct finder_function {
	uint64_t offset; /* of its first byte; 0: absent */
	struct finder_point entry;
	uint32_t exit_count;
	struct finder_point exits[FINDER_EXITS_MAX]; /* OpenJDK: all places of one SDT probe */
	uint64_t semaphore; /* of an SDT probe: file offset of the counter to raise; 0: none */
};

/* Where a process keeps what the collector knows; offsets in bytes. */
#define FINDER_HEAP_PARTS  2u
#define FINDER_GLOBALS_MAX 252u
#define FINDER_FIELDS_MAX  4096u

struct finder_heap {
	uint32_t globals, pointer_bytes; /* lua_State's pointer to global_State; 0: not known */
	uint32_t count, width;           /* fields of global_State whose sum is the heap in bytes */
	uint32_t parts[FINDER_HEAP_PARTS];
	uint32_t state, pause; /* field of global_State, and its value between two cycles */
};

/* TLS libraries of which the plain bytes can be read. */
enum finder_tls_kind { FINDER_TLS_NONE, FINDER_TLS_OPENSSL, FINDER_TLS_GO, FINDER_TLS_KINDS };
/* OpenSSL: not CLIENT, and *_EX since 1.1.1. Go: the first four. */
enum finder_tls_call {
	FINDER_TLS_READ,
	FINDER_TLS_WRITE,
	FINDER_TLS_HANDSHAKE, /* only the entries of handshakes are probed */
	FINDER_TLS_CLIENT,    /* a client's handshake, where it is another function */
	FINDER_TLS_READ_EX,
	FINDER_TLS_WRITE_EX,
	FINDER_TLS_CALLS
};

struct finder_tls {
	uint32_t kind;     /* enum finder_tls_kind; NONE with why "": no library here */
	uint32_t is_found; /* 1: the calls below that have an offset can be probed */
	char how[16];      /* "dynsym", "symtab", "gopclntab" */
	char why[128];     /* when not found */
	struct finder_function calls[FINDER_TLS_CALLS];
};

struct finder_result {
	uint32_t runtime;  /* enum finder_runtime; FINDER_NONE with why "" means: no runtime here */
	uint32_t is_found; /* 1: the functions below can be probed */
	char name[16];     /* "luajit", "lua5.3", "go", "openjdk" */
	char how[16]; /* "symtab", "debug-file", "gnu_debugdata", "call-vote", "gopclntab", "sdt" */
	/* 1 where a symbol table of this very build names the functions. By call vote: the share of
	 * the API's allocating functions that call the step (5 of at most 8 at least); for PUC Lua,
	 * whose step bears no mark of its own, times the share of those whose code compares the
	 * collector's debt (LuaJIT's step must write its state to be believed at all). */
	double confidence;
	char reason[160];            /* when found: what speaks for it */
	char why[256];               /* when not found: which symbol or what else is missing */
	char build_id[65];           /* of the file, in hexadecimal; "": it has none */
	struct finder_function step; /* LuaJIT lj_gc_step, PUC luaC_step (5.2: luaC_forcestep) */
	struct finder_function full; /* lua_gc */
	/* Go: the world is stopped and started. OpenJDK: a collection begins and ends. */
	struct finder_function stop, start;
	/* A cycle is complete: Go: at its entry. Others: at any of its exits (Lua: if it was made of
	 * steps; none when it is not known where). */
	struct finder_function cycle;
	struct finder_heap heap; /* Lua; count 0: not known */
	struct finder_tls tls;   /* beside a runtime, or alone */
};

/* Examines the file in this process. Only the child, tests and fuzzers call it. debug_fd: a file
 * with its debugging symbols, believed when its build id is the same; -1: none. */
void finder_examine(int fd, int debug_fd, struct finder_result *ret);

/* Examines it in a confined child, 5 s at most; a crash or a timeout is told in why. What its own
 * symbol table does not name is then looked for with the debug file that the root of process pid
 * has for the build id (pid 0: none). The answer is remembered by device, inode, size and mtime (64
 * files). Negative errno only when fd cannot be examined at all. fd is borrowed. */
int finder_run(int fd, uint32_t pid, struct finder_result *ret);

/* True when counts and offsets of a struct that a child wrote are within bounds of the file. */
bool finder_result_is_sane(const struct finder_result *result, uint64_t file_size);
