/* SPDX-License-Identifier: Apache-2.0 */
/* The generated skeleton; generated code is not ours to warn about. */
#pragma once

#include "types.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "tidegate.skel.h"
#pragma GCC diagnostic pop
