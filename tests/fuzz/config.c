/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a configuration file: a strict load fails or succeeds, a lenient one succeeds, and
 * what it gives prints to a file that loads without a complaint. */
#include "config/config.h"

#include "base/err.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];
static int fd = -1;

static void write_file(const void *data, size_t size)
{
	CHECK(ftruncate(fd, 0) == 0);
	CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
}

static void on_warning(void *data, const char *text)
{
	(void)text;
	++*(unsigned int *)data;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *strict = NULL, *lenient = NULL, *again = NULL;
	unsigned int warnings = 0;
	struct err e = {0};
	struct strbuf b;
	int r;

	if (fd < 0) {
		fd = memfd_create("config", MFD_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	write_file(data, size);
	r = config_load(CONFIG_AGENT, path, &strict, &e);
	CHECK(r == 0 || (r < 0 && e.text[0]));
	CHECK(config_load_lenient(CONFIG_AGENT, path, on_warning, &warnings, &lenient) == 0);
	CHECK((r == 0) == (warnings == 0));
	strbuf_init(&b, 1 << 20);
	CHECK(config_print(lenient, &b) == 0);
	write_file(b.data, b.len);
	err_clear(&e);
	r = config_load(CONFIG_AGENT, path, &again, &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.text);
	CHECK(r == 0);
	strbuf_fini(&b);
	config_free(strict);
	config_free(lenient);
	config_free(again);
	return 0;
}
