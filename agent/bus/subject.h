/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of topics, built and read in one place. Pure. A subscriber chooses by prefix, so the part
 * that most choose by comes first:
 *
 *   metrics/<gateway>/<agent>   series of one gateway on one host; gateway `-`: of none
 *   events/<kind>               what happened: drain.begin, slow_request, agent.hello, …
 *   scale/<policy>              what a policy reads and wants
 *   beacon                      last sequences
 *
 * Bytes that a part may not hold (`/`, `%`, space and below, 0x7f) travel as %XX.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define SUBJECT_MAX     255 /* bytes, NUL not counted */
#define SUBJECT_NOBODY  "-" /* the gateway of series about none */
#define SUBJECT_GATEWAY 64  /* longer names are cut: they share a topic, each series says its own */

/* gateway NULL or "": SUBJECT_NOBODY. -EINVAL: no agent (kind, policy), -E2BIG: beyond SUBJECT_MAX;
 * then ret is "". */
int subject_metrics(const char *gateway, const char *agent, char ret[SUBJECT_MAX + 1]);
int subject_events(const char *kind, char ret[SUBJECT_MAX + 1]);
int subject_scale(const char *policy, char ret[SUBJECT_MAX + 1]);

/* Reads metrics/<gateway>/<agent> back, parts decoded, gateway "" for none. Either may be NULL.
 * False: another topic, or not built here. */
bool subject_read_metrics(const char *topic, char ret_gateway[SUBJECT_MAX + 1],
			  char ret_agent[SUBJECT_MAX + 1]);
