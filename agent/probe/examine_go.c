/* SPDX-License-Identifier: Apache-2.0 */
/* Go's collector, by the function table that survives stripping. Process: the finder's child. */
#include "probe/examine.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "probe/gopclntab.h"

#include <errno.h>
#include <stdio.h>

static const Elf64_Shdr *find_table(const struct elffile *f)
{
	const Elf64_Shdr *s = elffile_section(f, ".gopclntab");

	return s ? s : elffile_section(f, ".data.rel.ro.gopclntab");
}

int examine_go(const struct elffile *f, struct finder_result *ret, struct err *e)
{
	struct gopclntab_function functions[] = {
		{.name = "runtime.stopTheWorldWithSema"},
		{.name = "runtime.startTheWorldWithSema"},
		{.name = "runtime.gcMarkTermination"},
	};
	struct finder_function *const places[] = {&ret->stop, &ret->start, &ret->cycle};
	const Elf64_Shdr *section = find_table(f);
	_cleanup_free_ uint8_t *table = NULL;
	const char *version;
	unsigned int i;
	size_t size;
	int r;

	if (!section)
		return -ESRCH;
	ret->runtime = FINDER_GO;
	str_copy(ret->name, sizeof(ret->name), "go");
	r = elffile_read_section(f, section, &table, &size, e);
	if (r < 0)
		return err_set(e, r, ".gopclntab");
	r = gopclntab_find(table, size, functions, ARRAY_LEN(functions), &version, e);
	if (r < 0)
		return r;
	for (i = 0; i < ARRAY_LEN(functions); i++) {
		if (!functions[i].start)
			return err_set(e, -ENOENT, "%s is not in .gopclntab", functions[i].name);
		r = examine_locate(f, functions[i].name, functions[i].start, functions[i].end,
				   false, places[i], e);
		if (r < 0)
			return r;
	}
	str_copy(ret->how, sizeof(ret->how), "gopclntab");
	snprintf(ret->reason, sizeof(ret->reason), "named by .gopclntab as %s writes it", version);
	ret->confidence = 1;
	return 0;
}
