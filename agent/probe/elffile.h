/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of 64-bit little-endian ELF files of x86-64 and aarch64 that may lie: every offset is
 * checked, every loop has a bound. Runs in the finder's confined child; reads with pread and never
 * maps the file, or reads a file that lies in memory.
 */
#pragma once

#include "base/err.h"

#include <elf.h>
#include <stdint.h>

#define ELFFILE_SEGMENTS_MAX 128u
#define ELFFILE_SECTIONS_MAX 4096u
#define ELFFILE_READ_MAX     (128u << 20) /* bytes of one section */
#define ELFFILE_SYMBOLS_MAX  (4u << 20)
#define ELFFILE_BUILD_ID_MAX 32u /* bytes; linkers write 8, 16 or 20 */

struct elffile {
	int fd;               /* borrowed; -1: the file is bytes */
	const uint8_t *bytes; /* borrowed */
	uint64_t size;
	Elf64_Ehdr header;
	Elf64_Phdr *segments;
	Elf64_Shdr *sections;
	unsigned int segment_count, section_count;
	char *names; /* section names, terminated */
	size_t names_size;
};

/* One symbol table with its strings, read whole. */
struct elffile_symbols {
	Elf64_Sym *symbols;
	size_t count;
	char *strings;
	size_t strings_size;
};

/* -ENOEXEC: not an ELF file that we read, -EBADMSG: damaged, -EFBIG, -ENOMEM, -EIO. */
int elffile_init(struct elffile *f, int fd, struct err *e);
int elffile_init_bytes(struct elffile *f, const uint8_t *bytes, size_t size, struct err *e);
void elffile_fini(struct elffile *f);

/* NULL when there is none of that name (or with SHT_NOBITS). */
const Elf64_Shdr *elffile_section(const struct elffile *f, const char *name);

/* Whole section, one zero byte appended; the caller frees. */
int elffile_read_section(const struct elffile *f, const Elf64_Shdr *section, uint8_t **ret,
			 size_t *ret_size, struct err *e);

/* Bytes at a virtual address of an executable segment; less than asked at its end. */
int elffile_read_code(const struct elffile *f, uint64_t address, uint8_t *buf, size_t size,
		      size_t *ret_size);

/* Exactly size bytes at a virtual address of any segment; -ENOENT. */
int elffile_read_data(const struct elffile *f, uint64_t address, void *buf, size_t size);

/* File offset of a virtual address in an executable segment; -ENOENT. */
int elffile_offset(const struct elffile *f, uint64_t address, uint64_t *ret);

/* … in any segment, as far as the file reaches. */
int elffile_data_offset(const struct elffile *f, uint64_t address, uint64_t *ret);

/* ".symtab" or ".dynsym"; -ENOENT when there is none. */
int elffile_read_symbols(const struct elffile *f, const char *section, struct elffile_symbols *ret,
			 struct err *e);
void elffile_free_symbols(struct elffile_symbols *s);

/* A defined function (or untyped) symbol of that name; NULL. Bounded by the table's size. */
const Elf64_Sym *elffile_find_symbol(const struct elffile_symbols *s, const char *name);

/* The linker's fingerprint from .note.gnu.build-id: its length in bytes, 0 when there is none. */
size_t elffile_build_id(const struct elffile *f, uint8_t ret[ELFFILE_BUILD_ID_MAX]);

/* Where the dynamic linker will store base + *ret_addend at an address (R_*_RELATIVE in .rela.dyn);
 * -ENOENT. */
int elffile_relative(const struct elffile *f, uint64_t address, uint64_t *ret_addend);

/* First address above `address` at which .eh_frame_hdr says that another function begins;
 * -ENOENT when the file does not say. */
int elffile_next_function(const struct elffile *f, uint64_t address, uint64_t *ret);
