/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an ELF file to the places of its garbage collector, one file a runtime. Only finder.h's
 * finder_examine and these files know each other. Process: the finder's child.
 */
#pragma once

#include "probe/elffile.h"
#include "probe/finder.h"
#include "probe/flow.h"

/* -ESRCH: the file holds no Lua. Else as finder_examine: what is missing is in *e. */
int examine_lua(const struct elffile *f, int debug_fd, struct finder_result *ret, struct err *e);

/* -ESRCH: no Go. */
int examine_go(const struct elffile *f, struct finder_result *ret, struct err *e);

/* -ESRCH: no HotSpot. */
int examine_openjdk(const struct elffile *f, struct finder_result *ret, struct err *e);

/* One instruction by itself. */
int examine_place(const struct elffile *f, uint64_t address, struct finder_point *ret);

/* Probe points of the function in [start, end); end 0 where it is not known. The name is for errors.
 * The flow stays readable until the next call. */
int examine_locate(const struct elffile *f, const char *name, uint64_t start, uint64_t end,
		   bool with_exits, struct finder_function *ret, struct err *e);
struct flow *examine_flow(void);
/* Where its only switch goes for a number; 0: not known. */
uint64_t examine_case(const struct elffile *f, unsigned int number);
