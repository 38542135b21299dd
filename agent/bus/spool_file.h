/* SPDX-License-Identifier: Apache-2.0 */
/* Formats on disk: frame files, two-slot files. Internal to spool*.c. */
#pragma once

#include "bus/frame.h"

#include <assert.h>
#include <stdint.h>
#include <sys/types.h>

#define SPOOL_FILE_MAGIC   0x314c505345444954ULL /* "TIDESPL1" */
#define SPOOL_RECORD_MAGIC 0x43455246u           /* "FREC" */

struct spool_file_header {
	uint64_t magic;
	uint32_t header_bytes, reserved0;
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t first_sequence; /* no record holds a lower one */
	uint64_t reserved1[2];
	uint32_t reserved2;
	uint32_t crc; /* of all before */
};
static_assert(sizeof(struct spool_file_header) == 64, "spool layout");

struct spool_record_header {
	uint32_t magic;
	uint32_t length;
	uint64_t sequence;
	uint64_t time_ms;
	uint32_t reserved0;
	uint32_t crc; /* of all before and the frame */
};
static_assert(sizeof(struct spool_record_header) == 32, "spool layout");

/* -EBADMSG, or the error of reading. */
int spool_file_read_header(int fd, struct spool_file_header *ret);
int spool_file_write_header(int fd, const uint8_t incarnation[FRAME_INCARNATION_BYTES],
			    uint64_t first_sequence);

/* The first valid record at or after offset, below end; its frame goes to buf (FRAME_SEALED_MAX).
 * Returns its offset, 0 when there is none, or the error of reading. *ret_skipped: bytes between
 * that were no record. */
off_t spool_file_next(int fd, off_t offset, off_t end, struct spool_record_header *ret,
		      uint8_t *buf, uint64_t *ret_skipped);

/* Appends at offset, whole or not at all. */
int spool_file_append(int fd, off_t offset, uint64_t sequence, uint64_t time_ms,
		      const uint8_t *data, size_t size);

/* Two slots of size bytes, written in turn: {magic, generation, payload…, CRC32C}. */
struct spool_slots {
	int fd;
	uint64_t magic, generation;
	size_t size; /* of the payload */
};

/* Opens or makes the file and reads the newest valid payload: 1, 0 when there is none, or an
 * error. */
int spool_slots_open(struct spool_slots *s, int dir_fd, const char *name, uint64_t magic,
		     size_t size, void *ret_payload);
int spool_slots_write(struct spool_slots *s, const void *payload);
void spool_slots_close(struct spool_slots *s);
