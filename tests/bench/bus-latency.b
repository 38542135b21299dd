#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From an agent's tick (its frame is made) to the message at a subscriber, through door, gate, commit
# to disk, core, gate and door: 1,000 standard agents at a tick of one second, spread over it, and one
# subscriber to everything, who must miss nothing.
source "$(dirname "$0")/lib.sh"

world_begin bench-bus
start_aggregator || exit 1
simulate --bus "tcp://127.0.0.1:$bus_port" 1000 20 || exit 1
echo "# $(simulated bus_messages) messages, $(simulated bus_missed) missed, p50 $(simulated bus_p50_ms) ms, most $(simulated bus_max_ms) ms"
echo "# CPU of the aggregator: $(ratio "$spent_ns" "$took_ns") cores"
row tick_to_subscriber_p99 "$(simulated bus_p99_ms)" ms "" "" 30
row tick_to_subscriber_missed "$(simulated bus_missed)" messages "" "" 0
world_end
