#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A Lua handler that blocks the event loop for 50 ms again and again: each time is one stall, in the
# bucket of what the handler measured itself, and none more.
source "$(dirname "$0")/lib.sh"

stalls=11
world_begin stall
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
start_agent; ok $? "the agent sees the gateway"

# All of one answer, as the loop goes on turning. The loop turns for other things too, but not so long.
look() { seen=$(curl -sf "http://127.0.0.1:$agent_port/metrics"); }
upto() { sum_metric "$seen" tidegate_loop_stall_seconds_bucket "le=\"$1\"" || echo 0; }
longer() { echo $(($(sum_metric "$seen" tidegate_loop_stall_seconds_count || echo 0) - $(upto 0.05))); }
look
is "$(longer)" 0 "no stall of 50 ms before"
curl -sf --max-time 60 "$gateway/stall?ms=50&n=$stalls&every=200" >"$world/stalls"
is "$(wc -l <"$world/stalls")" $stalls "the handler blocked $stalls times"
note "microseconds, by the handler: $(sort -g "$world/stalls" | tr '\n' ' ')"
counted() { look && [ "$(longer)" -ge $stalls ]; }
wait_for 10 counted
is "$(longer)" $stalls "every one is a stall of more than 50 ms"
# What the loop does besides takes far less than the two milliseconds left out on either side.
within() { awk -v most="$1" '$1 <= most {n++} END {print n + 0}' "$world/stalls"; }
bucket=$(($(upto 0.075) - $(upto 0.05)))
[ $bucket -ge "$(within 73000)" ] && [ $bucket -le "$(within 75000)" ]
ok $? "in the bucket from 50 to 75 ms: $bucket, by the handler $(within 73000) to $(within 75000)"
awk -v busy="$(sum_metric "$seen" tidegate_loop_busy_seconds_total)" \
	'{sum += $1 / 1e6} END {exit !(busy >= sum && busy < 2 * sum)}' "$world/stalls"
ok $? "their time is in the loop's busy time"
tap_end
