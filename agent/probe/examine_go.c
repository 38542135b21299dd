/* SPDX-License-Identifier: Apache-2.0 */
/* Go's collector, by the function table that survives stripping. Process: the finder's child. */
#include "probe/examine.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "probe/gopclntab.h"

#include <errno.h>
#include <stdio.h>

#define CANDIDATES_MAX 8u /* what may look like a table before the one that is */

enum { STOP, START, CYCLE, ENTRY, FUNCTIONS };

/* Where the program starts: known to the linker, so that it tells where the text begins. Go 1.26
 * leaves the table's own field empty. */
static const char *entry_name(const struct elffile *f)
{
	return f->header.e_machine == EM_AARCH64 ? "_rt0_arm64_linux" : "_rt0_amd64_linux";
}

static int shift_functions(const struct elffile *f, struct gopclntab_function *functions,
			   struct err *e)
{
	uint64_t text = f->header.e_entry - functions[ENTRY].start;
	unsigned int i;

	if (!functions[ENTRY].end)
		return err_set(e, -ENOTSUP, ".gopclntab does not say where the text begins");
	for (i = 0; i < FUNCTIONS; i++) {
		functions[i].start += functions[i].end ? text : 0;
		functions[i].end += functions[i].end ? text : 0;
	}
	return 0;
}

static int find_functions(const struct elffile *f, const uint8_t *table, size_t size,
			  uint64_t address, struct gopclntab_function *functions,
			  struct gopclntab_info *ret, struct err *e)
{
	uint64_t text = 0;
	unsigned int i;
	int r;

	for (i = 0; i < FUNCTIONS; i++)
		functions[i].start = functions[i].end = 0;
	if (elffile_relative(f, address + GOPCLNTAB_TEXT, &text) < 0)
		text = 0;
	r = gopclntab_find(table, size, text, functions, FUNCTIONS, ret, e);
	if (r == 0 && ret->is_relative)
		r = shift_functions(f, functions, e);
	for (i = 0; r == 0 && i < ENTRY; i++) {
		if (!functions[i].end)
			return err_set(e, -ENOENT, "%s is not in .gopclntab", functions[i].name);
	}
	return r;
}

/* An external linker puts the table of a position-independent program among other data. */
static int search_functions(const struct elffile *f, const uint8_t *data, size_t size,
			    uint64_t address, struct gopclntab_function *functions,
			    struct gopclntab_info *ret, struct err *e)
{
	unsigned int tries = 0;
	size_t at = 0;
	int r = err_set(e, -ENOENT, "no .gopclntab, and none in .data.rel.ro");

	while (tries++ < CANDIDATES_MAX && gopclntab_search(data, size, at, &at) == 0) {
		r = find_functions(f, data + at, size - at, address + at, functions, ret, e);
		if (r == 0)
			break;
		at += 8;
	}
	return r;
}

/* *ret_is_alone: the section holds the table and nothing else. */
static const Elf64_Shdr *find_section(const struct elffile *f, bool *ret_is_alone)
{
	const Elf64_Shdr *s = elffile_section(f, ".gopclntab");

	*ret_is_alone = true;
	if (!s)
		s = elffile_section(f, ".data.rel.ro.gopclntab");
	if (s || !elffile_section(f, ".go.buildinfo"))
		return s;
	*ret_is_alone = false;
	return elffile_section(f, ".data.rel.ro");
}

/* The first pause of a cycle is over when startTheWorldWithSema is left, says the runtime's own count, so
 * its ways out are wanted as well. Without them it ends at the entry, as the second one does. */
static void locate_exits(const struct elffile *f, const struct gopclntab_function *start,
			 struct finder_result *ret)
{
	struct finder_function left;
	unsigned int i;

	if (examine_locate(f, start->name, start->start, start->end, true, &left, NULL) < 0)
		return;
	ret->start.exit_count = left.exit_count;
	for (i = 0; i < left.exit_count; i++)
		ret->start.exits[i] = left.exits[i];
}

int examine_go(const struct elffile *f, struct finder_result *ret, struct err *e)
{
	struct gopclntab_function functions[FUNCTIONS] = {
		[STOP] = {.name = "runtime.stopTheWorldWithSema"},
		[START] = {.name = "runtime.startTheWorldWithSema"},
		[CYCLE] = {.name = "runtime.gcMarkTermination"},
		[ENTRY] = {.name = entry_name(f)},
	};
	struct finder_function *const places[] = {
		[STOP] = &ret->stop, [START] = &ret->start, [CYCLE] = &ret->cycle};
	struct gopclntab_info info = {.version = ""};
	_cleanup_free_ uint8_t *data = NULL;
	const Elf64_Shdr *section;
	unsigned int i;
	bool is_alone;
	size_t size;
	int r;

	section = find_section(f, &is_alone);
	if (!section)
		return -ESRCH;
	ret->runtime = FINDER_GO;
	str_copy(ret->name, sizeof(ret->name), "go");
	r = elffile_read_section(f, section, &data, &size, e);
	if (r < 0)
		return err_set(e, r, ".gopclntab");
	r = is_alone ? find_functions(f, data, size, section->sh_addr, functions, &info, e)
		     : search_functions(f, data, size, section->sh_addr, functions, &info, e);
	for (i = 0; r == 0 && i < ARRAY_LEN(places); i++)
		r = examine_locate(f, functions[i].name, functions[i].start, functions[i].end,
				   false, places[i], e);
	if (r < 0)
		return r;
	locate_exits(f, &functions[1], ret);
	str_copy(ret->how, sizeof(ret->how), "gopclntab");
	snprintf(ret->reason, sizeof(ret->reason), "named by .gopclntab as %s writes it%s",
		 info.version, info.is_relative ? ", placed by the program's entry" : "");
	ret->confidence = 1;
	return 0;
}
