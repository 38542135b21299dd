/* SPDX-License-Identifier: Apache-2.0 */
/* Reader of ELF files for the finder. Owns copies of the tables; process: the finder's child. */
#include "probe/elffile.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* True when [offset, offset + size) lies inside a whole of that length. */
static bool is_inside(uint64_t offset, uint64_t size, uint64_t whole)
{
	return offset <= whole && size <= whole - offset;
}

static int read_at(const struct elffile *f, uint64_t offset, void *buf, size_t size)
{
	size_t done = 0;

	if (!is_inside(offset, size, f->size))
		return -EBADMSG;
	if (f->bytes) {
		memcpy(buf, f->bytes + offset, size);
		return 0;
	}
	while (done < size) {
		ssize_t n =
			pread(f->fd, (uint8_t *)buf + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		done += (size_t)n;
	}
	return 0;
}

static int read_table(const struct elffile *f, uint64_t offset, size_t count, size_t entry,
		      void **ret)
{
	_cleanup_free_ void *table = NULL;
	int r;

	table = calloc(count + 1, entry);
	if (!table)
		return -ENOMEM;
	r = read_at(f, offset, table, count * entry);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(table);
	return 0;
}

static int read_names(struct elffile *f)
{
	uint8_t *names;
	int r;

	if (f->header.e_shstrndx >= f->section_count)
		return 0;
	r = elffile_read_section(f, &f->sections[f->header.e_shstrndx], &names, &f->names_size,
				 NULL);
	if (r < 0)
		return r;
	f->names = (char *)names;
	return 0;
}

static int check_header(struct elffile *f, struct err *e)
{
	const Elf64_Ehdr *h = &f->header;
	int r;

	r = read_at(f, 0, &f->header, sizeof(f->header));
	if (r < 0)
		return err_set(e, r == -EBADMSG ? -ENOEXEC : r, "too short for an ELF header");
	if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
		return err_set(e, -ENOEXEC, "not an ELF file");
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB)
		return err_set(e, -ENOEXEC, "not a 64-bit little-endian ELF file");
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return err_set(e, -ENOEXEC, "neither an executable nor a shared library");
	if (h->e_machine != EM_X86_64 && h->e_machine != EM_AARCH64)
		return err_set(e, -ENOEXEC, "machine %u is neither x86-64 nor aarch64",
			       h->e_machine);
	if (h->e_phnum == 0 || h->e_phnum > ELFFILE_SEGMENTS_MAX ||
	    h->e_phentsize != sizeof(Elf64_Phdr))
		return err_set(e, -EBADMSG, "bad program header table");
	if (h->e_shnum > ELFFILE_SECTIONS_MAX ||
	    (h->e_shnum > 0 && h->e_shentsize != sizeof(Elf64_Shdr)))
		return err_set(e, -EBADMSG, "bad section header table");
	if (h->e_shnum == 0)
		return err_set(e, -EBADMSG, "it has no section headers");
	return 0;
}

static int init(struct elffile *f, struct elffile new, struct err *e)
{
	void *table;
	int r;

	r = check_header(&new, e);
	if (r < 0)
		return r;
	r = read_table(&new, new.header.e_phoff, new.header.e_phnum, sizeof(Elf64_Phdr), &table);
	if (r < 0)
		return err_set(e, r, "program headers: %s", err_text(r));
	new.segments = table;
	new.segment_count = new.header.e_phnum;
	r = read_table(&new, new.header.e_shoff, new.header.e_shnum, sizeof(Elf64_Shdr), &table);
	if (r < 0) {
		elffile_fini(&new);
		return err_set(e, r, "section headers: %s", err_text(r));
	}
	new.sections = table;
	new.section_count = new.header.e_shnum;
	r = read_names(&new);
	if (r < 0) {
		elffile_fini(&new);
		return err_set(e, r, "section names: %s", err_text(r));
	}
	*f = new;
	return 0;
}

int elffile_init(struct elffile *f, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "cannot stat: %s", err_text(-errno));
	if (!S_ISREG(st.st_mode))
		return err_set(e, -ENOEXEC, "not a regular file");
	return init(f, (struct elffile){.fd = fd, .size = (uint64_t)st.st_size}, e);
}

int elffile_init_bytes(struct elffile *f, const uint8_t *bytes, size_t size, struct err *e)
{
	return init(f, (struct elffile){.fd = -1, .bytes = bytes, .size = size}, e);
}

void elffile_fini(struct elffile *f)
{
	free(f->segments);
	free(f->sections);
	free(f->names);
	memset(f, 0, sizeof(*f));
	f->fd = -1;
}

const Elf64_Shdr *elffile_section(const struct elffile *f, const char *name)
{
	unsigned int i;

	for (i = 0; i < f->section_count; i++) {
		const Elf64_Shdr *s = &f->sections[i];

		if (s->sh_type == SHT_NOBITS || s->sh_name >= f->names_size)
			continue;
		if (str_equal(f->names + s->sh_name, name))
			return s;
	}
	return NULL;
}

int elffile_read_section(const struct elffile *f, const Elf64_Shdr *section, uint8_t **ret,
			 size_t *ret_size, struct err *e)
{
	_cleanup_free_ uint8_t *data = NULL;
	int r;

	if (section->sh_type == SHT_NOBITS)
		return err_set(e, -EBADMSG, "section has no bytes in the file");
	if (!is_inside(section->sh_offset, section->sh_size, f->size))
		return err_set(e, -EBADMSG, "section lies beyond the end of the file");
	if (section->sh_size > ELFFILE_READ_MAX)
		return err_set(e, -EFBIG, "section of %llu bytes is above the limit of %u",
			       (unsigned long long)section->sh_size, ELFFILE_READ_MAX);
	data = malloc(section->sh_size + 1);
	if (!data)
		return err_set(e, -ENOMEM, "no memory for a section of %llu bytes",
			       (unsigned long long)section->sh_size);
	r = read_at(f, section->sh_offset, data, section->sh_size);
	if (r < 0)
		return err_set(e, r, "section: %s", err_text(r));
	data[section->sh_size] = 0;
	*ret_size = section->sh_size;
	*ret = TAKE_PTR(data);
	return 0;
}

static const Elf64_Phdr *code_segment(const struct elffile *f, uint64_t address)
{
	unsigned int i;

	for (i = 0; i < f->segment_count; i++) {
		const Elf64_Phdr *p = &f->segments[i];

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		if (address >= p->p_vaddr && address - p->p_vaddr < p->p_filesz)
			return p;
	}
	return NULL;
}

int elffile_read_code(const struct elffile *f, uint64_t address, uint8_t *buf, size_t size,
		      size_t *ret_size)
{
	const Elf64_Phdr *p = code_segment(f, address);
	uint64_t skip;
	int r;

	if (!p)
		return -ENOENT;
	skip = address - p->p_vaddr;
	if (size > p->p_filesz - skip)
		size = p->p_filesz - skip;
	if (p->p_offset > f->size || skip > f->size - p->p_offset)
		return -EBADMSG;
	r = read_at(f, p->p_offset + skip, buf, size);
	if (r < 0)
		return r;
	*ret_size = size;
	return 0;
}

int elffile_read_data(const struct elffile *f, uint64_t address, void *buf, size_t size)
{
	unsigned int i;

	for (i = 0; i < f->segment_count; i++) {
		const Elf64_Phdr *p = &f->segments[i];

		if (p->p_type == PT_LOAD && address >= p->p_vaddr &&
		    is_inside(address - p->p_vaddr, size, p->p_filesz) && p->p_offset <= f->size)
			return read_at(f, p->p_offset + (address - p->p_vaddr), buf, size);
	}
	return -ENOENT;
}

int elffile_data_offset(const struct elffile *f, uint64_t address, uint64_t *ret)
{
	unsigned int i;

	for (i = 0; i < f->segment_count; i++) {
		const Elf64_Phdr *p = &f->segments[i];

		if (p->p_type != PT_LOAD || address < p->p_vaddr ||
		    !is_inside(address - p->p_vaddr, 1, p->p_filesz))
			continue;
		if (!is_inside(p->p_offset, address - p->p_vaddr + 1, f->size))
			return -EBADMSG;
		*ret = p->p_offset + (address - p->p_vaddr);
		return 0;
	}
	return -ENOENT;
}

int elffile_offset(const struct elffile *f, uint64_t address, uint64_t *ret)
{
	const Elf64_Phdr *p = code_segment(f, address);
	uint64_t skip;

	if (!p)
		return -ENOENT;
	skip = address - p->p_vaddr;
	if (!is_inside(p->p_offset, skip + 1, f->size))
		return -EBADMSG;
	*ret = p->p_offset + skip;
	return 0;
}

int elffile_read_symbols(const struct elffile *f, const char *section, struct elffile_symbols *ret,
			 struct err *e)
{
	const Elf64_Shdr *table = elffile_section(f, section);
	struct elffile_symbols new = {0};
	uint8_t *data;
	size_t size;
	int r;

	if (!table)
		return -ENOENT;
	if (table->sh_entsize != sizeof(Elf64_Sym) || table->sh_link >= f->section_count)
		return err_set(e, -EBADMSG, "%s is damaged", section);
	r = elffile_read_section(f, table, &data, &size, e);
	if (r < 0)
		return err_set(e, r, "%s", section);
	new.symbols = (void *)data;
	new.count = size / sizeof(Elf64_Sym);
	if (new.count > ELFFILE_SYMBOLS_MAX) {
		elffile_free_symbols(&new);
		return err_set(e, -EFBIG, "%s has more than %u symbols", section,
			       ELFFILE_SYMBOLS_MAX);
	}
	r = elffile_read_section(f, &f->sections[table->sh_link], &data, &new.strings_size, e);
	if (r < 0) {
		elffile_free_symbols(&new);
		return err_set(e, r, "strings of %s", section);
	}
	new.strings = (char *)data;
	*ret = new;
	return 0;
}

void elffile_free_symbols(struct elffile_symbols *s)
{
	free(s->symbols);
	free(s->strings);
	memset(s, 0, sizeof(*s));
}

const Elf64_Sym *elffile_find_symbol(const struct elffile_symbols *s, const char *name)
{
	size_t length = strlen(name), i;

	for (i = 0; i < s->count; i++) {
		const Elf64_Sym *sym = &s->symbols[i];
		unsigned int type = ELF64_ST_TYPE(sym->st_info);

		if (sym->st_shndx == SHN_UNDEF || sym->st_value == 0 ||
		    (type != STT_FUNC && type != STT_NOTYPE))
			continue;
		if (!is_inside(sym->st_name, length + 1, s->strings_size))
			continue;
		if (memcmp(s->strings + sym->st_name, name, length + 1) == 0)
			return sym;
	}
	return NULL;
}

size_t elffile_build_id(const struct elffile *f, uint8_t ret[ELFFILE_BUILD_ID_MAX])
{
	const Elf64_Shdr *section = elffile_section(f, ".note.gnu.build-id");
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint8_t id[ELFFILE_BUILD_ID_MAX];
	} note = {.header = {0}};
	size_t size;

	if (!section)
		return 0;
	size = section->sh_size < sizeof(note) ? section->sh_size : sizeof(note);
	if (size < sizeof(note.header) + sizeof(note.name) ||
	    read_at(f, section->sh_offset, &note, size) < 0)
		return 0;
	size -= sizeof(note.header) + sizeof(note.name);
	if (note.header.n_type != NT_GNU_BUILD_ID || note.header.n_namesz != sizeof(note.name) ||
	    memcmp(note.name, "GNU", 4) != 0 || note.header.n_descsz < 2 ||
	    note.header.n_descsz > size)
		return 0;
	memcpy(ret, note.id, note.header.n_descsz);
	return note.header.n_descsz;
}

int elffile_relative(const struct elffile *f, uint64_t address, uint64_t *ret_addend)
{
	const Elf64_Shdr *section = elffile_section(f, ".rela.dyn");
	uint32_t type = f->header.e_machine == EM_AARCH64 ? R_AARCH64_RELATIVE : R_X86_64_RELATIVE;
	_cleanup_free_ uint8_t *data = NULL;
	size_t size, at;
	Elf64_Rela row;
	int r;

	if (!section)
		return -ENOENT;
	r = elffile_read_section(f, section, &data, &size, NULL);
	if (r < 0)
		return r;
	for (at = 0; at + sizeof(row) <= size; at += sizeof(row)) {
		memcpy(&row, data + at, sizeof(row));
		if (row.r_offset != address || ELF64_R_TYPE(row.r_info) != type)
			continue;
		*ret_addend = (uint64_t)row.r_addend;
		return 0;
	}
	return -ENOENT;
}

/* DWARF pointer encodings of .eh_frame_hdr as every linker writes it (LSB 5.0, 10.6.2). */
enum { EH_UDATA4 = 0x03, EH_PCREL_SDATA4 = 0x1b, EH_DATAREL_SDATA4 = 0x3b };

int elffile_next_function(const struct elffile *f, uint64_t address, uint64_t *ret)
{
	const Elf64_Shdr *section = elffile_section(f, ".eh_frame_hdr");
	_cleanup_free_ uint8_t *data = NULL;
	uint64_t best = UINT64_MAX;
	uint32_t count, i;
	size_t size;
	int r;

	if (!section)
		return -ENOENT;
	r = elffile_read_section(f, section, &data, &size, NULL);
	if (r < 0)
		return r;
	if (size < 12 || data[0] != 1 || data[1] != EH_PCREL_SDATA4 || data[2] != EH_UDATA4 ||
	    data[3] != EH_DATAREL_SDATA4)
		return -ENOENT;
	memcpy(&count, data + 8, sizeof(count));
	if (count > (size - 12) / 8)
		count = (uint32_t)((size - 12) / 8);
	for (i = 0; i < count; i++) {
		uint64_t start;
		int32_t at;

		memcpy(&at, data + 12 + (size_t)i * 8, sizeof(at));
		start = section->sh_addr + (uint64_t)(int64_t)at;
		if (start > address && start < best)
			best = start;
	}
	if (best == UINT64_MAX)
		return -ENOENT;
	*ret = best;
	return 0;
}
