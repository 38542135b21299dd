/* SPDX-License-Identifier: Apache-2.0 */
/* Reader of SDT notes. Owns nothing. Process: the finder's child. */
#include "probe/sdt.h"

#include "base/str.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define NT_STAPSDT 3
#define OWNER      "stapsdt"

struct note {
	uint64_t place, base, semaphore;
	const char *provider, *name;
};

static size_t aligned(uint32_t size)
{
	return ((size_t)size + 3) & ~(size_t)3;
}

/* The string at *at, which moves behind it; NULL: it has no end. */
static const char *take_string(const uint8_t **at, const uint8_t *end)
{
	const uint8_t *zero = memchr(*at, 0, (size_t)(end - *at));
	const char *text = (const char *)*at;

	if (!zero)
		return NULL;
	*at = zero + 1;
	return text;
}

static int read_description(const uint8_t *at, size_t size, struct note *ret)
{
	const uint8_t *end = at + size;
	struct note note;

	if (size < 3 * sizeof(uint64_t))
		return -EBADMSG;
	memcpy(&note.place, at, sizeof(note.place));
	memcpy(&note.base, at + 8, sizeof(note.base));
	memcpy(&note.semaphore, at + 16, sizeof(note.semaphore));
	at += 24;
	note.provider = take_string(&at, end);
	note.name = note.provider ? take_string(&at, end) : NULL;
	if (!note.name)
		return -EBADMSG;
	*ret = note;
	return 0;
}

static int add_place(struct sdt_probe *probe, const struct note *note, uint64_t base)
{
	uint64_t moved = base ? base - note->base : 0, place = note->place + moved;

	for (unsigned int i = 0; i < probe->count; i++) {
		if (probe->places[i] == place)
			return 0;
	}
	if (probe->count == SDT_PLACES_MAX)
		return -E2BIG;
	probe->places[probe->count++] = place;
	if (note->semaphore)
		probe->semaphore = note->semaphore + moved;
	return 0;
}

int sdt_find(const uint8_t *notes, size_t size, uint64_t base, struct sdt_probe *probes,
	     size_t count)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && size - at >= sizeof(Elf64_Nhdr)) {
		const uint8_t *name = notes + at + sizeof(Elf64_Nhdr);
		size_t left = size - at - sizeof(Elf64_Nhdr);
		struct note note;
		Elf64_Nhdr head;

		memcpy(&head, notes + at, sizeof(head));
		if (aligned(head.n_namesz) > left || head.n_descsz > left - aligned(head.n_namesz))
			return -EBADMSG;
		left -= aligned(head.n_namesz);
		at = size - left + (aligned(head.n_descsz) < left ? aligned(head.n_descsz) : left);
		if (head.n_type != NT_STAPSDT || head.n_namesz != sizeof(OWNER) ||
		    memcmp(name, OWNER, sizeof(OWNER)) != 0)
			continue;
		r = read_description(name + aligned(head.n_namesz), head.n_descsz, &note);
		for (size_t i = 0; i < count && r == 0; i++) {
			if (str_equal(note.provider, probes[i].provider) &&
			    str_equal(note.name, probes[i].name))
				r = add_place(&probes[i], &note, base);
		}
	}
	return r;
}
