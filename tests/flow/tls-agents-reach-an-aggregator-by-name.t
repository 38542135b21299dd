#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Beyond loopback, in a network of its own: an agent that knows its aggregator by a name with two
# addresses. Connections are reset, the aggregator is killed, the sums stay exact.
source "$(dirname "$0")/own-network.sh"

far_world tlsname
certificate door ours DNS:door.test
certificate agent ours "DNS:$agent_id"
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator listens on $far, over TLS"
start_agent; ok $? "the agent sees the gateway"

ask 211
arrives "what it counts arrives"
is "$(lines new)" 1 "over one connection"
[ "$(lines failed)" -ge 1 ]; ok $? "the name's first address is nobody's, the second was taken"

was=$(lost_count)
iptables -I INPUT -p tcp --dport "$door_port" -j REJECT --reject-with tcp-reset
wait_for 10 lost_since "$was"; ok $? "a firewall resets the connection, which is seen"
ask 223
iptables -F INPUT
arrives "nothing is lost or doubled by it"
[ "$(lines resumed)" -ge 1 ]; ok $? "the TLS session went on with a ticket"

printf '127.0.0.1 localhost\n' >"$world/hosts"
resumed=$(lines resumed) was=$(lost_count)
kill -KILL "$(child_pid "$aggregator_pid" door)"
wait_for 10 lost_since "$was"
ask 227
arrives "nor when the door is killed"
gone_on() { [ "$(lines resumed)" -gt "$resumed" ]; }
wait_for 5 gone_on; ok $? "its successor knows the ticket, and the name need not resolve any more"
printf '127.0.0.1 localhost\n%s door.test\n' "$far" >"$world/hosts"

for pid in $(cat "/proc/$aggregator_pid/task/$aggregator_pid/children") $aggregator_pid; do kill -KILL "$pid"; done
wait "$aggregator_pid" 2>/dev/null
ask 233
start_aggregator; ok $? "the whole aggregator is killed, and started again"
arrives "nothing lost, nothing counted twice"
is "$(agent_metric tidegate_uplink_timeouts_total)" 0 "no line was waited for in vain"
is "$(agent_metric tidegate_uplink_certificate_loads_total 'state="done"')" 1 "the files were loaded once"

awk -v l="$(agent_metric tidegate_uplink_certificate_lived_ratio)" 'BEGIN { exit !(l > 0 && l < 0.01) }'
ok $? "the certificate of two days is young"

# What is refused before anything starts.
refused() { # refused PATTERN NAME: $world/wrong.yaml
	timeout 20 "$tidegate" agent --config "$world/wrong.yaml" >/dev/null 2>"$world/err"
	is $? 2 "$2: exit 2"
	is "$(grep -c . "$world/err")" 1 "$2: one line"
	grep -q -- "$1" "$world/err"; ok $? "$2: says so"
}
wrong() { sed "s|runtime_dir: .*|runtime_dir: $run-wrong|" "$world/agent.yaml" | sed "$1" >"$world/wrong.yaml"; }
wrong "s|tls+tcp|tcp|"; refused "tcp://door.test:$door_port.*TLS" "a name without TLS"
wrong "s|tls+tcp://door.test|tcp://$far|"; refused "not on this host" "an address without TLS"
wrong "/^  key_file/d"; refused "belong together" "a key is missing"
wrong "/^tls:/,\$d"; refused "tls.ca_file" "no files"
wrong "s|tls+tcp://door.test:|tls+tcp://door.test|"; refused "port" "no port"
rm -rf "$run-wrong"
tap_end
