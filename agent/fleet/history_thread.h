/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two threads of a history share, and who may touch what. `open_lock` guards the minutes
 * in memory, which only the history's thread changes and readers copy. A minute leaves memory after
 * the commit that holds it: whoever looks here first and then into the database misses nothing.
 */
#pragma once

#include "fleet/history.h"
#include "fleet/history_queue.h"

struct open_minute {
	struct open_minute *next;
	struct sheaf *sheaf;
	uint64_t due_ns;
	bool is_written; /* in the transaction that is open */
};

struct stream {
	uint32_t id; /* in the database; 0: not yet */
	struct open_minute *minutes;
	bool is_refused; /* there are too many streams: what it has is counted, not written */
};

enum fold { FOLD_NONE, FOLD_BEGUN, FOLD_REACHED };

struct history {
	struct history_queue queue;
	pthread_t thread;
	struct history_options options;
	int fd;
	/* the core's */
	uint32_t stream_next;
	/* under the queue's lock */
	enum fold fold;
	pthread_cond_t folded;
	struct history_counts counts;
	/* the thread's */
	struct history_store *store;
	struct history_item *definitions, **definitions_end; /* not committed yet */
	size_t definition_bytes;
	uint64_t next_ns, newest_ms, refused, lost, failures;
	bool is_writing;
	bool is_fold_due; /* its place in the queue was passed, and not all is written */
	bool is_ageing;   /* there was more to drop than one transaction may */
	/* under open_lock */
	pthread_mutex_t open_lock;
	struct stream *streams; /* by number of this life */
	uint32_t stream_capacity;
	uint32_t *numbers; /* by id in the database; 0: none */
	uint32_t number_capacity;
	size_t open_bytes;
};

/* The history's thread; data is the history. */
void *history_run(void *data);
