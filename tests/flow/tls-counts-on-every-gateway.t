#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Inside TLS of HAProxy (OpenSSL through a BIO of its own, two threads) and caddy (Go): requests are
# those of the client and of the log, exactly; so are those that both send to an nginx inside TLS. By
# each rung of the ladder that can.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/tls.sh"

for tool in haproxy caddy hey openssl jq; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin tls-every
head -c 1000003 /dev/zero | tr '\0' '\n' >"$world/big" # every byte the end of a line
chmod 644 "$world/big"
nginx_with_tls "location = /big { alias $world/big; }"
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_haproxy_tls "127.0.0.1:$tls_port" || { echo "Bail out! haproxy does not start"; exit 1; }
start_caddy_tls "127.0.0.1:$tls_port" || { echo "Bail out! caddy does not start"; exit 1; }

log_nginx() { sed 's/.*" \([0-9]*\) .*/\1/' "$world/nginx/logs/access.log"; }
log_haproxy() { awk 'NF == 4 && $1 ~ /^[1-5][0-9][0-9]$/ && $4 != "CR" {print $1}' "$world/haproxy/access.log"; }
log_caddy() { jq -r .status "$world/caddy/access.log"; }
sums() { awk '{n[$1] += $2} END {for (c in n) print c "=" n[c]}' | sort | xargs; }
declare -A log_before
log_codes() { "log_$1" | tail -n +$((log_before[$1] + 1)) | awk '{print $1, 1}' | sums; }
agent_codes() {
	curl -sf "http://127.0.0.1:$agent_port/metrics" | sed -n "/^tidegate_requests_total.*gateway=\"$1\"/{
		s/.*code=\"\([0-9]*\)\".* \([0-9]*\)\$/\1 \2/p}" | sums
}
equal() { [ "$(agent_codes "$1")" = "$(log_codes "$1")" ]; }
three() { for each in nginx haproxy caddy; do agent_metric tidegate_workers "$each" || return; done; }
upstream_count() { # of answers that a gateway got
	agent_metric tidegate_upstream_seconds_count "gateway=\"$1\"" || echo 0
}
load() { # load GATEWAY PORT: over http/1.1
	local at=https://localhost:$2
	hey -host localhost -n 199 -c 1 "$at/hello" >"$world/$1.hey" 2>&1
	hey -host localhost -n 497 -c 7 "$at/hello" >>"$world/$1.hey" 2>&1
	hey -host localhost -n 53 -c 1 -disable-keepalive "$at/hello" >>"$world/$1.hey" 2>&1
	hey -host localhost -n 31 -c 1 "$at/nope" >>"$world/$1.hey" 2>&1
	hey -host localhost -n 41 -c 1 "$at/up/hello" >>"$world/$1.hey" 2>&1
	curl -sSk --http1.1 "$at/up/big" -: -sSk --http1.1 "$at/up/big" -: -sSk --http1.1 \
		--data-binary "@$world/big" "$at/up/fast" -: -sSk --http1.1 "$at/hello" >"$world/$1.big"
}

rung() { # rung TIER GATEWAY...
	local tier=$1
	shift
	rm -rf "${run:?}"
	agent_options="probe:
  tier: $tier"
	drain_options='  on_sigterm: never'
	match_gateways "nginx=nginx:$tls_port" "haproxy=haproxy:$tls_haproxy" "caddy=caddy:$tls_caddy"
	start_agent && wait_for 10 three
	ok $? "$tier: the agent sees three gateways"
	for each in nginx haproxy caddy; do log_before[$each]=$("log_$each" | wc -l); done
	load haproxy "$tls_haproxy"
	load caddy "$tls_caddy"
	for each; do
		wait_for 10 equal "$each"
		is "$(agent_codes "$each")" "$(log_codes "$each")" "$tier: $each: counted by status as in its log"
		[ "$each" = nginx ] && continue
		is "$(agent_codes "$each")" "200=$((199 + 497 + 53 + 41 + 4)) 404=31" "$tier: $each: and as the client did"
		# Later the connection is older than the agent; a Read of Go may wait in it unseen.
		[ "$each $tier" = "caddy raw_tp" ] && continue
		is "$(upstream_count "$each")" $((41 + 3)) "$tier: $each: answers inside TLS from its upstream"
	done
	is "$(agent_metric tidegate_requests_lost_total)" 0 "$tier: nothing was lost"
	stop_agent
}
rung auto nginx haproxy caddy
[ "$(stat -c %s "$world/haproxy.big")" -gt 2000006 ] && [ "$(stat -c %s "$world/caddy.big")" -gt 2000006 ]
ok $? "bodies of a megabyte went through both"
rung raw_tp nginx haproxy caddy
# Without registers the goroutine is not known: the state says so, and the others are as exact.
if [ -d /sys/kernel/tracing/events/raw_syscalls ] || [ -d /sys/kernel/debug/tracing/events/raw_syscalls ]; then
	rung tracepoint nginx haproxy
else
	ok 0 'tracepoint # SKIP no tracefs is mounted'
fi
tap_end
