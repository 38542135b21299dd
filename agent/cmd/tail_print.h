/* SPDX-License-Identifier: Apache-2.0 */
/* How tail shows bus messages: one JSON object a line, or lines for people. */
#pragma once

#include "bus/bulletin.h"
#include "bus/subscriber.h"

#include <stdio.h>

/* is_snapshot: its series include the messages up to its sequence. */
void tail_print_bulletin(FILE *out, const struct bulletin *b, bool is_snapshot, bool is_json);
/* So many topics were asked for, and all came. */
void tail_print_complete(FILE *out, size_t topics, bool is_json);
void tail_print_note(FILE *out, const char *topic, const struct subscriber_note *note,
		     bool is_json);
