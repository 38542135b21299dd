#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A cable is cut: no FIN, no RST, both sides keep an established connection. Agent and ferry find it by
# the reply that does not come (5 s, and up to a second until the next frame asks for one), spool what
# goes on, and make another connection when the cable is back; nothing is lost or counted twice.
if [ -z "${TIDEGATE_OWN_NETWORK:-}" ]; then
	for tool in unshare ip iptables; do
		command -v $tool >/dev/null || { echo "1..0 # SKIP no $tool"; exit 0; }
	done
	unshare -n true 2>/dev/null || { echo "1..0 # SKIP no network namespaces may be made"; exit 0; }
	TIDEGATE_OWN_NETWORK=1 exec unshare -n "$0"
fi
source "$(dirname "$0")/uppers.sh"

ip link set lo up || skip_all "no loopback of its own"
iptables -L -n >/dev/null 2>&1 || skip_all "no iptables in a network namespace"
world_begin cut
aggregator_write top
aggregator_write low "uplink:
  id: low
  aggregators: [\"tcp://127.0.0.1:${door_of[top]}\"]
  backoff: 300ms
spool:
  dir: $world/low/spool"
agent_write agent one "tcp://127.0.0.1:${door_of[low]}"
aggregator_begin top
aggregator_begin low
agent_begin agent
feed_begin agent
for name in top low; do wait_for 10 aggregator_is_ready $name; ok $? "$name is ready"; done
is_there() { [ -n "$(told_by "$1" one)" ]; }
wait_for 15 is_there top; ok $? "what the agent counts is at the top"

said() { grep -c "$2.*:${door_of[$1]} " "$world/$3.log"; }
says_more() { [ "$(said "$1" "$2" "$3")" -gt "$4" ]; }
told_sum() { told_by "$1" one | awk '{ n += $3 } END { printf "%.17g\n", n }'; }
grew() { [ "$(told_sum "$1")" -gt "$2" ]; }
firewall() { # firewall -A|-D: both lines, both ways
	local name way
	for name in low top; do
		for way in dport sport; do
			iptables "$1" INPUT -p tcp --$way "${door_of[$name]}" -j DROP
		done
	done
}
declare -A sender=([low]=agent [top]=low) away back sum
for name in low top; do away[$name]=$(said $name 'aggregator is away' "${sender[$name]}"); done
firewall -A
since=$EPOCHREALTIME
for name in low top; do
	by=${sender[$name]}
	wait_for 40 says_more $name 'aggregator is away' "$by" "${away[$name]}"
	ok $? "$by finds that the line to $name is cut"
	note "after $(awk -v a="$since" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s"
	grep "aggregator is away.*:${door_of[$name]} " "$world/$by.log" | tail -n 1 |
		grep -q 'no reply in time'
	ok $? "by the reply that did not come"
	back[$name]=$(said $name 'aggregator is back' "$by")
	sum[$name]=$(told_sum $name)
done
firewall -D
for name in low top; do
	wait_for 40 says_more $name 'aggregator is back' "${sender[$name]}" "${back[$name]}"
	ok $? "${sender[$name]} finds that it is mended"
	wait_for 15 grew $name "${sum[$name]}"; ok $? "$name hears more"
done
feed_end agent; ok $? "the feed ended"
for name in low top; do
	wait_for 20 is_told $name one agent; ok $? "$name tells what was counted"
	told_differs $name one agent
done
tap_end
