#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 10,000 standard agents at a tick of one second over TLS, with certificates both ways. In their middle
# the door is killed: how long until every agent has an acknowledgement again, its tickets resumed, and
# whether a frame was lost, counted twice or forgotten.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/../flow/authority.sh"

count=${AGENTS:-10000}
world_begin bench-fleet-tls
authority_new ours
certificate door ours IP:127.0.0.1
certificate agent ours URI:tidegate://agent/
door_scheme=tls+tcp
sed -i "s|  address: tcp://127.0.0.1:$door_port|  address: $door_scheme://127.0.0.1:$door_port|" "$world/aggregator.yaml"
tls_section door >>"$world/aggregator.yaml"
start_aggregator || exit 1

simulate --tls "$world/agent" "$count" 12 || { tail "$world/simulated"; exit 1; }
row "fleet_tls_${count}_cpu" "$(ratio "$spent_ns" "$took_ns")" cores "" "" 2
row "fleet_tls_${count}_pss" "$(ratio "$memory_kb" 1000)" MB "" "" 1500
row "fleet_tls_${count}_ack_p99" "$(simulated ack_p99_ms)" ms "" "" ""
total=$(simulated total)

kill_door() {
	wait_for 100 grep -q '"steady"' "$world/simulated" && pause 3 && kill -KILL "$(child_pid "$aggregator_pid" door)"
}
rm -f "$world/simulated"
kill_door &
simulate --tls "$world/agent" "$count" 30 || { tail "$world/simulated"; exit 1; }
wait $!
seconds=$(sed -n 's/.*"live","seconds":\([0-9.]*\).*/\1/p' "$world/simulated")
echo "# $(simulated losses) connections lost, $(simulated frames) frames, acknowledged after at most $(simulated ack_max_ms) ms"
row "fleet_tls_${count}_live_after_door_killed" "$seconds" s "" "" 60
lost=$(($(simulated unacknowledged) + $(simulated overruns) + $(simulated refused)))
total=$((total + $(simulated total)))
[ "$(fleet_total)" = "$total" ] || { echo "# the fleet counts $(fleet_total), agents $total"; lost=$((lost + 1)); }
row "fleet_tls_${count}_frames_missing" "$lost" frames "" "" 0
world_end
