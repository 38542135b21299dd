#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the kernel tells of requests is what the client did and what the access log says, exactly.
source "$(dirname "$0")/lib.sh"

world_begin counts
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"
log_before=$(access_log_lines)

hey -n 20000 -c 20 "$gateway/hello" >"$world/hey.txt" 2>&1
hey -n 997 -c 1 "$gateway/nope" >>"$world/hey.txt" 2>&1
hey -n 101 -c 1 -m POST -d 'a body of some bytes' "$gateway/fast" >>"$world/hey.txt" 2>&1
hey -n 103 -c 1 -m HEAD "$gateway/hello" >>"$world/hey.txt" 2>&1
hey -n 211 -c 1 -disable-keepalive "$gateway/hello" >>"$world/hey.txt" 2>&1
total=$((20000 + 997 + 101 + 103 + 211))

counted() { [ "$("$1" tidegate_requests_total)" = "$total" ]; }
wait_for 10 counted agent_metric
is "$(agent_metric tidegate_requests_total)" $total "the agent counts every request of the client"
is $(($(access_log_lines) - log_before)) $total "the access log has as many lines"
is "$(agent_metric tidegate_requests_total 'method="GET",code="200"')" 20211 "GET 200"
is "$(agent_metric tidegate_requests_total 'code="404"')" 997 "404"
is "$(agent_metric tidegate_requests_total 'method="POST"')" 101 "POST"
is "$(agent_metric tidegate_requests_total 'method="HEAD"')" 103 "HEAD"
wait_for 10 counted fleet_metric
is "$(fleet_metric tidegate_requests_total)" $total "the fleet's count is the agent's"
is "$(fleet_metric tidegate_request_duration_seconds_count)" $total "each request has its duration"
is "$(agent_metric tidegate_requests_lost_total)" 0 "nothing was lost"
is "$("$tidegate" metrics --segment "$run/host.seg" |
	awk '/^tidegate_requests_total[{]/{s += $NF} END{print s}')" $total \
	"tidegate metrics reads the same without the agent"

hey -z 2s -c 8 "$gateway/sleep?ms=50" >"$world/sleep.txt" 2>&1 &
world_pids+=($!)
in_flight() {
	agent_metric tidegate_requests_in_flight | awk '{exit !($1 > 6 && $1 < 8.5)}'
}
wait_for 4 in_flight; ok $? "eight sleepers are about eight requests in flight"
tap_end
