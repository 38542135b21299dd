/* SPDX-License-Identifier: Apache-2.0 */
/* Draws pages with ncurses, reads keys. Owns the terminal while it is open. */
#include "cmd/top_screen.h"

#include "base/str.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NCURSES_WIDECHAR 1
#define NCURSES_NOMACROS 1
#include <ncurses.h>

#define ESCAPE_MS  25
#define SIZE_LEAST 2
#define EMPTY_MOST 100

static SCREEN *terminal;
static bool is_coloured;
static volatile sig_atomic_t is_ended;

static void on_signal(int signal)
{
	(void)signal;
	is_ended = 1;
}

static void take_signals(void)
{
	/* Not restarted: poll() must return. ncurses' own handlers would end the process at once. */
	const struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static void take_colors(void)
{
	static const short colors[] = {
		[TOP_SORTED] = COLOR_CYAN,
		[TOP_GOOD] = COLOR_GREEN,
		[TOP_WARN] = COLOR_YELLOW,
		[TOP_BAD] = COLOR_RED,
	};

	if (start_color() == ERR)
		return;
	use_default_colors();
	for (size_t i = 1; i < ARRAY_LEN(colors); i++)
		init_pair((short)i, colors[i] ? colors[i] : -1, -1);
	is_coloured = true;
}

int top_screen_open(bool wants_colors, struct err *e)
{
	const char *type = getenv("TERM");

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return err_set(e, -ENOTTY, "standard input and output are no terminal: use --once");
	terminal = newterm(NULL, stdout, stdin);
	if (!terminal)
		return err_set(e, -ENOENT,
			       "nothing is known of the terminal `%.32s`: set TERM, or use --once",
			       type ? type : "");
	take_signals();
	cbreak();
	noecho();
	nonl();
	intrflush(stdscr, FALSE);
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	curs_set(0);
	set_escdelay(ESCAPE_MS);
	if (wants_colors && has_colors())
		take_colors();
	return 0;
}

void top_screen_close(void)
{
	if (!terminal)
		return;
	endwin();
	delscreen(terminal);
	terminal = NULL;
}

void top_screen_size(unsigned int *ret_width, unsigned int *ret_height)
{
	int width = getmaxx(stdscr), height = getmaxy(stdscr);

	*ret_width = width < SIZE_LEAST ? SIZE_LEAST : (unsigned int)width;
	*ret_height = height < SIZE_LEAST ? SIZE_LEAST : (unsigned int)height;
}

/* ---- drawing ---- */

static attr_t attributes(enum top_level level)
{
	static const attr_t plain[] = {
		[TOP_DIM] = A_DIM,
		[TOP_TITLE] = A_BOLD,
		[TOP_SORTED] = A_BOLD,
		[TOP_WARN] = A_BOLD,
		[TOP_BAD] = A_BOLD | A_UNDERLINE,
	};

	if (!is_coloured || level < TOP_SORTED)
		return plain[level];
	return (attr_t)COLOR_PAIR((int)level) | (level == TOP_BAD ? A_BOLD : 0);
}

static enum top_level level_at(const struct top_line *l, size_t at)
{
	for (unsigned int i = 0; i < l->span_count; i++)
		if (at >= l->spans[i].at && at < (size_t)l->spans[i].at + l->spans[i].bytes)
			return l->spans[i].level;
	return TOP_PLAIN;
}

static void draw_line(int y, unsigned int width, const struct top_line *l, bool is_selected)
{
	unsigned int column = 0, w;
	size_t at = 0, n;

	wmove(stdscr, y, 0);
	for (; l->text[at]; at += n, column += w) {
		n = top_text_character(l->text + at, &w);
		if (column + w > width)
			break;
		attrset((int)(attributes(level_at(l, at)) | (is_selected ? A_REVERSE : 0)));
		addnstr(l->text + at, (int)n);
	}
	attrset(is_selected ? (int)A_REVERSE : (int)A_NORMAL);
	for (; is_selected && column < width; column++)
		addnstr(" ", 1);
	attrset((int)A_NORMAL);
}

static void draw_keys(int y, unsigned int width, const struct top_ui *ui)
{
	struct top_line l = {0};
	const char *text = "q quit  ? help  Enter details  > < sort  r reverse  / filter  "
			   "a all  space pause";

	if (ui->is_typing)
		text = "type what to look for; Enter keeps it, Esc does not";
	else if (ui->mode == TOP_DETAIL)
		text = "q quit  ? help  Esc back  up down scroll  / filter  space pause";
	else if (ui->mode == TOP_HELP)
		text = "q quit  Esc back  up down scroll";
	top_line_put(&l, text, 0, false, TOP_DIM);
	draw_line(y, width, &l, false);
}

void top_screen_draw(const struct top_page *p, const struct top_ui *ui)
{
	unsigned int width, height, y = 0;

	top_screen_size(&width, &height);
	erase();
	for (; y < p->head && y < p->count && y + 1 < height; y++)
		draw_line((int)y, width, &p->lines[y], false);
	for (unsigned int i = p->head + ui->scroll; i < p->count && y + 1 < height; i++, y++)
		draw_line((int)y, width, &p->lines[i], p->lines[i].is_selected);
	draw_keys((int)height - 1, width, ui);
	refresh();
}

/* ---- keys ---- */

static int translate(int key)
{
	switch (key) {
	case KEY_UP:
		return TOP_KEY_UP;
	case KEY_DOWN:
		return TOP_KEY_DOWN;
	case KEY_LEFT:
		return TOP_KEY_LEFT;
	case KEY_RIGHT:
		return TOP_KEY_RIGHT;
	case KEY_PPAGE:
		return TOP_KEY_PAGE_UP;
	case KEY_NPAGE:
		return TOP_KEY_PAGE_DOWN;
	case KEY_HOME:
		return TOP_KEY_HOME;
	case KEY_END:
		return TOP_KEY_END;
	case KEY_ENTER:
	case '\r':
	case '\n':
		return TOP_KEY_ENTER;
	case KEY_BACKSPACE:
	case 0x7f:
	case '\b':
		return TOP_KEY_BACKSPACE;
	case 0x1b:
		return TOP_KEY_ESCAPE;
	default:
		return key >= 0x20 && key < 0x7f ? key : 0;
	}
}

int top_screen_key(int timeout_ms)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	static unsigned int empty;
	/* What ncurses has read already is not seen by poll(). */
	int key = getch(), r;

	if (key == ERR) {
		r = poll(&p, 1, timeout_ms);
		if (is_ended)
			return -EINTR;
		key = getch();
		/* Readable, and nothing to read, again and again: the other side hung up. */
		empty = key == ERR && r > 0 ? empty + 1 : 0;
		if (key == ERR && r > 0 && (!(p.revents & POLLIN) || empty == EMPTY_MOST))
			return -EIO;
	}
	if (is_ended)
		return -EINTR;
	return key == ERR ? 0 : translate(key);
}
