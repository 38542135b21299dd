#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nginx, HAProxy and caddy under one agent and load at the same time: each one's requests by status
# are what its client did and what its access log says, exactly, and its durations are the log's.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"

for tool in haproxy caddy hey wrk; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin every
# shellcheck disable=SC2016 # nginx's variables
nginx_edit='s|access_log \(.*\) combined;|log_format timed "$status $request_time $uri";\n    access_log \1 timed;|'
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
nginx=$gateway
start_haproxy "127.0.0.1:$gateway_port" || { echo "Bail out! haproxy does not start"; exit 1; }
start_caddy "127.0.0.1:$gateway_port" || { echo "Bail out! caddy does not start"; exit 1; }
match_gateways "nginx=nginx:$gateway_port" "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port"
start_aggregator; ok $? "the aggregator is ready"
start_agent
three() { for each in nginx haproxy caddy; do agent_metric tidegate_workers "$each" || return; done; }
wait_for 10 three; ok $? "the agent sees three gateways"

# Every log as `status seconds`.
log_nginx() { cat "$world/nginx/logs/access.log"; }
log_haproxy() { haproxy_log | awk '{print $1, $3 / 1000, $4}'; }
log_caddy() {
	sed -n 's/.*"duration":\([0-9.e-]*\),.*"status":\([0-9]*\),.*/\2 \1/p' "$world/caddy/access.log"
}
declare -A log_before
for each in nginx haproxy caddy; do log_before[$each]=$("log_$each" | wc -l); done
log_of() { "log_$1" | tail -n +$((log_before[$1] + 1)); }
# What the agent counted and what the log did, as "STATUS=N …".
agent_codes() {
	curl -sf "http://127.0.0.1:$agent_port/metrics" | sed -n "/^tidegate_requests_total.*gateway=\"$1\"/{
		s/.*code=\"\([0-9]*\)\".* \([0-9]*\)\$/\1 \2/p}" | sums
}
log_codes() { log_of "$1" | awk '{print $1, 1}' | sums; }
sums_with() { printf '%s\n' "$@" | tr ' =' '\n ' | sums; }
sums() { awk '{n[$1] += $2} END {for (c in n) print c "=" n[c]}' | sort | xargs; }
fleet_quantile() { # of the 2xx durations of a gateway
	curl -sf "http://127.0.0.1:$aggregator_port/api/v1/series" | jq -r ".series[] | select(
		.metric == \"tidegate_request_duration_seconds\" and .labels.gateway == \"$1\" and
		.labels.code_class == \"2xx\") | .value.$2"
}

# same GATEWAY WHAT: counts and log lines since the agent came, by status. A line is written after its
# answer, and a count is read at the next tick.
same() {
	wait_for 10 agrees "$1"
	is "$(agent_codes "$1")" "$(log_codes "$1")" "$1: $2: counted by status as in the log"
}
agrees() { [ "$(agent_codes "$1")" = "$(log_codes "$1")" ]; }
same_durations() {
	local q of of_log
	for q in p50:0.5 p99:0.99; do
		of=${q#*:}
		of_log=$(log_of "$1" | awk '$1 ~ /^2/ {print $2}' | quantile_of "$of")
		fleet_near "$1" "${q%:*}" "$of_log" || wait_for 5 fleet_near "$1" "${q%:*}" "$of_log"
		ok $? "$1: ${q%:*} of $(fleet_quantile "$1" "${q%:*}") s is in the log's bucket ($of_log s), or beside it"
	done
}
fleet_near() {
	local apart
	apart=$(buckets_apart "$(fleet_quantile "$1" "$2")" "$3")
	[ -n "$apart" ] && [ "$apart" -le 1 ]
}

# nginx and HAProxy log milliseconds, so there requests take many; caddy logs fractions.
slow() { # slow NAME MANY-URL FEW-URL
	hey -n 400 -c 20 "$2" >"$world/$1-slow.txt" 2>&1
	hey -n 13 -c 13 "$3" >>"$world/$1-slow.txt" 2>&1
	is "$(client_count "$world/$1-slow.txt" 200)" 413 "$1: the client saw every slow answer"
}
# shellcheck disable=SC2154 # gateways.sh sets them
slow nginx "$nginx/sleep?ms=40" "$nginx/sleep?ms=240"
same nginx "slow ones"
same_durations nginx
slow haproxy "$haproxy/sleep?ms=40" "$haproxy/sleep?ms=240"
same haproxy "slow ones"
same_durations haproxy
# Its upstream is the nginx here, which counts them too.
slow caddy "$caddy/up/sleep?ms=7" "$caddy/up/sleep?ms=60"
same caddy "slow ones"
same_durations caddy
same nginx "as caddy's upstream"

# All three at once, one connection for many requests and one for each.
load() { # load NAME URL
	{
		hey -n 2003 -c 1 "$2/hello"
		hey -n 3000 -c 12 "$2/hello"
		hey -n 997 -c 1 "$2/nope"
		hey -n 101 -c 1 -m POST -d 'a body of some bytes' "$2/hello"
		hey -n 103 -c 1 -m HEAD "$2/hello"
		hey -n 211 -c 1 -disable-keepalive "$2/hello"
		hey -n 110 -c 10 -disable-keepalive "$2/nope"
	} >"$world/$1.txt" 2>&1
}
declare -A had
for each in nginx haproxy caddy; do had[$each]=$(agent_codes $each); done
jobs=()
for each in nginx haproxy caddy; do
	load $each "${!each}" &
	jobs+=($!)
done
wait "${jobs[@]}"
for each in nginx haproxy caddy; do
	is "$(client_count "$world/$each.txt" 200) $(client_count "$world/$each.txt" 404)" \
		"$((2003 + 3000 + 101 + 103 + 211)) $((997 + 110))" "$each: the client saw every answer"
	same $each "all three under load"
	is "$(agent_codes $each)" "$(sums_with "${had[$each]}" 200=5418 404=1107)" \
		"$each: and as the client saw them"
	is "$(agent_metric tidegate_requests_total "gateway=\"$each\".*method=\"HEAD\"")" 103 "$each: HEAD"
	is "$(agent_metric tidegate_requests_total "gateway=\"$each\".*method=\"POST\"")" 101 "$each: POST"
	is "$(agent_metric tidegate_requests_lost_total "\"$each\"")" 0 "$each: none lost"
done

# wrk stops in the middle: up to one request a connection more than it tells.
for each in nginx haproxy caddy; do
	before=$(agent_metric tidegate_requests_total "gateway=\"$each\"")
	wrk -d 1s -c 8 -t 1 "${!each}/hello" >"$world/wrk.txt" 2>&1
	told=$(awk '/requests in/ {print $1}' "$world/wrk.txt")
	same $each "wrk"
	more=$(($(agent_metric tidegate_requests_total "gateway=\"$each\"") - before - told))
	[ "$told" -gt 0 ] && [ $more -ge 0 ] && [ $more -le 8 ]
	ok $? "$each: wrk's $told and $more that its 8 connections did not wait for"
done
is "$(agent_metric tidegate_probe_lost_total)" "" "the probes lost nothing"
tap_end
