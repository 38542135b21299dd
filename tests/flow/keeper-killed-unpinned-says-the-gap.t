#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Without bpffs nothing counts while the keeper is away: the counter goes on from where it was, never
# falls, never counts twice, and how long nothing was counted is a counter too.
source "$(dirname "$0")/lib.sh"

world_begin unpinned
agent_options='probe:
  bpffs: ""'
write_config
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"
gap() { agent_metric tidegate_probe_gap_seconds_total; }
fleet_has() { [ "$(fleet_metric tidegate_requests_total)" = "$1" ]; }
hey -n 2003 -c 1 "$gateway/hello" >/dev/null 2>&1
wait_for 5 fleet_has 2003; ok $? "counted before"
is "$(gap)" "" "no gap yet: the metric is absent"
before=$(child_pid "$agent_pid" keeper)
kill -KILL "$before"
another() { local now; now=$(child_pid "$agent_pid" keeper) && [ "$now" != "$before" ]; }
wait_for 10 another
gap_known() { gap | awk '$1 > 0 && $1 < 20 {seen = 1} END {exit !seen}'; }
wait_for 10 gap_known; ok $? "the gap is counted: $(gap) s"
is "$(fleet_metric tidegate_requests_total)" 2003 "nothing fell, nothing doubled"
hey -n 1009 -c 1 "$gateway/hello" >/dev/null 2>&1
wait_for 5 fleet_has 3012; ok $? "counted on: $(fleet_metric tidegate_requests_total)"
kill -KILL "$(child_pid "$agent_pid" courier)"
pause 2
is "$(fleet_metric tidegate_requests_total)" 3012 "also after the courier was killed"
tap_end
