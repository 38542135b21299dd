#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A websocket is a request that ends with its 101, and then a connection: not in flight, open until it
# is closed, whatever its frames look like; neither lost nor aborted at its end.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"

for tool in haproxy caddy perl; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin websocket

# Says 101 with the right key, then sends back what it gets.
cat >"$world/backend.pl" <<-'PERL'
use strict; use IO::Socket::INET; use Digest::SHA qw(sha1_base64);
$SIG{CHLD} = 'IGNORE';
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => shift, Listen => 64, ReuseAddr => 1)
	or die $!;
while (my $c = $s->accept) {
	next if fork;
	my ($head, $buf) = ('');
	while ($head !~ /\r\n\r\n/) { sysread($c, $buf, 4096) or exit; $head .= $buf }
	my ($key) = $head =~ /^sec-websocket-key: *(\S+)/mi or exit;
	my $accept = sha1_base64($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11') . '=';
	syswrite $c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" .
		"Connection: Upgrade\r\nSec-WebSocket-Accept: $accept\r\n\r\n";
	while (sysread $c, $buf, 4096) { syswrite $c, $buf }
	exit;
}
PERL
new_port; backend=$port
perl "$world/backend.pl" "$backend" 2>"$world/backend.log" &
world_pids+=($!)
backend_listens() { ! port_free "$backend"; }
wait_for 10 backend_listens; ok $? "the backend listens"
nginx_edit="s|location = /fast|location /up/ { proxy_pass http://127.0.0.1:$backend; \
	proxy_http_version 1.1; proxy_set_header Upgrade \$http_upgrade; \
	proxy_set_header Connection upgrade; } location = /fast|"
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
start_haproxy "127.0.0.1:$backend" || { echo "Bail out! haproxy does not start"; exit 1; }
start_caddy "127.0.0.1:$backend" || { echo "Bail out! caddy does not start"; exit 1; }
match_gateways "nginx=nginx:$gateway_port" "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port"
start_agent
all_seen() { for g in nginx haproxy caddy; do agent_metric tidegate_workers $g || return 1; done; }
wait_for 10 all_seen; ok $? "the agent sees all three gateways"

of() { agent_metric "tidegate_$1" "gateway=\"$2\"${3:+.*$3}" || echo 0; }
upgraded() { [ "$(of requests_total "$1" 'code="101"')" = "$2" ]; }
open_is() { [ "$(of connections_open "$1")" = "$2" ]; }
idle() { [ "$(of requests_in_flight "$1")" = 0 ]; } # a mean over the tick
sockets=()
dial() { # dial PORT: a websocket in ${sockets[-1]}
	local line fd
	exec {fd}<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'GET /up/ws HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n\r\n' \
		"$1" $'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' >&"$fd"
	read -rt 10 line <&"$fd"
	sockets+=("$fd")
	[[ $line == *' 101 '* ]] || { note "$1: $line"; return 1; }
	while read -rt 10 line <&"$fd" && [ "$line" != $'\r' ]; do :; done
}
chat() { # what looks like a request comes back as it is
	local line
	printf 'GET /up/not HTTP/1.1\r\n' >&"$1"
	read -rt 10 line <&"$1"
	[ "$line" = $'GET /up/not HTTP/1.1\r' ]
}
each() { # each NAME PORT
	local name=$1 before i good=0
	before=$(of connections_open "$name")
	sockets=()
	for i in 1 2 3; do dial "$2" || good=1; done
	ok $good "$name: three websockets are open"
	for i in "${sockets[@]}"; do chat "$i" && chat "$i" || good=1; done
	ok $good "$name: and carry what looks like requests"
	wait_for 10 upgraded "$name" 3; ok $? "$name: three requests ended with 101"
	wait_for 10 open_is "$name" $((before + 3)); ok $? "$name: three connections are open"
	is "$(of requests_total "$name")" "$(($(of requests_total "$name" 'code="101"')))" \
		"$name: what they carry is no request"
	wait_for 10 idle "$name"; ok $? "$name: none is in flight"
	for i in "${sockets[@]}"; do exec {i}>&-; done
	wait_for 10 open_is "$name" "$before"; ok $? "$name: and then none"
	is "$(of requests_lost_total "$name") $(of requests_aborted_total "$name")" '0 0' \
		"$name: neither lost nor aborted"
}
each nginx "$gateway_port"
each haproxy "$haproxy_port"
each caddy "$caddy_port"
tap_end
