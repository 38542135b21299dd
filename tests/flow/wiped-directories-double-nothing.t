#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Under load the supervisor is killed, the spool is wiped, files of the runtime directory are removed,
# then all of it: nothing is lost, nothing counted twice. Only who removes host.seg and kills the
# keeper before that has put it back loses what nobody else knew, and that is never counted twice.
source "$(dirname "$0")/lib.sh"

world_begin wiped
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"

total=0
fleet_has() { [ "$(fleet_metric tidegate_requests_total)" = "$1" ]; }
load_begin() {
	hey -n 6000 -c 10 -q 200 "$gateway/hello" >"$world/hey.txt" 2>&1 &
	load=$!
	world_pids+=("$load")
	pause 0.8
}
load_end() {
	wait $load
	total=$((total + $(awk '/\[200\].*responses/{print $2}' "$world/hey.txt")))
}
nothing_lost() { # nothing_lost WHAT
	load_end
	wait_for 20 fleet_has $total
	pause 1.2
	is "$(fleet_metric tidegate_requests_total)" $total "$1: nothing lost, nothing doubled"
}
kill_child() { kill -KILL "$(child_pid "$agent_pid" "$1")"; }
children_of() { cat "/proc/$1/task/$1/children"; }

load_begin
read -ra orphans <<<"$(children_of "$agent_pid")"
kill -KILL "$agent_pid" && wait "$agent_pid" 2>/dev/null
"$tidegate" agent --config "$world/agent.yaml" >>"$world/agent.log" 2>&1 &
agent_pid=$!
nothing_lost "supervisor killed, a new agent started at once"
living=0
for pid in "${orphans[@]}"; do gone "$pid" || living=$((living + 1)); done
is $living 0 "the processes of the killed one have ended"
! gone "$agent_pid"; ok $? "and the new one runs"

load_begin
rm -rf "$world/spool"
kill_child courier
nothing_lost "spool directory removed, courier killed"

load_begin
rm -f "$world"/spool/*
kill_child courier
nothing_lost "spool files removed, courier killed"

load_begin
rm -f "$run/host.seg" "$run/app.seg" "$run/incarnation"
there() { [ -s "$run/host.seg" ] && [ -s "$run/app.seg" ] && [ -s "$run/incarnation" ]; }
wait_for 10 there; ok $? "removed segments come back"
kill_child keeper
kill_child courier
nothing_lost "segments removed, then keeper and courier killed"

load_begin
rm -rf "$run"
there_again() { there && [ -S "$run/control.sock" ] && agent_sees_gateway; }
wait_for 15 there_again; ok $? "a removed runtime directory comes back"
nothing_lost "runtime directory removed"

load_begin
rm -f "$run/host.seg"
kill_child keeper
load_end
falls=0 last=0
for _ in 1 2 3 4 5 6 7 8; do
	now=$(fleet_metric tidegate_requests_total)
	[ "$now" -ge "$last" ] || falls=$((falls + 1))
	last=$now
	pause 0.4
done
is $falls 0 "host.seg removed, keeper killed: the fleet's counter never falls"
[ "$last" -le $total ]; ok $? "and counts nothing twice ($last of $total)"
total=$last
load_begin
kill_child courier
nothing_lost "and goes on exactly"
tap_end
