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
match_gateways "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port"
start_agent
two() { for each in haproxy caddy; do agent_metric tidegate_workers "$each" || return; done; }
wait_for 10 two; ok $? "the agent sees both gateways"

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
tap_end
