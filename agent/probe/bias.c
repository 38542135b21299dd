/* SPDX-License-Identifier: Apache-2.0 */
/* Calibration of the GC probes. Owns the functions that are measured. Process: the keeper. */
#include "probe/bias.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "gc_types.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
/* The exit is a branch, which the kernel emulates: as in most collectors, and a stepped exit would
 * not change the measure, because its program runs before the step. */
__asm__(".pushsection .text\n"
	".hidden bias_emulated, bias_emulated_exit, bias_stepped, bias_stepped_exit\n"
	".globl bias_emulated, bias_emulated_exit, bias_stepped, bias_stepped_exit\n"
	".type bias_emulated, @function\n"
	"bias_emulated:\n"
	"	push %rbx\n"
	"	test %rsp, %rsp\n"
	"bias_emulated_exit:\n"
	"	je 1f\n"
	"1:	pop %rbx\n"
	"	ret\n"
	".size bias_emulated, . - bias_emulated\n"
	".type bias_stepped, @function\n"
	"bias_stepped:\n"
	"	sub $8, %rsp\n"
	"	test %rsp, %rsp\n"
	"bias_stepped_exit:\n"
	"	je 1f\n"
	"1:	add $8, %rsp\n"
	"	ret\n"
	".size bias_stepped, . - bias_stepped\n"
	".popsection\n");

extern void bias_emulated(void) __attribute__((visibility("hidden")));
extern void bias_stepped(void) __attribute__((visibility("hidden")));
extern const char bias_emulated_exit[] __attribute__((visibility("hidden")));
extern const char bias_stepped_exit[] __attribute__((visibility("hidden")));

static const struct {
	void (*call)(void);
	const char *exit;
} functions[BIAS_KINDS] = {
	[BIAS_EMULATED] = {bias_emulated, bias_emulated_exit},
	[BIAS_STEPPED] = {bias_stepped, bias_stepped_exit},
};
#else
static const struct {
	void (*call)(void);
	const char *exit;
} functions[BIAS_KINDS];
#endif

struct place {
	uintptr_t address;
	uint64_t offset;
};

/* The first object is the executable itself. */
static int find_offset(struct dl_phdr_info *info, size_t size, void *data)
{
	struct place *place = data;
	unsigned int i;

	(void)size;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + p->p_vaddr;

		if (p->p_type == PT_LOAD && place->address >= start &&
		    place->address - start < p->p_filesz)
			place->offset = p->p_offset + (place->address - start);
	}
	return 1;
}

static uint64_t offset_of(uintptr_t address)
{
	struct place place = {.address = address};

	if (address)
		dl_iterate_phdr(find_offset, &place);
	return place.offset;
}

uint64_t bias_entry_offset(enum bias_kind kind)
{
	return offset_of((uintptr_t)functions[kind].call);
}

uint64_t bias_exit_offset(enum bias_kind kind)
{
	return offset_of((uintptr_t)functions[kind].exit);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Nanoseconds of one call without probes. */
static uint64_t true_ns(enum bias_kind kind)
{
	uint64_t start = clock_mono_ns();
	unsigned int i;

	for (i = 0; i < GC_SAMPLES; i++)
		functions[kind].call();
	return (clock_mono_ns() - start) / GC_SAMPLES;
}

/* A collector walks through memory between its probes; so the kernel's way to a probe is never as
 * warm in the cache as it is in a bare loop. One pass over what the first-level cache holds. */
void bias_cool_cache(void)
{
	static volatile uint8_t memory[48 * 1024];
	size_t i;

	for (i = 0; i < sizeof(memory); i += 64)
		memory[i]++;
}

static uint64_t median_of(uint64_t *samples, size_t count)
{
	qsort(samples, count, sizeof(samples[0]), compare);
	return samples[count / 2];
}

/* Nanoseconds that a caller waits, most of the time; with cool caches. */
static uint64_t waited_ns(enum bias_kind kind, uint64_t samples[static GC_SAMPLES])
{
	unsigned int i;

	for (i = 0; i < GC_SAMPLES; i++) {
		uint64_t start;

		bias_cool_cache();
		start = clock_mono_ns();
		functions[kind].call();
		samples[i] = clock_mono_ns() - start;
	}
	return median_of(samples, GC_SAMPLES);
}

static int take_samples(int calibrations_fd, enum bias_kind kind, struct gc_calibration *c,
			uint64_t *ret_waited_ns)
{
	const uint32_t zero = 0;

	memset(c, 0, sizeof(*c));
	if (bpf_map_update_elem(calibrations_fd, &zero, c, BPF_ANY) < 0)
		return -errno;
	*ret_waited_ns = waited_ns(kind, c->samples);
	if (bpf_map_lookup_elem(calibrations_fd, &zero, c) < 0)
		return -errno;
	return c->count < GC_SAMPLES / 2 ? -ENODATA : 0;
}

int bias_measure(enum uprobe_how how, int enter_fd, int exit_fd, int calibrations_fd,
		 enum bias_kind kind, uint64_t *ret_ns, uint64_t *ret_cost_ns, struct err *e)
{
	const struct uprobe_place entry = {.offset = bias_entry_offset(kind)};
	const struct uprobe_place exit_place = {.offset = bias_exit_offset(kind)};
	struct uprobe_links enter_links = {0}, exit_links = {0};
	_cleanup_free_ struct gc_calibration *c = NULL;
	_cleanup_close_ int self = -1;
	uint64_t base, median, empty, waited = 0;
	size_t count;
	int r;

	if (!entry.offset || !exit_place.offset)
		return err_set(e, -ENOTSUP, "no calibration on this machine's architecture");
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "no memory for the calibration");
	self = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (self < 0)
		return err_set(e, -errno, "/proc/self/exe: %s", err_text(-errno));
	base = true_ns(kind);
	empty = waited_ns(kind, c->samples);
	r = uprobe_attach(how, enter_fd, self, &entry, 1, &enter_links);
	if (r == 0)
		r = uprobe_attach(how, exit_fd, self, &exit_place, 1, &exit_links);
	if (r == 0)
		r = take_samples(calibrations_fd, kind, c, &waited);
	uprobe_detach(&exit_links);
	uprobe_detach(&enter_links);
	if (r < 0)
		return err_set(e, r, "calibrating the GC probe: %s", err_text(r));
	count = c->count < GC_SAMPLES ? c->count : GC_SAMPLES;
	median = median_of(c->samples, count);
	*ret_ns = median > base ? median - base : 0;
	*ret_cost_ns = waited > empty ? waited - empty : 0;
	return 0;
}
