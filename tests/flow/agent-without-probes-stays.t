#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Where no probe can be loaded the keeper lives all the same: gateways are found, the system level is
# told, requests are absent and said to be unavailable.
source "$(dirname "$0")/lib.sh"

world_begin noprobes
agent_options='probe:
  tier: fentry
  bpffs: ""'
write_config
"$tidegate" doctor --json --config "$world/agent.yaml" >"$world/doctor.json" 2>/dev/null
[ "$(jq -r '.checks[] | select(.name == "syscalls") | .state' "$world/doctor.json")" = unavailable ] ||
	skip_all 'fentry works here, so that there is no way to have no probe'
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
"$tidegate" agent --config "$world/agent.yaml" >"$world/agent.log" 2>&1 &
agent_pid=$!
shown() { curl -sf "http://127.0.0.1:$agent_port/metrics" | grep -q '^tidegate_cpu_seconds_total{'; }
wait_for 10 shown; ok $? "the gateway is found and its CPU time told"
ticks() { curl -sf "http://127.0.0.1:$agent_port/metrics" | awk '/^tidegate_frames_total{state="built"}/{exit !($NF >= 5)}'; }
wait_for 15 ticks; ok $? "the agent goes on"
is "$(grep -c 'a process died' "$world/agent.log")" 0 "no process died"
grep -q 'no probe works' "$world/agent.log"; ok $? "and it is said why nothing is counted"
! curl -sf "http://127.0.0.1:$agent_port/metrics" | grep -q '^tidegate_requests_total'
ok $? "requests are absent, not 0"
tap_end
