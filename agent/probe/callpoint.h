/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the arguments and the result of a call lie in registers: an entry that every call passes
 * before it has touched them, and exits at which the result is there, each passed once. Where
 * possible on instructions that the kernel emulates. Pure; runs in the finder's child.
 */
#pragma once

#include "probe/flow.h"

/* As flow_points: addresses, until the caller translates them. is_go: Go's registers, and a prologue
 * that may run twice. -ENOTSUP: left by a jump into another function; -E2BIG: too many exits; -ENOENT:
 * no exit. */
int callpoint_find(const struct flow *flow, bool is_go, struct finder_function *ret);
