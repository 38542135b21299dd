#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Hundreds of workers: with slots for all of them every request is counted, wherever it goes; with
# too few the agent goes on, counts what it cannot watch, and says so.
source "$(dirname "$0")/lib.sh"

world_begin many
drain_options='  on_sigterm: never'
agent_options='probe:
  threads: 512'
write_config
start_nginx 300 || { echo "Bail out! nginx does not start"; exit 1; }
start_agent
workers() { agent_metric tidegate_workers; }
all_there() { [ "$(workers)" = 300 ]; }
wait_for 20 all_there; is "$(workers)" 300 "all workers are watched"
hey -n 2003 -c 1 -disable-keepalive "$gateway/fast" >"$world/hey.txt" 2>&1
counted() { [ "$(agent_metric tidegate_requests_total)" = 2003 ]; }
wait_for 10 counted; is "$(agent_metric tidegate_requests_total)" 2003 "each request is counted"
is "$(agent_metric tidegate_probe_lost_total)" "" "nothing was lost"
stop_agent; is $? 0 "the agent ends"
"$tidegate" agent --detach --config "$world/agent.yaml" 2>/dev/null

sed -i 's/threads: 512/threads: 64/' "$world/agent.yaml"
start_agent
lost() { agent_metric tidegate_probe_lost_total 'reason="threads"'; }
is_lost() { [ "$(lost)" = 237 ]; }
wait_for 10 is_lost; is "$(lost)" 237 "64 of master and 300 workers have a slot, the others are counted"
grep -q 'threads\? .*watched' "$world/agent.log"; ok $? "and said"
is "$(workers)" 63 "63 workers are watched"
curl -sf "$gateway/fast" >/dev/null; ok $? "nginx answers"
is "$(agent_metric tidegate_process_restarts_total 'process="keeper"' || echo 0)" 0 "the keeper lives"
tap_end
