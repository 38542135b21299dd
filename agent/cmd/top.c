/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate top`: what gateways do now. Reads host.seg and app.seg itself, so it works while the agent
 * hangs. One thread. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cmd/top_json.h"
#include "cmd/top_screen.h"
#include "cmd/top_source.h"
#include "cmd/verbs.h"
#include "config/config.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#define OUTPUT_BYTES_MAX (256u << 20)
#define INTERVAL_LEAST_S 0.1
#define INTERVAL_MOST_S  3600.0
#define POLL_MS          20
#define FIRST_NS         NS_PER_S /* so long the writer of a busy segment may take */

struct top {
	double interval_s;
	bool is_once, is_json;
	struct top_source *source;
	struct top_ui ui;
	struct top_view view;
	struct top_detail detail;
	struct top_history history;
	struct top_page page;
	struct top_scene scene;
};

static int fail(int code, const char *text)
{
	fprintf(stderr, "tidegate top: %s\n", text);
	return code;
}

static void top_fini(struct top *t)
{
	t->source = top_source_close(t->source);
	top_detail_fini(&t->detail);
	top_history_fini(&t->history);
	top_page_fini(&t->page);
}

static void wait_ms(long ms)
{
	const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&pause, NULL);
}

/* ---- looking ---- */

static double seconds_since(uint64_t then_ns)
{
	uint64_t now = clock_mono_ns();

	return now > then_ns ? (double)(now - then_ns) / (double)NS_PER_S : 0;
}

static void scene_age(struct top *t)
{
	const struct segment_header *h = top_source_header(t->source);

	t->scene.age_s = seconds_since(h->tick_mono_ns);
	t->scene.heartbeat_s = h->heartbeat_ns ? seconds_since(h->heartbeat_ns) : NAN;
	t->scene.tick_s = (double)h->tick_interval_ns / (double)NS_PER_S;
	t->scene.real_ns = h->tick_real_ns;
	t->scene.writer_pid = h->writer_pid;
}

/* 1 when there was a newer tick. Only -ENOMEM, and what makes host.seg none, are errors: a writer at
 * work and a file that is gone show as values that grow old. */
static int look(struct top *t, struct err *e)
{
	int r = top_source_follow(t->source, e);

	if (r == -EAGAIN || (r == -ENOENT && top_source_now(t->source)->host.life))
		r = 0;
	if (r <= 0)
		return r;
	r = top_model(top_source_before(t->source), top_source_now(t->source), &t->view);
	if (r < 0)
		return err_set(e, r, "no memory");
	if (t->history.values)
		top_history_add(&t->history, &t->view);
	return 1;
}

/* The first look may meet a writer at work. */
static int first_look(struct top *t, struct err *e)
{
	uint64_t until = clock_mono_ns() + FIRST_NS;
	int r;

	do {
		err_clear(e);
		r = look(t, e);
		if (r != 0)
			return r < 0 ? r : 0;
		wait_ms(POLL_MS);
	} while (clock_mono_ns() < until);
	return err_set(e, -EAGAIN, "the shared memory is being written all the time: try again");
}

static void make_page(struct top *t)
{
	const struct top_sample *before = top_source_before(t->source);
	const struct top_sample *now = top_source_now(t->source);
	unsigned int i = 0;

	if (t->ui.mode == TOP_HELP) {
		top_page_help(&t->page, &t->scene, &t->ui);
	} else if (t->ui.mode == TOP_LIST) {
		top_page_list(&t->page, &t->scene, &t->ui);
	} else {
		while (i < t->view.count && t->view.rows[i].index != t->ui.selected)
			i++;
		if (i < t->view.count)
			top_detail(before, now, t->view.rows[i].gateway, &t->detail);
		t->scene.detail = i < t->view.count ? &t->detail : NULL;
		top_page_detail(&t->page, &t->scene, &t->ui);
	}
}

/* ---- --once ---- */

/* Rates want two ticks; from an agent that writes no more there will be none. */
static int wait_for_rates(struct top *t, struct err *e)
{
	double most;
	uint64_t begin = clock_mono_ns();
	int r = 0;

	scene_age(t);
	if (top_scene_is_stale(&t->scene))
		return 0;
	wait_ms((long)(t->interval_s * 1000));
	most = t->interval_s + 2 * t->scene.tick_s + 1;
	while (r == 0 && seconds_since(begin) < most) {
		r = look(t, e);
		if (r == 0)
			wait_ms(POLL_MS);
	}
	return r < 0 ? r : 0;
}

static int print_page(struct top *t, struct strbuf *out)
{
	const char *columns = getenv("COLUMNS");
	uint64_t width = 0;

	if (columns && str_to_u64(columns, &width) == 0 && width < TOP_LINE_BYTES / 4)
		t->scene.width = (unsigned int)width;
	make_page(t);
	for (unsigned int i = 0; i < t->page.count; i++) {
		size_t n = strlen(t->page.lines[i].text);

		while (n && t->page.lines[i].text[n - 1] == ' ')
			n--;
		strbuf_add(out, t->page.lines[i].text, n);
		strbuf_puts(out, "\n");
	}
	return out->failed ? -ENOMEM : 0;
}

static int run_once(struct top *t)
{
	_cleanup_(strbuf_fini) struct strbuf out;
	struct err e = {0};
	int r;

	strbuf_init(&out, OUTPUT_BYTES_MAX);
	r = wait_for_rates(t, &e);
	if (r < 0)
		return fail(EXIT_FAILED, *e.text ? e.text : err_text(r));
	scene_age(t);
	if (t->is_json)
		r = top_json(&t->scene, top_source_before(t->source), top_source_now(t->source),
			     &out);
	else
		r = print_page(t, &out);
	if (r < 0)
		return fail(EXIT_FAILED, "no memory");
	if (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0)
		return fail(EXIT_FAILED, "standard output cannot be written");
	return EXIT_DONE;
}

/* ---- the terminal ---- */

/* Until the user quits. Returns 0 or what ended it. */
static int show(struct top *t, struct err *e)
{
	uint64_t interval_ns = (uint64_t)(t->interval_s * (double)NS_PER_S);
	uint64_t due = clock_mono_ns() + interval_ns;
	unsigned int height;
	int r = 0;

	while (!t->ui.is_done) {
		uint64_t now = clock_mono_ns();

		if (now >= due) {
			due = now + interval_ns;
			r = t->ui.is_paused ? 0 : look(t, e);
			if (r < 0)
				return r;
		}
		if (!t->ui.is_paused)
			scene_age(t);
		top_screen_size(&t->scene.width, &height);
		/* Pages know how much of them is seen only once their head is made. */
		t->ui.height = height > t->page.head + 1 ? height - t->page.head - 1 : 1;
		make_page(t);
		t->ui.height = height > t->page.head + 1 ? height - t->page.head - 1 : 1;
		top_page_end(&t->page, &t->ui);
		top_screen_draw(&t->page, &t->ui);
		r = top_screen_key((int)((due - now) / NS_PER_MS) + 1);
		if (r < 0)
			return r == -EINTR || r == -EIO ? 0 : r;
		if (r > 0)
			top_ui_key(&t->ui, &t->view, r);
	}
	return 0;
}

static int run_screen(struct top *t)
{
	const char *no_color = getenv("NO_COLOR");
	struct err e = {0};
	int r;

	r = top_history_init(&t->history);
	if (r == 0)
		r = top_screen_open(!no_color || !*no_color, &e);
	if (r < 0)
		return fail(r == -ENOTTY || r == -ENOENT ? EXIT_USAGE : EXIT_FAILED,
			    *e.text ? e.text : err_text(r));
	t->scene.history = &t->history;
	top_history_add(&t->history, &t->view);
	r = show(t, &e);
	top_screen_close();
	return r < 0 ? fail(EXIT_FAILED, *e.text ? e.text : err_text(r)) : EXIT_DONE;
}

/* ---- the verb ---- */

static int run(struct top *t, const char *dir, const char *segment)
{
	struct err e = {0};
	int r;

	/* Characters and their widths only: numbers stay as they are everywhere. */
	setlocale(LC_CTYPE, "");
	t->scene.charset.is_utf8 = str_equal(nl_langinfo(CODESET), "UTF-8");
	t->scene.view = &t->view;
	top_ui_init(&t->ui);
	r = top_source_open(dir, segment, &t->source, &e);
	if (r == -ENOENT && !segment) {
		fprintf(stderr,
			"tidegate top: no host.seg in %s: the agent is not running there; start "
			"it, or name its file with --segment or its directory with runtime_dir\n",
			dir);
		return EXIT_FAILED;
	}
	if (r >= 0)
		r = first_look(t, &e);
	if (r < 0)
		return fail(EXIT_FAILED, *e.text ? e.text : err_text(r));
	return t->is_once ? run_once(t) : run_screen(t);
}

static int interval_parse(const char *text, double *ret)
{
	char *end;
	double x;

	errno = 0;
	x = strtod(text, &end);
	/* Also not a number, which is in no range. */
	if (end == text || *end || !(x >= INTERVAL_LEAST_S && x <= INTERVAL_MOST_S))
		return -EINVAL;
	*ret = x;
	return 0;
}

static int options_parse(int argc, char **argv, struct top *t, const char **ret_segment,
			 const char **ret_file)
{
	static const struct option options[] = {{"once", no_argument, NULL, 'o'},
						{"json", no_argument, NULL, 'j'},
						{"interval", required_argument, NULL, 'i'},
						{"segment", required_argument, NULL, 's'},
						{"config", required_argument, NULL, 'c'},
						{0}};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			t->is_once = true;
			break;
		case 'j':
			t->is_json = true;
			break;
		case 'i':
			if (interval_parse(optarg, &t->interval_s) == 0)
				break;
			fprintf(stderr,
				"tidegate top: --interval `%.32s`: not a number of seconds from "
				"0.1 to 3600\n",
				optarg);
			return EXIT_USAGE;
		case 's':
			*ret_segment = optarg;
			break;
		case 'c':
			*ret_file = optarg;
			break;
		default:
			return verb_bad_option("top", argv, options);
		}
	}
	if (verb_has_argument("top", argc, argv, NULL))
		return EXIT_USAGE;
	if (t->is_json && !t->is_once)
		return fail(EXIT_USAGE, "--json needs --once");
	return EXIT_DONE;
}

int top_verb(int argc, char **argv)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	_cleanup_(top_fini) struct top t = {.interval_s = 1};
	const char *segment = NULL, *file = NULL;
	struct err e = {0};
	int r = options_parse(argc, argv, &t, &segment, &file);

	if (r != EXIT_DONE)
		return r;
	if (segment)
		return run(&t, NULL, segment);
	r = config_load(CONFIG_AGENT, file, &config, &e);
	if (r < 0)
		return fail(EXIT_USAGE, *e.text ? e.text : err_text(r));
	return run(&t, config->_runtime_dir, NULL);
}
