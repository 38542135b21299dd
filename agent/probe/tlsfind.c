/* SPDX-License-Identifier: Apache-2.0 */
/* From an ELF file to the calls of its TLS library. Owns what it reads. Process: the finder's child. */
#include "probe/tlsfind.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "probe/callpoint.h"
#include "probe/gopclntab.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const openssl_names[FINDER_TLS_CALLS] = {
	[FINDER_TLS_READ] = "SSL_read",
	[FINDER_TLS_WRITE] = "SSL_write",
	[FINDER_TLS_HANDSHAKE] = "SSL_do_handshake",
	[FINDER_TLS_READ_EX] = "SSL_read_ex",
	[FINDER_TLS_WRITE_EX] = "SSL_write_ex",
};

static int decode(const struct elffile *f, struct flow *flow, uint64_t start, uint64_t end)
{
	static uint8_t code[FLOW_CODE_MAX];
	size_t size = sizeof(code);
	int r;

	if (end <= start || end - start > size)
		return -EFBIG;
	size = end - start;
	r = elffile_read_code(f, start, code, size, &size);
	return r < 0 ? r : flow_decode(flow, f->header.e_machine, start, code, size);
}

static int locate(const struct elffile *f, struct flow *flow, uint64_t start, uint64_t end,
		  bool is_go, struct finder_function *ret)
{
	struct finder_function found;
	unsigned int i;
	int r;

	r = decode(f, flow, start, end);
	if (r == 0)
		r = callpoint_find(flow, is_go, &found);
	if (r == 0)
		r = elffile_offset(f, found.offset, &found.offset);
	if (r == 0)
		r = elffile_offset(f, found.entry.offset, &found.entry.offset);
	for (i = 0; r == 0 && i < found.exit_count; i++)
		r = elffile_offset(f, found.exits[i].offset, &found.exits[i].offset);
	if (r == 0)
		*ret = found;
	return r;
}

/* A handshake is left in ways that do not matter: its entry alone. */
static int locate_entry(const struct elffile *f, uint64_t start, struct finder_function *ret)
{
	struct finder_function found = {.offset = start};
	int r = elffile_offset(f, start, &found.offset);

	if (r < 0)
		return r;
	found.entry.offset = found.offset;
	*ret = found;
	return 0;
}

/* ---- OpenSSL, and what has its interface ---- */

static int locate_symbol(const struct elffile *f, struct flow *flow,
			 const struct elffile_symbols *symbols, unsigned int call,
			 struct finder_function *ret)
{
	const char *name = openssl_names[call];
	const Elf64_Sym *sym = name ? elffile_find_symbol(symbols, name) : NULL;
	uint64_t end;

	if (!sym)
		return -ENOENT;
	if (call == FINDER_TLS_HANDSHAKE)
		return locate_entry(f, sym->st_value, ret);
	end = sym->st_value + sym->st_size;
	if (!sym->st_size && elffile_next_function(f, sym->st_value, &end) < 0)
		return -ENODATA;
	return locate(f, flow, sym->st_value, end, false, ret);
}

/* False: none of the names are in this table. */
static bool find_openssl(const struct elffile *f, struct flow *flow, const char *section,
			 struct finder_tls *ret)
{
	struct elffile_symbols symbols = {0};
	struct err e = {0};
	unsigned int i;
	bool is_there;
	int r;

	if (elffile_read_symbols(f, section, &symbols, &e) < 0)
		return false;
	is_there = elffile_find_symbol(&symbols, "SSL_read") != NULL;
	ret->is_found = is_there;
	for (i = 0; i < FINDER_TLS_CALLS && is_there && ret->is_found; i++) {
		r = locate_symbol(f, flow, &symbols, i, &ret->calls[i]);
		if (r == 0 || (r == -ENOENT && i > FINDER_TLS_WRITE))
			continue;
		ret->is_found = 0;
		snprintf(ret->why, sizeof(ret->why), "%s: cannot tell where it is left (%s)",
			 openssl_names[i], err_text(r));
	}
	elffile_free_symbols(&symbols);
	if (!is_there)
		return false;
	ret->kind = FINDER_TLS_OPENSSL;
	str_copy(ret->how, sizeof(ret->how), section + 1);
	return true;
}

/* ---- Go ---- */

enum { GO_READ, GO_WRITE, GO_SERVER, GO_CLIENT, GO_ENTRY, GO_FUNCTIONS };

/* As examine_go.c: where the text begins is said by the table, a relocation or the entry. */
static int find_functions(const struct elffile *f, const Elf64_Shdr *section,
			  struct gopclntab_function *functions, struct gopclntab_info *ret,
			  struct err *e)
{
	_cleanup_free_ uint8_t *table = NULL;
	uint64_t text = 0;
	unsigned int i;
	size_t size;
	int r;

	r = elffile_read_section(f, section, &table, &size, e);
	if (r < 0)
		return r;
	if (elffile_relative(f, section->sh_addr + GOPCLNTAB_TEXT, &text) < 0)
		text = 0;
	r = gopclntab_find(table, size, text, functions, GO_FUNCTIONS, ret, e);
	if (r < 0 || !ret->is_relative)
		return r;
	if (!functions[GO_ENTRY].end)
		return err_set(e, -ENOTSUP, ".gopclntab does not say where the text begins");
	text = f->header.e_entry - functions[GO_ENTRY].start;
	for (i = 0; i < GO_FUNCTIONS; i++) {
		functions[i].start += functions[i].end ? text : 0;
		functions[i].end += functions[i].end ? text : 0;
	}
	return 0;
}

static int find_go(const struct elffile *f, struct flow *flow, const Elf64_Shdr *section,
		   struct finder_tls *ret, struct err *e)
{
	struct gopclntab_function functions[GO_FUNCTIONS] = {
		[GO_READ] = {.name = "crypto/tls.(*Conn).Read"},
		[GO_WRITE] = {.name = "crypto/tls.(*Conn).Write"},
		[GO_SERVER] = {.name = "crypto/tls.(*Conn).serverHandshake"},
		[GO_CLIENT] = {.name = "crypto/tls.(*Conn).clientHandshake"},
		[GO_ENTRY] = {.name = "_rt0_amd64_linux"},
	};
	struct gopclntab_info info;
	unsigned int i;
	int r;

	r = find_functions(f, section, functions, &info, e);
	if (r < 0)
		return r;
	/* Linked out: this program makes no TLS connection. */
	if (!functions[GO_READ].end || !functions[GO_WRITE].end)
		return 0;
	ret->kind = FINDER_TLS_GO;
	str_copy(ret->how, sizeof(ret->how), "gopclntab");
	if (str_equal(info.version, "go1.16"))
		return err_set(e, -ENOTSUP,
			       "Go before 1.18: the table does not tell whether arguments are in "
			       "registers");
	for (i = GO_READ; i <= GO_WRITE; i++) {
		r = locate(f, flow, functions[i].start, functions[i].end, true, &ret->calls[i]);
		if (r < 0)
			return err_set(e, r, "%s: cannot tell where it is left (%s)",
				       functions[i].name, err_text(r));
	}
	/* A program may be a server or a client alone. */
	for (; i <= GO_CLIENT; i++) {
		if (functions[i].end && locate_entry(f, functions[i].start, &ret->calls[i]) < 0)
			return err_set(e, -ENOENT, "%s: no code there", functions[i].name);
	}
	ret->is_found = 1;
	return 0;
}

_Static_assert(GO_READ == (int)FINDER_TLS_READ && GO_WRITE == (int)FINDER_TLS_WRITE &&
		       GO_SERVER == (int)FINDER_TLS_HANDSHAKE &&
		       GO_CLIENT == (int)FINDER_TLS_CLIENT,
	       "one order");

void tlsfind(const struct elffile *f, struct flow *scratch, struct finder_tls *ret)
{
	const Elf64_Shdr *table = elffile_section(f, ".gopclntab");
	struct err e = {0};
	int r;

	memset(ret, 0, sizeof(*ret));
	if (f->header.e_machine != EM_X86_64)
		return;
	if (!table)
		table = elffile_section(f, ".data.rel.ro.gopclntab");
	if (!table) {
		if (!find_openssl(f, scratch, ".dynsym", ret))
			find_openssl(f, scratch, ".symtab", ret);
		return;
	}
	r = find_go(f, scratch, table, ret, &e);
	if (r < 0)
		str_copy(ret->why, sizeof(ret->why), e.text[0] ? e.text : err_text(r));
}
