/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huffman's code of HPACK, for encoding what is compared with. The code is canonical: codes of one
 * length follow each other in the order of their characters, so a length and the first code are
 * enough.
 */
#include "probe/huffman.h"

#include "base/str.h"

#include <string.h>

static const struct {
	unsigned int bits;
	uint32_t first;
	const char *characters;
} rows[] = {
	{5, 0x0, "012aceiost"},
	{6, 0x14, " %-./3456789=A_bdfghlmnpru"},
	{7, 0x5c, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"},
	{8, 0xf8, "&*,;XZ"},
	{10, 0x3f8, "!\"()?"},
	{11, 0x7fa, "'+|"},
	{12, 0xffa, "#>"},
	{13, 0x1ff9, "$@[]~"},
	{14, 0x3ffc, "^}"},
	{15, 0x7ffc, "<`{"},
	{19, 0x7fff0, "\\"},
};

static unsigned int code_of(char c, uint32_t *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *at = strchr(rows[i].characters, c);

		if (!at)
			continue;
		*ret = rows[i].first + (uint32_t)(at - rows[i].characters);
		return rows[i].bits;
	}
	return 0;
}

bool huffman_encode(const char *text, uint8_t *ret, size_t size, size_t *ret_bits)
{
	size_t at = 0;
	uint32_t code = 0;

	memset(ret, 0xff, size);
	for (; *text; text++) {
		unsigned int bits = code_of(*text, &code);

		if (!bits || at + bits > size * 8)
			return false;
		for (; bits; bits--, at++)
			if (!(code >> (bits - 1) & 1))
				ret[at / 8] &= (uint8_t) ~(0x80u >> at % 8);
	}
	*ret_bits = at;
	return true;
}
