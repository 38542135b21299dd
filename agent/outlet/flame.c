/* SPDX-License-Identifier: Apache-2.0 */
/* SVG of a flame graph. No state. `tidegate profile`. */
#include "outlet/flame.h"

#include <errno.h>
#include <string.h>

#define WIDTH     1200.0
#define MARGIN    10.0
#define HEAD      56.0 /* title and buttons */
#define FOOT      30.0 /* what the pointer is at */
#define ROW       17.0
#define CHAR      7.25 /* width of a character */
#define NARROWEST 0.2  /* what is narrower is not drawn, nor what it calls */

/* Frames carry their place in samples (data-x, data-w): the script draws them anew from that. */
static const char script[] =
	"(function () {\n"
	"	var svg = document.documentElement, all = +svg.getAttribute('data-samples');\n"
	"	var inner = 1180, left = 10, character = 7.25;\n"
	"	var frames = [].slice.call(svg.querySelectorAll('g.f')).map(function (g) {\n"
	"		var title = g.querySelector('title').textContent;\n"
	"		return { g: g, rect: g.querySelector('rect'), text: "
	"g.querySelector('text'),\n"
	"			title: title, name: title.slice(0, title.lastIndexOf(' (')),\n"
	"			x: +g.getAttribute('data-x'), w: +g.getAttribute('data-w'),\n"
	"			d: +g.getAttribute('data-d') };\n"
	"	});\n"
	"	var by = function (id) { return document.getElementById(id); };\n"
	"	function fit(f, width) {\n"
	"		var most = Math.floor((width - 6) / character);\n"
	"		f.text.textContent = most < 3 ? '' : f.name.length <= most ? f.name :\n"
	"			f.name.slice(0, most - 2) + '..';\n"
	"	}\n"
	"	function zoom(to) {\n"
	"		frames.forEach(function (f) {\n"
	"			var above = f.d <= to.d && f.x <= to.x && f.x + f.w >= to.x + "
	"to.w;\n"
	"			var inside = f.x >= to.x && f.x + f.w <= to.x + to.w && f.d >= "
	"to.d;\n"
	"			var x = above ? 0 : (f.x - to.x) / to.w, w = above ? 1 : f.w / "
	"to.w;\n"
	"			f.g.style.display = above || inside ? '' : 'none';\n"
	"			f.g.style.opacity = above && f !== to ? 0.5 : 1;\n"
	"			f.rect.setAttribute('x', left + x * inner);\n"
	"			f.rect.setAttribute('width', w * inner);\n"
	"			f.text.setAttribute('x', left + x * inner + 3);\n"
	"			fit(f, w * inner);\n"
	"		});\n"
	"		by('reset').style.display = to === frames[0] ? 'none' : '';\n"
	"	}\n"
	"	function search(what) {\n"
	"		var sum = 0, end = 0;\n"
	"		what = (what || '').toLowerCase();\n"
	"		frames.forEach(function (f) {\n"
	"			var hit = what !== '' && f.name.toLowerCase().indexOf(what) >= 0;\n"
	"			f.rect.style.fill = hit ? '#b04ad8' : '';\n"
	"			if (hit && f.x >= end) { sum += f.w; end = f.x + f.w; }\n"
	"		});\n"
	"		by('found').textContent = what === '' ? '' :\n"
	"			what + ': ' + (100 * sum / all).toFixed(1) + ' %';\n"
	"	}\n"
	"	function ask() { search(prompt('Frames whose name contains', '')); }\n"
	"	frames.forEach(function (f) {\n"
	"		f.g.addEventListener('click', function () { zoom(f); });\n"
	"		f.g.addEventListener('mouseover', function () { by('at').textContent = "
	"f.title; });\n"
	"		f.g.addEventListener('mouseout', function () { by('at').textContent = ''; "
	"});\n"
	"	});\n"
	"	by('search').addEventListener('click', ask);\n"
	"	by('reset').addEventListener('click', function () { zoom(frames[0]); });\n"
	"	by('search').style.display = '';\n"
	"	window.addEventListener('keydown', function (e) {\n"
	"		if (e.key === 'Escape') { search(''); if (frames[0]) zoom(frames[0]); }\n"
	"		if ((e.ctrlKey || e.metaKey) && e.key === 'f') { e.preventDefault(); "
	"ask(); }\n"
	"	});\n"
	"})();\n";

struct flame {
	struct strbuf *out;
	double scale, height; /* pixels a sample, of the whole */
	uint64_t samples;
};

static void escape(struct strbuf *out, const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		switch (text[i]) {
		case '&':
			strbuf_puts(out, "&amp;");
			break;
		case '<':
			strbuf_puts(out, "&lt;");
			break;
		case '>':
			strbuf_puts(out, "&gt;");
			break;
		case '"':
			strbuf_puts(out, "&quot;");
			break;
		default:
			strbuf_add(out, &text[i], 1);
		}
	}
}

/* A name has one colour in every graph: fire for Lua, slate for what is no Lua ("[C]", "[G]"). */
static unsigned int colour(const char *name)
{
	unsigned int h = 2166136261u;

	for (const char *c = name; *c; c++)
		h = (h ^ (unsigned char)*c) * 16777619u;
	h ^= h >> 15;
	if (*name == '[')
		return (110 + h % 40) << 16 | (130 + (h >> 8) % 40) << 8 | (165 + (h >> 16) % 50);
	return (205 + h % 50) << 16 | (90 + (h >> 8) % 120) << 8 | (30 + (h >> 16) % 50);
}

/* As many characters as fit; a character of several bytes stays whole. */
static size_t fitting(const char *name, double width, bool *ret_is_cut)
{
	size_t most = width > 6 ? (size_t)((width - 6) / CHAR) : 0, bytes = 0, chars = 0;

	*ret_is_cut = false;
	if (most < 3)
		return 0;
	while (name[bytes] && chars < most) {
		bytes += str_utf8_length(name + bytes);
		chars++;
	}
	if (!name[bytes])
		return bytes;
	*ret_is_cut = true;
	for (bytes = chars = 0; chars < most - 2; chars++)
		bytes += str_utf8_length(name + bytes);
	return bytes;
}

static bool draw(void *data, const struct stacks_frame *frame)
{
	struct flame *f = data;
	const char *name = frame->depth ? frame->name : "all";
	double x = MARGIN + (double)frame->from * f->scale, width = (double)frame->total * f->scale;
	double y = f->height - FOOT - ROW * (frame->depth + 1);
	size_t bytes;
	bool is_cut;

	if (width < NARROWEST)
		return false;
	bytes = fitting(name, width, &is_cut);
	strbuf_printf(
		f->out, "<g class=\"f\" data-x=\"%llu\" data-w=\"%llu\" data-d=\"%u\"><title>",
		(unsigned long long)frame->from, (unsigned long long)frame->total, frame->depth);
	escape(f->out, name, strlen(name));
	strbuf_printf(f->out,
		      " (%llu samples, %.2f %%)</title><rect x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" "
		      "height=\"%.0f\" rx=\"1\" fill=\"#%06x\"/><text x=\"%.1f\" y=\"%.0f\">",
		      (unsigned long long)frame->total,
		      100 * (double)frame->total / (double)f->samples, x, y, width, ROW - 1,
		      colour(name), x + 3, y + 12);
	escape(f->out, name, bytes);
	strbuf_puts(f->out, is_cut ? "..</text></g>\n" : "</text></g>\n");
	return !f->out->failed;
}

static void head(const struct flame *f, const char *title)
{
	strbuf_printf(f->out,
		      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
		      "viewBox=\"0 0 %.0f %.0f\" data-samples=\"%llu\">\n"
		      "<style>text { font: 12px monospace; fill: #111; pointer-events: none }\n"
		      ".b { cursor: pointer; pointer-events: auto; fill: #25a }\n"
		      "g.f { cursor: pointer } g.f:hover rect { stroke: #000 }</style>\n"
		      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fffdf7\"/>\n"
		      "<text x=\"%.0f\" y=\"22\" style=\"font-size: 16px\">",
		      WIDTH, f->height, WIDTH, f->height, (unsigned long long)f->samples, MARGIN);
	escape(f->out, title, strlen(title));
	strbuf_printf(f->out,
		      "</text>\n<text id=\"reset\" class=\"b\" x=\"%.0f\" y=\"42\" "
		      "style=\"display: none\">Reset</text>\n"
		      "<text id=\"search\" class=\"b\" x=\"%.0f\" y=\"22\" text-anchor=\"end\" "
		      "style=\"display: none\">Search</text>\n"
		      "<text id=\"found\" x=\"%.0f\" y=\"42\" text-anchor=\"end\"></text>\n"
		      "<text id=\"at\" x=\"%.0f\" y=\"%.0f\"></text>\n",
		      MARGIN, WIDTH - MARGIN, WIDTH - MARGIN, MARGIN, f->height - 10);
}

int flame_print(struct stacks *s, const char *title, struct strbuf *out)
{
	struct flame f = {.out = out};
	struct stacks_stats stats;
	int r = 0;

	stacks_stats(s, &stats);
	f.samples = stats.samples;
	f.height = HEAD + FOOT + ROW * (stats.depth + 1);
	f.scale = stats.samples ? (WIDTH - 2 * MARGIN) / (double)stats.samples : 0;
	head(&f, title);
	if (stats.samples)
		r = stacks_walk(s, draw, &f);
	else
		strbuf_printf(out, "<text x=\"%.0f\" y=\"%.0f\">No samples.</text>\n", MARGIN,
			      HEAD + ROW - 5);
	strbuf_puts(out, "<script><![CDATA[\n");
	strbuf_puts(out, script);
	strbuf_puts(out, "]]></script>\n</svg>\n");
	return r < 0 ? r : out->failed ? -E2BIG : 0;
}
