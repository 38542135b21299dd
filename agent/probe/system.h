/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says of a process and of its host, parsed; and a sum over processes (or threads) that
 * come and go, which never falls. Parsers are pure and take the text of one file. Runs in the keeper.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* /proc/PID/stat, in clock ticks. */
struct system_stat {
	pid_t parent;
	uint64_t own_ticks;    /* user and system */
	uint64_t reaped_ticks; /* of children that it waited for, and of theirs */
	uint64_t start_ticks;  /* since boot */
	unsigned int threads;
};
int system_parse_stat(const char *text, struct system_stat *ret);

/* /proc/PID/task/TID/schedstat. */
int system_parse_schedstat(const char *text, uint64_t *ret_run_ns, uint64_t *ret_wait_ns);

/* /proc/PID/io: what reached storage, children that it waited for included. */
int system_parse_io(const char *text, uint64_t *ret_read, uint64_t *ret_written);

/* /proc/PID/statm: resident anonymous pages. */
int system_parse_statm(const char *text, uint64_t *ret_pages);

/* A pressure file. kind "some" or "full"; -ENODATA: no such line. */
int system_parse_pressure(const char *text, const char *kind, uint64_t *ret_ns);

/* /proc/PID/net/dev, interface by interface, so that one that goes takes nothing with it. */
#define SYSTEM_INTERFACES 128
struct system_net {
	struct system_interface {
		char name[16];
		uint64_t received, sent;
		bool is_seen;
	} rows[SYSTEM_INTERFACES];
	size_t count, refused; /* refused: beyond SYSTEM_INTERFACES in the last text */
	bool has_read;
};
/* How much came and went since the text before; nothing for the first. -EINVAL. */
int system_net_update(struct system_net *n, const char *text, uint64_t *ret_received,
		      uint64_t *ret_sent);

/* Growth of one number since the reading before; 0 for the first and when it fell. */
struct system_meter {
	uint64_t last;
	bool has_last;
};
uint64_t system_meter_update(struct system_meter *m, uint64_t value);

/*
 * Sum of what processes have used, over processes that come and go. What a child had used is handed
 * to the parent that waits for it, which must not count twice, and tells what the child used after
 * it was last looked at. Parents are to be read before their children.
 */
struct system_row {
	uint64_t id, value, reaped;
	bool is_seen;
};
struct system_sum {
	struct system_row *rows;
	size_t count, cap, cursor, limit;
	size_t refused; /* rows beyond limit in this pass */
	uint64_t grown, handed, owed;
};
void system_sum_init(struct system_sum *s, size_t limit);
void system_sum_fini(struct system_sum *s);
void system_sum_begin(struct system_sum *s);
/* value includes reaped, which is at most what came from children. is_old: it was there before we
 * looked for the first time, so that what it used before does not count. */
void system_sum_add(struct system_sum *s, uint64_t id, uint64_t value, uint64_t reaped,
		    bool is_old);
/* Growth since the pass before. */
uint64_t system_sum_end(struct system_sum *s);

/* ---- readers ---- */

/* A file of /proc that is read again and again: opened once, as far as the budget goes. */
struct system_file {
	int held; /* descriptor + 1; 0: none */
};
struct system_budget {
	unsigned int held, limit;
};
/* As str_read_file. A file that was held and ends (its process did) is closed and fails once. */
int system_file_read(struct system_file *f, struct system_budget *budget, const char *path,
		     char *buf, size_t size);
void system_file_close(struct system_file *f, struct system_budget *budget);

/* Entries of /proc/PID/fd. -ESRCH, -EACCES. */
int system_count_fds(pid_t pid, uint64_t *ret);
/* Inode of the network namespace of a process; 0 for our own. */
int system_net_namespace(pid_t pid, uint64_t *ret);
