#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Time of our programs per system call by the kernel's BPF statistics (about 20 ns a run included),
# beside bpftrace that makes a latency histogram by call of the same process, in the same run. The
# process only reads a file, one byte a call: what requests cost beyond that is in gateway-cost.
source "$(dirname "$0")/lib.sh"

command -v bpftrace >/dev/null || { echo "# bpftrace is not installed"; exit 0; }
world_begin bench-probe
drain_options='  on_sigterm: never'
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
new_port
reader_port=$port
# shellcheck disable=SC2016
perl -MSocket -e 'socket(my $s, PF_INET, SOCK_STREAM, 0); bind($s, sockaddr_in($ARGV[0], INADDR_LOOPBACK)) or die;
	listen($s, 1); open(my $z, "<", "/dev/zero"); my $b; my $end = time + 300;
	while (time < $end) { sysread($z, $b, 1) for 1 .. 1000; select(undef, undef, undef, 0.002) }' "$reader_port" &
reader=$!
world_pids+=("$reader")
stats_before=$(cat /proc/sys/kernel/bpf_stats_enabled)
echo 1 >/proc/sys/kernel/bpf_stats_enabled
restore() {
	echo "$stats_before" >/proc/sys/kernel/bpf_stats_enabled
	world_end
}
trap restore EXIT

# Programs that are loaded now, so that only those that come later are ours.
known() { bpftool prog show --json | jq -c '[.[].id]'; }
runs() { # runs KNOWN PATTERN: time and count of each of our programs, by id
	bpftool prog show --json | jq -c --argjson known "$1" --arg p "$2" '[.[] | select(.name | test($p)) |
		select(.id as $i | $known | index($i) | not) | {id, t: (.run_time_ns // 0), n: (.run_cnt // 0)}]'
}
# Sum over the enter and the exit program of time per run between two looks.
pair_ns() {
	jq -n --argjson a "$1" --argjson b "$2" '[$b[] as $y | $a[] | select(.id == $y.id) |
		select($y.n - .n > 100) | ($y.t - .t) / ($y.n - .n)] | add // 0 | floor'
}
ours_run() { runs "$1" '^(enter|exit)_' | jq -e '[.[] | select(.n > 1000)] | length >= 2'; }
ours_of() { # ours_of MATCHER LOAD...
	local before a b
	agent_options="probe:
  bpffs: ''"
	gateway_match=$1
	shift
	write_config
	sed -i "s|match: .*|match: [\"$gateway_match\"]|" "$world/agent.yaml"
	before=$(known)
	start_agent 2>/dev/null || exit 1
	wait_for 10 ours_run "$before" || exit 1 # host.seg of the round before had shown the gateway
	a=$(runs "$before" '^(enter|exit)_')
	"$@"
	b=$(runs "$before" '^(enter|exit)_')
	stop_agent
	pair_ns "$a" "$b"
}
theirs_of() { # theirs_of PID LOAD...
	local before a b tracer pid=$1
	shift
	before=$(known)
	bpftrace -q -e 'tracepoint:raw_syscalls:sys_enter /pid == '"$pid"'/ { @since[tid] = nsecs; @id[tid] = args->id; }
		tracepoint:raw_syscalls:sys_exit /pid == '"$pid"' && @since[tid]/ {
			@[@id[tid]] = hist(nsecs - @since[tid]); delete(@since[tid]); }' >/dev/null 2>&1 &
	tracer=$!
	world_pids+=("$tracer")
	pause 2
	a=$(runs "$before" 'sys_enter|sys_exit')
	"$@"
	b=$(runs "$before" 'sys_enter|sys_exit')
	kill -INT "$tracer"
	wait "$tracer"
	pair_ns "$a" "$b"
}
: >"$world/ours"
: >"$world/theirs"
for _ in 1 2 3; do
	ours_of "reader=perl:$reader_port" pause 3 >>"$world/ours"
	theirs_of "$reader" pause 3 >>"$world/theirs"
done
ours=$(median <"$world/ours") theirs=$(median <"$world/theirs")
row probe_time_per_syscall "$ours" ns "bpftrace ($theirs ns)" \
	"$(awk -v a="$ours" -v b="$theirs" 'BEGIN {printf "%.2f", a / b}')" 0.6
