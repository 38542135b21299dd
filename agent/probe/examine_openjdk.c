/* SPDX-License-Identifier: Apache-2.0 */
/* HotSpot's collections, by the SDT notes of libjvm.so. Process: the finder's child. */
#include "probe/examine.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "probe/sdt.h"

#include <errno.h>
#include <stdio.h>

/* Each place is a nop by itself; whether the kernel emulates it is said by its decoding. */
static int locate(const struct elffile *f, const struct sdt_probe *probe,
		  struct finder_function *ret, struct err *e)
{
	struct finder_function found = {.exit_count = probe->count};
	unsigned int i;
	int r = 0;

	_Static_assert(SDT_PLACES_MAX <= FINDER_EXITS_MAX, "all places fit");
	for (i = 0; i < probe->count && r == 0; i++)
		r = examine_place(f, probe->places[i], &found.exits[i]);
	if (r == 0 && probe->semaphore)
		r = elffile_data_offset(f, probe->semaphore, &found.semaphore);
	if (r < 0)
		return err_set(e, r, "SDT probe %s:%s: no code at the place that it names",
			       probe->provider, probe->name);
	found.entry = found.exits[0];
	found.offset = found.entry.offset;
	*ret = found;
	return 0;
}

/* gc__begin and gc__end enclose what -Xlog:gc calls a pause (Serial, Parallel, G1 with remark and
 * cleanup), inside the safepoint, whose other operations are no collections. */
int examine_openjdk(const struct elffile *f, struct finder_result *ret, struct err *e)
{
	const Elf64_Shdr *notes = elffile_section(f, ".note.stapsdt");
	const Elf64_Shdr *base = elffile_section(f, ".stapsdt.base");
	struct sdt_probe probes[] = {
		{.provider = "hotspot", .name = "gc__begin"},
		{.provider = "hotspot", .name = "gc__end"},
	};
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	int r;

	if (!notes)
		return -ESRCH;
	r = elffile_read_section(f, notes, &data, &size, e);
	if (r < 0)
		return err_set(e, r, ".note.stapsdt");
	r = sdt_find(data, size, base ? base->sh_addr : 0, probes, ARRAY_LEN(probes));
	if (r == 0 && !probes[0].count && !probes[1].count)
		return -ESRCH; /* notes of something else */
	ret->runtime = FINDER_OPENJDK;
	str_copy(ret->name, sizeof(ret->name), "openjdk");
	if (r < 0)
		return err_set(e, r, ".note.stapsdt is damaged, or names too many places");
	if (!probes[0].count || !probes[1].count)
		return err_set(e, -ENOENT, "only one of hotspot:gc__begin and gc__end is there");
	r = locate(f, &probes[0], &ret->stop, e);
	if (r == 0)
		r = locate(f, &probes[1], &ret->start, e);
	if (r < 0)
		return r;
	ret->cycle = ret->start;
	str_copy(ret->how, sizeof(ret->how), "sdt");
	snprintf(ret->reason, sizeof(ret->reason),
		 "SDT notes name %u places of hotspot:gc__begin and %u of gc__end", probes[0].count,
		 probes[1].count);
	ret->confidence = 1;
	return 0;
}
