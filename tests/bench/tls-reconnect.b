#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 10,000 agents over TLS, with certificates both ways: all at once, after the door was killed (their
# tickets still hold) and after the whole aggregator was (they do not). What agents do is on the same
# two cores: they compute as much as the door.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/../flow/authority.sh"

count=${CROWD:-10000}
world_begin bench-tls
authority_new ours
certificate door ours IP:127.0.0.1
certificate agent ours URI:tidegate://agent/
sed -i "s|  address: tcp://127.0.0.1:$door_port|  address: tls+tcp://127.0.0.1:$door_port|" "$world/aggregator.yaml"
tls_section door >>"$world/aggregator.yaml"
start_aggregator || exit 1
mkfifo "$world/end"
exec {end}<>"$world/end"

ready() { [ "$(grep -c ready "$world/crowd")" -ge "$1" ]; }
door_cpu() { cpu_ns "$(child_pid "$aggregator_pid" door)"; }
# measure NAME ROUND CPU-BEFORE: prints two rows.
measure() {
	local line seconds cpu kb
	wait_for 120 ready "$2" || { echo "bench: not all of $count are back" >&2; exit 1; }
	line=$(sed -n "$2p" "$world/crowd") cpu=$(($(door_cpu) - $3))
	seconds=$(jq .seconds <<<"$line")
	kb=$(pss_kb "$(child_pid "$aggregator_pid" door)")
	echo "# $1: $line, door $(ratio $cpu 1000000000) s of CPU, $kb kB"
	row "tls_reconnect_$1" "$seconds" s "" "" 60
	row "tls_handshake_$1" "$(ratio "$cpu" "$((count * 1000000))")" ms "" "" ""
}

before=$(door_cpu)
"$BUILD/tests/bench/load/crowd" "tls+tcp://127.0.0.1:$door_port" "$world/agent" "$count" \
	<"$world/end" >"$world/crowd" 2>"$world/crowd.err" &
world_pids+=($!)
measure first 1 "$before"

kill -KILL "$(child_pid "$aggregator_pid" door)"
measure resumed 2 0
row tls_resumed_after_door_killed "$(sed -n 2p "$world/crowd" | jq .resumed)" connections "" "" ""

# The supervisor first, or it would start them again.
for pid in "$aggregator_pid" $(children_of "$aggregator_pid"); do kill -KILL "$pid"; done
wait "$aggregator_pid" 2>/dev/null
start_aggregator || exit 1
measure full 3 0
echo "# refused: $(curl -s "http://127.0.0.1:$aggregator_port/metrics" | grep '^tidegate_door_refused' | grep -v ' 0$' | tr '\n' ' ')"
world_end
