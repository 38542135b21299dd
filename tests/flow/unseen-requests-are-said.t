#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A gateway that uses io_uring has no requests that could be counted: rows are absent, not 0, and
# doctor and a row say so. One with a UDP socket on its port (HTTP/3) keeps those over TCP.
source "$(dirname "$0")/lib.sh"

command -v perl >/dev/null || skip_all 'perl is not installed'
world_begin unseen

# Answers one request a connection; first makes what its second argument says.
cat >"$world/server.pl" <<-'PERL'
use strict; use IO::Socket::INET;
my ($port, $what) = @ARGV;
my ($s, $udp, $ring);
$s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1) or die $!;
if ($what eq 'ring') {
	my $params = "\0" x 120;
	$ring = syscall(425, 8, $params); # io_uring_setup
	if ($ring < 0) { print "io_uring_setup: $!\n"; exit 1 }
} elsif ($what eq 'quic') {
	$udp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'udp') or die $!;
}
while (my $c = $s->accept) {
	sysread $c, my $buf, 4096;
	syswrite $c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	close $c;
}
PERL
names=() ports=()
for what in plain ring quic; do
	new_port
	names+=("\"$what=perl:$port\"") ports+=("$port")
	perl "$world/server.pl" "$port" $what >"$world/$what.txt" 2>&1 &
	world_pids+=($!)
done
answers() { curl -sf -o /dev/null "http://127.0.0.1:$1/"; }
wait_for 10 answers "${ports[0]}"; ok $? 'a gateway of system calls answers'
wait_for 10 answers "${ports[2]}"; ok $? 'one with HTTP/3 answers'
wait_for 5 answers "${ports[1]}" || wait_for 5 test -s "$world/ring.txt"
has_ring=true
grep -q io_uring_setup "$world/ring.txt" && has_ring=false
printf -v list '%s, ' "${names[@]}"
sed -i "s|match: .*|match: [${list%, }]|" "$world/agent.yaml"
start_agent
all_seen() { agent_metric tidegate_workers '"plain"' && agent_metric tidegate_workers '"quic"'; }
wait_for 10 all_seen; ok $? 'the agent sees them'

of() { agent_metric "tidegate_$1" "gateway=\"$2\""; }
ask() { for _ in 1 2 3 4 5 6 7; do curl -s -o /dev/null "http://127.0.0.1:$1/"; done; }
for i in 0 2; do ask "${ports[i]}"; done
counted() { [ "$(of requests_total "$1")" = 7 ]; }
wait_for 10 counted plain; ok $? 'seven requests of calls are counted'
wait_for 10 counted quic; ok $? 'seven over TCP beside HTTP/3 as well'
is "$(of requests_state plain) $(of requests_state quic)" '1 0.5' 'their states'

"$tidegate" doctor --json --config "$world/agent.yaml" >"$world/doctor.json"
state() { jq -r --arg g "$1" '.gateways[] | select(.name == $g) | .requests.state' "$world/doctor.json"; }
is "$(state plain) $(state quic)" 'ok degraded' 'doctor says them'
jq -r '.gateways[] | select(.name == "quic") | .requests.why' "$world/doctor.json" | grep -q 'HTTP/3 on UDP'
ok $? 'and why'
if $has_ring; then
	ask "${ports[1]}"
	is "$(of requests_state ring)" 0 'io_uring: requests are unavailable'
	is "$(state ring)" unavailable 'doctor says so'
	jq -r '.gateways[] | select(.name == "ring") | .requests.why' "$world/doctor.json" | grep -q io_uring
	ok $? 'and why'
	wait_for 2 of requests_total ring
	is $? 1 'io_uring: requests are absent'
	of syscalls_total ring >/dev/null; ok $? 'what can be counted is'
else
	echo "ok $((++tap_count)) - io_uring # SKIP $(cat "$world/ring.txt")"
fi
tap_end
