#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The keeper is killed: requests inside TLS are counted while it is away, and the next keeper adopts
# probes and ties, also of a connection that is used before, meanwhile and after.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/tls.sh"

for tool in hey openssl; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
[ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ] || skip_all "no bpffs here"
world_begin tls-keeper
nginx_with_tls
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_agent; ok $? "the agent sees the gateway"
log_before=$(access_log_lines)

coproc client { exec openssl s_client -quiet -connect "127.0.0.1:$tls_port" 2>/dev/null; }
world_pids+=("$client_PID")
# shellcheck disable=SC2154 # coproc sets it
exec {from}<&"${client[0]}" {to}>&"${client[1]}"
ask() {
	local line
	printf 'GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n' >&"$to"
	while read -r -t 10 line <&"$from"; do
		[[ $line == *"HTTP/1.1 404"* ]] && return
	done
	return 1
}
load() { hey -n 211 -c 1 "$tls/hello" >/dev/null && hey -n 31 -c 1 -disable-keepalive "$tls/hello" >/dev/null && ask; }

load; ok $? "requests before"
keeper=$(child_pid "$agent_pid" keeper)
kill -STOP "$agent_pid" # it would start the next one at once
kill -KILL "$keeper"
load; ok $? "requests while there is no keeper"
kill -CONT "$agent_pid"
again() { next=$(child_pid "$agent_pid" keeper) && [ "$next" != "$keeper" ]; }
wait_for 20 again; ok $? "another keeper"
load; ok $? "requests after"
total=$((3 * (211 + 31 + 1)))
logged() { [ $(($(access_log_lines) - log_before)) = $total ]; } # written after the answer
wait_for 10 logged; ok $? "the log has them all"
counted() { [ "$(agent_metric tidegate_requests_total)" = $total ]; }
wait_for 20 counted
is "$(agent_metric tidegate_requests_total)" $total "and so has the agent"
grep -q 'maps="adopted"' "$world/agent.log"
ok $? "the probes were adopted"
tap_end
