#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A worker that collects all the time: what timing its steps costs, always and within the default
# budget, and how far the estimate of all GC time is then from what is timed always. The same work
# each time, without probes, always timed, within the budget, one after the other; medians.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/../bpf/gc-lib.sh"

missing=$(gc_missing)
[ -z "$missing" ] || { echo "# gc-estimate: $missing is missing"; exit 0; }
gc_begin
slices=${SLICES:-200000}

one_run() { # one_run none|always|budget
	local before after
	gc_nginx_start || exit 1
	gc_get "garbage?slices=1000" >/dev/null # compiled, and the heap has its size
	if [ "$1" != none ]; then
		GC_BUDGET=$([ "$1" = always ] && echo 1000000 || echo 10000) gc_watch || exit 1
		before=$(gc_totals)
	fi
	cpu=$(cpu_ns "$gc_worker")
	gc_get "garbage?slices=$slices" >/dev/null
	cpu=$(($(cpu_ns "$gc_worker") - cpu))
	echo "$cpu" >>"$gc_dir/cpu.$1"
	if [ "$1" != none ]; then
		pause 1.2 # the counter ticks once more
		after=$(gc_totals)
		jq -sc --arg cpu "$cpu" '{observed: .[1].observed, cost_ns: .[1].cost_ns,
			steps: (.[1].step - .[0].step),
			ns: (.[1].sum_ns + .[1].missed_ns - .[0].sum_ns - .[0].missed_ns)} |
			.cost = .steps * .cost_ns / ($cpu | tonumber)' <<<"$before $after" >>"$gc_dir/gc.$1"
		gc_watch_end
	fi
	gc_nginx_end
}
of() { jq "$2" "$gc_dir/gc.$1" | median; }
more() { jq -n "$1 / $2 - 1"; }

for _ in $(seq "${ROUNDS:-3}"); do
	for what in none always budget; do one_run $what; done
done
none=$(median <"$gc_dir/cpu.none") always=$(median <"$gc_dir/cpu.always") budget=$(median <"$gc_dir/cpu.budget")
echo "# always: $(of always .steps) steps, $(of always .ns) ns of GC in $always ns of CPU ($none without probes)"
echo "# budget: $(of budget .steps) steps timed, estimate $(of budget .ns) ns, observed $(of budget .observed)"
row gc_estimate "$(jq -n "($(of budget .ns) / $(of always .ns) - 1) | fabs")" 'off by' 'all steps timed' '' 0.20
row gc_cpu_always "$(more "$always" "$none")" 'more CPU' 'without probes' '' ''
row gc_cpu_budget "$(more "$budget" "$none")" 'more CPU' 'without probes' '' ''
row gc_cost_budget "$(of budget .cost)" 'of the CPU' 'calibrated' '' 0.013
