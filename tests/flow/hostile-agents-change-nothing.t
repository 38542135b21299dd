#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An agent with a right certificate sends what is wrong: truncated and bit-flipped frames, zip bombs,
# replays, sequences from the future, another's id and others' sessions, junk. Each is refused, counted,
# and told once with its peer, while an honest agent's totals go on. Then more connections than there
# can be descriptors. TIDEGATE_HOSTILE is the aggregator's binary; `make check-hostile` gives one
# with AddressSanitizer.
source "$(dirname "$0")/uppers.sh"
source "$(dirname "$0")/authority.sh"
for tool in openssl setpriv perl; do
	command -v $tool >/dev/null || skip_all "no $tool"
done
forge=$BUILD/tests/chaos/forge
hostile_tidegate=${TIDEGATE_HOSTILE:-$tidegate}

world_begin hostile
mkdir -p "$run"
chmod 755 "$run"
authority_new ours || { echo "Bail out! no certificates"; exit 1; }
certificate door ours IP:127.0.0.1
certificate honest ours URI:tidegate://agent/honest
certificate mallory ours URI:tidegate://agent/mallory
aggregator_write all
sed -i "s|tcp://127.0.0.1:${door_of[all]}|tls+tcp://127.0.0.1:${door_of[all]}|" "$world/all.yaml"
tls_section door >>"$world/all.yaml"
agent_write honest '' "tls+tcp://127.0.0.1:${door_of[all]}"
tls_section honest >>"$world/honest.yaml"
(
	ulimit -n 256
	exec "$hostile_tidegate" aggregator --config "$world/all.yaml" >>"$world/all.log" 2>&1
) &
pid_of[all]=$!
world_pids+=($!)
wait_for 20 aggregator_is_ready all; ok $? "the aggregator is ready, with 256 descriptors a process"
agent_begin honest; ok $? "an honest agent is there"
feed_begin honest; ok $? "and counts"

metrics() { curl -sf "http://127.0.0.1:${api_of[all]}/metrics"; }
metric() { sum_metric "$(metrics)" "$@" || echo 0; }
rises() { [ "$(metric "$2" "$3")" -ge $(($1)) ]; } # rises LEAST METRIC LABEL
total() { told_by all '' | awk '{s += $NF} END {print s + 0}'; }
goes_on() { [ "$(total)" -gt "$1" ]; }
told() { grep -c "warning core refused .*what=$1 peer=127.0.0.1:[0-9]* agent=\"mallory\"" "$world/all.log"; }
wait_for 20 goes_on 0; ok $? "its totals are shown"

# CPU of the three, in ticks of the clock, into an array.
cpu() { # cpu ARRAY
	local -n ret=$1
	local process pid
	ret=()
	for process in door gate core; do
		pid=$(child_pid "${pid_of[all]}" $process)
		ret+=("$(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat")")
	done
}
spent() { # spent NAME: since before_cpu
	local after
	cpu after
	# shellcheck disable=SC2154 # cpu has set it
	note "CPU for $1, in ms: door $(((after[0] - before_cpu[0]) * 1000 / hertz)), gate $(((after[1] - before_cpu[1]) * 1000 / hertz)), core $(((after[2] - before_cpu[2]) * 1000 / hertz))"
}
hertz=$(getconf CLK_TCK)

# send KIND [AGENT]: what forge makes, over TLS as mallory; the connection stays until the next.
sender='' hold_fd='' sent=0
send() {
	[ -z "$sender" ] || { kill "$sender" 2>/dev/null; exec {hold_fd}>&-; }
	sent=$((sent + 1))
	"$forge" "$1" "${2:-mallory}" >"$world/forged" || return
	mkfifo "$world/hold$sent"
	exec {hold_fd}<>"$world/hold$sent"
	openssl s_client -connect "127.0.0.1:${door_of[all]}" -CAfile "$world/mallory/ca.pem" \
		-cert "$world/mallory/cert.pem" -key "$world/mallory/key.pem" -quiet \
		<"$world/hold$sent" >"$world/answer" 2>"$world/answer.err" &
	sender=$!
	world_pids+=("$sender")
	timeout 20 cat "$world/forged" >&"$hold_fd"
}
# is_refused KIND COUNT METRIC LABEL NAME [AGENT]: the counter rises by COUNT, and the honest agent is served.
is_refused() {
	local before now
	before=$(metric "$3" "$4")
	cpu before_cpu
	now=$(total)
	send "$1" "${6:-mallory}"
	wait_for 20 rises "$before + $2" "$3" "$4"; ok $? "$5: counted"
	wait_for 20 goes_on "$now"; ok $? "$5: the honest agent goes on"
	spent "$1"
}
frames=tidegate_aggregator_frames_total refusals=tidegate_aggregator_refused_total
is_refused truncated 3 $frames 'state="damaged"' "truncated frames"
is_refused flipped 200 $frames 'state="damaged"' "each bit of a frame flipped"
is_refused bomb 2 $frames 'state="damaged"' "zip bombs of 256 MiB"
is "$(told frame)" 1 "damaged frames are told once with their peer"
is_refused future 3 $frames 'state="(damaged|refused)"' "sequences 0 and from the future"
is_refused version 1 $refusals 'what="hello"' "a version to come"
is "$(told hello)" 1 "told once with its peer"
is_refused many 1 $refusals 'what="request"' "5,000 frames in a request"
is_refused junk 1 $refusals 'what="request"' "junk inside SP"
is "$(grep -c 'warning core refused .*what=request peer=127' "$world/all.log")" 1 "told once with its peer"
is_refused name 1 $refusals 'what="foreign"' "a name of 64 kB"
is_refused honest 1 $refusals 'what="foreign"' "the honest agent's id" honest
is "$(grep -c 'speaks for an agent that its certificate does not name' "$world/all.log")" 1 "told once"
cpu before_cpu
now=$(total)
send session
# 64 times status NEED_HELLO, at least two bytes behind length and request id.
answered() { [ "$(stat -c %s "$world/answer")" -ge $((8 + 64 * 14)) ]; }
wait_for 20 answered; ok $? "64 guessed sessions are answered"
metrics | grep -q forged_total && ok 1 "and count nothing" || ok 0 "and count nothing"
wait_for 20 goes_on "$now"; ok $? "the honest agent goes on"
spent session
is_refused replayed 3 $frames 'state="duplicate"' "a frame four times"
is "$(metric forged_total)" 7 "what it counted counts once"

# More than there are descriptors: who is there stays, who comes later comes in when there is room.
accepted=$(metric tidegate_door_connections 'what="client"')
cpu before_cpu
now=$(total)
perl -MIO::Socket::INET -e '
	my @held = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ARGV[0]", Timeout => 2) } 1 .. 400;
	$| = 1;
	print "held ", scalar(grep { defined } @held), "\n";
	<STDIN>' "${door_of[all]}" <&"$hold_fd" >"$world/held" 2>&1 &
flood=$!
world_pids+=("$flood")
wait_for 30 grep -q '^held' "$world/held"; ok $? "400 connections are begun"
note "$(cat "$world/held")"
wait_for 20 goes_on "$now"; ok $? "the honest agent goes on beside them"
refused_all() { [ "$(metric tidegate_door_refused_total 'reason="(timeout|evicted|full)"')" -ge 200 ]; }
wait_for 30 refused_all; ok $? "those that said nothing are cut off and counted"
spent "400 silent connections"
kill "$flood"
full=$(metric tidegate_door_handshakes_total 'how="full"')
send honest
comes_in() { [ "$(metric tidegate_door_handshakes_total 'how="full"')" -gt "$full" ]; }
wait_for 20 comes_in; ok $? "who has a certificate comes in again"
[ "$accepted" -ge 1 ]; ok $? "as before ($accepted connections)"

kill "$sender" 2>/dev/null
feed_end honest; ok $? "the feed ends"
wait_for 30 is_told all '' honest; ok $? "the honest agent's totals are what it counted"
told_differs all '' honest
for process in door gate core; do
	is "$(grep -c "a process died.*process=$process" "$world/all.log")" 0 "$process lives"
done
kill -TERM "${pid_of[all]}" && wait "${pid_of[all]}"; is $? 0 "the aggregator ends in order"
tap_end
