/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random SIGKILLs of all that touch the memory of gateway scripts, while it counts at full speed:
 * writers (libtidegate, and resty.tidegate in LuaJIT), the process that gathers, readers. CHAOS_KILLS
 * of them (100), CHAOS_SEED says in which order.
 *
 * What was counted is known exactly: a writer says in shared memory before and after each addition
 * that it makes it, and when it is dead its cells are read from its file, not through the agent: they
 * must lie between the two, which differ by one at most. No reader may ever see a total below one
 * that any reader saw before it; in the end the totals are what all writers counted, and no file is
 * left.
 */
#include "segment/gather.h"
#include "segment/reader.h"
#include "tidegate.h"

#include "base/clock.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define C_WRITERS   3
#define LUA_WRITERS 2
#define WRITERS     (C_WRITERS + LUA_WRITERS)
#define READERS     2
#define PROCESSES   (WRITERS + READERS + 1)
#define GATHERER    (PROCESSES - 1)
#define DEADLINE_NS (30 * NS_PER_S)
#define HIST_ENTRY  1 /* the counter is entry 0 of each writer's file */
/* What a writer in C counts at its start, so that folding it takes a while. */
#define FILLED       16
#define FILLED_TIMES (FILLED * (uint64_t)HIST_CELLS)

/* Shared by all: what processes say of themselves. */
struct truth {
	struct slot {
		uint64_t begun, done; /* additions to the counter, and as many to the histogram */
		uint32_t is_ready;
	} slots[PROCESSES];
	uint64_t seen;   /* greatest total that any reader saw */
	uint64_t reads;  /* by readers */
	uint64_t fallen; /* times that a total was below one seen before */
	uint64_t ticks;  /* of gatherers */
	uint64_t files;  /* that the gatherer read in its last tick */
};

static struct truth *truth;
static char dir[64], app_path[96], app_dir[96];
static pid_t pids[PROCESSES];
static int fds[PROCESSES]; /* of the writers' files */
static uint64_t counted;   /* by writers that are dead */
static uint64_t kills_of[PROCESSES];
static bool has_luajit;

static void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *fmt, ...)
{
	char command[128];
	va_list ap;

	printf("not ok 1 - ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n1..1\n");
	fflush(stdout);
	for (unsigned int i = 0; i < PROCESSES; i++)
		if (pids[i] > 0)
			kill(pids[i], SIGKILL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	exit(system(command) == 0 ? 1 : 2);
}

#define NEVER_UNTIL(condition, what)                                  \
	do {                                                          \
		uint64_t until_ns = clock_mono_ns() + DEADLINE_NS;    \
		while (!(condition)) {                                \
			if (clock_mono_ns() > until_ns)               \
				fail("%s took more than 30 s", what); \
			usleep(100);                                  \
		}                                                     \
	} while (0)

static uint64_t load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* ---- those who count ---- */

static int fill(struct tidegate *t)
{
	static const char *const labels[] = {"n"};
	struct tidegate_metric *m;
	uint64_t *cells;

	if (tidegate_histogram(t, "filled_seconds", "", labels, 1, &m) < 0)
		return -1;
	for (unsigned int i = 0; i < FILLED; i++) {
		char n[8];
		const char *const values[] = {n};

		snprintf(n, sizeof(n), "%u", i);
		if (tidegate_with(m, values, &cells) < 0)
			return -1;
		for (unsigned int j = 0; j < HIST_CELLS; j++)
			tidegate_inc(&cells[j]);
	}
	return 0;
}

static void count_in_c(struct slot *slot)
{
	const struct tidegate_options o = {
		.size = sizeof(o), .runtime_dir = dir, .series = 64, .histograms = 32};
	struct tidegate_metric *m;
	uint64_t *counter, *histogram;
	struct tidegate *t;

	if (tidegate_open(&o, &t) < 0 || tidegate_counter(t, "kills_total", "", NULL, 0, &m) < 0 ||
	    tidegate_with(m, NULL, &counter) < 0 ||
	    tidegate_histogram(t, "kills_seconds", "", NULL, 0, &m) < 0 ||
	    tidegate_with(m, NULL, &histogram) < 0 || fill(t) < 0)
		_exit(1);
	__atomic_store_n(&slot->is_ready, 1, __ATOMIC_RELEASE);
	for (uint64_t n = 1;; n++) {
		__atomic_store_n(&slot->begun, n, __ATOMIC_RELEASE);
		tidegate_inc(counter);
		tidegate_observe_ns(histogram, n % 1000000);
		__atomic_store_n(&slot->done, n, __ATOMIC_RELEASE);
		if (n % 1000 == 0)
			tidegate_heartbeat(t);
	}
}

static const char lua_writer[] =
	"package.path = 'lua/?.lua;' .. package.path\n"
	"local ffi = require 'ffi'\n"
	"local slot = ffi.cast('uint64_t *', ffi.cast('uintptr_t', tonumber(SLOT)))\n"
	"local tg = require 'resty.tidegate'\n"
	"tg.init { runtime_dir = DIR, series = 16, histograms = 4 }\n"
	"local c = tg.counter('kills_total'):with()\n"
	"local h = tg.histogram('kills_seconds'):with()\n"
	"assert(tg.attach())\n"
	"ffi.cast('uint32_t *', slot + 2)[0] = 1\n"
	"local n = 1\n"
	"while true do\n"
	"	slot[0] = n\n"
	"	c:inc()\n"
	"	h:observe(n % 1000 / 1000)\n"
	"	slot[1] = n\n"
	"	if n % 1000 == 0 then tg.heartbeat() end\n"
	"	n = n + 1\n"
	"end\n";

/* As a gateway has it: a library that is loaded, no headers. */
static void count_in_lua(struct slot *slot)
{
	void *lib = dlopen("libluajit-5.1.so.2", RTLD_NOW | RTLD_GLOBAL);
	void *(*new_state)(void) = lib ? (void *(*)(void))dlsym(lib, "luaL_newstate") : NULL;
	void (*open_libs)(void *) = lib ? (void (*)(void *))dlsym(lib, "luaL_openlibs") : NULL;
	int (*load_text)(void *, const char *) =
		lib ? (int (*)(void *, const char *))dlsym(lib, "luaL_loadstring") : NULL;
	int (*call)(void *, int, int, int) =
		lib ? (int (*)(void *, int, int, int))dlsym(lib, "lua_pcall") : NULL;
	const char *(*text_of)(void *, int, size_t *) =
		lib ? (const char *(*)(void *, int, size_t *))dlsym(lib, "lua_tolstring") : NULL;
	char text[sizeof(lua_writer) + 256];
	void *state;

	if (!new_state || !open_libs || !load_text || !call || !text_of)
		_exit(1);
	state = new_state();
	open_libs(state);
	snprintf(text, sizeof(text), "local SLOT, DIR = '%" PRIuPTR "', '%s'\n%s", (uintptr_t)slot,
		 dir, lua_writer);
	if (load_text(state, text) || call(state, 0, 0, 0))
		fprintf(stderr, "chaos: %s\n", text_of(state, -1, NULL));
	_exit(1);
}

/* ---- the agent's side ---- */

static bool owner(void *data, const struct gather_writer *w, struct gather_owner *ret)
{
	(void)data;
	(void)w;
	strcpy(ret->gateway, "nginx");
	ret->instance[0] = '\0';
	return true;
}

static void gather_on(struct slot *slot)
{
	const struct gather_options g = {
		.dir = app_dir, .files = 64, .bytes = 64 << 20, .owner = owner};
	const struct segment_options o = {
		.path = app_path,
		.kind = SEGMENT_APP,
		.group = (gid_t)-1,
		.series = 64,
		.histograms = 24,
		.heap_bytes = 1 << 16,
	};
	struct segment_writer *w;
	struct gather_stats stats;
	struct gather *gather;
	bool is_continued;
	struct err e = {0};

	if (segment_writer_open(&o, &w, &is_continued, &e) < 0 || gather_new(&g, w, &gather) < 0) {
		fprintf(stderr, "chaos: %s\n", e.text);
		_exit(1);
	}
	if (!is_continued && load(&truth->ticks))
		_exit(2); /* all that was folded would be gone */
	for (;;) {
		uint64_t now = clock_mono_ns();

		gather_collect(gather, now);
		segment_writer_tick_begin(w);
		gather_write(gather);
		segment_writer_tick_end(w, now, now, NS_PER_S);
		gather_stats(gather, &stats);
		__atomic_store_n(&truth->files, stats.files, __ATOMIC_RELEASE);
		__atomic_add_fetch(&truth->ticks, 1, __ATOMIC_RELEASE);
		__atomic_store_n(&slot->is_ready, 1, __ATOMIC_RELEASE);
		usleep(200);
	}
}

/* The totals of app.seg, 0 where there is none yet. */
static int totals_read(struct segment_reader *r, uint64_t ret[3])
{
	struct segment_series s;
	int k = segment_reader_refresh(r, NULL);

	if (k < 0)
		return k;
	ret[0] = ret[1] = ret[2] = 0;
	for (unsigned int i = 0; i < segment_reader_series_count(r); i++) {
		if (!segment_reader_series(r, i, &s))
			continue;
		if (strcmp(s.name, "kills_total") == 0)
			ret[0] = s.counter;
		else if (strcmp(s.name, "kills_seconds") == 0)
			ret[1] = histogram_count(s.cells);
		else if (strcmp(s.name, "filled_seconds") == 0)
			ret[2] += histogram_count(s.cells);
	}
	return 0;
}

static void read_on(struct slot *slot)
{
	struct segment_reader *r = NULL;
	uint64_t total[3], last[3] = {0}, before;

	while (segment_reader_open(app_path, &r, NULL) < 0)
		usleep(1000);
	for (;;) {
		before = load(&truth->seen);
		if (totals_read(r, total) < 0)
			continue;
		if (total[0] < before || total[0] < last[0] || total[1] < last[1] ||
		    total[2] < last[2])
			__atomic_add_fetch(&truth->fallen, 1, __ATOMIC_RELEASE);
		while (before < total[0] &&
		       !__atomic_compare_exchange_n(&truth->seen, &before, total[0], false,
						    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			continue;
		memcpy(last, total, sizeof(last));
		__atomic_add_fetch(&truth->reads, 1, __ATOMIC_RELEASE);
		__atomic_store_n(&slot->is_ready, 1, __ATOMIC_RELEASE);
	}
}

/* ---- lives and deaths ---- */

static void start(unsigned int i)
{
	struct slot *slot = &truth->slots[i];

	memset(slot, 0, sizeof(*slot));
	pids[i] = fork();
	if (pids[i])
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (i == GATHERER)
		gather_on(slot);
	else if (i >= WRITERS)
		read_on(slot);
	else if (i >= C_WRITERS && has_luajit)
		count_in_lua(slot);
	else
		count_in_c(slot);
}

static void wait_ready(unsigned int i)
{
	struct slot *slot = &truth->slots[i];
	char command[192], path[256] = "";
	FILE *f;

	NEVER_UNTIL(__atomic_load_n(&slot->is_ready, __ATOMIC_ACQUIRE) ||
			    waitpid(pids[i], NULL, WNOHANG) == pids[i],
		    "the start of a process");
	if (!slot->is_ready)
		fail("process %u ended before it began", i);
	if (i >= WRITERS)
		return;
	snprintf(command, sizeof(command), "echo %s/%d-*.seg", app_dir, (int)pids[i]);
	f = popen(command, "r");
	if (!f || !fgets(path, sizeof(path), f))
		fail("no shell");
	pclose(f);
	path[strcspn(path, "\n")] = '\0';
	fds[i] = open(path, O_RDONLY | O_CLOEXEC);
	if (fds[i] < 0)
		fail("%s: %s", path, strerror(errno));
}

/* What the dead one's file says, which its own word must bracket. */
static void account(unsigned int i)
{
	const struct slot *slot = &truth->slots[i];
	struct segment_entry d[2];
	struct segment_header h;
	uint64_t cells[HIST_CELLS], histogram = 0, counter;

	if (pread(fds[i], &h, sizeof(h), 0) != sizeof(h) ||
	    pread(fds[i], d, sizeof(d), (off_t)h.directory_offset) != sizeof(d) ||
	    pread(fds[i], &counter, 8, (off_t)(h.cells_offset + 8 * d[0].value_cell)) != 8 ||
	    pread(fds[i], cells, sizeof(cells),
		  (off_t)(h.cells_offset + 8 * d[HIST_ENTRY].value_cell)) != sizeof(cells))
		fail("a dead writer's file cannot be read");
	close(fds[i]);
	for (unsigned int j = 0; j < HIST_CELLS; j++)
		histogram += cells[j];
	if (counter < slot->done || counter > slot->begun || slot->begun - slot->done > 1 ||
	    histogram < slot->done || histogram > counter)
		fail("writer %u began %" PRIu64 ", ended %" PRIu64 ", its file says %" PRIu64
		     " and %" PRIu64,
		     i, slot->begun, slot->done, counter, histogram);
	counted += counter;
	truth->slots[i].done = histogram; /* for the sum of all histograms */
}

static uint64_t histograms, lives_in_c, kills_in_folds;

static void end(unsigned int i)
{
	int status;

	kill(pids[i], SIGKILL);
	waitpid(pids[i], &status, 0);
	if (!WIFSIGNALED(status))
		fail("process %u ended by itself, status %d", i, WEXITSTATUS(status));
	pids[i] = 0;
	kills_of[i]++;
	if (i >= WRITERS)
		return;
	account(i);
	lives_in_c += i < C_WRITERS || !has_luajit;
	histograms += truth->slots[i].done;
}

static uint64_t fold_life(void)
{
	static int fd = -1;
	uint64_t life = 0;

	if (fd < 0)
		fd = open(app_path, O_RDONLY | O_CLOEXEC);
	if (pread(fd, &life, sizeof(life), offsetof(struct segment_header, fold_life)) < 0)
		fail("app.seg cannot be read");
	return life;
}

/* Waits until a fold is under way, not for long: it may be over. */
static void await_fold(void)
{
	uint64_t until = clock_mono_ns() + 5000000;

	while (!fold_life() && clock_mono_ns() < until)
		continue;
}

/* A writer, and the gatherer while it folds what that one left. */
static unsigned int kill_some(void)
{
	unsigned int i = (unsigned int)rand() % PROCESSES;
	bool is_pair = i < WRITERS && rand() % 2;

	end(i);
	if (is_pair) {
		await_fold();
		end(GATHERER);
		kills_in_folds += fold_life() != 0;
		start(GATHERER);
	}
	start(i);
	wait_ready(i);
	if (is_pair)
		wait_ready(GATHERER);
	return is_pair ? 2 : 1;
}

static bool dir_is_empty(void)
{
	char command[128];

	snprintf(command, sizeof(command), "[ -z \"$(ls -A %s)\" ]", app_dir);
	return system(command) == 0;
}

static void finish(unsigned int kills, uint64_t began_ns)
{
	struct segment_reader *r = NULL;
	uint64_t total[3], at, filled;

	for (unsigned int i = 0; i < WRITERS; i++)
		end(i);
	filled = lives_in_c * FILLED_TIMES;
	NEVER_UNTIL(dir_is_empty(), "folding the last files");
	at = load(&truth->ticks);
	NEVER_UNTIL(load(&truth->ticks) > at + 1 && !load(&truth->files), "the last tick");
	if (segment_reader_open(app_path, &r, NULL) < 0)
		fail("app.seg is not there");
	NEVER_UNTIL(totals_read(r, total) == 0, "reading app.seg");
	segment_reader_close(r);
	for (unsigned int i = WRITERS; i < PROCESSES; i++)
		end(i);
	if (truth->fallen)
		fail("%" PRIu64 " times a total was below one seen before", truth->fallen);
	if (total[0] != counted || total[1] != histograms || total[2] != filled)
		fail("counted %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", app.seg says %" PRIu64
		     ", %" PRIu64 ", %" PRIu64,
		     counted, histograms, filled, total[0], total[1], total[2]);
	printf("# %u kills in %.1f s: %" PRIu64 " of writers in C, %" PRIu64 " of writers in "
	       "%s, %" PRIu64 " of readers, %" PRIu64 " of the gatherer, %" PRIu64
	       " in the middle of a fold\n",
	       kills, (double)(clock_mono_ns() - began_ns) / 1e9,
	       kills_of[0] + kills_of[1] + kills_of[2], kills_of[3] + kills_of[4],
	       has_luajit ? "LuaJIT" : "C (no LuaJIT here)",
	       kills_of[WRITERS] + kills_of[WRITERS + 1], kills_of[GATHERER], kills_in_folds);
	printf("# %" PRIu64 " additions, all in app.seg, %" PRIu64 " ticks, %" PRIu64
	       " reads: no total fell, none is off by one, no file is left\n",
	       counted + histograms + filled, truth->ticks, truth->reads);
}

int main(void)
{
	const char *kills_text = getenv("CHAOS_KILLS"), *seed_text = getenv("CHAOS_SEED");
	unsigned int most = kills_text ? (unsigned int)atoi(kills_text) : 100, kills = 0;
	unsigned int seed = seed_text ? (unsigned int)atoi(seed_text) : (unsigned int)time(NULL);
	uint64_t began = clock_mono_ns();
	char command[128];
	void *lib;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# seed %u\n", seed);
	srand(seed);
	strcpy(dir, "/dev/shm/tidegate-chaos-XXXXXX");
	truth = mmap(NULL, sizeof(*truth), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (truth == MAP_FAILED || !mkdtemp(dir))
		return 1;
	snprintf(app_path, sizeof(app_path), "%s/app.seg", dir);
	snprintf(app_dir, sizeof(app_dir), "%s/app", dir);
	if (mkdir(app_dir, 0700) < 0)
		return 1;
	lib = dlopen("libluajit-5.1.so.2", RTLD_NOW);
	has_luajit = lib;
	if (lib)
		dlclose(lib);
	/* The gatherer last: readers wait for app.seg, which it makes. */
	for (unsigned int i = PROCESSES; i-- > 0;)
		start(i);
	for (unsigned int i = 0; i < PROCESSES; i++)
		wait_ready(i);
	while (kills < most)
		kills += kill_some();
	finish(kills, began);
	printf("ok 1 - %u kills\n1..1\n", kills);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) == 0 ? 0 : 1;
}
