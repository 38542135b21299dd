/* SPDX-License-Identifier: Apache-2.0 */
/* The symbol tables of one file. Owns them; liblzma unpacks. Process: the finder's child. */
#include "probe/symbols.h"

#include "base/cleanup.h"

#include <errno.h>
#include <lzma.h>
#include <string.h>

const char *symbols_name(enum symbols_from from)
{
	static const char *const names[SYMBOLS] = {"symtab", "debug-file", "gnu_debugdata",
						   "dynsym"};

	return names[from];
}

static bool is_same_build(const struct elffile *a, const struct elffile *b)
{
	uint8_t id[ELFFILE_BUILD_ID_MAX], other[ELFFILE_BUILD_ID_MAX];
	size_t size = elffile_build_id(a, id);

	return size > 0 && elffile_build_id(b, other) == size && memcmp(id, other, size) == 0;
}

static void read_debug_file(const struct elffile *f, int fd, struct elffile_symbols *ret)
{
	struct elffile debug;

	if (fd < 0 || elffile_init(&debug, fd, NULL) < 0)
		return;
	if (debug.header.e_machine == f->header.e_machine && is_same_build(f, &debug))
		elffile_read_symbols(&debug, ".symtab", ret, NULL);
	elffile_fini(&debug);
}

/* Unpacks in steps, so that memory grows with what is really there, up to the limit. */
static int unpack(const uint8_t *data, size_t size, uint8_t **ret, size_t *ret_size)
{
	_cleanup_free_ uint8_t *out = NULL;
	size_t room = 0, used = 0;
	lzma_stream stream = LZMA_STREAM_INIT;
	lzma_ret l;

	if (lzma_stream_decoder(&stream, SYMBOLS_XZ_MEMORY, 0) != LZMA_OK)
		return -ENOMEM;
	stream.next_in = data;
	stream.avail_in = size;
	do {
		uint8_t *larger;

		room = room ? room * 2 : 1u << 20;
		larger = room <= SYMBOLS_UNPACKED_MAX ? realloc(out, room) : NULL;
		if (!larger) {
			lzma_end(&stream);
			return -EFBIG;
		}
		out = larger;
		stream.next_out = out + used;
		stream.avail_out = room - used;
		l = lzma_code(&stream, LZMA_FINISH);
		used = room - stream.avail_out;
	} while (l == LZMA_OK && stream.avail_out == 0);
	lzma_end(&stream);
	if (l != LZMA_STREAM_END)
		return -EBADMSG;
	*ret = TAKE_PTR(out);
	*ret_size = used;
	return 0;
}

static void read_debugdata(const struct elffile *f, struct elffile_symbols *ret)
{
	const Elf64_Shdr *section = elffile_section(f, ".gnu_debugdata");
	_cleanup_free_ uint8_t *packed = NULL, *data = NULL;
	struct elffile small;
	size_t size;

	if (!section || elffile_read_section(f, section, &packed, &size, NULL) < 0 ||
	    unpack(packed, size, &data, &size) < 0 ||
	    elffile_init_bytes(&small, data, size, NULL) < 0)
		return;
	if (small.header.e_machine == f->header.e_machine)
		elffile_read_symbols(&small, ".symtab", ret, NULL);
	elffile_fini(&small);
}

int symbols_read(struct symbols *s, const struct elffile *f, int debug_fd, struct err *e)
{
	struct symbols new = {0};
	int r;

	r = elffile_read_symbols(f, ".symtab", &new.from[SYMBOLS_SYMTAB], e);
	if (r == 0 || r == -ENOENT)
		r = elffile_read_symbols(f, ".dynsym", &new.from[SYMBOLS_DYNSYM], e);
	if (r < 0 && r != -ENOENT) {
		symbols_free(&new);
		return r;
	}
	read_debug_file(f, debug_fd, &new.from[SYMBOLS_DEBUG_FILE]);
	read_debugdata(f, &new.from[SYMBOLS_DEBUGDATA]);
	*s = new;
	return 0;
}

void symbols_free(struct symbols *s)
{
	unsigned int i;

	for (i = 0; i < SYMBOLS; i++)
		elffile_free_symbols(&s->from[i]);
}

const Elf64_Sym *symbols_find(const struct symbols *s, const char *name,
			      enum symbols_from *ret_from)
{
	unsigned int i;

	for (i = 0; i < SYMBOLS; i++) {
		const Elf64_Sym *sym = elffile_find_symbol(&s->from[i], name);

		if (!sym)
			continue;
		*ret_from = (enum symbols_from)i;
		return sym;
	}
	return NULL;
}
