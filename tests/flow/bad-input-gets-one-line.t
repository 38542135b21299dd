#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What bad input gets: one clear line and the right exit code; with --sidecar nothing of it ends the
# process.
source "$(dirname "$0")/lib.sh"

world_begin bad
says() { # says CODE PATTERN NAME COMMAND...
	local code=$1 pattern=$2 name=$3 got
	shift 3
	timeout 20 "$@" >"$world/out" 2>"$world/err"
	got=$?
	is $got "$code" "$name: exit $code"
	grep -q -- "$pattern" "$world/err"; ok $? "$name: says $pattern"
	is "$(grep -c . "$world/err")" 1 "$name: in one line"
}
says 2 'did you mean `doctor`' "unknown verb" "$tidegate" docter
says 2 'did you mean `--config`' "unknown option" "$tidegate" agent --confg x
says 2 'did you mean `--json`' "unknown option of doctor" "$tidegate" doctor --jsn

printf 'agent:\n  id: x\ndrain:\n  dedline: 3s\n' >"$world/wrong.yaml"
says 2 'wrong.yaml:4.*`drain.deadline`' "unknown key" "$tidegate" agent --config "$world/wrong.yaml"
printf 'drain:\n  deadline: soon\n' >"$world/wrong.yaml"
says 2 'wrong.yaml:2' "bad value" "$tidegate" agent --config "$world/wrong.yaml"
says 2 'TIDEGATE_DRAIN_DEADLINE' "bad variable" env TIDEGATE_DRAIN_DEADLINE=never "$tidegate" config --agent
says 1 'agent' "no agent to drain" env TIDEGATE_RUNTIME_DIR="$run" "$tidegate" drain
says 1 "$run" "no segment" env TIDEGATE_RUNTIME_DIR="$run" "$tidegate" metrics

# A port in use: who holds it.
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
sed -i "s/address: 127.0.0.1:$aggregator_port/address: 127.0.0.1:$gateway_port/" "$world/aggregator.yaml"
timeout 20 "$tidegate" aggregator --config "$world/aggregator.yaml" 2>"$world/err"
is $? 1 "port in use: the aggregator ends with 1"
grep -q "$gateway_port.*nginx" "$world/err"; ok $? "port in use: says that nginx holds it"
write_config

# Not one of these ends a sidecar.
printf 'runtime_dir: %s\nagent:\n  id: %s\nhttp:\n  address: 127.0.0.1:%s\ndrain:\n  dedline: 3s\nspool:\n  dir: %s/spool\nbogus: 1\ngateways:\n  match: ["absent=/no/such/exe"]\n' \
	"$run" "$agent_id" "$gateway_port" "$world" >"$world/sidecar.yaml"
"$tidegate" agent --sidecar --config "$world/sidecar.yaml" 2>"$world/sidecar.log" &
agent_pid=$!
waits() { grep -q 'no gateway found' "$world/sidecar.log"; }
wait_for 10 waits; ok $? "a sidecar with wrong configuration runs, and says that it finds no gateway"
grep -q 'drain.dedline' "$world/sidecar.log"; ok $? "and names the wrong key"
pause 3
kill -0 "$agent_pid"; ok $? "and goes on running"
is "$(grep -c 'no gateway found' "$world/sidecar.log")" 1 "it said so once"
stop_agent; is $? 0 "and ends with 0 when told"

# The aggregator is away: one log line, not one a second; what was counted arrives later.
printf 'return {' >"$world/hooks/10-broken.lua"
drain_options='  on_sigterm: never'
write_config
start_agent; ok $? "the agent runs without an aggregator"
hey -n 500 -c 5 "$gateway/hello" >/dev/null
pause 3
[ "$(grep -c "$door_port" "$world/agent.log")" -le 2 ]; ok $? "and complains of it once"
grep -q '10-broken.lua:1' "$world/agent.log"; ok $? "a broken hook: file and line"
start_aggregator; ok $? "the aggregator comes"
has() { [ "$(fleet_metric tidegate_requests_total)" = 500 ]; }
wait_for 40 has; ok $? "and gets what was counted before"
timeout 20 "$tidegate" agent --config "$world/agent.yaml" 2>"$world/err"
is $? 1 "a second agent in one runtime directory ends with 1"
grep -q "in use by pid $agent_pid" "$world/err"; ok $? "and names the first"
tap_end
