/* SPDX-License-Identifier: Apache-2.0 */
/* How tail shows bus messages: one JSON object a line, or lines for people. */
#pragma once

#include "bus/bulletin.h"
#include "bus/subscriber.h"

#include <stdio.h>

void tail_print_bulletin(FILE *out, const struct bulletin *b, bool is_json);
void tail_print_note(FILE *out, const char *topic, const struct subscriber_note *note,
		     bool is_json);
