#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How HTTP/2 requests end otherwise: clients that leave or give single streams up, a worker that is
# killed, and a reload under load, whose GOAWAY loses nothing. The keeper is killed in the middle: what
# was open goes on being followed.
source "$(dirname "$0")/lib.sh"

for tool in h2load nghttp curl; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin http2-ends
mkdir -p "$world/nginx/logs"
chmod 755 "$world/nginx"
cat >"$world/nginx/nginx.conf" <<CONF
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
worker_processes 1;
worker_shutdown_timeout 20s;
pid $world/nginx/nginx.pid;
error_log $world/nginx/logs/error.log warn;
events { worker_connections 1024; }
http {
	log_format codes '\$status \$request_method \$uri';
	access_log $world/nginx/logs/access.log codes;
	client_body_temp_path $world/nginx; proxy_temp_path $world/nginx;
	fastcgi_temp_path $world/nginx; uwsgi_temp_path $world/nginx; scgi_temp_path $world/nginx;
	keepalive_requests 1000000;
	lua_package_path "/usr/share/lua/5.1/?.lua;;";
	server {
		listen 127.0.0.1:$gateway_port http2;
		location = /hello { return 200 "hello\n"; }
		location = /sleep {
			content_by_lua_block {
				ngx.sleep((tonumber(ngx.var.arg_ms) or 100) / 1000)
				ngx.say("slept")
			}
		}
	}
}
CONF
h2() { curl -sf -o /dev/null --http2-prior-knowledge "$1"; }
nginx -p "$world/nginx/" -c "$world/nginx/nginx.conf" || { echo "Bail out! nginx does not start"; exit 1; }
wait_for 5 test -s "$world/nginx/nginx.pid"
nginx_pid=$(cat "$world/nginx/nginx.pid")
wait_for 5 h2 "$gateway/hello"
start_agent; ok $? "the agent sees the gateway"
log_before=$(access_log_lines)
total() { agent_metric tidegate_requests_total; }
in_flight_is() { agent_metric tidegate_requests_in_flight | awk -v want="$1" '{exit !($1 > want - 0.01 && $1 < want + 0.01)}'; }
is_metric() { [ "$(agent_metric "$1")" = "$2" ]; }

# Seven streams on one connection are seven requests in flight, and the keeper's death changes nothing.
h2load -n 7 -c 1 -m 7 "$gateway/sleep?ms=2000" >"$world/h2load.txt" 2>&1 &
load=$!
wait_for 5 in_flight_is 7; ok $? "seven streams of one connection are in flight"
kill -KILL "$(child_pid "$agent_pid" keeper)"
wait "$load"
is "$(grep -o '[0-9]* succeeded' "$world/h2load.txt")" "7 succeeded" "their client got them all"
wait_for 10 is_metric tidegate_requests_total 7; ok $? "they are counted, once, by the keeper that came after"
wait_for 5 in_flight_is 0; ok $? "and none is left in flight"

# A client that leaves.
timeout 1 nghttp -n "$gateway/sleep?ms=1500" "$gateway/sleep?ms=1501" "$gateway/sleep?ms=1502" >"$world/nghttp.txt" 2>&1
wait_for 10 is_metric tidegate_requests_aborted_total 3
is "$(agent_metric tidegate_requests_aborted_total)" 3 "streams of a client that left are aborted"
is "$(agent_metric tidegate_requests_lost_total)" 0 "and not lost"
wait_for 5 in_flight_is 0; ok $? "and none of them is left in flight"

# Reloads under load: old workers say GOAWAY. What was answered is in the log.
h2load -D 2 -c 5 -m 7 "$gateway/hello" >"$world/h2load.txt" 2>&1 &
load=$!
for _ in 1 2; do
	before=$(total)
	more() { [ "$(total)" -gt "$before" ]; }
	wait_for 5 more
	kill -HUP "$nginx_pid"
	# shellcheck disable=SC2154 # lib.sh sets it
	nghttp -n "$gateway/hello" >>"$world/nghttp.txt" 2>&1
done
wait "$load"
old_are_gone() { [ "$(pgrep -c -P "$nginx_pid")" = 1 ]; }
wait_for 10 old_are_gone
# nginx logs those whose client had left like the others.
logged() { echo $(($(access_log_lines) - log_before - 3)); }
agrees() { [ "$(total)" = "$(logged)" ]; }
wait_for 10 agrees
is "$(total)" "$(logged)" "reloads: counted as logged"
is "$(agent_metric tidegate_requests_lost_total)" 0 "reloads lose nothing"
is "$(agent_metric tidegate_requests_aborted_total)" 3 "and abort nothing"

# A worker that is killed loses what it had.
h2load -n 5 -c 1 -m 5 "$gateway/sleep?ms=20000" >"$world/h2load.txt" 2>&1 &
load=$!
wait_for 5 in_flight_is 5; ok $? "five are in flight"
kill -KILL "$(pgrep -P "$nginx_pid" | head -1)"
wait_for 10 is_metric tidegate_requests_lost_total 5
is "$(agent_metric tidegate_requests_lost_total)" 5 "streams of a worker that was killed are lost"
wait "$load"
is "$(agent_metric tidegate_probe_lost_total)" "" "the probes lost nothing"
tap_end
