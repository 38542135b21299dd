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

struct finder_result {
	uint32_t runtime;  /* enum finder_runtime; FINDER_NONE with why "" means: no runtime here */
	uint32_t is_found; /* 1: the functions below can be probed */
	char name[16];     /* "luajit", "lua5.3", "go", "openjdk" */
	char how[16];      /* "symtab", "call-vote", "gopclntab", "sdt" */
	double confidence;
	char why[256];               /* when not found: which symbol or what else is missing */
	struct finder_function step; /* LuaJIT lj_gc_step, PUC luaC_step */
	struct finder_function full; /* lua_gc */
	/* Go: stop and start the world, mark done. OpenJDK: a collection begins, ends, ends. */
	struct finder_function stop, start, cycle;
};

/* Examines the file in this process. Only the child, tests and fuzzers call it. */
void finder_examine(int fd, struct finder_result *ret);

/* Examines it in a confined child, 5 s at most; a crash or a timeout is told in why. The answer is
 * remembered by device, inode, size and mtime (64 files). Negative errno only when fd cannot be
 * examined at all. fd is borrowed. */
int finder_run(int fd, struct finder_result *ret);

/* True when counts and offsets of a struct that a child wrote are within bounds of the file. */
bool finder_result_is_sane(const struct finder_result *result, uint64_t file_size);
