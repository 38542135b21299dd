#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What 10, 100, 1,000 and 10,000 standard agents at a tick of one second cost a fresh aggregator: CPU
# and memory of all its processes, and how long an acknowledgement takes, commit to disk included.
# With 10,000: no frame may be lost, late beyond the simulator's window, or counted wrongly.
source "$(dirname "$0")/lib.sh"

stop_aggregator() {
	kill -TERM "$aggregator_pid" && wait "$aggregator_pid"
	aggregator_pid=''
	rm -rf "${world:?}/data"
}

seconds=12
world_begin bench-growth
for agents in 10 100 1000 10000; do
	start_aggregator || exit 1
	simulate $agents $seconds || exit 1
	frames=$(($(simulated samples) / 104))
	cores=$(ratio "$spent_ns" "$took_ns")
	mb=$(ratio "$memory_kb" 1000)
	lost=$(($(simulated unacknowledged) + $(simulated overruns) + $(simulated refused) + $(simulated timeouts)))
	[ "$(fleet_total)" = "$(simulated total)" ] || lost=$((lost + 1))
	echo "# $agents agents: $frames frames, $(simulated losses) connections lost, simulator $(simulated simulator_cpu_s) s of CPU"
	row "fleet_${agents}_cpu_a_frame" "$(ratio "$((spent_ns / 1000))" "$frames")" us "" "" ""
	row "fleet_${agents}_pss" "$mb" MB "" "" "$([ $agents = 10000 ] && echo 1500)"
	row "fleet_${agents}_cpu" "$cores" cores "" "" "$([ $agents = 10000 ] && echo 2)"
	row "fleet_${agents}_ack_p99" "$(simulated ack_p99_ms)" ms "" "" ""
	row "fleet_${agents}_frames_missing" "$lost" frames "" "" 0
	stop_aggregator
done
world_end
