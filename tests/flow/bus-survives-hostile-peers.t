#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Hostile frames at every listener of the aggregator while a subscriber listens: nobody dies, the
# subscriber misses nothing; then each process is killed and the subscriber follows.
source "$(dirname "$0")/lib.sh"
command -v nngcat >/dev/null || skip_all "nngcat (nng-utils) is not installed"
world_begin bus
start_aggregator; ok $? "the aggregator is ready"

"$tidegate" tail "tcp://127.0.0.1:$bus_port" --json --topic beacon >"$world/tail.json" \
	2>"$world/tail.err" &
tail_pid=$!
world_pids+=("$tail_pid")
beacons() { [ "$(grep -c '"topic":"beacon","epoch"' "$world/tail.json")" -ge "$1" ]; }
wait_for 10 beacons 1; ok $? "a subscriber hears the beacon"

# hostile PORT BYTES: true when the other side cuts the connection.
hostile() {
	local fd
	exec {fd}<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf '%b' "$2" >&"$fd"
	timeout 8 cat <&"$fd" >/dev/null
	[ $? != 124 ]
	local r=$?
	exec {fd}>&-
	return $r
}
sub='\0SP\0\0\x21\0\0' req='\0SP\0\0\x30\0\0'
hostile "$bus_port" "$sub"'\0\0\0\0\0\0\0\x09x'; ok $? "a subscriber that speaks is cut off"
hostile "$bus_port" "GET / HTTP/1.1\r\n\r\n"; ok $? "HTTP at the bus is cut off"
for port in "$door_port" "$snapshot_port"; do
	hostile "$port" "$req"'\x7f\xff\xff\xff\xff\xff\xff\xff'; ok $? "a huge length is cut off"
	hostile "$port" "$req"'\0\0\0\0\0\0\0\x04\0\0\0\x01'; ok $? "an endless backtrace is cut off"
	hostile "$port" '\0SP\0\0\x50\0\0'; ok $? "another protocol is cut off"
	hostile "$port" '\0SP'; ok $? "half a handshake is cut off in time"
done
for process in door gate core; do
	is "$(grep -c "a process died.*process=$process" "$world/aggregator.log")" 0 "$process lives"
done
is "$(grep -c '"gap"' "$world/tail.json")" 0 "the subscriber missed nothing"

# An implementation of SP that is not ours. Its exit code says nothing of an answer.
asked() { nngcat --req --dial "tcp://127.0.0.1:$snapshot_port" --data "$1" --ascii --recv-timeout 10; }
asked metrics/nginx/nobody | grep -q '^snapshot.*nothing is known of it'
ok $? "nngcat asks for a snapshot and reads why there is none"
asked rubbish | grep -q '^snapshot.*no such topic'; ok $? "one who asks for rubbish is told so"
asked scale/ | grep -q '^snapshot.*scale/loop_busy'; ok $? "nngcat gets the list of topics"
heard() { nngcat --sub --dial "tcp://127.0.0.1:$bus_port" --subscribe "$1" --ascii --count 2 --recv-timeout 10; }
is "$(heard scale/ | grep -o "scale/loop_busy[.]" | wc -l)" 2 "nngcat hears what is published"

# Whoever dies, the beacon goes on at the same subscriber.
for process in gate door core; do
	pid=$(child_pid "$aggregator_pid" "$process")
	seen=$(grep -c '"topic":"beacon","epoch"' "$world/tail.json")
	kill -KILL "$pid"
	wait_for 15 beacons $((seen + 2)); ok $? "$process is killed, the subscriber follows"
done
kill -INT "$tail_pid"
wait "$tail_pid"; is $? 0 "tail ends cleanly"
tap_end
