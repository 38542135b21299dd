#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Certificates of both sides are replaced while the agent sends: by good ones, by one that it may not
# read, by an expired one, by one of another name or authority. It says why it waits, sends nothing to
# a stranger, and afterwards the sums are exact.
source "$(dirname "$0")/own-network.sh"

far_world tlsfiles
certificate door ours DNS:door.test
certificate agent ours "DNS:$agent_id"
chmod 600 "$world/agent/key.pem"
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator listens on $far, over TLS"
start_agent; ok $? "the agent sees the gateway"
wait_for 5 says 'TLS files.*key.pem.*denied'; ok $? "a key that the courier may not read is named"
ask 211
chmod 644 "$world/agent/key.pem"
arrives "once it can be read, what was counted meanwhile arrives"

new=$(lines new)
certificate agent ours "DNS:$agent_id"
reconnected() { [ "$(lines new)" -gt "$new" ]; }
wait_for 10 reconnected; ok $? "another certificate of ours: connected anew, without a ticket"
loaded() { [ "$(loads 'done')" = 2 ]; }
wait_for 5 loaded; ok $? "and counted"
ask 223
arrives "nothing lost by it"
echo junk >"$world/agent/cert.pem"
says_bad() { says 'new TLS files cannot be used.*cert.pem'; }
wait_for 10 says_bad; ok $? "junk instead of it: said, the old one stays"
certificate agent ours "DNS:$agent_id"
ask 227
arrives "and nothing is lost"

in_use() { grep -c 'new TLS files are in use' "$world/aggregator.log"; }
bad_door() { # bad_door WORDS NAME CERTIFICATE-ARGUMENTS
	local words=$1 name=$2 used lost before
	shift 2
	used=$(in_use) lost=$(lost_count) before=$(fleet_metric tidegate_requests_total)
	certificate door "$@"
	taken() { [ "$(in_use)" -gt "$used" ]; }
	wait_for 10 taken && kill -KILL "$(child_pid "$aggregator_pid" door)"
	told() { tail -n +$((lost + 1)) <(grep 'aggregator is.* away' "$world/agent.log") | grep -q -- "$words"; }
	wait_for 10 told; ok $? "the door shows $name: refused, with the reason"
	ask 11
	is "$(fleet_metric tidegate_requests_total)" "$before" "$name: nothing goes there"
}
bad_door 'why=.*expired' 'an expired certificate' ours DNS:door.test -1
bad_door 'why=.*name' "another's name" ours DNS:other.test
bad_door 'why=.*issuer' 'another authority' theirs DNS:door.test 2 ours
certificate door ours DNS:door.test
arrives "the right one again: all of it arrives, exactly"
tap_end
