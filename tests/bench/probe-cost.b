#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Time of our programs per system call by the kernel's BPF statistics (about 20 ns each included),
# beside bpftrace that makes a latency histogram of the same nginx worker's calls under the same load.
source "$(dirname "$0")/lib.sh"

command -v bpftrace >/dev/null || { echo "# bpftrace is not installed"; exit 0; }
world_begin bench-probe
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
start_nginx 1 || exit 1
worker=$(children_of "$nginx_pid" | awk '{print $1}')
stats_before=$(cat /proc/sys/kernel/bpf_stats_enabled)
echo 1 >/proc/sys/kernel/bpf_stats_enabled
restore() { echo "$stats_before" >/proc/sys/kernel/bpf_stats_enabled; world_end; }
trap restore EXIT

load() { wrk -t1 -c16 -d3s "$gateway/bench" >/dev/null; }
# Sum over the enter and the exit program of run time per run.
pair_ns() {
	bpftool prog show --json | jq --arg p "$1" '[.[] | select(.name | test($p)) |
		select((.run_cnt // 0) > 1000) | .run_time_ns / .run_cnt] | add | floor'
}

ours_all='' theirs_all=''
for _ in 1 2 3; do
	start_agent || exit 1
	load
	ours=$(pair_ns '^(.*sys_(enter|exit).*)$')
	stop_agent
	"$tidegate" agent --detach --config "$world/agent.yaml"
	bpftrace -q -e 'tracepoint:raw_syscalls:sys_enter /pid == '"$worker"'/ { @since[tid] = nsecs; @id[tid] = args->id; }
		tracepoint:raw_syscalls:sys_exit /pid == '"$worker"' && @since[tid]/ {
			@[@id[tid]] = hist(nsecs - @since[tid]); delete(@since[tid]); }' >/dev/null 2>&1 &
	tracer=$!
	world_pids+=("$tracer")
	pause 2
	load
	theirs=$(pair_ns 'sys_enter|sys_exit')
	kill -INT "$tracer"
	wait "$tracer"
	ours_all="$ours_all $ours" theirs_all="$theirs_all $theirs"
done
mid() { tr ' ' '\n' | grep . | median; }
ours=$(mid <<<"$ours_all") theirs=$(mid <<<"$theirs_all")
row probe_time_per_syscall "$ours" ns "bpftrace ($theirs ns)" \
	"$(awk -v a="$ours" -v b="$theirs" 'BEGIN {printf "%.2f", a / b}')" 0.6
