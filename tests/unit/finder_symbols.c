/* SPDX-License-Identifier: Apache-2.0 */
/* Symbol tables that lie elsewhere: debug files and .gnu_debugdata, honest and hostile. */
#include "base/cleanup.h"
#include "base/str.h"
#include "probe/debugfile.h"
#include "probe/symbols.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lzma.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NONE, SYMTAB, STRTAB, DATA, NOTE, NAMES, SECTIONS };

static const char section_names[] =
	"\0.symtab\0.strtab\0.gnu_debugdata\0.note.gnu.build-id\0.names";
static const uint32_t name_at[SECTIONS] = {0, 1, 9, 17, 32, 51};

struct file {
	uint8_t *bytes;
	size_t size;
	Elf64_Ehdr *header;
	Elf64_Shdr *sections;
};

struct parts {
	const char *symbol;  /* in .symtab; NULL: no such table */
	const uint8_t *data; /* .gnu_debugdata */
	size_t data_size;
	uint8_t build; /* every byte of the build id; 0: none */
	uint16_t machine;
};

static uint64_t append(struct file *f, const void *data, size_t size)
{
	uint64_t at = f->size;

	if (size)
		memcpy(f->bytes + at, data, size);
	f->size = (at + size + 7) & ~(size_t)7;
	return at;
}

static void section(struct file *f, int i, uint32_t type, const void *data, size_t size)
{
	f->sections[i] = (Elf64_Shdr){.sh_name = name_at[i],
				      .sh_type = size ? type : (uint32_t)SHT_NULL,
				      .sh_offset = append(f, data, size),
				      .sh_size = size};
}

static struct file file_make(const struct parts *p)
{
	struct file f = {.size = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) +
				 SECTIONS * sizeof(Elf64_Shdr)};
	const Elf64_Sym symbols[2] = {[1] = {.st_name = 1,
					     .st_info = ELF64_ST_INFO(STB_LOCAL, STT_FUNC),
					     .st_shndx = 1,
					     .st_value = 0x40}};
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint8_t id[20];
	} note = {{4, 20, NT_GNU_BUILD_ID}, "GNU", {0}};
	char strings[64] = "";

	f.bytes = test_calloc(1, f.size + p->data_size + 4096);
	f.header = (void *)f.bytes;
	f.sections = (void *)(f.bytes + sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr));
	*f.header = (Elf64_Ehdr){.e_type = ET_DYN,
				 .e_machine = p->machine,
				 .e_phoff = sizeof(Elf64_Ehdr),
				 .e_phentsize = sizeof(Elf64_Phdr),
				 .e_phnum = 1,
				 .e_shoff = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
				 .e_shentsize = sizeof(Elf64_Shdr),
				 .e_shnum = SECTIONS,
				 .e_shstrndx = NAMES};
	memcpy(f.header->e_ident, ELFMAG, SELFMAG);
	f.header->e_ident[EI_CLASS] = ELFCLASS64;
	f.header->e_ident[EI_DATA] = ELFDATA2LSB;
	memset(note.id, p->build, sizeof(note.id));
	str_copy(strings + 1, sizeof(strings) - 1, p->symbol ? p->symbol : "");
	section(&f, SYMTAB, SHT_SYMTAB, symbols, p->symbol ? sizeof(symbols) : 0);
	section(&f, STRTAB, SHT_STRTAB, strings, sizeof(strings));
	section(&f, DATA, SHT_PROGBITS, p->data, p->data_size);
	section(&f, NOTE, SHT_NOTE, &note, p->build ? sizeof(note) : 0);
	section(&f, NAMES, SHT_STRTAB, section_names, sizeof(section_names));
	f.sections[SYMTAB].sh_entsize = sizeof(Elf64_Sym);
	f.sections[SYMTAB].sh_link = STRTAB;
	return f;
}

static uint8_t *pack(const uint8_t *data, size_t size, size_t *ret_size)
{
	size_t room = lzma_stream_buffer_bound(size);
	uint8_t *out = test_malloc(room);

	*ret_size = 0;
	assert_int_equal(
		lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, data, size, out, ret_size, room),
		LZMA_OK);
	return out;
}

/* From which table luaC_step comes; SYMBOLS when from none, negative errno when none can be read. */
static int source_of(const struct file *f, int debug_fd)
{
	enum symbols_from from = SYMBOLS;
	struct symbols symbols = {0};
	struct elffile elf;
	int r;

	assert_int_equal(elffile_init_bytes(&elf, f->bytes, f->size, NULL), 0);
	r = symbols_read(&symbols, &elf, debug_fd, NULL);
	if (r == 0 && symbols_find(&symbols, "luaC_step", &from))
		r = from;
	else if (r == 0)
		r = SYMBOLS;
	symbols_free(&symbols);
	elffile_fini(&elf);
	return r;
}

static int source_packed(const uint8_t *data, size_t size)
{
	struct file f =
		file_make(&(struct parts){.data = data, .data_size = size, .machine = EM_X86_64});
	int from = source_of(&f, -1);

	test_free(f.bytes);
	return from;
}

static void packed_symbols_are_found(void **state)
{
	struct parts parts = {.symbol = "luaC_step", .machine = EM_X86_64};
	struct file small = file_make(&parts);
	uint8_t *data;
	size_t size, cut;

	(void)state;
	assert_int_equal(source_of(&small, -1), SYMBOLS_SYMTAB);
	data = pack(small.bytes, small.size, &size);
	assert_int_equal(source_packed(data, size), SYMBOLS_DEBUGDATA);
	for (cut = 0; cut < size; cut++)
		assert_int_equal(source_packed(data, cut), SYMBOLS);
	data[size / 2] ^= 0x55;
	assert_int_equal(source_packed(data, size), SYMBOLS);
	test_free(data);
	small.header->e_machine = EM_AARCH64;
	data = pack(small.bytes, small.size, &size);
	assert_int_equal(source_packed(data, size), SYMBOLS);
	test_free(data);
	test_free(small.bytes);
}

/* The symbols are there, behind more zeros than we unpack. */
static void what_unpacks_to_too_much_is_refused(void **state)
{
	struct parts parts = {.symbol = "luaC_step", .machine = EM_X86_64};
	struct file small = file_make(&parts);
	uint8_t *large = test_calloc(1, SYMBOLS_UNPACKED_MAX + 1), *data;
	size_t size;

	(void)state;
	memcpy(large, small.bytes, small.size);
	data = pack(large, SYMBOLS_UNPACKED_MAX, &size);
	assert_int_equal(source_packed(data, size), SYMBOLS_DEBUGDATA);
	test_free(data);
	data = pack(large, SYMBOLS_UNPACKED_MAX + 1, &size);
	assert_true(size < SYMBOLS_UNPACKED_MAX / 100);
	assert_int_equal(source_packed(data, size), SYMBOLS);
	test_free(data);
	test_free(large);
	test_free(small.bytes);
}

static int to_fd(const struct file *f)
{
	int fd = memfd_create("debug", MFD_CLOEXEC);

	assert_int_equal(write(fd, f->bytes, f->size), (ssize_t)f->size);
	return fd;
}

static void a_debug_file_must_be_of_the_same_build(void **state)
{
	static const struct {
		uint8_t build, debug_build;
		uint16_t machine;
		int from;
	} cases[] = {
		{7, 7, EM_X86_64, SYMBOLS_DEBUG_FILE},
		{7, 8, EM_X86_64, SYMBOLS},
		{7, 0, EM_X86_64, SYMBOLS},
		{0, 0, EM_X86_64, SYMBOLS},
		{7, 7, EM_AARCH64, SYMBOLS},
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct file f =
			file_make(&(struct parts){.build = cases[i].build, .machine = EM_X86_64});
		struct file debug = file_make(&(struct parts){.symbol = "luaC_step",
							      .build = cases[i].debug_build,
							      .machine = cases[i].machine});
		_cleanup_close_ int fd = to_fd(&debug);

		assert_int_equal(source_of(&f, fd), cases[i].from);
		test_free(f.bytes);
		test_free(debug.bytes);
	}
}

static void tables_that_lie_are_refused(void **state)
{
	struct parts parts = {.symbol = "luaC_step", .machine = EM_X86_64};
	struct file f = file_make(&parts);
	Elf64_Shdr *s = &f.sections[SYMTAB], whole = *s;

	(void)state;
	s->sh_size = UINT64_MAX - 8; /* beyond the end, and around it */
	assert_int_equal(source_of(&f, -1), -EBADMSG);
	*s = whole;
	s->sh_offset = UINT64_MAX - 8;
	assert_int_equal(source_of(&f, -1), -EBADMSG);
	*s = whole;
	s->sh_link = UINT32_MAX;
	assert_int_equal(source_of(&f, -1), -EBADMSG);
	*s = whole;
	s->sh_link = SYMTAB; /* its own strings: read as such, no name is found */
	assert_int_equal(source_of(&f, -1), SYMBOLS);
	*s = whole;
	s->sh_offset = 0; /* over the headers */
	s->sh_size = 8 * sizeof(Elf64_Sym);
	assert_int_equal(source_of(&f, -1), SYMBOLS);
	*s = whole;
	f.sections[STRTAB].sh_size = 5; /* cuts the name */
	assert_int_equal(source_of(&f, -1), SYMBOLS);
	test_free(f.bytes);
}

/* ---- /usr/lib/debug of another root ---- */

static const char id[] = "abcdef0123456789";

static void make_debug_folder(const char *root, char *ret_file, size_t size)
{
	static const char *const folders[] = {"usr", "usr/lib", "usr/lib/debug",
					      "usr/lib/debug/.build-id",
					      "usr/lib/debug/.build-id/ab"};
	char path[PATH_MAX];
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, folders[i]);
		assert_int_equal(mkdir(path, 0755), 0);
	}
	snprintf(ret_file, size, "%s/%s/%s.debug", root, folders[i - 1], id + 2);
}

static pid_t live_in(const char *root)
{
	int in[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		/* A test that fails leaves nobody behind. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (chroot(root) < 0)
			_exit(1);
		c = 0;
		if (write(in[1], &c, 1) == 1)
			pause();
		_exit(0);
	}
	close(in[1]);
	assert_int_equal(read(in[0], &c, 1), 1);
	close(in[0]);
	return pid;
}

static void a_debug_file_is_opened_inside_the_root(void **state)
{
	char root[] = "/tmp/tidegate-debug.XXXXXX", file[PATH_MAX], command[PATH_MAX];
	pid_t pid;
	int fd;

	(void)state;
	if (geteuid() != 0) {
		print_message("# SKIP chroot wants root\n");
		skip();
	}
	assert_non_null(mkdtemp(root));
	make_debug_folder(root, file, sizeof(file));
	pid = live_in(root);
	assert_int_equal(debugfile_open((uint32_t)pid, id), -ENOENT);
	/* A link out of the root leads back into it. */
	assert_int_equal(symlink("/etc/passwd", file), 0);
	assert_int_equal(access("/etc/passwd", R_OK), 0);
	assert_int_equal(debugfile_open((uint32_t)pid, id), -ENOENT);
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_int_equal(debugfile_open((uint32_t)pid, id), -ENOEXEC);
	unlink(file);
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	fd = debugfile_open((uint32_t)pid, id);
	assert_true(fd >= 0);
	close(fd);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
}

static void a_build_id_that_is_a_path_is_refused(void **state)
{
	uint32_t pid = (uint32_t)getpid();
	char many[80];

	(void)state;
	memset(many, 'a', sizeof(many));
	many[sizeof(many) - 1] = 0;
	assert_int_equal(debugfile_open(pid, ""), -EINVAL);
	assert_int_equal(debugfile_open(pid, "ab"), -EINVAL);
	assert_int_equal(debugfile_open(pid, "ab/../../../../etc/passwd"), -EINVAL);
	assert_int_equal(debugfile_open(pid, "ABCDEF"), -EINVAL);
	assert_int_equal(debugfile_open(pid, many), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packed_symbols_are_found),
		cmocka_unit_test(what_unpacks_to_too_much_is_refused),
		cmocka_unit_test(a_debug_file_must_be_of_the_same_build),
		cmocka_unit_test(tables_that_lie_are_refused),
		cmocka_unit_test(a_debug_file_is_opened_inside_the_root),
		cmocka_unit_test(a_build_id_that_is_a_path_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
