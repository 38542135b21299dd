/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of doctor: control groups, pressure, accept queues, statistics of BPF programs. */
#include "cmd/doctor.h"

#include "base/str.h"
#include "probe/cgroup.h"
#include "probe/queue.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void check_cgroups(struct doctor *d)
{
	struct cgroup g;
	char how[64];
	const char *missing;

	if (cgroup_of(getpid(), &g) < 0)
		memset(&g, 0, sizeof(g));
	missing = !g.cpu.path[0] && !g.memory.path[0] ? "neither the cpu nor the memory"
		  : !g.cpu.path[0]                    ? "not the cpu"
		  : !g.memory.path[0]                 ? "not the memory"
						      : NULL;
	snprintf(how, sizeof(how), "%s%s%s%s", g.cpu.path[0] ? "cpu " : "",
		 !g.cpu.path[0] ? ""
		 : g.cpu.is_v2  ? "v2"
				: "v1",
		 g.memory.path[0] ? ", memory " : "",
		 !g.memory.path[0] ? ""
		 : g.memory.is_v2  ? "v2"
				   : "v1");
	if (missing) {
		char why[200];

		snprintf(why, sizeof(why),
			 "%s controller is mounted: limits and throttling of gateways are absent; "
			 "mount the host's /sys/fs/cgroup",
			 missing);
		doctor_add(d, "cgroups", PROBE_DEGRADED, how, why);
	} else {
		doctor_add(d, "cgroups", PROBE_OK, how, "");
	}
}

static void check_pressure(struct doctor *d)
{
	bool has = access("/proc/pressure/cpu", R_OK) == 0;

	doctor_add(d, "pressure", has ? PROBE_OK : PROBE_UNAVAILABLE, has ? "/proc/pressure" : "",
		   has ? ""
		       : "this kernel has no pressure files (CONFIG_PSI, or psi=1 on its command "
			 "line): tidegate_pressure_seconds_total is absent");
}

static void check_queues(struct doctor *d)
{
	struct queues *queues = NULL;
	struct err e = {.text = ""};
	char why[256];
	int r = queues_open(&queues, &e);

	if (r >= 0)
		r = queues_read(queues);
	queues_close(queues);
	if (r >= 0) {
		doctor_add(d, "accept-queues", PROBE_OK, "sock_diag", "");
		return;
	}
	snprintf(why, sizeof(why),
		 "sock_diag: %s: rows of accept queues are absent; the kernel needs "
		 "CONFIG_INET_DIAG, and no filter that refuses netlink",
		 e.text[0] ? e.text : err_text(r));
	doctor_add(d, "accept-queues", PROBE_UNAVAILABLE, "", why);
}

/* Off is how a kernel starts; nothing that gateways need is missing then. */
static void check_statistics(struct doctor *d)
{
	char text[16] = "";
	bool is_readable =
		str_read_file("/proc/sys/kernel/bpf_stats_enabled", text, sizeof(text)) >= 0;

	if (is_readable && text[0] != '0')
		doctor_add(d, "bpf-statistics", PROBE_OK, "kernel.bpf_stats_enabled", "");
	else
		doctor_add(d, "bpf-statistics", PROBE_DEGRADED, "off",
			   "tidegate_probe_seconds_total and _events_total are absent; sysctl -w "
			   "kernel.bpf_stats_enabled=1 has them, for some 20 ns a probe");
}

void doctor_system(struct doctor *d)
{
	check_cgroups(d);
	check_pressure(d);
	check_queues(d);
	check_statistics(d);
}
