/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate metrics`: host.seg and app.seg as Prometheus text. Reads the files itself, so it works
 * while the agent hangs, and with --segment without any configuration. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/verbs.h"
#include "config/config.h"
#include "outlet/prometheus.h"
#include "segment/reader.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#define OUTPUT_BYTES_MAX (256u << 20)
#define BUSY_TRIES       50 /* a keeper that watches much, on a busy machine */
#define BUSY_PAUSE_NS    5000000
#define STALE_NS         (30 * NS_PER_S) /* as long as probes wait for a heartbeat */

DEFINE_CLEANUP(struct segment_reader *, segment_reader_close)

static int fail(int code, const char *text)
{
	fprintf(stderr, "tidegate metrics: %s\n", text);
	return code;
}

/* Opens and copies; -ENOENT when there is no such file. */
static int segment_load(const char *path, struct segment_reader **ret, struct err *e)
{
	_cleanup_(segment_reader_close_p) struct segment_reader *r = NULL;
	const struct timespec busy_pause = {.tv_nsec = BUSY_PAUSE_NS};
	const struct segment_header *h;
	uint64_t now;
	int k = segment_reader_open(path, &r, e);

	if (k < 0)
		return k;
	for (unsigned int i = 0; i < BUSY_TRIES; i++) {
		err_clear(e);
		k = segment_reader_refresh(r, e);
		if (k != -EAGAIN)
			break;
		nanosleep(&busy_pause, NULL);
	}
	if (k < 0)
		return k;
	h = segment_reader_header(r);
	now = clock_mono_ns();
	if (h->heartbeat_ns && now > h->heartbeat_ns && now - h->heartbeat_ns > STALE_NS)
		fprintf(stderr,
			"tidegate metrics: %s: last written %llu s ago by pid %u; is its agent "
			"running?\n",
			path, (unsigned long long)((now - h->heartbeat_ns) / NS_PER_S),
			h->writer_pid);
	*ret = TAKE_PTR(r);
	return 0;
}

static int print(struct segment_reader *const *readers, size_t n, enum prometheus_format format)
{
	_cleanup_(strbuf_fini) struct strbuf out;
	struct prometheus_source sources[2];
	struct prometheus_result result;
	int r;

	strbuf_init(&out, OUTPUT_BYTES_MAX);
	for (size_t i = 0; i < n; i++)
		prometheus_from_segment(readers[i], &sources[i]);
	r = prometheus_render(sources, n, format, &out, &result);
	if (r < 0)
		return fail(EXIT_FAILED,
			    r == -E2BIG ? "the output would be larger than 256 MiB" : err_text(r));
	if (result.refused)
		fprintf(stderr,
			"tidegate metrics: %zu series left out: bad name or label, or there "
			"twice\n",
			result.refused);
	if (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0)
		return fail(EXIT_FAILED, "standard output cannot be written");
	return EXIT_DONE;
}

static int print_segment(const char *path, enum prometheus_format format)
{
	_cleanup_(segment_reader_close_p) struct segment_reader *reader = NULL;
	struct err e = {0};
	int r = segment_load(path, &reader, &e);

	if (r < 0)
		return fail(EXIT_FAILED, *e.text ? e.text : err_text(r));
	return print(&reader, 1, format);
}

static int print_runtime_dir(const char *dir, enum prometheus_format format)
{
	_cleanup_(segment_reader_close_p) struct segment_reader *host = NULL;
	_cleanup_(segment_reader_close_p) struct segment_reader *app = NULL;
	struct segment_reader *readers[2];
	char path[PATH_MAX];
	struct err e = {0};
	int r;

	snprintf(path, sizeof(path), "%s/host.seg", dir);
	r = segment_load(path, &host, &e);
	if (r == -ENOENT) {
		fprintf(stderr,
			"tidegate metrics: no host.seg in %s: the agent is not running there; "
			"start "
			"it, or name its file with --segment or its directory with runtime_dir\n",
			dir);
		return EXIT_FAILED;
	}
	if (r < 0)
		return fail(EXIT_FAILED, *e.text ? e.text : err_text(r));
	readers[0] = host;
	/* No gateway script, no app.seg. A damaged one must not hide what the kernel told. */
	snprintf(path, sizeof(path), "%s/app.seg", dir);
	err_clear(&e);
	r = segment_load(path, &app, &e);
	if (r < 0 && r != -ENOENT)
		fail(EXIT_FAILED, *e.text ? e.text : err_text(r));
	readers[1] = app;
	return print(readers, app ? 2 : 1, format);
}

int metrics_verb(int argc, char **argv)
{
	static const struct option options[] = {{"segment", required_argument, NULL, 's'},
						{"openmetrics", no_argument, NULL, 'o'},
						{"config", required_argument, NULL, 'c'},
						{0}};
	_cleanup_(config_free_p) struct config *config = NULL;
	enum prometheus_format format = PROMETHEUS_TEXT;
	const char *segment = NULL, *file = NULL;
	struct err e = {0};
	int c, r;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 's':
			segment = optarg;
			break;
		case 'o':
			format = PROMETHEUS_OPENMETRICS;
			break;
		case 'c':
			file = optarg;
			break;
		default:
			return verb_bad_option("metrics", argv, options);
		}
	}
	if (verb_has_argument("metrics", argc, argv, NULL))
		return EXIT_USAGE;
	if (segment)
		return print_segment(segment, format);
	r = config_load(CONFIG_AGENT, file, &config, &e);
	if (r < 0)
		return fail(EXIT_USAGE, *e.text ? e.text : err_text(r));
	return print_runtime_dir(config->_runtime_dir, format);
}
