#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Who may not come in, at the aggregator's listeners with TLS: each is refused, counted by reason and
# told once with its address, while a subscriber that may be there hears every beacon.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/authority.sh"
world_begin strangers
authority_new ours
authority_new theirs
certificate door ours IP:127.0.0.1
certificate agent ours URI:tidegate://agent/team-a
certificate ops ours DNS:ops
certificate expired ours URI:tidegate://agent/team-a -1
certificate foreign theirs URI:tidegate://agent/team-a 2 ours
certificate nameless ours email:nobody@example.org
sed -i 's|tcp://127|tls+tcp://127|' "$world/aggregator.yaml"
sed -i 's|^door:|&\n  subscribers_san: ["ops"]|' "$world/aggregator.yaml"
tls_section door >>"$world/aggregator.yaml"
start_aggregator; ok $? "the aggregator listens with TLS"

req='\0SP\0\0\x30\0\0' sub='\0SP\0\0\x21\0\0'
# speak FOLDER PORT [BYTES [OPTION...]]: what the other side sent until it cut the connection, or nothing
# more was to be said; fails when the connection was not cut within 10 s.
speak() {
	local who=$world/$1 port=$2 bytes=${3:-} fifo=$world/fifo.$BASHPID
	shift $(($# < 3 ? $# : 3))
	mkfifo "$fifo"
	exec {hold}<>"$fifo"
	printf '%b' "$bytes" >&"$hold"
	timeout 10 openssl s_client -connect "127.0.0.1:$port" -CAfile "$world/ops/ca.pem" \
		-cert "$who/cert.pem" -key "$who/key.pem" -quiet "$@" <"$fifo" >"$world/spoken" 2>"$world/spoken.err"
	[ $? != 124 ]
	local r=$?
	exec {hold}>&-
	rm "$fifo"
	return $r
}
refused() { fleet_metric tidegate_door_refused_total "reason=\"$1\""; }
rises() { [ "$(refused "$1")" -gt "$2" ]; }
told() { grep -c "warning door refused .*peer=127.0.0.1:[0-9]* reason=$1 why=\"[^\"]" "$world/aggregator.log"; }
# is_refused REASON NAME COMMAND...
is_refused() {
	local reason=$1 name=$2 before
	shift 2
	before=$(refused "$reason")
	"$@"; ok $? "$name: cut off"
	wait_for 10 rises "$reason" "$before"; ok $? "$name: counted as $reason"
}

# Somebody who keeps what a client of TLS says first.
new_port
hello_port=$port
perl -MIO::Socket::INET -e 'my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:$ARGV[0]") or die "$!";
	my $c = $l->accept; sysread $c, my $b, 4096; open my $f, ">", "$ARGV[1].part"; print $f $b; close $f;
	rename "$ARGV[1].part", $ARGV[1]' "$hello_port" "$world/hello" &
world_pids+=("$!")

# The subscriber: bytes in, and nobody disturbs it.
mkfifo "$world/sub"
exec {sub_fd}<>"$world/sub"
printf '%b' "$sub" >&"$sub_fd"
openssl s_client -connect "127.0.0.1:$bus_port" -CAfile "$world/ops/ca.pem" -verify_return_error \
	-cert "$world/ops/cert.pem" -key "$world/ops/key.pem" -quiet <"$world/sub" \
	>"$world/heard" 2>"$world/heard.err" &
sub_pid=$!
world_pids+=("$sub_pid")
beacons() { [ "$(grep -aoc beacon "$world/heard")" -ge "$1" ]; }
wait_for 10 beacons 1; ok $? "a subscriber whose name is listed hears the beacon"

is_refused certificate "an expired certificate" speak expired "$door_port" "$req"
is_refused certificate "another authority's certificate" speak foreign "$door_port" "$req"
is_refused certificate "a certificate that names no agent" speak nameless "$door_port" "$req"
is_refused certificate "a name that may not subscribe" speak agent "$bus_port" "$sub"
is_refused certificate "nor ask for snapshots" speak agent "$snapshot_port" "$req"
nobody() { timeout 10 openssl s_client -connect "127.0.0.1:$door_port" -quiet <"$world/sub" >"$world/spoken" 2>&1; [ $? != 124 ]; }
is_refused certificate "no certificate" nobody
is "$(told certificate)" 1 "six such from one host are told once"

plain() { # plain BYTES: over TCP, until it is cut off
	local fd r
	exec {fd}<>"/dev/tcp/127.0.0.1/$door_port" || return 1
	{ printf '%b' "$1" >&"$fd"; } 2>/dev/null
	timeout 10 cat <&"$fd" >/dev/null 2>&1
	[ $? != 124 ]; r=$?
	exec {fd}>&-
	return $r
}
is_refused tls "SP without TLS" plain "$req"
is_refused tls "HTTP" plain "GET / HTTP/1.1\r\n\r\n"
is_refused tls "TLS junk" plain '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03junkjunkjunkjunkjunkjunkjunk'"$(printf 'x%.0s' {1..600})"
old() { timeout 10 openssl s_client -connect "127.0.0.1:$door_port" -tls1_1 -cipher ALL:@SECLEVEL=0 -quiet <"$world/sub" >"$world/spoken" 2>&1; [ $? != 124 ]; }
is_refused tls "TLS 1.1" old
is "$(told tls)" 1 "told once"
is_refused handshake "inside TLS no SP" speak agent "$door_port" 'GET / HTTP/1.1\r\n\r\n'
is_refused size "inside TLS a huge message" speak agent "$door_port" "$req"'\x7f\xff\xff\xff\xff\xff\xff\xff'
is_refused protocol "inside TLS a subscriber that speaks" speak ops "$bus_port" "$sub"'\0\0\0\0\0\0\0\x09x'

# Renegotiation, which TLS 1.2 still has: s_client asks for it at a line with an R.
again() {
	local r
	mkfifo "$world/again"
	exec {again_fd}<>"$world/again"
	printf '%b' "$req" >&"$again_fd"
	timeout 10 openssl s_client -connect "127.0.0.1:$door_port" -CAfile "$world/ops/ca.pem" -tls1_2 \
		-cert "$world/agent/cert.pem" -key "$world/agent/key.pem" <"$world/again" >"$world/spoken" 2>&1 &
	wait_for 5 grep -aq 'Verify return code' "$world/spoken"
	# Its own read of the first bytes must be over, or the R is none at the begin of a line.
	wait_for 5 connected 1
	printf 'R\n' >&"$again_fd"
	wait $!
	[ $? != 124 ]; r=$?
	exec {again_fd}>&-
	return $r
}
connected() { [ "$(fleet_metric tidegate_door_connections 'what="client"')" = "$1" ]; }
is_refused protocol "a renegotiation" again

# 600 that say nothing hold all places of half-done handshakes; who has a certificate comes in.
cat >"$world/silent.pl" <<'PERL'
use IO::Socket::INET;
my @held = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ARGV[0]") or die "$!" } 1 .. 600;
$| = 1;
print "held\n";
<STDIN>;
PERL
mkfifo "$world/end"
exec {end_fd}<>"$world/end"
perl "$world/silent.pl" "$door_port" <"$world/end" >"$world/silent" 2>&1 &
silent_pid=$!
world_pids+=("$silent_pid")
wait_for 10 grep -q held "$world/silent"; ok $? "600 connections are held open, silent"
full=$(fleet_metric tidegate_door_handshakes_total 'how="full"')
comes_in() { [ "$(fleet_metric tidegate_door_handshakes_total 'how="full"')" -gt "$full" ]; }
speak agent "$door_port" "$req"'\x7f\xff\xff\xff\xff\xff\xff\xff'; ok $? "who has a certificate comes in beside them"
wait_for 5 comes_in; ok $? "and is counted"
gone_all() { [ "$(($(refused evicted) + $(refused timeout)))" -ge 600 ]; }
wait_for 15 gone_all; ok $? "all 600 are cut off and counted"
[ "$(refused evicted)" -ge 1 ]; ok $? "some of them because others waited"
printf '\n' >&"$end_fd"

# One who only says hello, again and again, as fast as it goes, while another holds places: each costs the
# door a millisecond, until its host is not listened to. (On a host of its own: who has a certificate comes
# in at once.)
timeout 10 openssl s_client -connect "127.0.0.1:$hello_port" -quiet <"$world/sub" >/dev/null 2>&1 &
world_pids+=("$!")
wait_for 5 test -s "$world/hello"; ok $? "a hello of TLS is recorded"
cat >"$world/again.pl" <<'PERL'
use IO::Socket::INET;
$SIG{PIPE} = "IGNORE";
my ($port, $file) = @ARGV;
open my $f, "<", $file or die;
local $/;
my $hello = <$f>;
# More than a quarter of 512, made anew before the door gives them up.
my (@held, $since);
my $hold = sub {
	return if $since && time - $since < 2;
	my @new = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", LocalAddr => "127.0.0.3") or die "$!" } 1 .. 200;
	@held = @new;
	$since = time;
};
for (1 .. 3001) {
	$hold->();
	my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", LocalAddr => "127.0.0.2") or die "$!";
	syswrite $s, $hello;
	sysread $s, my $answer, 4096;
}
PERL
tls_before=$(refused tls)
perl "$world/again.pl" "$door_port" "$world/hello"; ok $? "3,001 times the same hello and no more"
all_counted() { [ "$(($(refused tls) - tls_before + $(refused throttled)))" = 3001 ]; }
wait_for 10 all_counted; ok $? "each is counted"
[ "$(refused throttled)" -ge 20 ]; ok $? "most were closed before the door computed"
grep -q 'refused at=requests peer=127.0.0.2:[0-9]* reason=throttled' "$world/aggregator.log"; ok $? "which is told"
full=$(fleet_metric tidegate_door_handshakes_total 'how="full"')
speak agent "$door_port" "$req"'\x7f\xff\xff\xff\xff\xff\xff\xff'
wait_for 5 comes_in; ok $? "other hosts are not affected"

seen=$(grep -aoc beacon "$world/heard")
wait_for 10 beacons $((seen + 1)); ok $? "the subscriber is still there"
kill "$sub_pid"
for process in door gate core; do
	is "$(grep -c "a process died.*process=$process" "$world/aggregator.log")" 0 "$process lives"
done

# What is refused before anything starts.
refuses() { # refuses PATTERN NAME
	timeout 20 "$tidegate" aggregator --config "$world/wrong.yaml" >/dev/null 2>"$world/err"
	case $? in 1 | 2) ok 0 "$2: does not start" ;; *) ok 1 "$2: does not start" ;; esac
	is "$(grep -c . "$world/err")" 1 "$2: one line"
	grep -q -- "$1" "$world/err"; ok $? "$2: says so"
}
new_port
wrong() { sed -e "s|runtime_dir: .*|runtime_dir: $run-wrong|" -e "s|127.0.0.1:[0-9]*|127.0.0.1:0|" -e "$1" "$world/aggregator.yaml" >"$world/wrong.yaml"; }
wrong "s|bus_address: .*|bus_address: tcp://0.0.0.0:$port|"; refuses "0.0.0.0:$port.*TLS" "plain beyond loopback"
wrong "/^tls:/,\$d"; refuses "tls.cert_file" "TLS without files"
wrong "s|127.0.0.1:0\$|&|; s|^api:|&\n  address: tls+tcp://127.0.0.1:$port|; /^  address: 127/d"
refuses "no TLS here" "HTTP with TLS"
rm -rf "$run-wrong" "$run-wrong-aggregator"
tap_end
