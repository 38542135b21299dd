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
