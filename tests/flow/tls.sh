# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Gateways that speak TLS, with a certificate made here. Source it after lib.sh and gateways.sh.

# Sets $tls_cert, $tls_key and $tls_both (in one file, as HAProxy wants them).
make_certificate() {
	# shellcheck disable=SC2154 # world_begin sets it
	tls_cert=$world/cert.pem tls_key=$world/key.pem tls_both=$world/both.pem
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
		-keyout "$tls_key" -out "$tls_cert" 2>"$world/openssl.log" &&
		cat "$tls_cert" "$tls_key" >"$tls_both" && chmod 644 "$tls_key"
}

# nginx_edit of start_nginx: a second listener, on $tls_port, that speaks TLS.
nginx_with_tls() { # nginx_with_tls [MORE-DIRECTIVES]
	make_certificate
	new_port
	# shellcheck disable=SC2154 # new_port sets it
	tls_port=$port tls=https://127.0.0.1:$port
	# shellcheck disable=SC2034 # start_nginx reads it
	nginx_edit="s|listen 127.0.0.1:.* backlog=511;|&\n        listen 127.0.0.1:$tls_port ssl;\n        ssl_certificate $tls_cert;\n        ssl_certificate_key $tls_key;\n        ${1:-}|"
}

# On $tls_haproxy: /hello, 404 for the rest; /up/… goes to $1 (host:port) inside TLS. Two threads.
start_haproxy_tls() { # start_haproxy_tls BACKEND
	local dir=$world/haproxy
	new_port
	tls_haproxy=$port
	mkdir -p "$dir"
	cat >"$dir/haproxy.cfg" <<-CONF
	global
	  nbthread 2
	  log stdout format raw local0
	  stats socket $dir/master.sock
	  maxconn 1000
	defaults
	  mode http
	  log global
	  log-format "%ST %HM %HP %ts"
	  timeout connect 5s
	  timeout client 30s
	  timeout server 30s
	frontend web
	  bind 127.0.0.1:$tls_haproxy ssl crt $tls_both
	  http-request return status 200 content-type text/plain string hello if { path /hello }
	  use_backend up if { path_beg /up/ }
	  http-request return status 404 content-type text/plain string nothing unless { path_beg /up/ }
	backend up
	  http-request replace-path /up(/.*) \\1
	  server up $1 ssl verify none
	CONF
	haproxy -W -f "$dir/haproxy.cfg" >"$dir/access.log" 2>"$dir/error.log" &
	world_pids+=($!)
	wait_for 10 answers_tls "$tls_haproxy" && return
	cat "$dir/error.log" >&2
	return 1
}
answers_tls() { curl -skf -o /dev/null "https://localhost:$1/hello"; }

# On $tls_caddy, the same.
start_caddy_tls() { # start_caddy_tls BACKEND
	local dir=$world/caddy
	new_port
	tls_caddy=$port
	mkdir -p "$dir/home"
	cat >"$dir/Caddyfile" <<-CONF
	{
		admin off
		auto_https off
		default_sni localhost
	}
	:$tls_caddy {
		bind 127.0.0.1
		tls $tls_cert $tls_key
		log {
			output file $dir/access.log
		}
		handle_path /up/* {
			reverse_proxy https://$1 {
				transport http {
					tls_insecure_skip_verify
					versions 1.1
				}
			}
		}
		respond /hello "hello"
		respond 404
	}
	CONF
	HOME=$dir/home caddy run --adapter caddyfile --config "$dir/Caddyfile" 2>"$dir/error.log" &
	world_pids+=($!)
	wait_for 20 answers_tls "$tls_caddy" && return
	tail -5 "$dir/error.log" >&2
	return 1
}
