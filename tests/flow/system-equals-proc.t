#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# System level metrics and accept queues are what /proc, ss and the control groups say; counters do
# not fall through reloads under load, nor when the keeper dies.
source "$(dirname "$0")/lib.sh"

world_begin system
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_agent; ok $? "the agent sees the gateway"

members() { echo "$nginx_pid"; cat "/proc/$nginx_pid/task/$nginx_pid/children"; }
# Sums over the gateway's processes; CPU in hundredths of a second, with what the master was handed.
proc_cpu() {
	local pid
	for pid in $(members); do sed 's/.*) //' "/proc/$pid/stat"; done |
		awk '{s += $12 + $13 + $14 + $15} END {print s / 100}'
}
proc_wait() {
	local pid
	for pid in $(members); do cat "/proc/$pid/schedstat"; done | awk '{s += $2} END {printf "%.9f", s / 1e9}'
}
proc_written() {
	local pid
	for pid in $(members); do cat "/proc/$pid/io"; done | awk '/^write_bytes/ {s += $2} END {printf "%.0f", s}'
}
proc_anon() {
	local pid
	for pid in $(members); do cat "/proc/$pid/status"; done | awk '/^RssAnon/ {s += $2} END {printf "%.0f", s * 1024}'
}
proc_fds() {
	local pid n=0 fds
	for pid in $(members); do fds=("/proc/$pid/fd/"*); n=$((n + ${#fds[@]})); done
	echo $n
}
proc_pressure() { sed -n 's/^some.*total=//p' /proc/pressure/cpu | awk '{printf "%.6f", $1 / 1e6}'; }
apart() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.9f", a - b}'; }
near() { awk -v a="$1" -v b="$2" -v by="$3" 'BEGIN {d = a - b; exit !(d <= by && d >= -by)}'; }

# ---- gauges ----
same_fds() { [ "$(agent_metric tidegate_open_fds)" = "$(proc_fds)" ]; }
wait_for 12 same_fds; ok $? "open descriptors are those in /proc ($(proc_fds))"
same_memory() { near "$(agent_metric tidegate_memory_bytes)" "$(proc_anon)" 65536; }
if grep -q 'system level.*memory_of=processes' "$world/agent.log"; then
	wait_for 12 same_memory; ok $? "memory is the anonymous memory of the processes, to 64 KiB"
fi

# ---- counters: they count from when the agent came, so their distance to /proc must not change ----
quiet() { # quiet METRIC PROC BY: sets $distance once two looks a second apart find the same
	local first
	for _ in 1 2 3 4 5 6 7 8; do
		first=$(apart "$("$2")" "$(agent_metric "$1")")
		pause 1.3
		distance=$(apart "$("$2")" "$(agent_metric "$1")")
		near "$first" "$distance" "$3" && return
	done
	return 1
}
quiet tidegate_cpu_seconds_total proc_cpu 0.001; cpu=$distance
quiet tidegate_run_queue_seconds_total proc_wait 0.001; run_queue=$distance
written=$(apart "$(proc_written)" "$(agent_metric tidegate_disk_bytes_total 'direction="write"')")
cpu_before=$(agent_metric tidegate_cpu_seconds_total)
pressure_early=$(proc_pressure)
pause 1.3
pressure_before=$(agent_metric tidegate_pressure_seconds_total 'resource="cpu",kind="some"')
pressure_late=$(proc_pressure)
hey -n 3000 -c 8 "$gateway/work?us=500" >/dev/null 2>&1
pressure_more=$(proc_pressure)
pause 1.3
pressure_after=$(agent_metric tidegate_pressure_seconds_total 'resource="cpu",kind="some"')
pressure_most=$(proc_pressure)
awk -v d="$(apart "$pressure_after" "$pressure_before")" -v least="$(apart "$pressure_more" "$pressure_late")" \
	-v most="$(apart "$pressure_most" "$pressure_early")" 'BEGIN {exit !(d >= least - 1e-6 && d <= most + 1e-6)}'
ok $? "pressure grows as /proc/pressure does"

still() { near "$(apart "$("$2")" "$(agent_metric "$1" "${5:-}")")" "$3" "$4"; }
wait_for 10 still tidegate_cpu_seconds_total proc_cpu "$cpu" 0.001
ok $? "CPU time grew exactly as in /proc"
awk -v d="$(apart "$(agent_metric tidegate_cpu_seconds_total)" "$cpu_before")" 'BEGIN {exit !(d >= 1)}'
ok $? "and by more than a second, for 3,000 requests of 500 us"
wait_for 10 still tidegate_run_queue_seconds_total proc_wait "$run_queue" 0.002
ok $? "waiting for a CPU grew as in /proc, to 2 ms"
wait_for 10 still tidegate_disk_bytes_total proc_written "$written" 0 'direction="write"'
ok $? "bytes written are those in /proc"

# ---- accept queues ----
port_label="port=\"$gateway_port\""
ss_field() { ss -Hltn "sport = :$gateway_port" | awk -v n="$1" '{print $n}'; }
ss_drops() { ss -Hltnm "sport = :$gateway_port" | sed -n 's/.*,d\([0-9]*\)).*/\1/p'; }
queue() { agent_metric "tidegate_accept_queue_$1" "$port_label"; }
queue_is() { [ "$(queue "$1")" = "$2" ]; }
is "$(queue limit)" "$(ss_field 3)" "the queue's limit is what ss says"
sed -i 's/backlog=511/backlog=7/' "$world/nginx/nginx.conf"
kill -HUP "$nginx_pid"
wait_for 10 queue_is limit 7; ok $? "and the new one after a reload"
two_workers() { [ "$(wc -w <"/proc/$nginx_pid/task/$nginx_pid/children")" = 2 ]; }
wait_for 10 two_workers
read -ra workers <"/proc/$nginx_pid/task/$nginx_pid/children"
kill -STOP "${workers[@]}"
for _ in 1 2 3 4 5; do
	exec {fd}<>"/dev/tcp/127.0.0.1/$gateway_port"
	fds+=("$fd")
done
wait_for 5 queue_is length 5; ok $? "five connections wait for stopped workers"
is "$(ss_field 2)" 5 "ss says so too"
is "$(queue drops_total)" 0 "none was dropped"
for _ in $(seq 9); do
	curl -s -m 20 -o /dev/null "$gateway/fast" &
	world_pids+=($!)
done
wait_for 5 queue_is length 8; ok $? "a full queue holds one more than its limit"
same_drops() { local d; d=$(ss_drops); [ "$d" -ge 6 ] && queue_is drops_total "$d"; }
wait_for 15 same_drops; ok $? "what did not fit is dropped, as often as ss says ($(ss_drops))"
kill -CONT "${workers[@]}"
for fd in "${fds[@]}"; do exec {fd}>&-; done
wait_for 10 queue_is length 0; ok $? "the queue is empty when the workers run"

# ---- reloads and a dead keeper, under load ----
counters() {
	curl -sf "http://127.0.0.1:$agent_port/metrics" | grep -E \
		'^tidegate_(cpu_seconds|run_queue|throttled|disk_bytes|network_bytes|pressure|accept_queue_drops).*_total'
}
fell() { # prints what is smaller in the second text, or is no longer there
	awk 'NR == FNR {was[$1] = $NF; next} {now[$1] = $NF}
		END {for (s in was) if (!(s in now) || now[s] + 0 < was[s] + 0) print s, was[s], now[s]}' "$1" "$2"
}
quiet tidegate_cpu_seconds_total proc_cpu 0.001; cpu=$distance
hey -z 9s -c 6 "$gateway/work?us=300" >/dev/null 2>&1 &
hey_pid=$!
world_pids+=("$hey_pid")
counters >"$world/was"
samples=0 falls=''
watch() { # watch SECONDS
	local until=$((SECONDS + $1))
	while [ $SECONDS -lt $until ]; do
		pause 0.2
		counters >"$world/now" || continue
		falls+=$(fell "$world/was" "$world/now")
		mv "$world/now" "$world/was"
		samples=$((samples + 1))
	done
}
for _ in 1 2 3; do
	kill -HUP "$nginx_pid"
	watch 2
done
wait "$hey_pid"
is "$falls" '' "no counter falls through three reloads under load ($samples looks)"
wait_for 10 two_workers
wait_for 10 still tidegate_cpu_seconds_total proc_cpu "$cpu" 0.001
ok $? "CPU time of the workers that ended is counted, to the end and once"
keeper=$(child_pid "$agent_pid" keeper)
kill -KILL "$keeper"
another() { local now; now=$(child_pid "$agent_pid" keeper) && [ "$now" != "$keeper" ]; }
wait_for 10 another
cpu_before=$(agent_metric tidegate_cpu_seconds_total)
hey -n 1000 -c 4 "$gateway/work?us=500" >/dev/null 2>&1
watch 3
is "$falls" '' "nor when the keeper is killed"
grew() { awk -v a="$(agent_metric tidegate_cpu_seconds_total)" -v b="$cpu_before" 'BEGIN {exit !(a - b >= 0.3)}'; }
wait_for 5 grew; ok $? "CPU time goes on from where it was"
wait_for 12 same_fds; ok $? "and the gauges are there again"

# ---- control groups: v1's cpu controller and v2 beside it ----
v1=/sys/fs/cgroup/cpu v2=/sys/fs/cgroup/unified group=tidegate-flow-$$
group_end() { # nginx goes back to where it was, so that the groups can be removed
	for dir in $v1 $v2; do
		[ -d "$dir/$group" ] || continue
		for pid in $(members); do echo "$pid" >"$dir/cgroup.procs"; done
		wait_for 5 rmdir "$dir/$group"
	done
}
if [ "$(sed -n 's/^[0-9]*:cpu://p' /proc/self/cgroup)" = / ] && [ "$(sed -n 's/^0:://p' /proc/self/cgroup)" = / ] &&
	mkdir $v1/$group $v2/$group 2>/dev/null; then
	trap 'group_end; world_end' EXIT
	echo 20000 >$v1/$group/cpu.cfs_quota_us
	for pid in $(members); do
		echo "$pid" >$v1/$group/cgroup.procs
		echo "$pid" >$v2/$group/cgroup.procs
	done
	limit_is() { [ "$(agent_metric tidegate_cpu_limit_ratio)" = "$1" ]; }
	wait_for 12 limit_is 0.20000000000000001; ok $? "a quota of 20 ms in 100 is 0.2 cores"
	pause 1.3
	throttled=$(apart "$(awk '/^throttled_time/ {printf "%.9f", $2 / 1e9}' $v1/$group/cpu.stat)" \
		"$(agent_metric tidegate_throttled_seconds_total)")
	hey -n 1200 -c 4 "$gateway/work?us=500" >/dev/null 2>&1
	group_throttled() { awk '/^throttled_time/ {printf "%.9f", $2 / 1e9}' $v1/$group/cpu.stat; }
	wait_for 5 still tidegate_throttled_seconds_total group_throttled "$throttled" 0.000001
	ok $? "throttled time is the group's"
	awk -v t="$(group_throttled)" 'BEGIN {exit !(t > 0.2)}'; ok $? "which is more than 0.2 s"
	agent_metric tidegate_pressure_seconds_total 'resource="cpu",kind="some",scope="cgroup"' >/dev/null
	ok $? "pressure is that of the v2 group"
	group_end
	no_limit() { ! agent_metric tidegate_cpu_limit_ratio; }
	wait_for 12 no_limit; ok $? "without a limit there is no number"
else
	for _ in 1 2 3 4 5; do
		ok 0 "control groups # SKIP no v1 cpu controller beside v2 in which groups can be made"
	done
fi
tap_end
