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
