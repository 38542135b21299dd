#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A subscriber beyond loopback, in a network of its own: over TLS, to a name; it comes back when the
# door was killed, and says why it trusts somebody not, or is not trusted.
source "$(dirname "$0")/own-network.sh"

far_world tailtls
certificate door ours DNS:door.test
certificate agent ours "DNS:$agent_id"
certificate reader ours DNS:reader
certificate stranger theirs DNS:reader 2 ours
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator listens on $far, over TLS"
start_agent; ok $? "the agent sees the gateway"

files() { printf -- '--ca %s --cert %s --key %s' "$world/$1/ca.pem" "$world/$1/cert.pem" "$world/$1/key.pem"; }
# shellcheck disable=SC2046
"$tidegate" tail "tls+tcp://door.test:$bus_port" --topic metrics/ --json $(files reader) \
	>"$world/tail.json" 2>"$world/tail.err" &
tail_pid=$!
world_pids+=("$tail_pid")
told() { grep -c '"metric":"tidegate_requests_total"' "$world/tail.json"; }
more_than() { [ "$(told)" -gt "$1" ]; }
ask 31
wait_for 10 more_than 0; ok $? "the subscriber gets what the agent counts"
was=$(told)
kill -KILL "$(child_pid "$aggregator_pid" door)"
again() { grep -q 'connected again' "$world/tail.err"; }
wait_for 10 again; ok $? "the door is killed: the subscriber connects again"
ask 37
wait_for 10 more_than "$was"; ok $? "and goes on"
is "$(grep -c 'connection lost' "$world/tail.err")" 1 "it said so once"
kill "$tail_pid"; wait "$tail_pid"; is $? 0 "and ends with 0"

says() { # says CODE PATTERN NAME COMMAND...
	local code=$1 pattern=$2 name=$3 got
	shift 3
	timeout 20 "$@" >"$world/out" 2>"$world/err"
	got=$?
	is $got "$code" "$name: exit $code"
	is "$(grep -c . "$world/err")" 1 "$name: one line"
	grep -q -- "$pattern" "$world/err"; ok $? "$name: says $pattern"
}
# shellcheck disable=SC2046
says 1 'refuses' "a stranger" "$tidegate" tail "tls+tcp://door.test:$bus_port" $(files stranger)
# shellcheck disable=SC2046
says 1 'name' "another name than the certificate's" "$tidegate" tail "tls+tcp://$far:$bus_port" $(files reader)
TIDEGATE_TLS_CA_FILE=$world/reader/ca.pem TIDEGATE_TLS_CERT_FILE=$world/reader/cert.pem \
	TIDEGATE_TLS_KEY_FILE=$world/reader/key.pem \
	timeout 20 "$tidegate" tail "tls+tcp://door.test:$bus_port" --count 1 >"$world/out" 2>&1
is $? 0 "files may come from the environment"
tap_end
