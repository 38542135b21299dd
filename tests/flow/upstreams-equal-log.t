#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the kernel tells of nginx's upstreams is what nginx logs of them: answers one by one, their
# time, and each upstream that refuses, hangs, leaves or breaks off. A client that leaves is no fault of
# theirs. The keeper is killed in between.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/tls.sh"
source "$(dirname "$0")/upstreams.sh"

world_begin upstream
start_backend || { echo "Bail out! the backend does not start"; exit 1; }
new_port; dead_port=$port
front=$world/nginx
mkdir -p "$front/logs" "$front/body"
chmod 755 "$front"
cat >"$front/nginx.conf" <<CONF
worker_processes 2;
pid $front/nginx.pid;
error_log $front/logs/error.log crit;
events { worker_connections 512; }
http {
	log_format up '\$upstream_addr \$upstream_status \$upstream_response_time \$status';
	access_log $front/logs/access.log up;
	client_body_temp_path $front/body;
	client_body_buffer_size 8k;
	proxy_temp_path $front/body;
	fastcgi_temp_path $front/body;
	uwsgi_temp_path $front/body;
	scgi_temp_path $front/body;
	keepalive_requests 1000000;
	upstream kept { server 127.1.0.1:$backend_port; keepalive 8; keepalive_requests 1000000; }
	upstream secret { server 127.1.0.10:$backend_tls_port; keepalive 8; }
	proxy_next_upstream off;
	server {
		listen 127.0.0.1:$gateway_port;
		location /kept/ {
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_pass http://kept/;
		}
		location /once/ { proxy_pass http://127.1.0.2:$backend_port/; }
		location /slow/ { proxy_pass http://127.1.0.3:$backend_port/; }
		location /dead/ { proxy_pass http://127.1.0.4:$dead_port/; }
		location /hang/ { proxy_read_timeout 300ms; proxy_pass http://127.1.0.5:$backend_port/; }
		location /gone/ { proxy_pass http://127.1.0.6:$backend_port/gone; }
		location /half/ { proxy_buffering off; proxy_pass http://127.1.0.7:$backend_port/half; }
		location /left/ { proxy_pass http://127.1.0.8:$backend_port/; }
		location /secret/ { proxy_pass https://127.1.0.9:$backend_tls_port/; }
		location /kept-secret/ {
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_pass https://secret/;
		}
		location /many/ { proxy_pass http://127.1.1.\$arg_n:$backend_port/fast; }
		location /fast { return 200 "fast\n"; }
	}
}
CONF
nginx -p "$front/" -c "$front/nginx.conf" >"$front/start.log" 2>&1 || {
	sed 's/^/# /' "$front/start.log"
	echo "Bail out! nginx does not start"
	exit 1
}
wait_for 5 test -s "$front/nginx.pid"
nginx_pid=$(cat "$front/nginx.pid")
# Connections that are kept now are used again when the agent is there.
hey -n 40 -c 8 "$gateway/kept/sleep?ms=20" >"$world/hey.txt" 2>&1
kept_before=$(backend_lines 127.1.0.1)
start_agent; ok $? "the agent sees the gateway"
log_sum() { awk -v a="$1" 'index($1, a ":") == 1 {s += $3} END {print s + 0}' "$front/logs/access.log"; }
load() { hey "$@" >>"$world/hey.txt" 2>&1; }

load -n 1996 -c 4 "$gateway/kept/hello"
load -n 53 -c 1 -m POST -d "$(printf '%20000s' x)" "$gateway/kept/fast"
load -n 101 -c 1 -m HEAD "$gateway/kept/hello"
load -n 498 -c 2 "$gateway/once/hello"
is_upstream seconds_count 127.1.0.1 $((1996 + 53 + 101)) "each answer over kept connections"
is $(($(backend_lines 127.1.0.1) - kept_before)) $((1996 + 53 + 101)) "and the backend logged as many"
is_upstream seconds_count 127.1.0.2 498 "each answer over a connection of its own"
is_upstream connect_seconds_count 127.1.0.2 498 "each of those connections"
[ "$(upstream_count connect_seconds_count 127.1.0.1)" -le 16 ]; ok $? "few connections were kept"

load -n 97 -c 1 "$gateway/secret/hello"
load -n 202 -c 2 "$gateway/kept-secret/hello"
secret_is() { [ "$(agent_metric tidegate_upstream_seconds_count "127.1.0.$1:$backend_tls_port")" = "$2" ]; }
wait_for 10 secret_is 9 97; ok $? "each answer inside TLS"
wait_for 10 secret_is 10 202; ok $? "and over kept TLS connections"
load -n 30 -c 10 "$gateway/slow/sleep?ms=200"
is_upstream seconds_count 127.1.0.3 30 "each slow answer"
awk -v ours="$(upstream_count seconds_sum 127.1.0.3)" -v log_s="$(log_sum 127.1.0.3)" 'BEGIN {
	printf "# %.3f s counted, %.3f s logged\n", ours, log_s
	exit !(log_s >= 30 * 0.2 && ours > log_s * 0.92 && ours < log_s * 1.08) }'
ok $? "their time is what nginx logged, within the width of a bucket"

keeper=$(child_pid "$agent_pid" keeper)
kill -KILL "$keeper"
load -n 23 -c 1 "$gateway/dead/"
load -n 14 -c 7 "$gateway/hang/sleep?ms=900"
load -n 11 -c 1 "$gateway/gone/"
load -n 7 -c 1 "$gateway/half/"
another() { local now; now=$(child_pid "$agent_pid" keeper) && [ "$now" != "$keeper" ]; }
wait_for 10 another; ok $? "the keeper was killed and is there again"
for _ in 1 2 3; do curl -s --max-time 0.2 "$gateway/left/sleep?ms=700" >>"$world/hey.txt"; done
errors() { agent_metric tidegate_upstream_errors_total "upstream=\"$1\",reason=\"$2\""; }
errors_are() { [ "$(errors "$1" "$2")" = "$3" ]; }
is_errors() { # ADDRESS REASON WANTED NAME
	wait_for 10 errors_are "$1" "$2" "$3"
	is "$(errors "$1" "$2")" "$3" "$4"
}
is_errors "127.1.0.4:$dead_port" refused 23 "refused connects"
is_errors "127.1.0.5:$backend_port" timeout 14 "answers that did not come in time"
is_errors "127.1.0.6:$backend_port" closed 11 "connections closed without an answer"
is_errors "127.1.0.7:$backend_port" closed 7 "answers that broke off"
load -n 1 -c 1 "$gateway/left/fast"
is_upstream seconds_count 127.1.0.8 1 "an answer whose client stayed"
is "$(errors 127.1.0.8: .)" "" "clients that left are no error of the upstream"
is "$(agent_metric tidegate_upstream_errors_total)" $((23 + 14 + 11 + 7)) "no other errors"
is "$(upstream_count seconds_count 127.1.0.1)" $((1996 + 53 + 101)) "and what was counted before is there once"

for _ in 1 2 3; do
	for n in $(seq 40); do echo "url = \"$gateway/many/?n=$n\""; done
done | curl -s -K - >>"$world/hey.txt"
total=$((1996 + 53 + 101 + 498 + 97 + 202 + 30 + 1 + 120))
total_is() { [ "$(agent_metric tidegate_upstream_seconds_count)" = $total ]; }
wait_for 10 total_is
is "$(agent_metric tidegate_upstream_seconds_count)" $total "answers of all upstreams"
names() {
	curl -sf "http://127.0.0.1:$agent_port/metrics" |
		sed -n 's/^tidegate_upstream_[a-z_]*{.*upstream="\([^"]*\)".*/\1/p' | sort -u
}
is "$(names | grep -vc '^other$')" 32 "as many upstreams as have names"
is "$(agent_metric tidegate_upstream_seconds_count 'upstream="other"')" $((120 - 3 * (32 - 10))) \
	"the answers of the others"
is "$(agent_metric tidegate_requests_lost_total)" 7 "lost are the requests whose answers broke off"
open() { [ "$(agent_metric tidegate_connections_open)" = 0 ]; }
wait_for 10 open; ok $? "no connection of the gateway's own is taken for a client's"
tap_end
