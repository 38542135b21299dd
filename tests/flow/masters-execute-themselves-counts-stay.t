#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nginx is upgraded under load: the old master forks, the child executes nginx anew and forks workers at
# once, the old ones leave. HAProxy's master accepts on its own socket and executes itself, which closes
# the connection without a call. Every request is counted, and no connection stays behind.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/talk.sh"

for tool in haproxy hey; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin exec
# It executes the path that it was started by.
nginx_path=$(type -P nginx)
nginx() { "$nginx_path" "$@"; }
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
# shellcheck disable=SC2034 # gateways.sh reads it
haproxy_options="-S $world/master.sock"
start_haproxy || { echo "Bail out! haproxy does not start"; exit 1; }
# shellcheck disable=SC2154 # gateways.sh and lib.sh set them
match_gateways "nginx=nginx:$gateway_port" "haproxy=haproxy:$haproxy_port"
start_agent
of() { agent_metric "tidegate_$1" "gateway=\"$2\""; }
is_of() { [ "$(of "$1" "$2")" = "$3" ]; }
wait_for 10 is_of workers nginx 2; is "$(of workers nginx)" 2 "nginx is watched"
wait_for 10 is_of workers haproxy 2; is "$(of workers haproxy)" 2 "HAProxy is watched"

# ---- nginx: twice, and each time the old master leaves ----
hey -n 4000 -c 8 -q 100 "$gateway/hello" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
counting() { [ "$(of requests_total nginx)" -gt "$1" ]; }
upgraded() { [ -s "$world/nginx/nginx.pid.oldbin" ] && [ -s "$world/nginx/nginx.pid" ] &&
	[ "$(cat "$world/nginx/nginx.pid")" != "$nginx_pid" ]; }
for each in first second; do
	wait_for 10 counting "$([ $each = first ] && echo 100 || echo 1000)"
	kill -USR2 "$nginx_pid"
	wait_for 10 upgraded; ok $? "$each upgrade: there is a new master"
	old=$nginx_pid
	nginx_pid=$(cat "$world/nginx/nginx.pid")
	kill -QUIT "$old"
	wait_for 10 gone "$old"; ok $? "and the old one leaves"
done
kill -0 $load; ok $? "while the load ran"
wait $load
is "$(client_count "$world/hey.txt" 200)" 4000 "the client saw every answer"
wait_for 10 is_of requests_total nginx 4000
is "$(of requests_total nginx)" 4000 "and each is counted once"
is "$(access_log_lines /hello)" 4000 "as the log has it"
is "$(of requests_lost_total nginx)" 0 "none lost"
wait_for 10 is_of connections_open nginx 0
is "$(of connections_open nginx)" 0 "no connection stays behind"
wait_for 10 is_of workers nginx 2; is "$(of workers nginx)" 2 "the new master is no worker"

# ---- HAProxy: its master's own connection ----
workers() { pgrep -P "$1" | sort | xargs; }
workers_changed() { local now; now=$(workers "$haproxy_pid") && [ -n "$now" ] && [ "$now" != "$was" ]; }
was=$(workers "$haproxy_pid")
talk open cli "$world/master.sock"
talk send cli 'prompt\n'; ok $? "HAProxy's master is asked"
wait_for 10 is_of connections_open haproxy 1; is "$(of connections_open haproxy)" 1 "on a connection of its own"
kill -USR2 "$haproxy_pid"
wait_for 10 workers_changed; ok $? "it executes itself"
wait_for 10 is_of connections_open haproxy 0; is "$(of connections_open haproxy)" 0 "the connection is gone"
hey -n 503 -c 3 "$haproxy/hello" >"$world/haproxy.txt" 2>&1
total=$(client_count "$world/haproxy.txt" 200)
wait_for 10 is_of requests_total haproxy "$total"
is "$(of requests_total haproxy)" "$total" "and requests are counted"
tap_end
