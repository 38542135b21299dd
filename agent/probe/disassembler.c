/* SPDX-License-Identifier: Apache-2.0 */
/* capstone by dlopen. Process: the finder's child. */
#include "probe/disassembler.h"

#include "base/str.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

static struct disassembler calls;
static char why[256];

/* A function's address as dlsym() gives it, which ISO C does not let one cast. */
static bool find(void *library, const char *name, void *to)
{
	void *at = dlsym(library, name);

	memcpy(to, &at, sizeof(at));
	return at;
}

const struct disassembler *disassembler_load(void)
{
	static bool is_tried, is_there;
	void *library;

	if (is_tried)
		return is_there ? &calls : NULL;
	is_tried = true;
	library = dlopen(CAPSTONE_SONAME, RTLD_NOW | RTLD_LOCAL);
	is_there = library && find(library, "cs_open", &calls.open) &&
		   find(library, "cs_close", &calls.close) &&
		   find(library, "cs_option", &calls.option) &&
		   find(library, "cs_malloc", &calls.malloc) &&
		   find(library, "cs_free", &calls.free) &&
		   find(library, "cs_disasm_iter", &calls.next);
	if (!is_there) {
		const char *said = dlerror();

		str_copy(why, sizeof(why), said ? said : "libcapstone cannot be loaded");
	}
	return is_there ? &calls : NULL;
}

const char *disassembler_why(void)
{
	return why;
}
