/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collections of OpenJDK through the SDT notes of libjvm.so, against the JVM's own log of pauses; and
 * notes with a semaphore, which this file has itself. With arguments it is the process that is
 * watched: a JVM made through JNI, so that no Java compiler is needed, or the one with the semaphore.
 */
#include "base/clock.h"
#include "base/process.h"
#include "base/str.h"
#include "metrics.h"
#include "probe/probe.h"

#include <dirent.h>
#include <dlfcn.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a program with notes of its own ---- */

/* As <sys/sdt.h> writes them: the place, the base, the semaphore; provider, name, arguments. */
__attribute__((section(".probes"))) volatile unsigned short note_semaphore;
#define NOTE(name)                                                                                \
	__asm__ volatile("990: nop\n"                                                             \
			 ".pushsection .note.stapsdt,\"?\",\"note\"\n"                            \
			 ".balign 4\n.4byte 992f-991f, 994f-993f, 3\n"                            \
			 "991: .asciz \"stapsdt\"\n992: .balign 4\n"                              \
			 "993: .8byte 990b, note_base, note_semaphore\n"                          \
			 ".asciz \"hotspot\"\n.asciz \"" name "\"\n.asciz \"\"\n994: .balign 4\n" \
			 ".popsection\n")

__asm__(".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
	".weak note_base\n.hidden note_base\nnote_base: .space 1\n.size note_base, 1\n"
	".popsection\n");

/* Says the semaphore, then collects as often as it is told. */
static int semaphore_main(void)
{
	char line[64];

	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		for (long i = strtol(line, NULL, 10); i > 0 && note_semaphore; i--) {
			NOTE("gc__begin");
			NOTE("gc__end");
		}
		printf("%u\n", note_semaphore);
		fflush(stdout);
	}
	return EXIT_DONE;
}

/* ---- a JVM ---- */

/* Indices in the function tables are part of the JNI specification (chapters 4 and 5). */
enum { JNI_FIND_CLASS = 6, JNI_DELETE_LOCAL = 23, JNI_STATIC_METHOD = 113 };
enum { JNI_CALL_STATIC_VOID = 141, JNI_NEW_BYTES = 176, JVM_DESTROY = 3 };
#define JNI_VERSION_1_8 0x00010008

struct jvm_option {
	const char *text;
	void *extra;
};

struct jvm_arguments {
	int32_t version, count;
	struct jvm_option *options;
	uint8_t ignores_unknown;
};

typedef void **const *jni; /* to a table of functions */
typedef void *(*jni_find_class)(jni env, const char *name);
typedef void *(*jni_static_method)(jni env, void *class, const char *name, const char *signature);
typedef void (*jni_call_static_void)(jni env, void *class, void *method, ...);
typedef void *(*jni_new_bytes)(jni env, int32_t size);
typedef void (*jni_delete_local)(jni env, void *object);
typedef int (*jvm_destroy)(jni vm);
typedef int (*jvm_create)(jni *ret_vm, jni *ret_env, struct jvm_arguments *arguments);

#define KEPT 100

/* "allocate N": N arrays of 32 kB, of which the last hundred live; "collect N": System.gc(). */
static void jvm_obey(jni env, const char *what, int n)
{
	static void *kept[KEPT];
	void *class = ((jni_find_class)(*env)[JNI_FIND_CLASS])(env, "java/lang/System");
	void *gc = ((jni_static_method)(*env)[JNI_STATIC_METHOD])(env, class, "gc", "()V");

	for (int i = 0; i < n; i++) {
		if (str_equal(what, "collect")) {
			((jni_call_static_void)(*env)[JNI_CALL_STATIC_VOID])(env, class, gc);
			continue;
		}
		if (kept[i % KEPT])
			((jni_delete_local)(*env)[JNI_DELETE_LOCAL])(env, kept[i % KEPT]);
		kept[i % KEPT] = ((jni_new_bytes)(*env)[JNI_NEW_BYTES])(env, 32 << 10);
	}
}

static int jvm_main(const char *library, const char *collector, const char *log)
{
	void *lib = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
	struct jvm_option options[] = {{collector, NULL}, {log, NULL}, {"-Xmx48m", NULL}};
	struct jvm_arguments arguments = {JNI_VERSION_1_8, ARRAY_LEN(options), options, 0};
	jvm_create create = NULL;
	jni vm, env;
	char line[64], what[16];
	int n;

	if (lib)
		*(void **)&create = dlsym(lib, "JNI_CreateJavaVM");
	if (!create || create(&vm, &env, &arguments) != 0)
		return EXIT_FAILED;
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%15s %d", what, &n) == 2) {
		jvm_obey(env, what, n);
		printf("done\n");
		fflush(stdout);
	}
	((jvm_destroy)(*vm)[JVM_DESTROY])(vm);
	return EXIT_DONE;
}

/* ---- watching it ---- */

static struct cells cells;
static struct probe_set *set;

struct host {
	pid_t pid;
	FILE *in, *out;
	struct probe_gc_report report;
};

static void take_totals(void)
{
	struct probe_now now;

	probe_heartbeat(set, clock_mono_ns());
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
}

static void ask(const struct host *host, const char *question, const char *answer)
{
	char line[64];

	fputs(question, host->in);
	fflush(host->in);
	if (!fgets(line, sizeof(line), host->out))
		fail_msg("the process ended");
	assert_string_equal(line, answer);
}

static void watch_threads(pid_t pid)
{
	const struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			assert_true(probe_watch_thread(set, 0, (uint32_t)pid,
						       (uint32_t)atoi(entry->d_name),
						       ROLE_WORKER) >= 0);
	}
	closedir(dir);
}

static void host_start(struct host *host, const char *const argv[])
{
	int to[2], from[2];

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	host->pid = fork();
	assert_true(host->pid >= 0);
	if (host->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], 0);
		dup2(from[1], 1);
		close_range(3, ~0U, 0);
		execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	host->in = fdopen(to[1], "w");
	host->out = fdopen(from[0], "r");
	ask(host, "", "ready\n");
	watch_threads(host->pid);
	probe_gc_attach(set, 0, (uint32_t)host->pid, &host->report);
	take_totals();
}

static void host_end(struct host *host)
{
	int status;

	fclose(host->in);
	assert_int_equal(waitpid(host->pid, &status, 0), host->pid);
	fclose(host->out);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	take_totals();
}

/* Pauses in the JVM's log; their sum. "[0.027s][info][gc] GC(0) Pause Young … 3.151ms" */
static unsigned int read_log(const char *path, double *ret_ms)
{
	unsigned int count = 0;
	char line[512];
	FILE *log = fopen(path, "re");

	assert_non_null(log);
	*ret_ms = 0;
	while (fgets(line, sizeof(line), log)) {
		const char *last = strrchr(line, ' ');

		if (!strstr(line, " Pause ") || !last)
			continue;
		count++;
		*ret_ms += strtod(last + 1, NULL);
	}
	fclose(log);
	return count;
}

static void pauses_are_those_of_the_log(const char *collector)
{
	char library[256], option[64], path[64] = "/tmp/tidegate-jvm.XXXXXX", log[128];
	const char *const argv[] = {"gc_openjdk", library, option, log, NULL};
	struct host host;
	uint64_t before, cycles, sum_ns;
	unsigned int pauses;
	double ms;
	glob_t found;

	if (PROCESS_IS_SANITIZED ||
	    glob("/usr/lib/jvm/*/lib/server/libjvm.so", 0, NULL, &found) != 0) {
		print_message("# SKIP %s\n", PROCESS_IS_SANITIZED
						     ? "a sanitizer and a JVM want the same signals"
						     : "no JVM is installed");
		skip();
	}
	str_copy(library, sizeof(library), found.gl_pathv[0]);
	globfree(&found);
	assert_true(mkstemp(path) >= 0);
	snprintf(option, sizeof(option), "-XX:+Use%sGC", collector);
	snprintf(log, sizeof(log), "-Xlog:gc:file=%s", path);
	host_start(&host, argv);
	assert_string_equal(host.report.why, "");
	assert_int_equal(host.report.state, PROBE_OK);
	assert_string_equal(host.report.runtime, "openjdk");
	assert_string_equal(host.report.how, "sdt");
	assert_int_equal(read_log(path, &ms), 0);
	before = histogram_count(cells.gc_ns[GC_STW]);
	cycles = cells.gc_cycles;
	sum_ns = cells.gc_sum_ns[GC_STW];
	ask(&host, "allocate 5000\n", "done\n");
	ask(&host, "collect 7\n", "done\n");
	host_end(&host);
	pauses = read_log(path, &ms);
	sum_ns = cells.gc_sum_ns[GC_STW] - sum_ns;
	print_message("# %s: %u pauses, %.3f ms by the log, %.3f ms by the probes\n", collector,
		      pauses, ms, (double)sum_ns / 1e6);
	assert_true(pauses > 7);
	assert_int_equal(histogram_count(cells.gc_ns[GC_STW]) - before, pauses);
	assert_int_equal(cells.gc_cycles - cycles, pauses);
	/* How near, is the bench's affair; units and ends are this one's. */
	assert_true((double)sum_ns > ms * 1e6 / 2 && (double)sum_ns < ms * 1e6 * 2);
	unlink(path);
}

static void serial_pauses_are_those_of_the_log(void **state)
{
	(void)state;
	pauses_are_those_of_the_log("Serial");
}

static void g1_pauses_are_those_of_the_log(void **state)
{
	(void)state;
	pauses_are_those_of_the_log("G1");
}

static void a_probe_behind_a_semaphore_is_switched_on(void **state)
{
	const char *const argv[] = {"gc_openjdk", "semaphore", NULL};
	struct host host;
	uint64_t before;

	(void)state;
	host_start(&host, argv);
	assert_string_equal(host.report.why, "");
	assert_string_equal(host.report.runtime, "openjdk");
	before = histogram_count(cells.gc_ns[GC_STW]);
	/* Raised once a place, however many programs are there. */
	ask(&host, "1009\n", "2\n");
	take_totals();
	assert_int_equal(histogram_count(cells.gc_ns[GC_STW]) - before, 1009);
	host_end(&host);
}

static int open_set(void)
{
	const struct probe_options options = {
		.tier = "auto",
		.threads = 256,
		.connections = 1024,
		.sample = 1,
		.want_gc = true,
		.slow_request_ns = NS_PER_S,
	};
	struct err e = {.text = ""};
	int r;

	histogram_thresholds();
	r = probe_open(&options, 0, &set, &e);
	if (r < 0)
		fprintf(stderr, "gc_openjdk: %s\n", e.text);
	return r;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(serial_pauses_are_those_of_the_log),
		cmocka_unit_test(g1_pauses_are_those_of_the_log),
		cmocka_unit_test(a_probe_behind_a_semaphore_is_switched_on),
	};
	int r;

	if (argc == 4)
		return jvm_main(argv[1], argv[2], argv[3]);
	if (argc == 2)
		return semaphore_main();
	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root (CAP_BPF, CAP_PERFMON)\n");
		return EXIT_DONE;
	}
	if (open_set() < 0)
		return EXIT_FAILED;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	probe_close(set);
	return r;
}
