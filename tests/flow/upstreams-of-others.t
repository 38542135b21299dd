#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Upstreams of HAProxy and caddy: kept and pooled connections, several threads on one of them, bodies
# that are spliced; counts are the backend's log, one by one.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/tls.sh"
source "$(dirname "$0")/upstreams.sh"

for tool in haproxy caddy hey; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin others
start_backend 100 || { echo "Bail out! the backend does not start"; exit 1; }
start_haproxy "127.1.0.1:$backend_port" || { echo "Bail out! haproxy does not start"; exit 1; }
start_caddy "127.1.0.2:$backend_port" || { echo "Bail out! caddy does not start"; exit 1; }
# A second HAProxy, impatient, for upstreams that fail.
new_port; hasty_port=$port
new_port; dead_port=$port
mkdir -p "$world/hasty"
cat >"$world/hasty/haproxy.cfg" <<CONF
global
	nbthread 2
	maxconn 1000
defaults
	mode http
	retries 0
	option abortonclose
	timeout connect 2s
	timeout client 20s
	timeout server 300ms
frontend in
	bind 127.0.0.1:$hasty_port
	http-request set-path %[path,regsub(^/[a-z]+,)]
	use_backend dead if { capture.req.uri -m beg /dead }
	use_backend hang if { capture.req.uri -m beg /hang }
	use_backend gone if { capture.req.uri -m beg /gone }
	use_backend half if { capture.req.uri -m beg /half }
	default_backend good
backend dead
	server s 127.1.0.4:$dead_port
backend hang
	server s 127.1.0.5:$backend_port
backend gone
	http-request set-path /gone
	server s 127.1.0.6:$backend_port
backend half
	http-request set-path /half
	server s 127.1.0.7:$backend_port
backend good
	timeout server 20s
	server s 127.1.0.8:$backend_port
CONF
haproxy -db -f "$world/hasty/haproxy.cfg" >"$world/hasty/log" 2>&1 &
world_pids+=($!)
hasty=http://127.0.0.1:$hasty_port
wait_for 10 answers "$hasty/good/fast" || { echo "Bail out! the second haproxy does not start"; exit 1; }
match_gateways "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port" "hasty=haproxy:$hasty_port"
start_agent
three() { for each in haproxy caddy hasty; do agent_metric tidegate_workers "$each" || return; done; }
wait_for 10 three; ok $? "the agent sees the gateways"

hey -n 1989 -c 17 "$haproxy/up/hello" >"$world/hey.txt" 2>&1
hey -n 1989 -c 17 "$caddy/up/hello" >>"$world/hey.txt" 2>&1
hey -n 44 -c 4 "$haproxy/up/garbage?kb=10" >>"$world/hey.txt" 2>&1
hey -n 44 -c 4 "$caddy/up/garbage?kb=10" >>"$world/hey.txt" 2>&1
hey -n 40 -c 4 "$haproxy/up/sleep?ms=50" >>"$world/hey.txt" 2>&1
hey -n 40 -c 4 "$caddy/up/sleep?ms=50" >>"$world/hey.txt" 2>&1
hey -n 101 -c 1 -m HEAD "$haproxy/up/hello" >>"$world/hey.txt" 2>&1
hey -n 101 -c 1 -m HEAD "$caddy/up/hello" >>"$world/hey.txt" 2>&1
hey -n 29 -c 1 -m POST -d "$(printf '%9000s' x)" "$haproxy/up/fast" >>"$world/hey.txt" 2>&1
hey -n 29 -c 1 -m POST -d "$(printf '%9000s' x)" "$caddy/up/fast" >>"$world/hey.txt" 2>&1
total=$((1989 + 44 + 40 + 101 + 29))
# A line is written after its answer.
logged() { [ "$(backend_lines 127.1.0.1)" = $total ] && [ "$(backend_lines 127.1.0.2)" = $total ]; }
wait_for 10 logged
is "$(backend_lines 127.1.0.1)" $total "the backend logged each request of HAProxy"
is "$(backend_lines 127.1.0.2)" $total "and of caddy"
is_upstream seconds_count 127.1.0.1 $total "HAProxy: each answer"
is_upstream seconds_count 127.1.0.2 $total "caddy: each answer"
for each in 1:HAProxy 2:caddy; do
	# The backend closes each connection after 100 requests.
	count=$(upstream_count connect_seconds_count "127.1.0.${each%:*}")
	[ "$count" -ge $((total / 100)) ] && [ "$count" -lt $((total / 2)) ]
	ok $? "${each#*:}: connections were kept ($count)"
done
is "$(agent_metric tidegate_upstream_errors_total)" "" "no errors"

hey -n 23 -c 1 "$hasty/dead/fast" >>"$world/hey.txt" 2>&1
hey -n 14 -c 7 "$hasty/hang/sleep?ms=900" >>"$world/hey.txt" 2>&1
hey -n 11 -c 1 "$hasty/gone/fast" >>"$world/hey.txt" 2>&1
hey -n 7 -c 1 "$hasty/half/fast" >>"$world/hey.txt" 2>&1
for _ in 1 2 3; do curl -s --max-time 0.2 "$hasty/good/sleep?ms=700" >>"$world/hey.txt"; done
errors() { agent_metric tidegate_upstream_errors_total "upstream=\"127.1.0.$1\",reason=\"$2\""; }
errors_are() { [ "$(errors "$1" "$2")" = "$3" ]; }
# A client may ask again when it got no answer at all: what the backend saw counts.
gone=$(backend_lines 127.1.0.6)
for each in "4:$dead_port refused 23" "5:$backend_port timeout 14" "6:$backend_port closed $gone" \
	"7:$backend_port closed 7"; do
	read -r address reason wanted <<<"$each"
	wait_for 10 errors_are "$address" "$reason" "$wanted"
	is "$(errors "$address" "$reason")" "$wanted" "HAProxy: upstreams that failed: $reason"
done
is "$(agent_metric tidegate_upstream_errors_total)" $((23 + 14 + gone + 7)) "and no other errors"
tap_end
