#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# CPU and memory of all processes of an agent that watches eight workers at a tick of one second
# under load, beside node_exporter that is scraped as often, in the same run.
source "$(dirname "$0")/lib.sh"

world_begin bench-agent
drain_options='  on_sigterm: never'
write_config
start_nginx 8 || exit 1
start_aggregator || exit 1
start_agent || exit 1
new_port
peer=''
if command -v prometheus-node-exporter >/dev/null; then
	prometheus-node-exporter --web.listen-address="127.0.0.1:$port" >/dev/null 2>&1 &
	peer=$!
	world_pids+=("$peer")
fi
wrk -t1 -c16 -d22s -R 2>/dev/null "$gateway/bench" >/dev/null || wrk -t1 -c16 -d22s "$gateway/bench" >/dev/null &
world_pids+=($!)
pause 4
agents="$agent_pid $(children_of "$agent_pid")"
# shellcheck disable=SC2086
before=$(cpu_ns $agents) peer_before=$(cpu_ns ${peer:-1})
start=$(date +%s%N)
for _ in $(seq 15); do
	[ -n "$peer" ] && curl -s -o /dev/null "http://127.0.0.1:$port/metrics"
	pause 1
done
# shellcheck disable=SC2086
after=$(cpu_ns $agents) peer_after=$(cpu_ns ${peer:-1})
elapsed=$(($(date +%s%N) - start))
# shellcheck disable=SC2086
pss=$(pss_kb $agents)
row agent_cpu "$(awk -v a="$before" -v b="$after" -v t=$elapsed 'BEGIN {printf "%.3f", 100 * (b - a) / t}')" \
	"% of a core" "" "" 0.5
row agent_pss "$(awk -v k="$pss" 'BEGIN {printf "%.2f", k / 1000}')" MB "" "" 12
if [ -n "$peer" ]; then
	peer_pss=$(pss_kb "$peer")
	row agent_pss_to_node_exporter "$(awk -v k="$pss" 'BEGIN {printf "%.2f", k / 1000}')" MB \
		"node_exporter ($(awk -v k="$peer_pss" 'BEGIN {printf "%.1f", k / 1000}') MB)" \
		"$(awk -v a="$pss" -v b="$peer_pss" 'BEGIN {printf "%.2f", a / b}')" ""
	row agent_cpu_to_node_exporter "$(((after - before) / 15000))" "us/s" \
		"node_exporter ($(((peer_after - peer_before) / 15000)) us/s)" \
		"$(awk -v a=$((after - before)) -v b=$((peer_after - peer_before)) 'BEGIN {printf "%.2f", a / (b ? b : 1)}')" ""
fi
for pid in $agents; do
	echo "# $(cat "/proc/$pid/comm") $(pss_kb "$pid") kB"
done
row bytes_per_sample_live \
	"$(curl -s "http://127.0.0.1:$aggregator_port/api/v1/agents" | jq '[.. | .bytes_per_sample? // empty][0]')" \
	byte "" "" ""
world_end
