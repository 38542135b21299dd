#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# HAProxy whose master listens too (its command socket, -S) is found by the port of its worker; and when
# the master executes itself with connections in its hands, what the agent says is open is what ss says.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"

for tool in haproxy ss; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin command
new_port
cli_port=$port
# shellcheck disable=SC2034 # gateways.sh reads it
haproxy_options="-S 127.0.0.1:$cli_port"
start_haproxy || { echo "Bail out! haproxy does not start"; exit 1; }
# shellcheck disable=SC2154 # start_haproxy set it
gateway_name=haproxy
match_gateways "haproxy=haproxy:$haproxy_port"
start_agent
ok $? "the agent sees the gateway"
grep -q 'no probe works' "$world/agent.log" && skip_all 'no probe loads here'

held() { # connections that HAProxy's side holds
	ss -Htn state established state close-wait \
		"( sport = :$haproxy_port or sport = :$cli_port )" | wc -l
}
opened() { agent_metric tidegate_connections_open; }
equal() { [ "$(opened)" = "$(held)" ]; }
is_open() { [ "$(opened)" = "$1" ] && [ "$(held)" = "$1" ]; }
workers() { pgrep -P "$haproxy_pid" | sort | xargs; }
changed() { local now; now=$(workers) && [ -n "$now" ] && [ "$now" != "$was" ]; }

wait_for 10 is_open 0; ok $? "nothing is open"
exec 6<>"/dev/tcp/127.0.0.1/$cli_port" 7<>"/dev/tcp/127.0.0.1/$cli_port" \
	8<>"/dev/tcp/127.0.0.1/$cli_port"
wait_for 10 is_open 3; ok $? "three are open, as ss says"
was=$(workers)
kill -USR2 "$haproxy_pid"
wait_for 20 changed; ok $? "the master executed itself"
wait_for 10 is_open 0; ok $? "none is open, as ss says"
answers "$haproxy/hello"; ok $? "the gateway goes on"
counted() { agent_metric tidegate_requests_total | grep -q '[1-9]'; }
wait_for 10 counted; ok $? "and is counted"
wait_for 10 equal; ok $? "what is open then is what ss says, too"
tap_end
