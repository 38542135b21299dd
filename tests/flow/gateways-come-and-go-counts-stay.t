#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nginx and HAProxy are reloaded under load, a worker is killed, a master is replaced by another: no
# counter falls at any moment, and in the end the counts are what the clients saw and the logs say.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"

for tool in haproxy hey; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin life
# Each worker has a listener of its own, so that both have connections.
nginx_edit='s/backlog=511/backlog=511 reuseport/'
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_haproxy || { echo "Bail out! haproxy does not start"; exit 1; }
match_gateways "nginx=nginx:$gateway_port" "haproxy=haproxy:$haproxy_port"
start_agent
both() { agent_metric tidegate_workers nginx && agent_metric tidegate_workers haproxy; }
wait_for 10 both; ok $? "the agent sees both gateways"
polls_begin

of() { agent_metric "tidegate_$1" "gateway=\"$2\"${3:+.*$3}"; }
reaches() { [ "$(of requests_total "$1")" = "$2" ]; }
workers() { pgrep -P "$1" | sort | xargs; }
workers_changed() { local now; now=$(workers "$1") && [ -n "$now" ] && [ "$now" != "$2" ]; }

# ---- reloads ----
# A reload closes idle connections; GET is tried again by the client, so each is answered once.
# shellcheck disable=SC2154 # gateways.sh and lib.sh set them
{
	hey -n 4000 -c 8 -q 300 "$gateway/hello" >"$world/nginx.txt" 2>&1 & nginx_load=$!
	hey -n 4000 -c 8 -q 300 "$haproxy/hello" >"$world/haproxy.txt" 2>&1 & haproxy_load=$!
	world_pids+=("$nginx_load" "$haproxy_load")
	for _ in 1 2; do
		pause 0.4
		nginx_was=$(workers "$nginx_pid") haproxy_was=$(workers "$haproxy_pid")
		kill -HUP "$nginx_pid"
		kill -USR2 "$haproxy_pid"
		wait_for 10 workers_changed "$nginx_pid" "$nginx_was" &&
			wait_for 10 workers_changed "$haproxy_pid" "$haproxy_was"
		ok $? "both have new workers"
	done
	kill -0 $nginx_load && kill -0 $haproxy_load; ok $? "while the load ran"
	wait $nginx_load $haproxy_load
}
for each in nginx haproxy; do
	is "$(client_count "$world/$each.txt" 200)" 4000 "$each: the client saw every answer"
	wait_for 10 reaches $each 4000
	is "$(of requests_total $each)" 4000 "$each: and each is counted once"
	is "$(of requests_lost_total $each)" 0 "$each: none lost"
done

# ---- a worker is killed with requests in its hands ----
# POST is not tried again, so the client's errors are what was lost.
twenty_in_flight() { of requests_in_flight nginx | awk '{exit !($1 > 19.5)}'; }
accepts=$(of accepts_total nginx)
accepted() { [ "$(of accepts_total nginx)" = $((accepts + 20)) ]; }
hey -n 20 -c 20 -m POST -d x "$gateway/sleep?ms=4000" >"$world/killed.txt" 2>&1 &
load=$!
world_pids+=("$load")
wait_for 10 accepted && wait_for 10 twenty_in_flight; ok $? "twenty requests wait in two workers"
victim=$(workers "$nginx_pid" | cut -d' ' -f1)
kill -KILL "$victim"
wait $load
errors=$(client_errors "$world/killed.txt")
answered=$(client_count "$world/killed.txt" 200)
[ "$errors" -gt 0 ] && [ "$answered" -gt 0 ]; ok $? "the client noticed, and not with each"
is $(($errors + answered)) 20 "a killed worker: $answered answered, $errors errors"
wait_for 10 reaches nginx $((4000 + answered))
is "$(of requests_total nginx)" $((4000 + answered)) "what was answered is counted"
lost_as_many() { [ "$(of requests_lost_total nginx)" = "$errors" ]; }
wait_for 10 lost_as_many
is "$(of requests_lost_total nginx)" "$errors" "the client's errors are lost requests"

# ---- another master, another nginx ----
kill -TERM "$nginx_pid"
wait_for 10 gone "$nginx_pid"
start_nginx 1 || { echo "Bail out! nginx does not start again"; exit 1; }
workers_one() { [ "$(of workers nginx)" = 1 ]; }
wait_for 10 workers_one; ok $? "another master with one worker is found"
before=$(of requests_total nginx)
hey -n 1009 -c 1 "$gateway/hello" >"$world/again.txt" 2>&1
wait_for 10 reaches nginx $((before + 1009)); ok $? "and counted on top: $(of requests_total nginx)"

# ---- the other is killed whole ----
hey -n 3 -c 3 -m POST -d x "$haproxy/sleep?ms=9000" >"$world/whole.txt" 2>&1 &
load=$!
three_in_flight() { of requests_in_flight haproxy | awk '{exit !($1 > 2.9)}'; }
wait_for 10 three_in_flight; ok $? "three requests wait in HAProxy"
for victim in $(workers "$haproxy_pid"); do kill -KILL "$victim"; done
wait_for 10 gone "$haproxy_pid"; ok $? "its master goes with its worker"
wait $load
lost_three() { [ "$(of requests_lost_total haproxy)" = 3 ]; }
wait_for 10 lost_three; is "$(of requests_lost_total haproxy)" 3 "they are lost"
polls_end
[ "$(polls_count)" -gt 20 ]; ok $? "the numbers were read $(polls_count) times"
is "$(polls_fallen | head -3)" "" "no counter ever fell"
tap_end
