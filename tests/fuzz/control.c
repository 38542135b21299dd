/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: a line of the control socket. Seeds: tests/fuzz/seeds/control/. */
#include "drain/control.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_request q = {0};
	struct err e = {.text = ""};
	int r = control_parse((const char *)data, size, &q, &e);

	if (r < 0) {
		CHECK(e.text[0]);
		return 0;
	}
	CHECK(q.op <= CONTROL_STATUS);
	CHECK(memchr(q.gateway, '\0', sizeof(q.gateway)));
	CHECK(q.deadline_ns <= (uint64_t)CONTROL_DEADLINE_MAX_S * 1000000000ULL);
	return 0;
}
