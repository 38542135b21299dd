#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `tidegate tail` beyond a plain port: an aggregator by name over TLS, with its state, and the agent's own
# bus on this host. Whoever may not subscribe is told why, in one line.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/authority.sh"
command -v nngcat >/dev/null || skip_all "nngcat (nng-utils) is not installed"
world_begin tailfar
authority_new ours
certificate door ours DNS:localhost,IP:127.0.0.1
certificate agent ours "DNS:$agent_id"
certificate ops ours DNS:ops
sed -i 's|tcp://127|tls+tcp://127|; s|^door:|&\n  subscribers_san: [ops]|' "$world/aggregator.yaml"
tls_section door >>"$world/aggregator.yaml"
sed -i 's|"tcp://|"tls+tcp://|' "$world/agent.yaml"
tls_section agent >>"$world/agent.yaml"
start_aggregator; ok $? "the aggregator listens with TLS"
"$tidegate" agent --config "$world/agent.yaml" >>"$world/agent.log" 2>&1 &
agent_pid=$!
there() { fleet_metric tidegate_frames_total; }
wait_for 20 there; ok $? "an agent sends to it"

with() { printf -- '--ca\n%s\n--cert\n%s\n--key\n%s\n' "$world/$1/ca.pem" "$world/$1/cert.pem" "$world/$1/key.pem"; }
mapfile -t ops < <(with ops)
mapfile -t team < <(with agent)
timeout 30 "$tidegate" tail "tls+tcp://localhost:$bus_port" --json --since snapshot --topic metrics/ --count 3 \
	--snapshots "tls+tcp://localhost:$snapshot_port" "${ops[@]}" >"$world/tail" 2>"$world/tail.err"
is $? 0 "who may subscribes over TLS, by name"
is "$(grep -c '"topic":"metrics/-/' "$world/tail")" "$(grep -c '"topic":"' "$world/tail")" "and gets what is wanted"
is "$(jq -r 'select(.snapshot) | .series[] | select(.metric == "tidegate_frames_total") | .metric' "$world/tail" | sort -u)" \
	tidegate_frames_total "with the state of each topic"
is "$(cat "$world/tail.err")" "" "without a complaint"

# Some take their five seconds, all the same ones.
begun=()
begin() { # begin NAME ARGUMENTS...
	local name=$1
	shift
	timeout 30 "$tidegate" tail "$@" >/dev/null 2>"$world/$name.err" &
	begun+=($!)
}
refused() { # refused CODE PATTERN NAME, in the order of begin
	wait "${begun[0]}"
	is $? "$1" "$3: exit $1"
	begun=("${begun[@]:1}")
	is "$(grep -c . "$world/$3.err")" 1 "$3: one line"
	grep -q -- "$2" "$world/$3.err"; ok $? "$3: says so"
}
begin "another's certificate" "tls+tcp://127.0.0.1:$bus_port" "${team[@]}"
begin "no certificate" "tls+tcp://127.0.0.1:$bus_port"
begin "no TLS" "tcp://127.0.0.1:$bus_port"
begin "a plain port of another host" "tcp://192.0.2.1:9467"
begin "half of the files" "tls+tcp://127.0.0.1:$bus_port" --ca "$world/ops/ca.pem"
begin "the state of an agent" "ipc://$run/bus" --since snapshot
begin "since another time" --since yesterday
refused 1 'cannot subscribe to tls+tcp' "another's certificate"
refused 2 'tls+tcp.*--ca' "no certificate"
refused 1 'cannot subscribe to tcp' "no TLS"
refused 2 'TLS' "a plain port of another host"
refused 2 'all three' "half of the files"
refused 2 'only an aggregator has snapshots' "the state of an agent"
refused 2 'must be `snapshot`' "since another time"

# ---- the agent's own bus ----
timeout 30 "$tidegate" tail "ipc://$run/bus" --json --topic "metrics/-/$agent_id" --count 2 >"$world/local"
is $? 0 "the agent publishes on its host"
is "$(jq -r .topic "$world/local" | sort -u)" "metrics/-/$agent_id" "its own series"
timeout 30 nngcat --sub --dial "ipc://$run/bus" --subscribe metrics/ --ascii --count 1 --recv-timeout 10 |
	grep -q '^metrics/-/'
ok $? "nngcat hears it, too"
timeout 30 nngcat --sub --dial "ipc://$run/bus" --subscribe beacon --ascii --count 1 --recv-timeout 10 | grep -q '^beacon'
ok $? "and its beacon"
tap_end
