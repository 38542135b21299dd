/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool's files after damage. Input: u8 (1: make checksums right, so that what they protect is
 * reached; 2: the bytes are a cursor file) | the bytes of a file. The spool must open, hand out
 * only records that fit, and take new frames.
 */
#include "bus/spool.h"

#include "base/crc32c.h"
#include "bus/spool_file.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(cond)            \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)
#define INPUT_MAX 65536
#define ADDRESS   "ipc:///fuzz"
#define CURSOR    "cursor-41da15e2bdb62f39"

static char dir[64];

static void forget_dir(void)
{
	static const char *const names[] = {"incarnation", CURSOR, "0000000000000001.frames",
					    "0000000000000001.frames.bad",
					    "0000000000000002.frames"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
}

static void remove_dir(void)
{
	forget_dir();
	rmdir(dir);
}

static void make_right(uint8_t *p, size_t size)
{
	struct spool_file_header h;
	struct spool_record_header r;
	size_t at = sizeof(h);

	if (size < sizeof(h))
		return;
	memcpy(&h, p, sizeof(h));
	h.magic = SPOOL_FILE_MAGIC;
	h.header_bytes = sizeof(h);
	h.crc = crc32c(0, &h, offsetof(struct spool_file_header, crc));
	memcpy(p, &h, sizeof(h));
	while (size - at >= sizeof(r)) {
		memcpy(&r, p + at, sizeof(r));
		r.length %= 512;
		if (!r.length || r.length > size - at - sizeof(r))
			return;
		r.magic = SPOOL_RECORD_MAGIC;
		r.crc = crc32c(0, &r, offsetof(struct spool_record_header, crc));
		r.crc = crc32c(r.crc, p + at + sizeof(r), r.length);
		memcpy(p + at, &r, sizeof(r));
		at += sizeof(r) + r.length;
	}
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	REQUIRE(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

static void exercise(void)
{
	static const uint8_t boot[16] = "fuzz", frame[] = "frame";
	const struct spool_options options = {
		.dir = dir, .bytes = 1 << 20, .age_ns = UINT64_MAX, .boot_id = boot};
	struct spool_cursor *c;
	struct spool_record r;
	struct spool *s;

	REQUIRE(spool_open(&options, &s, NULL) == 0);
	REQUIRE(spool_cursor_open(s, ADDRESS, &c) == 0);
	REQUIRE(spool_append(s, 1, frame, sizeof(frame), NULL) == 0);
	for (unsigned int end = SPOOL_OLD; end <= SPOOL_LIVE; end++) {
		for (unsigned int i = 0; i < 100 && spool_cursor_peek(c, end, &r); i++) {
			REQUIRE(r.size && r.size <= FRAME_SEALED_MAX && r.sequence);
			spool_cursor_take(c, end);
			spool_cursor_settle(c, r.incarnation, r.sequence, r.size,
					    SPOOL_ACKNOWLEDGED);
		}
	}
	spool_flush(s);
	spool_cursor_close(c);
	spool_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[INPUT_MAX];
	uint8_t how;

	if (!size || size > INPUT_MAX)
		return 0;
	if (!*dir) {
		strcpy(dir, "/dev/shm/fuzz-spool-XXXXXX");
		REQUIRE(mkdtemp(dir));
		atexit(remove_dir);
	}
	how = data[0];
	memcpy(copy, data + 1, size - 1);
	size--;
	if (how & 2) {
		write_file(CURSOR, copy, size);
	} else {
		if (how & 1)
			make_right(copy, size);
		write_file("0000000000000001.frames", copy, size);
	}
	exercise();
	forget_dir();
	return 0;
}
