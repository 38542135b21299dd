#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# With drain.on_sigterm: never, a restart of the agent under load touches neither the gateway's pid
# nor a single request, and counting goes on.
source "$(dirname "$0")/lib.sh"

world_begin restart
drain_options='  on_sigterm: never'
write_config
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"
pid_before=$nginx_pid workers_before=$(cat "/proc/$nginx_pid/task/$nginx_pid/children")

hey -n 30000 -c 20 -q 300 "$gateway/hello" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
for round in 1 2; do
	pause 1
	stop_agent; is $? 0 "stop $round ends with 0"
	pause 0.5
	start_agent; ok $? "start $round"
done
kill -0 $load; ok $? "the load ran all the while"
wait $load
is "$(cat "$world/nginx/nginx.pid")" "$pid_before" "the gateway's pid is the same"
is "$(cat "/proc/$nginx_pid/task/$nginx_pid/children")" "$workers_before" "and its workers'"
is "$(awk '/\[200\].*responses/{print $2}' "$world/hey.txt")" 30000 "every request was answered"
grep -q 'Error distribution' "$world/hey.txt"; is $? 1 "without an error"
all() { [ "$(fleet_metric tidegate_requests_total)" = 30000 ]; }
wait_for 15 all
is "$(fleet_metric tidegate_requests_total)" 30000 "and every one was counted (pinned probes)"
tap_end
