#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Three aggregators of two clusters feed an upper one. While agents count, each process of each of them
# is killed; of one the data directory is wiped, of another the spool, of the third the data while the
# ferry lives; and at last the upper one's data: at the top the totals never fall, and in the end they
# are what the agents' scripts counted, exactly.
source "$(dirname "$0")/uppers.sh"
source "$(dirname "$0")/authority.sh"

world_begin uppers
lowers=(east-1 east-2 west-1)
# They feed it over TLS, each with a certificate for its name.
authority_new ours && certificate top-tls ours IP:127.0.0.1 ||
	{ echo "Bail out! no certificates"; exit 1; }
aggregator_write top "$(tls_section top-tls)"
sed -i 's|address: tcp://|address: tls+tcp://|' "$world/top.yaml"
for name in "${lowers[@]}"; do
	as=
	[ "$name" = west-1 ] || as=",URI:tidegate://aggregator/$name"
	certificate "$name-tls" ours "DNS:$name$as" || echo "Bail out! no certificate"
	aggregator_write "$name" "$(tls_section "$name-tls")
	uplink:
	  id: $name
	  aggregators: [\"tls+tcp://127.0.0.1:${door_of[top]}\"]
	  backoff: 300ms
	spool:
	  dir: $world/$name/spool"
	agent_write "agent-$name" "${name%-*}" "tcp://127.0.0.1:${door_of[$name]}"
done
for name in top "${lowers[@]}"; do aggregator_begin "$name"; done
agent_write agent-west-2 west "tcp://127.0.0.1:${door_of[west-1]}"
east=(agent-east-1 agent-east-2)
west=(agent-west-1 agent-west-2)
for name in "${east[@]}" "${west[@]}"; do agent_begin "$name"; feed_begin "$name"; done
for name in top "${lowers[@]}"; do
	wait_for 10 aggregator_is_ready "$name"; ok $? "$name is ready"
done

# One's certificate names it, but not as an aggregator: it is refused until it has another.
refused() { grep -q 'speaks as an aggregator.*agent="west-1"' "$world/top.log"; }
wait_for 10 refused; ok $? "who is no aggregator by its certificate feeds nobody"
is "$(told_by top west)" "" "nothing of it is at the top"
certificate west-1-tls ours "DNS:west-1,URI:tidegate://aggregator/west-1" || echo "Bail out! no certificate"

has_begun() { [ -n "$(told_by top east)" ] && [ -n "$(told_by top west)" ]; }
wait_for 10 has_begun; ok $? "sums of both clusters are at the top"

# One sum of all that is shown at the top; it may never fall.
top_sum() { { told_by top east; told_by top west; } | awk '{ n += $3 } END { printf "%.17g\n", n }'; }
falls=0 looks=0 last=0
look() {
	local now
	curl -sf "http://127.0.0.1:${api_of[top]}/healthz" >/dev/null || return 0
	now=$(top_sum)
	[ -n "$(told_by top west)" ] || return 0 # it began anew and has not heard of all again
	looks=$((looks + 1))
	[ "$now" -ge "$last" ] || { falls=$((falls + 1)); note "fell from $last to $now"; }
	last=$now
}

# Killed like a machine: the supervisor first, so that nobody restarts the rest; then begun anew.
crash() { # crash AGGREGATOR [COMMAND...]: in between
	local name=$1 pids pid
	shift
	read -ra pids <<<"${pid_of[$name]} $(cat "/proc/${pid_of[$name]}/task/${pid_of[$name]}/children")"
	kill -KILL "${pids[@]}"
	wait "${pid_of[$name]}" 2>/dev/null
	for pid in "${pids[@]}"; do wait_for 5 gone "$pid" || return; done
	"$@"
	aggregator_begin "$name"
}
# The top has what was counted until now of a cluster, or more.
top_reaches() { # top_reaches CLUSTER TRUTH
	awk -v wanted="$2" '{ n += $3 } END { exit !(n >= wanted) }' <<<"$(told_by top "$1")"
}
sum() { awk '{ n += $3 } END { printf "%.17g\n", n }'; }

killed=0
for process in door gate core ferry; do
	for name in "${lowers[@]}"; do
		kill_process "$name" "$process" && killed=$((killed + 1))
	done
	look
done
for process in door gate core; do
	kill_process top "$process" && killed=$((killed + 1))
	look
done
is $killed 15 "each process was killed once and is there again"
counted=$(truth_of "${east[@]}" | sum)
wait_for 20 top_reaches east "$counted"; ok $? "the top goes on"

crash east-1 rm -rf "$world/east-1/data"; ok $? "east-1 is killed, its data wiped"
look
crash east-2 rm -rf "$world/east-2/spool"; ok $? "east-2 is killed, its spool wiped"
look
# Only one of its agents speaks at first: what goes up is less than what is there.
stopped=$(child_pid "${pid_of[agent-west-2]}" courier)
kill -STOP "$stopped"
rm -f "$world"/west-1/data/*
kill_process west-1 core; ok $? "west-1's data are removed, then its core killed"
fleet_of() { sum_metric "$(curl -sf "http://127.0.0.1:${api_of[$1]}/metrics")" "${@:2}"; }
ferried() { fleet_of "$1" tidegate_frames_total 'process="ferry",state="acknowledged"'; }
tells_half() { is_told_more west-1 west 0 && [ "$(ferried west-1)" -ge 2 ]; }
is_told_more() { [ "$(told_by "$1" "$2" | sum)" -gt "$3" ]; }
wait_for 15 tells_half; ok $? "and tells of one agent while the other is stopped"
look
kill -CONT "$stopped"
for name in "${lowers[@]}"; do
	wait_for 10 aggregator_is_ready "$name"; ok $? "$name is ready again"
	look
done
counted=$(truth_of "${east[@]}" | sum)
wait_for 20 top_reaches east "$counted"; ok $? "the top goes on"
look
is $falls 0 "the totals at the top never fell ($looks looks)"
crash top rm -rf "$world/top/data"; ok $? "the top is killed, its data wiped"

for name in "${east[@]}" "${west[@]}"; do feed_end "$name"; ok $? "the feed of $name ended"; done
wait_for 20 is_told top east "${east[@]}"; ok $? "east at the top is what was counted"
wait_for 20 is_told top west "${west[@]}"; ok $? "and west"
pause 1.5 # a frame more of each, which must change nothing
is "$(told_by top east)" "$(truth_of "${east[@]}")" "nothing of east counts twice"
is "$(told_by top west)" "$(truth_of "${west[@]}")" "nor of west"
is "$(told_by east-1 east)" "$(truth_of agent-east-1)" "below, too, after the wipe"
is "$(told_by west-1 west)" "$(truth_of "${west[@]}")" "and after the other one"
is "$(grep -c 'state is another one' "$world/west-1.log")" 1 "the ferry that outlived the state said so"
tap_end
