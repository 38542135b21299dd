#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A gateway in a network namespace of its own: its bytes are its interfaces', and its accept queues,
# which only that namespace tells of, are absent, not 0.
source "$(dirname "$0")/lib.sh"
for tool in ip nsenter unshare; do command -v $tool >/dev/null || skip_all "no $tool"; done
unshare -n true 2>/dev/null || skip_all "no network namespaces may be made"

world_begin namespace
unshare -n sleep 120 &
inside=$!
unshare -n sleep 120 &
outside=$!
world_pids+=("$inside" "$outside")
entered() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
wait_for 5 entered "$inside" && wait_for 5 entered "$outside"
in_ns() { nsenter -t "$1" -n "${@:2}"; }
in_ns "$inside" ip link set lo up &&
	in_ns "$inside" ip link add gate type veth peer name user netns "$outside" &&
	in_ns "$inside" ip addr add 10.0.0.1/24 dev gate && in_ns "$inside" ip link set gate up &&
	in_ns "$outside" ip addr add 10.0.0.2/24 dev user && in_ns "$outside" ip link set user up ||
	skip_all "no veth pair can be made"

# The gateway starts in its namespace, and is asked there.
nginx() { in_ns "$inside" nginx "$@"; }
curl() { case "$*" in *"$gateway"*) in_ns "$inside" curl "$@" ;; *) command curl "$@" ;; esac; }
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
sed -i "s/listen 127.0.0.1:$gateway_port.*/&\n listen 10.0.0.1:$gateway_port;/" "$world/nginx/nginx.conf"
kill -HUP "$nginx_pid"
user() { in_ns "$outside" curl -sf -o /dev/null -m 5 "$@" "http://10.0.0.1:$gateway_port/fast"; }
wait_for 10 user; ok $? "the gateway answers over its own network"
start_agent; ok $? "the agent sees the gateway"

dev() { awk -v n="$1" '$1 == "gate:" {printf "%.0f", $n}' "/proc/$nginx_pid/net/dev"; }
bytes() { agent_metric tidegate_network_bytes_total "direction=\"$1\""; }
wait_for 5 bytes receive
apart() { echo $(($(dev "$2") - $(bytes "$1"))); }
still_for_a_second() { local was; was=$(apart receive 2) && pause 1.3 && [ "$(apart receive 2)" = "$was" ]; }
wait_for 10 still_for_a_second
received=$(apart receive 2) sent=$(apart transmit 10)
head -c 1000000 /dev/zero >"$world/million"
user -X POST --data-binary "@$world/million"; ok $? "a million bytes are sent to it"
# Neighbours go on asking for each other: a few packets may lie between the two looks.
near() { [ $(($1 - $2)) -le 2000 ] && [ $(($2 - $1)) -le 2000 ]; }
same() { near "$(apart receive 2)" "$received" && near "$(apart transmit 10)" "$sent"; }
wait_for 20 same; ok $? "its bytes are those of its interface, both ways"
[ "$(bytes receive)" -ge 1000000 ]; ok $? "$(bytes receive) of them came in"
agent_metric tidegate_cpu_seconds_total >/dev/null; ok $? "its CPU time is known"
! agent_metric tidegate_accept_queue_length && ! agent_metric tidegate_accept_queue_limit &&
	! agent_metric tidegate_accept_queue_drops_total
ok $? "its accept queues are absent"
grep -q 'system level.*accept_queues="unavailable' "$world/agent.log"; ok $? "the log says why"
tap_end
