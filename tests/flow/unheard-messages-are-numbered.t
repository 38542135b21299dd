#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# While nobody subscribes the aggregator builds no messages; it numbers them all the same, so that who
# comes back knows how many were missed.
source "$(dirname "$0")/lib.sh"
world_begin unheard
start_aggregator; ok $? "the aggregator is ready"
"$tidegate" agent --config "$world/agent.yaml" >>"$world/agent.log" 2>&1 &
agent_pid=$!

# Of the agent's own series: one message a frame.
sequences() { # sequences N
	timeout 60 "$tidegate" tail "tcp://127.0.0.1:$bus_port" --json --topic "metrics/-/$agent_id" --count "$1" |
		jq -r .sequence
}
first=$(sequences 3 | paste -sd ' ')
read -r a b c <<<"$first"
[ "$((a + 1)) $((a + 2))" = "$b $c" ]; ok $? "a subscriber gets one message after the other: $first"

nobody() { [ "$(fleet_metric tidegate_door_connections 'subscriber')" = 0 ]; }
wait_for 10 nobody; ok $? "nobody subscribes"
frames() { fleet_metric tidegate_aggregator_frames_total 'state="applied"'; }
before=$(frames)
enough() { [ "$(frames)" -ge $((before + 3)) ]; }
wait_for 20 enough; ok $? "frames come all the same"
passed=$(frames)
again=$(sequences 1)
[ "$again" -ge $((c + 1 + passed - before)) ]
ok $? "what nobody heard is numbered: after $c comes $again, $((passed - before)) frames or more later"
tap_end
