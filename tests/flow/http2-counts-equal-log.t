#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# HTTP/2 in plain text on nginx, HAProxy and caddy: requests by status are what their clients did and
# what the access logs say, exactly; with many streams a connection, bodies, HEAD, codes that HPACK has no
# number for, health checks, and an upgrade from HTTP/1.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/sums.sh"

for tool in haproxy caddy h2load nghttp curl; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin http2
mkdir -p "$world/nginx/logs" "$world/haproxy" "$world/caddy/home"
chmod 755 "$world/nginx"
head -c 20011 /dev/zero >"$world/nginx/file"
head -c 150001 /dev/zero >"$world/body"

start_nginx_http2() {
	cat >"$world/nginx/nginx.conf" <<-CONF
	worker_processes 2;
	pid $world/nginx/nginx.pid;
	error_log $world/nginx/logs/error.log warn;
	events { worker_connections 1024; }
	http {
		log_format codes '\$status \$request_method \$server_protocol';
		access_log $world/nginx/logs/access.log codes;
		client_body_temp_path $world/nginx; proxy_temp_path $world/nginx;
		fastcgi_temp_path $world/nginx; uwsgi_temp_path $world/nginx; scgi_temp_path $world/nginx;
		keepalive_requests 1000000;
		sendfile on;
		server {
			listen 127.0.0.1:$gateway_port http2 reuseport;
			root $world/nginx;
			location = /hello { return 200 "hello\n"; }
			location = /healthz { return 200 "ok\n"; }
			location = /moved { return 301 /hello; }
			location = /none { return 204; }
			location = /down { return 503; }
		}
	}
	CONF
	nginx -p "$world/nginx/" -c "$world/nginx/nginx.conf" >"$world/nginx/start.log" 2>&1 || {
		cat "$world/nginx/start.log" >&2
		return 1
	}
	wait_for 5 test -s "$world/nginx/nginx.pid" || return 1
	nginx_pid=$(cat "$world/nginx/nginx.pid")
	wait_for 5 h2 "$gateway/hello"
}

start_haproxy_http2() {
	new_port
	haproxy_port=$port
	cat >"$world/haproxy/haproxy.cfg" <<-CONF
	global
	  nbthread 1
	  maxconn 1000
	defaults
	  mode http
	  log stdout format raw local0
	  log-format "%ST %HM %HV"
	  timeout client 30s
	frontend one
	  bind 127.0.0.1:$haproxy_port proto h2
	  http-request return status 200 content-type text/plain string hello if { path /hello }
	  http-request return status 204 if { path /none }
	  http-request redirect location /hello code 301 if { path /moved }
	  http-request return status 503 if { path /down }
	  http-request return status 404
	CONF
	haproxy -W -f "$world/haproxy/haproxy.cfg" >>"$world/haproxy/access.log" 2>>"$world/haproxy/error.log" &
	world_pids+=($!)
	wait_for 10 h2 "http://127.0.0.1:$haproxy_port/hello"
}

start_caddy_http2() {
	new_port
	caddy_port=$port
	cat >"$world/caddy/Caddyfile" <<-CONF
	{
		admin off
		auto_https off
		servers {
			protocols h1 h2c
		}
	}
	http://127.0.0.1:$caddy_port {
		log {
			output file $world/caddy/access.log
		}
		respond /hello "hello"
		respond /none 204
		redir /moved /hello 301
		respond /down 503
		respond 404
	}
	CONF
	HOME=$world/caddy/home caddy run --adapter caddyfile --config "$world/caddy/Caddyfile" \
		2>>"$world/caddy/error.log" &
	world_pids+=($!)
	wait_for 20 h2 "http://127.0.0.1:$caddy_port/hello"
}

h2() { curl -sf -o /dev/null --http2-prior-knowledge "$1"; }

start_nginx_http2 || { echo "Bail out! nginx does not start"; exit 1; }
start_haproxy_http2 || { echo "Bail out! haproxy does not start"; exit 1; }
start_caddy_http2 || { echo "Bail out! caddy does not start"; exit 1; }
match_gateways "nginx=nginx:$gateway_port" "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port"
start_agent
three() { for each in nginx haproxy caddy; do agent_metric tidegate_workers "$each" || return; done; }
wait_for 10 three; ok $? "the agent sees three gateways"

declare -A url=([nginx]=$gateway [haproxy]=http://127.0.0.1:$haproxy_port
	[caddy]=http://127.0.0.1:$caddy_port)
sums_begin nginx haproxy caddy

none_in_flight() { [ "$(agent_metric tidegate_requests_in_flight "\"$1\"")" = 0 ]; }

load() { # load URL
	h2load -n 3001 -c 7 -m 13 "$1/hello"
	h2load -n 211 -c 3 -m 10 "$1/nope"
	h2load -n 307 -c 5 -m 10 "$1/moved" "$1/hello" "$1/down" "$1/none"
	h2load -n 101 -c 3 -m 5 -H ':method: HEAD' "$1/hello"
	h2load -n 53 -c 2 -m 5 -H ':method: PUT' "$1/nope"
	for path in moved down none nope; do
		curl -s -o /dev/null --http2-prior-knowledge "$1/$path"
	done
	curl -s -o /dev/null --http2-prior-knowledge --data-binary "@$world/body" "$1/nope"
	nghttp -n "$1/hello" "$1/moved" "$1/down"
} >>"$world/load.txt" 2>&1
for each in nginx haproxy caddy; do
	load "${url[$each]}"
	wait_for 10 agrees $each
	is "$(agent_sums $each)" "$(log_sums $each)" "$each: counted by status and method as in the log"
	is "$(agent_metric tidegate_requests_total "gateway=\"$each\"")" $((3001 + 211 + 307 + 101 + 53 + 4 + 1 + 3)) \
		"$each: and as many as the clients asked for"
	is "$(agent_metric tidegate_requests_total "gateway=\"$each\".*method=\"HEAD\"")" 101 "$each: HEAD"
	is "$(agent_metric tidegate_requests_total "gateway=\"$each\".*method=\"PUT\"")" 53 "$each: PUT"
	is "$(agent_metric tidegate_requests_lost_total "\"$each\"")" 0 "$each: none lost"
	wait_for 5 none_in_flight $each; ok $? "$each: none is left in flight"
done
is "$(agent_metric tidegate_probe_lost_total)" "" "the probes lost nothing"

# A file by nginx, which sends it in frames of its own, and health checks.
h2load -n 89 -c 3 -m 4 "${url[nginx]}/file" >>"$world/load.txt" 2>&1
h2load -n 97 -c 2 -m 4 "${url[nginx]}/healthz" >>"$world/load.txt" 2>&1
for agent in kube-probe/1.29 kube-probe/1.31; do
	curl -s -o /dev/null --http2-prior-knowledge -A $agent "${url[nginx]}/hello"
done
wait_for 10 agrees nginx
is "$(agent_sums nginx)" "$(log_sums nginx)" "nginx: files too"
is "$(agent_metric tidegate_requests_health_total '"nginx"')" 99 "health checks by path and by agent"

# Upgrade: h2c, which caddy does.
had=$(agent_metric tidegate_requests_total '"caddy"')
curl -s -o /dev/null --http2 "${url[caddy]}/hello" "${url[caddy]}/moved" "${url[caddy]}/nope"
wait_for 10 agrees caddy
is "$(agent_sums caddy)" "$(log_sums caddy)" "caddy: upgraded from HTTP/1"
is $(($(agent_metric tidegate_requests_total '"caddy"') - had)) 3 "the request that upgrades is one request"
tap_end
