/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, order, text and pages of `tidegate top`: no terminal, no files. */
#include "cmd/top_json.h"
#include "cmd/top_page.h"

#include "base/str.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GATEWAYS 3

static const struct top_charset ascii = {false}, utf8 = {true};
static struct segment_gateway gateways[GATEWAYS];
static struct top_view view;
static struct top_ui ui;
static struct top_page page;
static struct top_history history;
static struct top_scene scene;
static struct top_detail detail;

static int setup(void **state)
{
	static const char *const names[GATEWAYS] = {"alpha", "Beta", "gamma"};
	static const double rates[GATEWAYS] = {20, NAN, 300};

	(void)state;
	memset(gateways, 0, sizeof(gateways));
	memset(&view, 0, sizeof(view));
	view.life = 5;
	view.window_s = 1;
	view.count = GATEWAYS;
	for (unsigned int i = 0; i < GATEWAYS; i++) {
		struct top_row *row = &view.rows[i];

		str_copy(gateways[i].name, SEGMENT_NAME_BYTES, names[i]);
		str_copy(gateways[i].instance, SEGMENT_NAME_BYTES, "host/1");
		gateways[i].state = SEGMENT_GATEWAY_LIVE;
		gateways[i].requests_known = 1;
		row->index = 10 + i;
		row->gateway = &gateways[i];
		for (unsigned int k = 0; k < TOP_VALUES; k++) {
			row->values[k] = NAN;
			row->quantiles[k] = (struct top_quantile){NAN, NAN, NAN};
		}
		row->values[TOP_REQUESTS] = rates[i];
	}
	top_ui_init(&ui);
	ui.height = 10;
	scene = (struct top_scene){
		.view = &view, .charset = ascii, .age_s = 0.5, .tick_s = 1, .heartbeat_s = 0.5};
	return 0;
}

static void keys(const char *text)
{
	for (; *text; text++)
		top_ui_key(&ui, &view, (unsigned char)*text);
}

/* Names in their order, as "alpha gamma". */
static const char *order(void)
{
	static char text[512];
	struct top_order o;

	text[0] = '\0';
	top_order(&ui, &view, &o);
	for (unsigned int i = 0; i < o.count; i++) {
		if (i)
			strcat(text, " ");
		strcat(text, view.rows[o.rows[i]].gateway->name);
	}
	return text;
}

/* The page as one text, lines ended by newlines. */
static const char *text_of(void)
{
	static char text[1 << 16];
	size_t at = 0;

	for (unsigned int i = 0; i < page.count && at < sizeof(text) - TOP_LINE_BYTES - 1; i++) {
		str_copy(text + at, sizeof(text) - at, page.lines[i].text);
		at += strlen(text + at);
		text[at++] = '\n';
	}
	text[at] = '\0';
	return text;
}

static void expect_in(const char *want)
{
	if (!strstr(text_of(), want))
		fail_msg("no \"%s\" in:\n%s", want, text_of());
}

static void expect_not_in(const char *unwanted)
{
	if (strstr(text_of(), unwanted))
		fail_msg("\"%s\" in:\n%s", unwanted, text_of());
}

/* ---- keys ---- */

static void test_sorting(void **state)
{
	(void)state;
	assert_string_equal(order(), "gamma alpha Beta");
	keys("r");
	/* What is not known stays last. */
	assert_string_equal(order(), "alpha gamma Beta");
	/* Before the first column are names; reversing ends with another column. */
	keys("<<");
	assert_int_equal(ui.sort, TOP_VALUES);
	assert_string_equal(order(), "Beta alpha gamma");
	keys("r");
	assert_string_equal(order(), "gamma alpha Beta");
	keys(">");
	assert_int_equal(ui.sort, TOP_WORKERS);
	assert_false(ui.is_reverse);
	/* All around, and never at a limit, which has no column. */
	for (unsigned int i = 0; i <= TOP_VALUES; i++) {
		keys(">");
		assert_true(ui.sort == TOP_VALUES || top_columns[ui.sort].width);
	}
}

static void test_filter(void **state)
{
	(void)state;
	keys("/BET");
	assert_true(ui.is_typing);
	assert_string_equal(order(), "Beta");
	/* While typing, q is a letter. */
	keys("q");
	assert_false(ui.is_done);
	assert_string_equal(order(), "");
	top_ui_key(&ui, &view, TOP_KEY_BACKSPACE);
	top_ui_key(&ui, &view, TOP_KEY_ENTER);
	assert_false(ui.is_typing);
	assert_string_equal(order(), "Beta");
	keys("/x");
	top_ui_key(&ui, &view, TOP_KEY_ESCAPE);
	assert_string_equal(ui.filter, "BET");
	top_ui_key(&ui, &view, TOP_KEY_ESCAPE);
	assert_string_equal(ui.filter, "");
	keys("/");
	for (unsigned int i = 0; i < 200; i++)
		keys("y");
	assert_int_equal(strlen(ui.filter), sizeof(ui.filter) - 1);
	top_ui_key(&ui, &view, 0x1b5b);
	assert_int_equal(strlen(ui.filter), sizeof(ui.filter) - 1);
}

static void test_selection_follows_its_gateway(void **state)
{
	struct top_order o;

	(void)state;
	top_ui_key(&ui, &view, TOP_KEY_DOWN);
	assert_int_equal(ui.selected, 10); /* alpha, second */
	keys("r");
	top_order(&ui, &view, &o);
	assert_int_equal(top_ui_position(&ui, &view, &o), 0);
	top_ui_key(&ui, &view, TOP_KEY_END);
	assert_int_equal(ui.selected, 11);
	top_ui_key(&ui, &view, TOP_KEY_DOWN);
	assert_int_equal(ui.selected, 11);
	/* Its gateway is gone: the first is selected. */
	gateways[1].state = SEGMENT_GATEWAY_GONE;
	top_order(&ui, &view, &o);
	assert_int_equal(top_ui_position(&ui, &view, &o), 0);
	assert_string_equal(order(), "alpha gamma");
	keys("a");
	assert_string_equal(order(), "alpha gamma Beta");
}

static void test_scrolling_shows_the_selected(void **state)
{
	(void)state;
	ui.height = 2;
	top_ui_key(&ui, &view, TOP_KEY_END);
	assert_int_equal(ui.scroll, 1);
	top_ui_key(&ui, &view, TOP_KEY_HOME);
	assert_int_equal(ui.scroll, 0);
	/* A page that became shorter has no lines behind its end. */
	ui.scroll = 50;
	top_page_list(&page, &scene, &ui);
	assert_int_equal(ui.lines, GATEWAYS);
	assert_int_equal(ui.scroll, 1);
}

static void test_modes(void **state)
{
	(void)state;
	keys("j");
	top_ui_key(&ui, &view, TOP_KEY_ENTER);
	assert_int_equal(ui.mode, TOP_DETAIL);
	keys("?");
	assert_int_equal(ui.mode, TOP_HELP);
	keys("/");
	assert_false(ui.is_typing);
	keys("?");
	assert_int_equal(ui.mode, TOP_DETAIL);
	top_ui_key(&ui, &view, TOP_KEY_ESCAPE);
	assert_int_equal(ui.mode, TOP_LIST);
	keys(" ");
	assert_true(ui.is_paused);
	keys(" q");
	assert_false(ui.is_paused);
	assert_true(ui.is_done);
	/* Nothing to enter. */
	view.count = 0;
	top_ui_key(&ui, &view, TOP_KEY_ENTER);
	assert_int_equal(ui.mode, TOP_LIST);
}

/* ---- text ---- */

static void expect_clean(const char *raw, struct top_charset c, const char *want)
{
	char text[64];

	top_text_clean(text, sizeof(text), raw, c);
	assert_string_equal(text, want);
}

static void test_foreign_text_cannot_reach_the_terminal(void **state)
{
	char text[5];

	(void)state;
	expect_clean("web-1", ascii, "web-1");
	expect_clean("a\033[2Jb\nc\td\177", utf8, "a?[2Jb?c?d?");
	expect_clean("\302\233"
		     "31m\302\205",
		     utf8, "?31m?");                                /* C1: CSI, NEL */
	expect_clean("\342\200\256abc\342\201\246", utf8, "?abc?"); /* turns the direction */
	expect_clean("\357\273\277x\342\200\213", utf8, "?x?");     /* no width */
	expect_clean("e\314\201", utf8, "e?");                      /* combining */
	expect_clean("\303(\377\300\200", utf8, "?(???");           /* no UTF-8 */
	expect_clean("\303\244\346\274\242", utf8, "\303\244\346\274\242");
	expect_clean("\303\244\346\274\242", ascii, "??");
	/* Never cut inside a character. */
	top_text_clean(text, sizeof(text), "ab\346\274\242", utf8);
	assert_string_equal(text, "ab");
}

static void test_padding(void **state)
{
	char text[32] = "";

	(void)state;
	top_text_pad(text, sizeof(text), "ab", 4, true);
	top_text_pad(text, sizeof(text), "cd", 3, false);
	assert_string_equal(text, "  abcd ");
	text[0] = '\0';
	top_text_pad(text, sizeof(text), "\346\274\242\346\274\242\346\274\242", 4, false);
	assert_string_equal(text, "\346\274\242~ ");
	text[0] = '\0';
	for (unsigned int i = 0; i < 100; i++)
		top_text_pad(text, sizeof(text), "x", 1, false);
	assert_int_equal(strlen(text), sizeof(text) - 1);
}

static void expect_number(void (*f)(char *, size_t, double), double x, const char *want)
{
	char text[32];

	f(text, sizeof(text), x);
	assert_string_equal(text, want);
}

static void test_numbers(void **state)
{
	struct top_quantile q = {8e-6, 7.7e-6, 8.3e-6};
	char text[32];

	(void)state;
	expect_number(top_text_seconds, NAN, "-");
	expect_number(top_text_seconds, 0, "0ns");
	expect_number(top_text_seconds, 7.44e-6, "7.4us");
	expect_number(top_text_seconds, 0.1204, "120ms");
	expect_number(top_text_seconds, 0.99951, "1.0s");
	expect_number(top_text_seconds, 180, "3m");
	expect_number(top_text_seconds, INFINITY, "inf");
	expect_number(top_text_number, 0, "0");
	expect_number(top_text_number, 0.3, "0.3");
	expect_number(top_text_number, 0.011, "0.01");
	expect_number(top_text_number, 17, "17");
	expect_number(top_text_number, 8832, "8832");
	expect_number(top_text_number, 12345, "12.3k");
	expect_number(top_text_number, 999999, "1.0M");
	expect_number(top_text_number, 4.56e6, "4.6M");
	expect_number(top_text_number, 1e300, "1e+300");
	expect_number(top_text_number, INFINITY, "inf");
	expect_number(top_text_number, NAN, "-");
	expect_number(top_text_bytes, 512, "512");
	expect_number(top_text_bytes, 1536, "1.5K");
	expect_number(top_text_bytes, 38e6, "36.2M");
	expect_number(top_text_ratio, 0.003, "0.3%");
	expect_number(top_text_ratio, 0.97, "97%");
	top_text_quantile(text, sizeof(text), &q, ascii);
	assert_string_equal(text, "8.0us~4%");
	top_text_quantile(text, sizeof(text), &q, utf8);
	assert_string_equal(text, "8.0us\302\2614%");
	q = (struct top_quantile){2048, 2048, INFINITY};
	top_text_quantile(text, sizeof(text), &q, ascii);
	assert_string_equal(text, ">34m");
}

static void test_bars(void **state)
{
	static const float values[] = {8, NAN, 0, 4, 8};
	char text[64] = "";

	(void)state;
	top_text_spark(text, sizeof(text), values, 5, 6, ascii);
	assert_string_equal(text, " # _-#");
	text[0] = '\0';
	top_text_spark(text, sizeof(text), values, 5, 2, utf8);
	assert_string_equal(text, "\342\226\204\342\226\210");
}

/* ---- pages ---- */

static void test_list_page(void **state)
{
	(void)state;
	gateways[2].draining = 1;
	view.rows[2].values[TOP_CPU] = 0.5;
	view.rows[2].values[TOP_CPU_LIMIT] = 2;
	top_page_list(&page, &scene, &ui);
	assert_int_equal(page.head, 3);
	assert_true(str_starts(page.lines[3].text, "gamma   drain"));
	assert_true(page.lines[3].is_selected);
	assert_false(page.lines[4].is_selected);
	assert_true(str_starts(page.lines[5].text, "Beta    live "));
	expect_in("0.50/2");
	expect_not_in("OLD");
	scene.age_s = 62;
	ui.is_paused = true;
	top_page_list(&page, &scene, &ui);
	expect_in("DATA IS 62s OLD");
	expect_in("PAUSED");
	/* A slow tick is not old before three of them passed. */
	scene.tick_s = 30;
	top_page_list(&page, &scene, &ui);
	expect_not_in("OLD");
	view.count = 0;
	top_page_list(&page, &scene, &ui);
	expect_in("found no gateway");
}

static void test_narrow_terminals(void **state)
{
	(void)state;
	ui.sort = TOP_FDS;
	for (unsigned int width = 40; width <= 250; width += 7) {
		scene.width = width;
		top_page_list(&page, &scene, &ui);
		for (unsigned int i = 2; i < page.count; i++)
			assert_true(top_text_width(page.lines[i].text) <= width);
		/* What is sorted by is seen. */
		expect_in("FDSv");
	}
	expect_in("HEAP");
	scene.width = 80;
	top_page_list(&page, &scene, &ui);
	expect_not_in("HEAP");
}

static void test_several_instances_have_numbers(void **state)
{
	(void)state;
	str_copy(gateways[1].name, SEGMENT_NAME_BYTES, "alpha");
	str_copy(gateways[1].instance, SEGMENT_NAME_BYTES, "host/2");
	top_page_list(&page, &scene, &ui);
	expect_in("alpha/1");
	expect_in("alpha/2");
	expect_in("gamma  ");
}

/* No byte that a terminal acts on, whatever the segment says. */
static void expect_harmless(const char *text)
{
	for (; *text; text++)
		if (((unsigned char)*text < 0x20 && *text != '\n') || *text == 0x7f ||
		    (unsigned char)*text >= 0x80)
			fail_msg("byte %#x", (unsigned char)*text);
}

static void test_hostile_names(void **state)
{
	static const char bad[] = "\033]0;x\007\302\2331m\n\377\"";
	struct top_sample none = {0}, now = {.gateways = gateways, .gateway_count = GATEWAYS};
	static struct top_item items[2];
	struct strbuf out;

	(void)state;
	for (unsigned int i = 0; i < GATEWAYS; i++) {
		str_copy(gateways[i].name, SEGMENT_NAME_BYTES, bad);
		str_copy(gateways[i].instance, SEGMENT_NAME_BYTES, bad);
		str_copy(gateways[i].driver, sizeof(gateways[i].driver), bad);
		str_copy(gateways[i].runtime, sizeof(gateways[i].runtime), bad);
	}
	items[0] = (struct top_item){.section = TOP_SECTION_UPSTREAMS, .label = bad, .detail = ""};
	items[1] = (struct top_item){.section = TOP_SECTION_APPLICATION,
				     .label = bad,
				     .detail = bad,
				     .series = {.label_count = 1, .labels = {{bad, bad}}}};
	detail = (struct top_detail){.items = items, .count = 2};
	scene.detail = &detail;
	top_page_list(&page, &scene, &ui);
	expect_harmless(text_of());
	expect_in("?]0;x?");
	ui.mode = TOP_DETAIL;
	top_page_detail(&page, &scene, &ui);
	expect_in("UPSTREAMS");
	expect_in("{?]0;x?");
	expect_harmless(text_of());
	strbuf_init(&out, 1 << 20);
	assert_int_equal(top_json(&scene, &none, &now, &out), 0);
	if (!strstr(out.data, "\\u001B]0;x\\u0007\\u009B1m\\n\\uFFFD\\\""))
		fail_msg("controls are not escaped");
	expect_harmless(out.data);
	strbuf_fini(&out);
}

static void test_detail_page(void **state)
{
	static struct top_item items[2];

	(void)state;
	items[0] = (struct top_item){.section = TOP_SECTION_SYSCALLS,
				     .label = "writev",
				     .detail = "",
				     .has_total = true,
				     .total = 1234567,
				     .rate = 10,
				     .time_ratio = 0.5};
	items[1] = items[0];
	items[1].label = "read";
	detail = (struct top_detail){.items = items, .count = 2};
	scene.detail = &detail;
	keys("j");
	top_ui_key(&ui, &view, TOP_KEY_ENTER);
	top_page_detail(&page, &scene, &ui);
	expect_in("alpha  instance host/1");
	expect_in("writev");
	expect_in("1.2M");
	keys("/READ");
	top_page_detail(&page, &scene, &ui);
	expect_not_in("writev");
	expect_in("read");
	scene.detail = NULL;
	top_page_detail(&page, &scene, &ui);
	expect_in("not there any more");
}

static void test_help_page_names_all_columns(void **state)
{
	(void)state;
	top_page_help(&page, &scene, &ui);
	for (unsigned int i = 0; i < TOP_VALUES; i++)
		if (top_columns[i].width)
			expect_in(top_columns[i].help);
	expect_in("space");
}

static void test_history(void **state)
{
	const float *rates = history.values[10][TOP_REQUESTS];

	(void)state;
	for (unsigned int i = 0; i < TOP_HISTORY + 5; i++) {
		view.rows[0].values[TOP_REQUESTS] = i;
		top_history_add(&history, &view);
	}
	assert_int_equal(history.count, TOP_HISTORY);
	assert_true(rates[0] == 5.0f && rates[TOP_HISTORY - 1] == TOP_HISTORY + 4.0f);
	view.count = 0;
	top_history_add(&history, &view);
	assert_true(isnan(rates[TOP_HISTORY - 1]));
	/* Another file: records mean other gateways. */
	view.life++;
	top_history_add(&history, &view);
	assert_int_equal(history.count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_sorting, setup),
		cmocka_unit_test_setup(test_filter, setup),
		cmocka_unit_test_setup(test_selection_follows_its_gateway, setup),
		cmocka_unit_test_setup(test_scrolling_shows_the_selected, setup),
		cmocka_unit_test_setup(test_modes, setup),
		cmocka_unit_test_setup(test_foreign_text_cannot_reach_the_terminal, setup),
		cmocka_unit_test_setup(test_padding, setup),
		cmocka_unit_test_setup(test_numbers, setup),
		cmocka_unit_test_setup(test_bars, setup),
		cmocka_unit_test_setup(test_list_page, setup),
		cmocka_unit_test_setup(test_narrow_terminals, setup),
		cmocka_unit_test_setup(test_several_instances_have_numbers, setup),
		cmocka_unit_test_setup(test_hostile_names, setup),
		cmocka_unit_test_setup(test_detail_page, setup),
		cmocka_unit_test_setup(test_help_page_names_all_columns, setup),
		cmocka_unit_test_setup(test_history, setup),
	};
	int failed;

	if (!setlocale(LC_CTYPE, "C.UTF-8") && !setlocale(LC_CTYPE, "C.utf8"))
		return 1;
	if (top_history_init(&history) < 0)
		return 1;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	top_history_fini(&history);
	top_page_fini(&page);
	return failed;
}
