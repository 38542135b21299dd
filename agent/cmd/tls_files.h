/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of tls.* in a process that connects: read at the start and whenever they change, looked
 * at each second. Files that are not there yet are waited for (who mounts them may come later);
 * what is wrong with them is logged, each text once. Loop thread.
 */
#pragma once

#include "base/log.h"
#include "base/loop.h"
#include "bus/credentials.h"
#include "config/config.h"

struct tls_files {
	const char *process; /* the name that is logged */
	struct credentials_files paths;
	struct credentials *credentials; /* NULL: none are set, or none could be read yet */
	struct loop_watch *timer;
	void (*on_change)(void *data);
	void *data;
	char said[sizeof(((struct err *)0)->text)];
	struct log_limit ageing;
	uint64_t failures; /* before the first that could be used */
};

/* -EINVAL: one of the three is set and another is not. Pure. */
int tls_files_check(const struct config *config, bool *ret_is_set, struct err *e);

/* Borrows process and config. Nothing happens when none is set. on_change: other credentials are in
 * use from now on. */
void tls_files_open(struct tls_files *f, struct loop *loop, const struct config *config,
		    const char *process, void (*on_change)(void *data), void *data);
/* f may be all zero. */
void tls_files_close(struct tls_files *f);

/* How often files were taken into use, and how often new ones could not be. */
/* Of credentials that are there: see credentials_lived_ratio(). */
double tls_files_lived_ratio(const struct tls_files *f);
uint64_t tls_files_loads(const struct tls_files *f, uint64_t *ret_failures);
