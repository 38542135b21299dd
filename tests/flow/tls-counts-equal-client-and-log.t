#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Requests inside TLS of a real nginx are what the client did and what the access log says, exactly:
# kept alive or not, bodies of many records both ways, sessions resumed, a connection that was there
# before the agent. Where TLS is not looked into, connections are counted as not seen.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/tls.sh"

for tool in hey openssl jq; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin tls
drain_options="  on_sigterm: never"
write_config
head -c 1000003 /dev/zero | tr '\0' '\n' >"$world/big" # every byte the end of a line
chmod 644 "$world/big"
nginx_with_tls "ssl_protocols TLSv1.2 TLSv1.3; location = /big { alias $world/big; }"
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }

# A client whose connection is older than the probes, with one request behind it.
say() { printf 'GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n' "$1" >&"$old_to"; }
hear() { # hear CODE: reads until that status, then to the end of the head
	local line
	while read -r -t 10 line <&"$old_from"; do
		[[ $line == *"HTTP/1.1 $1"* ]] && while read -r -t 10 line <&"$old_from"; do
			[ "$line" = $'\r' ] && return
		done
	done
	return 1
}
coproc old_client { exec openssl s_client -quiet -connect "127.0.0.1:$tls_port" 2>/dev/null; }
world_pids+=("$old_client_PID")
# shellcheck disable=SC2154 # coproc sets it
exec {old_from}<&"${old_client[0]}" {old_to}>&"${old_client[1]}"
say /before-1 && hear 404
ok $? "a connection is there before the agent"

start_agent; ok $? "the agent sees the gateway"
log_before=$(access_log_lines)

say /after-1 && hear 404 && say /after-2 && hear 404
ok $? "it goes on"
hey -n 997 -c 1 "$tls/hello" >"$world/hey.txt" 2>&1
hey -n 2002 -c 14 "$tls/hello" >>"$world/hey.txt" 2>&1
hey -n 101 -c 1 -m POST -d 'a body of some bytes' "$tls/nope" >>"$world/hey.txt" 2>&1
hey -n 103 -c 1 -m HEAD "$tls/hello" >>"$world/hey.txt" 2>&1
hey -n 211 -c 1 -disable-keepalive "$tls/hello" >>"$world/hey.txt" 2>&1
is "$(client_count "$world/hey.txt" 200)" 3313 "the client got its answers"
# On one connection, so that a byte counted wrong would show in the next request.
curl -sSk --data-binary "@$world/big" "$tls/fast" -: -sSk "$tls/big" -: -sSk "$tls/big" -: \
	-sSk --data-binary "@$world/big" "$tls/big" -: -sSk "$tls/hello" >"$world/answers"
[ "$(stat -c %s "$world/answers")" -gt 2000006 ]
ok $? "bodies of a megabyte came and went"
for version in tls1_2 tls1_3; do
	for session in sess_out sess_in; do
		printf 'GET /resumed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
			openssl s_client -$version -$session "$world/session" -ign_eof \
				-connect "127.0.0.1:$tls_port" >"$world/$version-$session.txt" 2>&1
	done
done
grep -q '^Reused, TLSv1.2' "$world/tls1_2-sess_in.txt" && grep -q '^Reused, TLSv1.3' "$world/tls1_3-sess_in.txt"
ok $? "sessions were resumed in TLS 1.2 and 1.3"
curl -sS "$gateway/hello" >/dev/null # plain, on the same workers

total=$((2 + 3313 + 101 + 5 + 4 + 1))
logged() { [ $(($(access_log_lines) - log_before)) = $total ]; } # written after the answer
wait_for 10 logged; ok $? "the log has them all"
counted() { [ "$(agent_metric tidegate_requests_total)" = "$total" ]; }
wait_for 10 counted
is "$(agent_metric tidegate_requests_total)" $total "and so has the agent"
is "$(agent_metric tidegate_requests_total 'method="GET",code="200"')" $((3313 - 103 + 3 + 1)) "GET 200"
is "$(agent_metric tidegate_requests_total 'method="GET",code="404"')" 6 "GET 404: the old connection's and the resumed ones"
is "$(agent_metric tidegate_requests_total 'method="POST",code="404"')" 101 "POST 404"
is "$(agent_metric tidegate_requests_total 'method="HEAD"')" 103 "HEAD"
is "$(agent_metric tidegate_requests_lost_total)" 0 "nothing was lost"
is "$(agent_metric tidegate_probe_lost_total tls || echo 0)" 0 "no connection was not seen"
is "$(agent_metric tidegate_probe_state 'probe="tls"')" 1 "the state of the probe says so"
"$tidegate" doctor --json --config "$world/agent.yaml" >"$world/doctor.json"
is "$(jq -r '[.gateways[] | select(.name == "nginx").tls | .state, .library] | join(" ")' "$world/doctor.json")" \
	"ok openssl" "doctor names the library"

# The same without: no request is seen, and every connection with data is counted as such.
stop_agent
rm -rf "${run:?}"
agent_options='probe:
  tls: false'
write_config
start_agent; ok $? "an agent that may not look into TLS"
hey -n 13 -c 1 -disable-keepalive "$tls/hello" >/dev/null 2>&1
curl -sS "$gateway/hello" >/dev/null
unseen() { [ "$(agent_metric tidegate_probe_lost_total tls)" = 13 ]; }
wait_for 10 unseen
is "$(agent_metric tidegate_probe_lost_total tls)" 13 "counts connections of which it saw no request"
is "$(agent_metric tidegate_requests_total)" 1 "and no request but the plain one"
tap_end
