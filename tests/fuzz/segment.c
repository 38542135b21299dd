/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a segment: the reader must refuse or read them, and what it reads must render, also
 * for a terminal, on which nothing may arrive that it acts on. The
 * input is the file with its runs of zeroes folded, so that small inputs reach all regions:
 * records of {u16 offset / 8 of the next bytes, u8 length, bytes}; a first byte of 0 takes the rest
 * as the file itself.
 */
#include "cmd/top_json.h"
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

/* greatest: DEL does nothing in a terminal, and JSON has it as it is. */
static void expect_harmless(const char *text, unsigned char greatest)
{
	for (; *text; text++)
		if (((unsigned char)*text < 0x20 && *text != '\n') ||
		    (unsigned char)*text > greatest)
			abort();
}

static bool get(const void *data, unsigned int index, struct segment_series *ret)
{
	return segment_reader_series(data, index, ret);
}

/* As host.seg and app.seg of a look, after one at which nothing had been counted. */
static void show_all(struct segment_reader *r)
{
	static struct top_view view;
	static struct top_page page;
	static struct top_detail detail;
	struct top_file file = {.life = 1,
				.tick_mono_ns = 1000000000,
				.count = segment_reader_series_count(r),
				.get = get,
				.data = r};
	struct top_sample now = {file, file, segment_reader_gateway(r, 0), 0}, before = {0};
	struct top_scene scene = {.view = &view, .detail = &detail, .tick_s = 1};
	struct top_ui ui;
	struct strbuf out;

	now.gateway_count = segment_reader_gateways(r);
	before.host.life = before.app.life = 1;
	if (top_model(&before, &now, &view) < 0)
		return;
	top_ui_init(&ui);
	ui.shows_gone = true;
	top_page_list(&page, &scene, &ui);
	for (unsigned int i = 0; i < page.count; i++)
		expect_harmless(page.lines[i].text, 0x7e);
	for (unsigned int i = 0; i < view.count && i < 2; i++) {
		ui.has_selected = true;
		ui.selected = view.rows[i].index;
		top_detail(&before, &now, view.rows[i].gateway, &detail);
		top_page_detail(&page, &scene, &ui);
		for (unsigned int k = 0; k < page.count; k++)
			expect_harmless(page.lines[k].text, 0x7e);
	}
	strbuf_init(&out, OUTPUT_BYTES);
	if (top_json(&scene, &before, &now, &out) == 0)
		expect_harmless(out.data, 0x7f);
	strbuf_fini(&out);
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
	if (segment_reader_refresh_gateways(r, NULL) == 0)
		read_all(r);
	/* The whole, whatever the part was: without series there is little to read. */
	if (segment_reader_refresh(r, NULL) == 0) {
		read_all(r);
		show_all(r);
	}
	segment_reader_close(r);
	return 0;
}
