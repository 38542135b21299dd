#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A request longer than probe.slow_request leaves one event with its path, code and traceparent; fast
# ones leave none; of a flood a part arrives and the rest is counted.
source "$(dirname "$0")/lib.sh"

world_begin slow
agent_options='probe:
  slow_request: 200ms'
write_config
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"

events() { curl -sf "http://127.0.0.1:$aggregator_port/api/v1/events" |
	jq -c '[.. | objects | select(.kind? == "slow_request")]'; }
arrived() { [ "$(events | jq length)" -ge "$1" ]; }
counted() { # that were refused: by the programs, or for want of room in a frame
	local text
	text=$(curl -sf "http://127.0.0.1:$agent_port/metrics")
	echo $(($(sum_metric "$text" tidegate_probe_lost_total 'reason="records"' || echo 0) +
		$(sum_metric "$text" tidegate_events_dropped_total || echo 0)))
}

trace() { printf '00-%032x-%016x-01' "$1" "$1"; }
pids=()
for i in $(seq 7); do
	curl -s -o /dev/null -H "traceparent: $(trace "$i")" "$gateway/sleep?ms=300&secret=$i" &
	pids+=($!)
done
for i in $(seq 31); do curl -s -o /dev/null -H "traceparent: $(trace $((i + 100)))" "$gateway/hello"; done
wait "${pids[@]}"
curl -s -o /dev/null -X DELETE "$gateway/sleep/none?ms=300"
wait_for 10 arrived 7; ok $? "events arrive"
all=$(events)
is "$(jq length <<<"$all")" 7 "one for each slow request, none for the others"
is "$(jq -r '[.[].json.path] | unique | join(" ")' <<<"$all")" /sleep "their path, without the query"
is "$(jq -r '[.[].json.code] | unique | join(" ")' <<<"$all")" 200 "their code"
is "$(jq -r '[.[].gateway] | unique | join(" ")' <<<"$all")" nginx "their gateway"
is "$(jq -r '[.[].json.traceparent] | sort | join(" ")' <<<"$all")" \
	"$(for i in $(seq 7); do trace "$i"; echo; done | sort | paste -sd' ')" "each its traceparent"
is "$(jq '[.[] | select(.json.duration_s < 0.25 or .json.duration_s > 10)] | length' <<<"$all")" 0 \
	"each as long as its handler slept (nginx counts in cached milliseconds)"

hey -n 241 -c 241 "$gateway/sleep?ms=300" >"$world/hey.txt" 2>&1
balanced() { [ $(($(events | jq length) + $(counted))) = $((7 + 241)) ]; }
wait_for 10 balanced; ok $? "of 241 at once, those that arrived and those that were counted are all"
note "$(events | jq length) arrived, $(counted) counted"
[ "$(counted)" -gt 0 ]; ok $? "more than 100 a second are refused"
tap_end
