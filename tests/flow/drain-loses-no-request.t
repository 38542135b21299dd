#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SIGTERM to the agent under load: what is in flight completes, health checks delay nothing, and the
# gateway is gone afterwards.
source "$(dirname "$0")/lib.sh"

world_begin drain
drain_options='  deadline: 20s
  quiet: 1s
  on_sigterm: always'
write_config
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"

# Keep-alive load until the balancer (we) sees the drain, and 20 slow requests in the middle of it.
hey -z 60s -c 10 "$gateway/hello" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
slow=()
for i in $(seq 20); do
	curl -s -o /dev/null -w '%{http_code}\n' "$gateway/sleep?ms=4000" >"$world/slow.$i" &
	slow+=($!)
done
in_flight() { agent_metric tidegate_requests_in_flight_max | awk '{exit !($1 >= 20)}'; }
wait_for 5 in_flight; ok $? "twenty slow requests are in flight"
(while curl -s -o /dev/null "$gateway/healthz"; do read -rt 0.5 <> <(:) || true; done) &
world_pids+=($!)
kill -TERM "$agent_pid"
draining() { "$tidegate" metrics --segment "$run/host.seg" | grep -q '^tidegate_draining{.* 1$'; }
wait_for 5 draining; ok $? "the draining flag is up"
kill -INT $load; wait $load
wait "$agent_pid"; code=$?
agent_pid=''
is $code 0 "the agent ends with 0: nothing was lost"
wait "${slow[@]}"
is "$(cat "$world"/slow.* | grep -c '^200$')" 20 "every slow request got its whole answer"
wait_for 5 gone "$nginx_pid"; ok $? "nginx is gone"
event() { curl -sf "http://127.0.0.1:$aggregator_port/api/v1/events" | grep -q 'drain.end'; }
wait_for 5 event; ok $? "the aggregator has the report"
curl -sf "http://127.0.0.1:$aggregator_port/api/v1/events" >"$world/events.json"
report=$(jq -c '[.. | objects | select(has("in_flight_at_start"))][-1]' "$world/events.json")
note "$report"
is "$(jq .lost <<<"$report")" 0 "the report says that nothing was lost"
is "$(jq .forced <<<"$report")" false "nor forced"
[ "$(jq .in_flight_at_start <<<"$report")" -ge 20 ]; ok $? "it had at least twenty in flight at the start"
tap_end
