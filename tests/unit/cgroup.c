/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups: both layouts, and what their files say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "probe/cgroup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* v1 controllers with a hybrid v2, as systemd before 247 and some containers have it. */
static const char hybrid_mounts[] =
	"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
	"30 22 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
	"31 30 0:26 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
	"32 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
	"33 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
	"34 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
static const char hybrid_cgroups[] = "9:name=systemd:/\n4:memory:/shop/gate\n"
				     "3:cpuset:/no\n2:cpu,cpuacct:/shop\n0::/x";

static void test_hybrid(void **state)
{
	struct cgroup g;

	(void)state;
	cgroup_locate(hybrid_mounts, hybrid_cgroups, "", &g);
	assert_string_equal(g.cpu.path, "/sys/fs/cgroup/cpu,cpuacct/shop");
	assert_false(g.cpu.is_v2);
	assert_string_equal(g.memory.path, "/sys/fs/cgroup/memory/shop/gate");
	assert_int_equal(g.memory.top, strlen("/sys/fs/cgroup/memory"));
	assert_string_equal(g.unified.path, "/sys/fs/cgroup/unified/x");
	assert_true(g.unified.is_v2);
}

static void test_v2(void **state)
{
	static const char mounts[] =
		"29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
	struct cgroup g;

	(void)state;
	cgroup_locate(mounts, "0::/system.slice/nginx.service\n", "", &g);
	assert_string_equal(g.cpu.path, "/sys/fs/cgroup/system.slice/nginx.service");
	assert_true(g.cpu.is_v2);
	assert_string_equal(g.memory.path, g.cpu.path);
	assert_string_equal(g.unified.path, g.cpu.path);
	cgroup_locate(mounts, "0::/\n", "/proc/7/root", &g);
	assert_string_equal(g.cpu.path, "/proc/7/root/sys/fs/cgroup");
	assert_int_equal(g.cpu.top, strlen(g.cpu.path));
}

static void test_elsewhere(void **state)
{
	static const char bind[] = "29 23 0:26 /pod/a /sys/fs/cgroup ro - cgroup2 cgroup ro\n";
	static char long_path[2 * CGROUP_PATH_BYTES] = "0::/";
	struct cgroup g;

	(void)state;
	/* A container without a cgroup namespace sees its group bound to the top. */
	cgroup_locate(bind, "0::/pod/a", "", &g);
	assert_string_equal(g.memory.path, "/sys/fs/cgroup");
	cgroup_locate(bind, "0::/pod/a/b", "", &g);
	assert_string_equal(g.memory.path, "/sys/fs/cgroup/b");
	cgroup_locate(bind, "0::/pod/ab", "", &g);
	assert_string_equal(g.memory.path, "");
	/* Outside of our namespace. */
	cgroup_locate(hybrid_mounts, "0::/../b\n4:memory:/..\n2:cpu:/a/../../b", "", &g);
	assert_string_equal(g.memory.path, "");
	assert_string_equal(g.cpu.path, "");
	assert_string_equal(g.unified.path, "");
	/* Nothing, garbage, too long. */
	cgroup_locate("", "", "", &g);
	assert_string_equal(g.unified.path, "");
	cgroup_locate("\n\n - \n - cgroup2\n1 2 3 / /x - cgroup2\n", "::\n\n0:\n0::\n:::::\n", "",
		      &g);
	assert_string_equal(g.unified.path, "");
	memset(long_path + 4, 'a', sizeof(long_path) - 5);
	cgroup_locate(hybrid_mounts, long_path, "", &g);
	assert_string_equal(g.unified.path, "");
}

static void test_values(void **state)
{
	static const char stat[] = "nr_periods 3\nnr_throttled 2\nthrottled_time 17000\n";
	double cores = 0;
	uint64_t v = 0;

	(void)state;
	assert_int_equal(cgroup_parse_cpu_max("max 100000", &cores), -ENODATA);
	assert_int_equal(cgroup_parse_cpu_max("150000 100000", &cores), 0);
	assert_true(cores > 1.4999 && cores < 1.5001);
	assert_int_equal(cgroup_parse_cpu_max("1 0", &cores), -EINVAL);
	assert_int_equal(cgroup_parse_cpu_max("", &cores), -EINVAL);
	assert_int_equal(cgroup_parse_memory("max", &v), -ENODATA);
	assert_int_equal(cgroup_parse_memory("9223372036854771712", &v), -ENODATA);
	assert_int_equal(cgroup_parse_memory("536870912", &v), 0);
	assert_int_equal(v, 536870912);
	assert_int_equal(cgroup_parse_memory("-1", &v), -EINVAL);
	assert_int_equal(cgroup_parse_field(stat, "throttled_time", &v), 0);
	assert_int_equal(v, 17000);
	assert_int_equal(cgroup_parse_field(stat, "throttled", &v), -ENODATA);
	assert_int_equal(cgroup_parse_field(stat, "nr_periods", &v), 0);
	assert_int_equal(v, 3);
	assert_int_equal(cgroup_parse_field("x y", "x", &v), -EINVAL);
	assert_int_equal(cgroup_parse_field("", "x", &v), -ENODATA);
}

/* ---- a tree of files that looks like a hierarchy ---- */

static char top[64];

static void put(const char *file, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", top, file);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void make(const char *folder)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", top, folder);
	assert_int_equal(mkdir(path, 0700), 0);
}

static struct cgroup group(const char *below, bool is_v2)
{
	struct cgroup g = {0};

	snprintf(g.cpu.path, sizeof(g.cpu.path), "%s/%s", top, below);
	g.cpu.top = strlen(top);
	g.cpu.is_v2 = is_v2;
	g.memory = g.unified = g.cpu;
	return g;
}

static int begin(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/tmp/tidegate-cgroup.XXXXXX");
	if (!mkdtemp(top))
		return -1;
	make("a");
	make("a/b");
	return 0;
}

static int end(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", top);
	return system(command);
}

static void test_tree_v2(void **state)
{
	struct cgroup g = group("a/b", true);
	pid_t pids[] = {11, 13, 17};
	double cores;
	uint64_t v;

	(void)state;
	assert_int_equal(cgroup_cpu_limit(&g, &cores), -ENODATA);
	assert_int_equal(cgroup_memory_limit(&g, &v), -ENODATA);
	assert_int_equal(cgroup_throttled_ns(&g, &v), -ENODATA);
	put("a/b/cpu.max", "max 100000\n");
	put("a/cpu.max", "50000 100000\n");
	put("a/b/memory.max", "7000000\n");
	put("a/memory.max", "9000000\n");
	put("a/b/cpu.stat", "usage_usec 1\nthrottled_usec 5\n");
	put("a/cpu.stat", "usage_usec 1\nthrottled_usec 7\n");
	put("cpu.stat", "usage_usec 1\n");
	put("a/b/memory.current", "5000000\n");
	put("a/b/memory.stat", "anon 1\ninactive_file 1000000\ntotal_inactive_file 5\n");
	assert_int_equal(cgroup_cpu_limit(&g, &cores), 0);
	assert_true(cores > 0.4999 && cores < 0.5001);
	assert_int_equal(cgroup_memory_limit(&g, &v), 0);
	assert_int_equal(v, 7000000);
	assert_int_equal(cgroup_throttled_ns(&g, &v), 0);
	assert_int_equal(v, 12000);
	assert_int_equal(cgroup_memory(&g, &v), 0);
	assert_int_equal(v, 4000000);
	assert_false(cgroup_is_own(&g, pids, 3));
	put("a/b/cgroup.procs", "");
	assert_false(cgroup_is_own(&g, pids, 3));
	put("a/b/cgroup.procs", "13\n11\n");
	assert_true(cgroup_is_own(&g, pids, 3));
	put("a/b/cgroup.procs", "13\n11\n19\n");
	assert_false(cgroup_is_own(&g, pids, 3));
}

static void test_tree_v1(void **state)
{
	struct cgroup g = group("a/b", false);
	double cores;
	uint64_t v;

	(void)state;
	put("a/b/cpu.cfs_quota_us", "-1\n");
	put("a/b/cpu.cfs_period_us", "100000\n");
	put("a/b/memory.limit_in_bytes", "9223372036854771712\n");
	assert_int_equal(cgroup_cpu_limit(&g, &cores), -ENODATA);
	assert_int_equal(cgroup_memory_limit(&g, &v), -ENODATA);
	put("a/cpu.cfs_quota_us", "250000\n");
	put("a/cpu.cfs_period_us", "100000\n");
	put("a/b/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 11\n");
	put("a/memory.limit_in_bytes", "4096\n");
	put("a/b/memory.usage_in_bytes", "5000\n");
	put("a/b/memory.stat", "inactive_file 1\ntotal_inactive_file 6000\n");
	assert_int_equal(cgroup_cpu_limit(&g, &cores), 0);
	assert_true(cores > 2.4999 && cores < 2.5001);
	assert_int_equal(cgroup_memory_limit(&g, &v), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(cgroup_throttled_ns(&g, &v), 0);
	assert_int_equal(v, 11);
	assert_int_equal(cgroup_memory(&g, &v), 0);
	assert_int_equal(v, 0); /* the two files are not read at one moment */
}

static void test_self(void **state)
{
	struct cgroup g;
	uint64_t v;

	(void)state;
	assert_int_equal(cgroup_of(0x7ffffffe, &g), -ENOENT);
	if (cgroup_of(getpid(), &g) < 0)
		skip(); /* no cgroup file system is mounted here */
	assert_int_equal(access(g.memory.path[0] ? g.memory.path : g.cpu.path, X_OK), 0);
	assert_true(cgroup_memory_limit(&g, &v) <= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hybrid),
		cmocka_unit_test(test_v2),
		cmocka_unit_test(test_elsewhere),
		cmocka_unit_test(test_values),
		cmocka_unit_test_setup_teardown(test_tree_v2, begin, end),
		cmocka_unit_test_setup_teardown(test_tree_v1, begin, end),
		cmocka_unit_test(test_self),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
