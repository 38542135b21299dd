/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libtidegate: metrics of a gateway process, in shared memory that the Tidegate agent reads. Adding to
 * a counter is one load and one store; nothing is locked and nobody is called. The agent needs not
 * run: what is counted before it starts is not lost.
 *
 * A handle is one segment file (proto/segment.h, kind PROCESS) with one writer: use it, and cells
 * bound through it, from one thread at a time; threads that work at once open a handle each. After
 * fork() the child has a segment of its own that begins at 0, and cells that the parent bound are
 * the child's (by pthread_atfork; the child's file is made when it next calls a function here).
 *
 * Functions return 0 or a negative errno; tidegate_error() says what, which and why.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TIDEGATE_LABELS_MAX 8
#define TIDEGATE_NAME_MAX   128 /* bytes of a metric's or label's name */
#define TIDEGATE_VALUE_MAX  255 /* bytes of a label value; longer ones are cut */
#define TIDEGATE_HIST_CELLS 323

#ifndef TIDEGATE_API
#define TIDEGATE_API __attribute__((visibility("default")))
#endif

struct tidegate;
struct tidegate_metric;

/* Children make their files within fork(), not when they first call: for a gateway that starts its
 * workers and then changes their root directory or user. Until the first heartbeat, and not for
 * children of children: fork() before exec() should make none. */
#define TIDEGATE_FORK_AT_ONCE 1u

/* Later versions append to it; what a caller does not know of is 0. */
struct tidegate_options {
	size_t size;             /* sizeof(struct tidegate_options) */
	const char *runtime_dir; /* NULL: $TIDEGATE_RUNTIME_DIR, else /run/tidegate */
	const char *gateway; /* how the gateway is called where the agent cannot tell; or NULL */
	uint32_t series;     /* most of them, 0: 2000 */
	uint32_t histograms; /* most of these that are histograms (2.6 kB each), 0: 64 */
	uint32_t flags;
	uint32_t reserved;
};

/* How values of several processes of a gateway become one. */
enum tidegate_merge { TIDEGATE_SUM, TIDEGATE_MAX, TIDEGATE_LAST };

/* Fails for bad options and for want of memory only: where the directory is not there (yet), or not
 * ours to write to, cells count in private memory, and the file is tried again by
 * tidegate_heartbeat(). */
TIDEGATE_API int tidegate_open(const struct tidegate_options *options, struct tidegate **ret);
/* The agent keeps what was counted. Bound cells are gone. Returns NULL. */
TIDEGATE_API struct tidegate *tidegate_close(struct tidegate *t);
/* Why the last call of this thread failed, or the file cannot be made; never NULL. */
TIDEGATE_API const char *tidegate_error(void);

/* Declares a metric, or finds the one declared before; borrows nothing. A counter's name ends in
 * _total, a histogram's in _seconds. -EINVAL: not a name; -EEXIST: declared with another kind or other
 * labels; -E2BIG: more than TIDEGATE_LABELS_MAX. The metric lives as long as the handle. */
TIDEGATE_API int tidegate_counter(struct tidegate *t, const char *name, const char *help,
				  const char *const *labels, size_t label_count,
				  struct tidegate_metric **ret);
TIDEGATE_API int tidegate_gauge(struct tidegate *t, const char *name, const char *help,
				enum tidegate_merge merge, const char *const *labels,
				size_t label_count, struct tidegate_metric **ret);
TIDEGATE_API int tidegate_histogram(struct tidegate *t, const char *name, const char *help,
				    const char *const *labels, size_t label_count,
				    struct tidegate_metric **ret);

/* The cell (histograms: TIDEGATE_HIST_CELLS of them) of these label values: bind once, keep it. -ENOSPC:
 * no room; *ret then counts under the label values "_overflow", or, where there is not even room for
 * that, nowhere. *ret can be used whatever is returned. */
TIDEGATE_API int tidegate_with(struct tidegate_metric *m, const char *const *values,
			       uint64_t **ret);

/* ---- values ---- */

static inline void tidegate_add(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + by,
			 __ATOMIC_RELAXED);
}

static inline void tidegate_inc(uint64_t *counter)
{
	tidegate_add(counter, 1);
}

/* NAN: this process has no value. */
static inline void tidegate_set(uint64_t *gauge, double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	__atomic_store_n(gauge, bits, __ATOMIC_RELAXED);
}

/* Index of the cell that counts this duration: the first whose threshold is not below it. */
TIDEGATE_API unsigned int tidegate_cell(uint64_t ns);

static inline void tidegate_observe_ns(uint64_t *histogram, uint64_t ns)
{
	tidegate_inc(&histogram[tidegate_cell(ns)]);
}

/* Seconds; negative and NAN are 0. */
TIDEGATE_API void tidegate_observe(uint64_t *histogram, double seconds);

/* ---- the gateway ---- */

/* True while a drain keeps this gateway out of service: answer `Connection: close`. False where no
 * agent says so (none runs, or it knows no such gateway). A few loads; maps host.seg when it is new. */
TIDEGATE_API bool tidegate_draining(struct tidegate *t);

/* About once a second from whatever timer there is: says that the writer lives, tries for the file
 * again, notices that the directory was replaced. 0, or why there is no file. */
TIDEGATE_API int tidegate_heartbeat(struct tidegate *t);

#ifdef __cplusplus
}
#endif
