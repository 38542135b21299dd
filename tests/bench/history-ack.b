#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What history costs those who wait for an acknowledgement: 1,000 standard agents at one second a
# tick, with a history and without, each for as long as it takes until a minute of all of them has
# been written. CPU and memory are those of all processes of the aggregator.
source "$(dirname "$0")/lib.sh"

agents=1000 seconds=90
declare -A p99 cpu memory written
for bytes in 8GiB 0; do
	world_begin bench-history
	sed -i "s|^fleet:|fleet:\n  history_bytes: $bytes|" "$world/aggregator.yaml"
	start_aggregator && simulate $agents $seconds || exit 1
	[ "$(simulated unacknowledged)$(simulated refused)" = 00 ] || exit 1
	p99[$bytes]=$(simulated ack_p99_ms)
	cpu[$bytes]=$(ratio $((spent_ns * 100)) "$took_ns")
	memory[$bytes]=$((memory_kb / 1024))
	written[$bytes]=$(fleet_metric tidegate_aggregator_history_frames_total 'state="written"')
	echo "# history_bytes $bytes: p99 ${p99[$bytes]} ms, ${written[$bytes]:-no} frames in the database"
	world_end
done
[ "${written[8GiB]}" -gt 0 ] || { echo 'bench: no minute was written' >&2; exit 1; }
row history_ack_p99 "${p99[8GiB]}" ms "without (${p99[0]} ms)" "$(ratio "${p99[8GiB]}" "${p99[0]}")" ""
row history_cpu_1000_agents "${cpu[8GiB]}" "% of a core" "without (${cpu[0]} %)" \
	"$(ratio "${cpu[8GiB]}" "${cpu[0]}")" ""
row history_memory_1000_agents "${memory[8GiB]}" MB "without (${memory[0]} MB)" \
	"$(ratio "${memory[8GiB]}" "${memory[0]}")" ""
