/* SPDX-License-Identifier: Apache-2.0 */
/* Go's function table. Owns nothing; every offset is checked. Process: the finder's child. */
#include "probe/gopclntab.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { MAGIC_1_16 = (int)0xfffffffa, MAGIC_1_18 = (int)0xfffffff0, MAGIC_1_20 = (int)0xfffffff1 };

struct table {
	const uint8_t *data;
	size_t size;
	bool is_relative; /* entries are 32-bit offsets from the text start (1.18) */
	uint64_t text, names, functions, count;
};

static bool get_u64(const struct table *t, uint64_t at, uint64_t *ret)
{
	if (at > t->size || t->size - at < 8)
		return false;
	memcpy(ret, t->data + at, 8);
	return true;
}

static bool get_u32(const struct table *t, uint64_t at, uint32_t *ret)
{
	if (at > t->size || t->size - at < 4)
		return false;
	memcpy(ret, t->data + at, 4);
	return true;
}

/* One row of the table: address of a function and offset of its record. */
static bool get_row(const struct table *t, uint64_t i, uint64_t *ret_start, uint64_t *ret_record)
{
	uint32_t start, record;

	if (!t->is_relative)
		return get_u64(t, t->functions + i * 16, ret_start) &&
		       get_u64(t, t->functions + i * 16 + 8, ret_record);
	if (!get_u32(t, t->functions + i * 8, &start) ||
	    !get_u32(t, t->functions + i * 8 + 4, &record))
		return false;
	*ret_start = t->text + start;
	*ret_record = record;
	return true;
}

/* The last row has only an address: the end of the text. */
static bool get_end(const struct table *t, uint64_t i, uint64_t *ret)
{
	uint32_t end;

	if (!t->is_relative)
		return get_u64(t, t->functions + i * 16, ret);
	if (!get_u32(t, t->functions + i * 8, &end))
		return false;
	*ret = t->text + end;
	return true;
}

static int parse_header(struct table *t, uint64_t text, struct gopclntab_info *ret, struct err *e)
{
	uint64_t words[8];
	unsigned int i, names;
	uint32_t magic;

	if (!get_u32(t, 0, &magic))
		return err_set(e, -EBADMSG, ".gopclntab is too short");
	switch ((int)magic) {
	case MAGIC_1_16:
		ret->version = "go1.16";
		names = 2;
		break;
	case MAGIC_1_18:
		ret->version = "go1.18";
		names = 3;
		break;
	case MAGIC_1_20:
		ret->version = "go1.20";
		names = 3;
		break;
	default:
		return err_set(e, -ENOTSUP, ".gopclntab has the unknown magic %#x", magic);
	}
	for (i = 0; i < 8; i++) {
		if (!get_u64(t, 8 + (uint64_t)i * 8, &words[i])) {
			if (i < 7)
				return err_set(e, -EBADMSG, ".gopclntab is too short");
			words[i] = 0;
		}
	}
	if (t->data[7] != 8)
		return err_set(e, -ENOTSUP, ".gopclntab is not for 64 bits");
	t->is_relative = names == 3;
	t->count = words[0];
	t->text = !t->is_relative ? 0 : text ? text : words[2];
	t->names = words[names];
	t->functions = words[names + 4];
	if (t->count == 0 || t->count > GOPCLNTAB_FUNCTIONS_MAX || t->names >= t->size ||
	    t->functions >= t->size)
		return err_set(e, -EBADMSG, ".gopclntab is damaged");
	ret->is_relative = t->is_relative && t->text == 0;
	return 0;
}

static const char *function_name(const struct table *t, uint64_t record, size_t *ret_room)
{
	uint32_t name;
	uint64_t at;

	if (record > t->size ||
	    !get_u32(t, t->functions + record + (t->is_relative ? 4 : 8), &name))
		return NULL;
	at = t->names + name;
	if (at >= t->size)
		return NULL;
	*ret_room = t->size - at;
	return (const char *)t->data + at;
}

int gopclntab_search(const uint8_t *data, size_t size, size_t from, size_t *ret)
{
	size_t at;

	for (at = (from + 7) & ~(size_t)7; at + 8 <= size; at += 8) {
		const uint8_t *b = data + at;
		uint32_t magic;

		memcpy(&magic, b, sizeof(magic));
		if ((int)magic != MAGIC_1_16 && (int)magic != MAGIC_1_18 &&
		    (int)magic != MAGIC_1_20)
			continue;
		/* two zeros, the size of the smallest instruction, the size of a pointer */
		if (b[4] || b[5] || (b[6] != 1 && b[6] != 4) || b[7] != 8)
			continue;
		*ret = at;
		return 0;
	}
	return -ENOENT;
}

int gopclntab_find(const uint8_t *table, size_t size, uint64_t text,
		   struct gopclntab_function *functions, size_t count, struct gopclntab_info *ret,
		   struct err *e)
{
	struct table t = {.data = table, .size = size};
	uint64_t i;
	size_t j;
	int r;

	r = parse_header(&t, text, ret, e);
	if (r < 0)
		return r;
	for (i = 0; i < t.count; i++) {
		uint64_t start, end, record;
		const char *name;
		size_t room;

		if (!get_row(&t, i, &start, &record) || !get_end(&t, i + 1, &end))
			return err_set(e, -EBADMSG, ".gopclntab is cut off");
		name = function_name(&t, record, &room);
		if (!name)
			continue;
		for (j = 0; j < count; j++) {
			size_t length = strlen(functions[j].name) + 1;

			if (length <= room && memcmp(name, functions[j].name, length) == 0) {
				functions[j].start = start;
				functions[j].end = end;
			}
		}
	}
	return 0;
}
