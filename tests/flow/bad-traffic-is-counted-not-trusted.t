#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A gateway whose binary was replaced, garbage on its socket, more connections and more workers than
# there are places: handled, counted, said, and what is counted stays right.
source "$(dirname "$0")/lib.sh"

command -v perl >/dev/null || skip_all 'perl is not installed'
world_begin bad
drain_options='  on_sigterm: never'
agent_options='probe:
  connections: 64'
write_config
# Its file is gone before anybody looks: /proc says "… (deleted)".
mkdir -p "$world/bin"
cp "$(command -v nginx)" "$world/bin/nginx"
PATH=$world/bin:$PATH start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
rm "$world/bin/nginx"
readlink "/proc/$nginx_pid/exe" | grep -q deleted; ok $? "nginx runs on a deleted file"
start_agent; ok $? "and is found"

of() { agent_metric "tidegate_$1" "${2:-}" 2>/dev/null || echo 0; }
reaches() { [ "$(of "$1" "${3:-}")" -ge "$2" ]; }
good() { for _ in $(seq "$1"); do curl -s -o /dev/null "$gateway/fast"; done; }
good 7
wait_for 10 reaches requests_total 7; ok $? "seven requests are counted"

# ---- garbage: the same numbers each time ----
cat >"$world/garbage.pl" <<-'PERL'
use strict; use IO::Socket::INET;
srand 4711;
sub dial { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $ARGV[0]) or die $! }
sub over { my ($c, $buf) = @_; shutdown $c, 1; 1 while sysread $c, $buf, 65536; close $c }
$SIG{PIPE} = 'IGNORE';
for my $i (1 .. 97) { # random bytes, some after a good first letter
	my $c = dial;
	syswrite $c, ($i % 3 ? '' : 'GET ') . join '', map chr rand 256, 1 .. 1 + rand 3000;
	over $c;
}
for my $half ('G', 'GET /ha', "GET /half HTTP/1.1\r\n", "GET /half HTTP/1.1\r\nHost: a\r\nContent-Le",
	      "POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nx",
	      "POST /half HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n") {
	my $c = dial; syswrite $c, $half; over $c;
}
my $c = dial; # a header of a megabyte: nginx refuses it on the way
syswrite($c, "GET /long HTTP/1.1\r\nHost: a\r\n") and
	(syswrite $c, 'X-Long: ' . 'y' x 1048576 . "\r\n\r\n");
close $c;
PERL
accepts=$(of accepts_total)
timeout 60 perl "$world/garbage.pl" "$gateway_port"; ok $? "garbage, half requests and a header of a megabyte are sent"
wait_for 10 reaches accepts_total $((accepts + 97 + 6 + 1)); ok $? "each connection is counted"
before=$(of requests_total code=\"200\")
good 7
wait_for 10 reaches requests_total $((before + 7)) code=\"200\"
is "$(of requests_total code=\"200\")" $((before + 7)) "seven good requests after it are seven"
idle() { [ "$(of requests_in_flight)" = 0 ] && [ "$(of connections_open)" = 0 ]; }
wait_for 10 idle; ok $? "nothing is left in flight or open"

# ---- more connections than places ----
fds=()
for _ in $(seq 101); do
	exec {fd}<>"/dev/tcp/127.0.0.1/$gateway_port" && fds+=("$fd")
done
wait_for 10 reaches probe_lost_total $((101 - 64)) reason=\"connections\"
is "$(of probe_lost_total reason=\"connections\")" $((101 - 64)) "101 connections, 64 places: the others are counted"
open_is() { [ "$(of connections_open)" = "$1" ]; }
wait_for 10 open_is 64; ok $? "64 are open"
for fd in "${fds[@]}"; do exec {fd}>&-; done
wait_for 10 open_is 0; ok $? "and then none"
before=$(of requests_total code=\"200\")
good 7
wait_for 10 reaches requests_total $((before + 7)) code=\"200\"; ok $? "places are given back"

# ---- more workers than places ----
stop_agent
agent_options='probe:
  threads: 8'
write_config
: >"$world/agent.log"
kill -QUIT "$nginx_pid"; wait_for 10 gone "$nginx_pid"
start_nginx 31 || { echo "Bail out! nginx does not start again"; exit 1; }
start_agent; ok $? "an agent with eight places sees a gateway of 32 processes"
wait_for 10 reaches probe_lost_total 24 reason=\"threads\"; ok $? "those without a place are counted"
workers=$(of workers)
[ "$workers" = 7 ] || [ "$workers" = 8 ]; ok $? "eight are watched, the master among them or not: $workers workers"
is "$(grep -c 'not watched.*raise=probe.threads' "$world/agent.log")" 1 "it is said once, with what to do"
bad=0
for _ in 1 2 3; do curl -sf -o /dev/null "$gateway/fast" || bad=1; done
ok $bad "the gateway answers"
tap_end
