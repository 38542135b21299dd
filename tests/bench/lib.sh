# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What benches share: rows, medians, CPU time of processes.
source "$(dirname "${BASH_SOURCE[0]}")/../flow/lib.sh"

# row NAME VALUE UNIT PEER RATIO BUDGET: "" for what there is not; a budget without a number fails.
row() {
	jq -cn --arg n "$1" --arg v "$2" --arg u "$3" --arg p "$4" --arg r "$5" --arg b "$6" '
		def num: if . == "" then null else tonumber end;
		{name: $n, value: ($v | num), unit: $u, peer: (if $p == "" then null else $p end),
		 ratio: ($r | num), budget: ($b | num)} |
		.holds = (if .budget == null then null elif (.ratio // .value) == null then false
			else (.ratio // .value) <= .budget end)'
}
median() { sort -g | awk '{a[NR] = $1} END {print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2}'; }

# Nanoseconds on a CPU so far, over all threads of the processes.
cpu_ns() {
	local pid total=0 ns
	for pid in "$@"; do
		for ns in $(cut -d' ' -f1 /proc/"$pid"/task/*/schedstat 2>/dev/null); do total=$((total + ns)); done
	done
	echo $total
}
pss_kb() {
	local pid
	for pid in "$@"; do awk '/^Pss:/{print $2}' "/proc/$pid/smaps_rollup"; done | awk '{s += $1} END {print s}'
}
children_of() { cat "/proc/$1/task/$1/children"; }

# ---- an aggregator and simulated agents ----
simulator=$BUILD/tests/bench/load/agents
simulated=''
# simulate [OPTIONS] AGENTS SECONDS, against the world's aggregator: sets $simulated (the last event),
# and, of the time from the steady state on: $spent_ns (CPU of all aggregator processes), $took_ns,
# and $memory_kb (PSS of all of them, at the end of it).
simulate() {
	local out=$world/simulated pids before began seconds=${*: -1} count=${*: -2:1}
	pids="$aggregator_pid $(children_of "$aggregator_pid")"
	"$simulator" "${@:1:$#-2}" "${door_scheme:-tcp}://127.0.0.1:$door_port" "$count" "$seconds" >"$out" &
	simulator_pid=$!
	world_pids+=("$simulator_pid")
	wait_for 120 grep -q '"steady"' "$out" || return 1
	# shellcheck disable=SC2086
	before=$(cpu_ns $pids) began=$(date +%s%N)
	wait_for $((seconds + 30)) grep -q '"end"' "$out" || return 1
	# shellcheck disable=SC2086
	spent_ns=$(($(cpu_ns $pids) - before)) took_ns=$(($(date +%s%N) - began))
	# A process may have been killed meanwhile, and another be there.
	# shellcheck disable=SC2046
	memory_kb=$(pss_kb "$aggregator_pid" $(children_of "$aggregator_pid"))
	simulated=$(tail -1 "$out")
}
simulated() { jq -r ".$1" <<<"$simulated"; }
# All that the fleet shows as counted by simulated agents: must equal $(simulated total).
fleet_total() {
	curl -s "http://127.0.0.1:$aggregator_port/metrics" |
		awk '/^bench_[a-z_]*(_total|_count)[{ ]/ {s += $NF} END {printf "%.0f\n", s}'
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.4g", a / b}'; }
