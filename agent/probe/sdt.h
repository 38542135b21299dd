/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notes of statically defined tracepoints (.note.stapsdt), as sys/sdt.h leaves them in a file: each
 * names a place where the program has put a nop for a probe. Pure; runs in the finder's child.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SDT_PLACES_MAX 24u

struct sdt_probe {
	const char *provider, *name; /* wanted */
	unsigned int count;          /* places found; inlining makes several of one */
	uint64_t places[SDT_PLACES_MAX];
	uint64_t
		semaphore; /* 16-bit counter of those who watch, the same for all places; 0: none */
};

/* Fills in the probes from the notes of a file of 64 bits; all as virtual addresses. base: address of
 * .stapsdt.base as the section header has it now, which after prelink(8) is not what the notes say;
 * 0: there is none. A damaged note ends the reading: -EBADMSG. -E2BIG: too many places. */
int sdt_find(const uint8_t *notes, size_t size, uint64_t base, struct sdt_probe *probes,
	     size_t count);
