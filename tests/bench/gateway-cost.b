#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# CPU time of a saturated nginx worker per request, with all always-on probes against without, one
# after the other in pairs; medians of the pairs' ratios, for each tier that loads here.
source "$(dirname "$0")/lib.sh"

world_begin bench-cost
pairs=${PAIRS:-7}
start_nginx 1 || exit 1
worker=$(children_of "$nginx_pid" | awk '{print $1}')

per_request() { # per_request PATH: ns of CPU a request
	local before after requests
	before=$(cpu_ns "$worker")
	requests=$(wrk -t1 -c16 -d2s "$gateway/$1" | awk '/requests in/{print $1}')
	after=$(cpu_ns "$worker")
	echo $(((after - before) / requests))
}
with_agent() {
	drain_options='  on_sigterm: never'
	agent_options="probe:
  tier: $1"
	write_config
	local before
	before=$(examined)
	start_agent
	# host.seg still shows what the agent before this one saw: the worker is watched once its
	# garbage collector was looked for.
	wait_for 5 watching "$before"
}
examined() { grep -c 'garbage collector found' "$world/agent.log" 2>/dev/null; }
watching() { [ "$(examined)" -gt "${1:-0}" ]; }
without_agent() {
	stop_agent
	"$tidegate" agent --detach --config "$world/agent.yaml"
}

best='' best100=''
for tier in fentry tp_btf raw_tp tracepoint; do
	with_agent $tier 2>/dev/null
	without_agent
	grep -q "name=syscalls how=$tier" "$world/agent.log" || { echo "# $tier does not load here"; continue; }
	for path in bench bench100; do
		: >"$world/ratios"
		for _ in $(seq "$pairs"); do
			off=$(per_request $path)
			with_agent $tier
			on=$(per_request $path)
			without_agent
			awk -v on="$on" -v off="$off" 'BEGIN {print on / off}' >>"$world/ratios"
		done
		ratio=$(median <"$world/ratios")
		row "gateway_cpu_per_request_${path}_$tier" "$on" ns "without probes ($off ns)" "$ratio" ""
		if [ $path = bench ]; then best="$best $ratio"; else best100="$best100 $ratio"; fi
	done
done
lowest() { tr ' ' '\n' | grep . | sort -g | head -1; }
row gateway_cpu_per_request_saturated "" ratio "without probes" "$(lowest <<<"$best")" 1.10
row gateway_cpu_per_request_100us "" ratio "without probes" "$(lowest <<<"$best100")" 1.02
world_end
