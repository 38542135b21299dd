#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# HTTP/2 inside TLS, as clients of the real world speak it, on nginx, HAProxy (OpenSSL) and caddy (Go):
# requests by status and method are what the access logs say, exactly.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/sums.sh"
source "$(dirname "$0")/tls.sh"

for tool in haproxy caddy h2load openssl jq; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin http2-tls
head -c 13007 /dev/zero >"$world/big"
chmod 644 "$world/big"
nginx_with_tls "location = /moved { return 301 /hello; } location = /down { return 503; } location = /big { alias $world/big; }"
# shellcheck disable=SC2154 # tls.sh sets them
nginx_edit=${nginx_edit/ ssl;/ ssl http2;}
nginx_edit+='; s|combined;|codes;|; s|^    access_log|    log_format codes "$status $request_method $server_protocol";\n&|'
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }

mkdir -p "$world/haproxy" "$world/caddy/home"
new_port
haproxy_port=$port
cat >"$world/haproxy/haproxy.cfg" <<CONF
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  log stdout format raw local0
  log-format "%ST %HM %HV"
  timeout client 30s
frontend one
  bind 127.0.0.1:$haproxy_port ssl crt $tls_both alpn h2,http/1.1
  http-request return status 200 content-type text/plain string hello if { path /hello }
  http-request return status 200 content-type text/plain file $world/big if { path /big }
  http-request redirect location /hello code 301 if { path /moved }
  http-request return status 503 if { path /down }
  http-request return status 404
CONF
haproxy -W -f "$world/haproxy/haproxy.cfg" >>"$world/haproxy/access.log" 2>>"$world/haproxy/error.log" &
world_pids+=($!)
new_port
caddy_port=$port
cat >"$world/caddy/Caddyfile" <<CONF
{
	admin off
	auto_https off
}
https://127.0.0.1:$caddy_port {
	tls $tls_cert $tls_key
	log {
		output file $world/caddy/access.log
	}
	respond /hello "hello"
	redir /moved /hello 301
	respond /down 503
	root * $world
	file_server /big
	respond 404
}
CONF
HOME=$world/caddy/home caddy run --adapter caddyfile --config "$world/caddy/Caddyfile" 2>>"$world/caddy/error.log" &
world_pids+=($!)
declare -A url=([nginx]=$tls [haproxy]=https://127.0.0.1:$haproxy_port [caddy]=https://127.0.0.1:$caddy_port)
answers_tls() { curl -sfk -o /dev/null "$1/hello"; }
for each in nginx haproxy caddy; do
	wait_for 20 answers_tls "${url[$each]}" || { echo "Bail out! $each does not start"; exit 1; }
done

match_gateways "nginx=nginx:$tls_port" "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port"
start_agent
three() { for each in nginx haproxy caddy; do agent_metric tidegate_workers "$each" || return; done; }
wait_for 10 three; ok $? "the agent sees three gateways"

sums_begin nginx haproxy caddy

load() { # load URL
	h2load -n 1009 -c 5 -m 11 "$1/hello"
	h2load -n 211 -c 3 -m 10 "$1/moved" "$1/hello" "$1/down" "$1/nope"
	h2load -n 53 -c 2 -m 5 -H ':method: HEAD' "$1/hello"
	h2load -n 29 -c 2 -m 3 "$1/big"
	h2load -n 307 -c 307 -m 1 "$1/hello"
	curl -sk -o /dev/null --data-binary "@$world/big" "$1/nope"
	curl -sk --http1.1 -o /dev/null "$1/hello" # which is still spoken beside it
} >>"$world/load.txt" 2>&1
for each in nginx haproxy caddy; do
	load "${url[$each]}"
	wait_for 10 agrees $each
	is "$(agent_sums $each)" "$(log_sums $each)" "$each: counted by status and method as in the log"
	is "$(agent_metric tidegate_requests_total "gateway=\"$each\"")" $((1009 + 211 + 53 + 29 + 307 + 1 + 1)) \
		"$each: and as many as the clients asked for"
	is "$(agent_metric tidegate_requests_lost_total "\"$each\"")" 0 "$each: none lost"
done
is "$(grep -c 'HTTP/2' "$world/nginx/logs/access.log")" $((1009 + 211 + 53 + 29 + 307 + 1 + 1)) "all but the HTTP/1.1 one were HTTP/2"
is "$(agent_metric tidegate_probe_lost_total)" "" "the probes lost nothing"
tap_end
