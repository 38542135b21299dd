/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line a message on stderr: "level module message key=value …", or one JSON object.
 * Stages return errors; only cmd/ and decisions ("what and why") log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Before the first fork; children inherit it. */
void log_setup(enum log_level least, enum log_format format);

/* Name of the process as it shows in each line; borrowed for the life of the process. */
void log_set_process(const char *name);

/* fields is a printf format of key=value pairs separated by one space, "" for none. Values that
 * may hold spaces go through "key=\"%s\"". */
void log_line(enum log_level level, const char *module, const char *message, const char *fields,
	      ...) __attribute__((format(printf, 4, 5)));

#define log_debug(module, message, ...)   log_line(LOG_DEBUG, module, message, __VA_ARGS__)
#define log_info(module, message, ...)    log_line(LOG_INFO, module, message, __VA_ARGS__)
#define log_warning(module, message, ...) log_line(LOG_WARNING, module, message, __VA_ARGS__)
#define log_error(module, message, ...)   log_line(LOG_ERROR, module, message, __VA_ARGS__)

/* Rate limit of one message: at most one in interval_ns; the suppressed ones are counted. */
struct log_limit {
	uint64_t interval_ns, last_ns;
	uint64_t suppressed;
};

/* True when the caller may log now; *ret_suppressed is how many were swallowed since. */
bool log_allowed(struct log_limit *limit, uint64_t now_ns, uint64_t *ret_suppressed);
