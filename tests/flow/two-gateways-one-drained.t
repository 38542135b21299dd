#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two gateways of one executable, told apart by their ports: each counted under its name; one is
# drained by name, taken back, and drained again: the other never notices, the flag never flaps.
source "$(dirname "$0")/lib.sh"

world_begin two
new_port; second_port=$port
drain_options='  deadline: 10s
  quiet: 1s'
write_config
# shellcheck disable=SC2154
sed -i "s|match: .*|match: [\"web=nginx:$gateway_port\", \"api=nginx:$second_port\"]|" \
	"$world/agent.yaml"
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
first_pid=$nginx_pid
mkdir -p "$world/second/logs" "$world/second/body"
sed -e "s|$gateway_port|$second_port|" -e "s|$world/nginx|$world/second|g" \
	"$world/nginx/nginx.conf" >"$world/second/nginx.conf"
nginx -p "$world/second/" -c "$world/second/nginx.conf" 2>/dev/null
wait_for 5 test -s "$world/second/nginx.pid"
second_pid=$(cat "$world/second/nginx.pid")
world_pids+=("$second_pid")
start_aggregator; ok $? "the aggregator is ready"
start_agent
both() { agent_metric tidegate_workers gateway=.api && agent_metric tidegate_workers gateway=.web; }
wait_for 10 both; ok $? "both gateways are found, by one executable and two ports"

hey -n 1009 -c 1 "$gateway/hello" >/dev/null 2>&1
hey -n 503 -c 1 "http://127.0.0.1:$second_port/hello" >/dev/null 2>&1
counts() {
	[ "$(agent_metric tidegate_requests_total 'gateway="web"')" = 1009 ] &&
		[ "$(agent_metric tidegate_requests_total 'gateway="api"')" = 503 ]
}
wait_for 5 counts; ok $? "each counts its own requests"

hey -z 20s -c 1 -q 20 "http://127.0.0.1:$second_port/hello" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
agent_config=(--config "$world/agent.yaml")
"$tidegate" drain "${agent_config[@]}" --gateway api --json >"$world/taken-back" 2>&1 &
drain=$!
draining() {
	"$tidegate" metrics --segment "$run/host.seg" |
		grep -q "^tidegate_draining{gateway=\"$1\".* $2\$"
}
wait_for 5 draining api 1; ok $? "draining one by name raises its flag"
draining web 0; ok $? "and only its flag"
"$tidegate" undrain "${agent_config[@]}" --gateway api >/dev/null; ok $? "it is taken back"
wait $drain; is $? 0 "which the drain that waited calls no loss"
is "$(jq .undrained "$world/taken-back")" true "and tells"
"$tidegate" drain "${agent_config[@]}" --gateway api --json >"$world/drained" 2>&1
is $? 0 "drained again: nothing lost"
is "$(jq .lost "$world/drained")" 0 "so it says"
# Once on and once off for each drain.
is "$(grep -c 'draining gateway=api' "$world/agent.log")" 4 \
	"the flag went up and down twice, and never flapped"
wait_for 5 gone "$second_pid"; ok $? "the drained one is gone"
! gone "$first_pid" && curl -sf "$gateway/hello" >/dev/null; ok $? "the other answers"
"$tidegate" drain "${agent_config[@]}" --gateway nope 2>"$world/nope"
is $? 1 "an unknown gateway is an error"
grep -q 'there are: .*web' "$world/nope"; ok $? "that names those that are known"
tap_end
