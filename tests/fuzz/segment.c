/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a segment: the reader must refuse or read them, and what it reads must render. The
 * input is the file with its runs of zeroes folded, so that small inputs reach all regions:
 * records of {u16 offset / 8 of the next bytes, u8 length, bytes}; a first byte of 0 takes the rest
 * as the file itself.
 */
#include "outlet/prometheus.h"
#include "segment/reader.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IMAGE_BYTES  (64 * 1024)
#define OUTPUT_BYTES (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];

static void remove_file(void)
{
	unlink(path);
}

static size_t image_build(uint8_t *image, const uint8_t *data, size_t size)
{
	size_t end = 0;

	if (!size)
		return 0;
	if (data[0] == 0) {
		end = size - 1 < IMAGE_BYTES ? size - 1 : IMAGE_BYTES;
		memcpy(image, data + 1, end);
		return end;
	}
	for (size_t at = 1; at + 3 <= size;) {
		size_t offset = (size_t)(data[at] | data[at + 1] << 8) * 8 % IMAGE_BYTES;
		size_t n = data[at + 2];

		at += 3;
		n = n < size - at ? n : size - at;
		n = n < IMAGE_BYTES - offset ? n : IMAGE_BYTES - offset;
		memcpy(image + offset, data + at, n);
		at += n;
	}
	return IMAGE_BYTES;
}

static void read_all(struct segment_reader *r)
{
	struct prometheus_source source;
	struct strbuf out;

	prometheus_from_segment(r, &source);
	for (int format = PROMETHEUS_TEXT; format <= PROMETHEUS_OPENMETRICS; format++) {
		strbuf_init(&out, OUTPUT_BYTES);
		prometheus_render(&source, 1, format, &out, NULL);
		strbuf_fini(&out);
	}
	for (unsigned int i = 0; i < segment_reader_gateways(r); i++) {
		const struct segment_gateway *g = segment_reader_gateway(r, i);

		if (strlen(g->name) + strlen(g->instance) + strlen(g->driver) > 256)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t image[IMAGE_BYTES];
	struct segment_reader *r;
	static int fd = -1;
	size_t bytes;

	if (fd < 0) {
		snprintf(path, sizeof(path), "/dev/shm/tidegate-fuzz-%d", (int)getpid());
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0)
			abort();
		atexit(remove_file);
	}
	memset(image, 0, sizeof(image));
	bytes = image_build(image, data, size);
	if (ftruncate(fd, (off_t)bytes) < 0 || pwrite(fd, image, bytes, 0) != (ssize_t)bytes)
		abort();
	/* A reader keeps what cannot have changed: one for each input. */
	if (segment_reader_open(path, &r, NULL) < 0)
		abort();
	if (segment_reader_refresh_gateways(r, NULL) == 0 || segment_reader_refresh(r, NULL) == 0)
		read_all(r);
	segment_reader_close(r);
	return 0;
}
