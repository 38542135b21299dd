#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An agent comes back with the frames of four hours in its spool. They drain, and what is counted now
# does not wait behind them: measured in frames, in the order in which the aggregator wrote them down.
source "$(dirname "$0")/uppers.sh"

frames=14400 series=200
world_begin backlog
aggregator_write top
agent_write agent one "tcp://127.0.0.1:${door_of[top]}"
agent_begin agent
has_spooled() { ls "$world"/agent/spool/*.frames; }
wait_for 10 has_spooled; ok $? "an agent without its aggregator spools"
kill -TERM "${pid_of[agent]}" && wait "${pid_of[agent]}"

# As its courier's user, who could not read a clone below /root.
cp "$BUILD/tests/chaos/backlog" "$world/backlog"
owner=$(stat -c %u:%g "$world/agent/spool")
read -r first last total < <(setpriv --reuid="${owner%:*}" --regid="${owner#*:}" --clear-groups \
	"$world/backlog" fill "$world/agent/spool" "$run/agent" $frames $series)
is $((last - first + 1)) $frames "four hours of frames are in its spool"
note "$(du -sm "$world/agent/spool" | cut -f 1) MB"

aggregator_begin top
wait_for 10 aggregator_is_ready top; ok $? "the aggregator is there"
agent_begin agent
feed_begin agent
agent_is() { # agent_is JQ
	curl -sf "http://127.0.0.1:${api_of[top]}/api/v1/agents" | jq -e ".agents[0] | $1"
}
wait_for 60 agent_is ".sequence > $last and .missing == 0"; ok $? "the backlog has drained"
feed_end agent; ok $? "the feed ended"
wait_for 20 is_told top one agent; ok $? "what is counted now is told"
told_differs top one agent
counted() { sum_metric "$(curl -sf "http://127.0.0.1:${api_of[top]}/metrics")" "$@"; }
is "$(counted backlog_total)" "$total" "what was counted in those hours is told, exactly"
is "$(counted backlog_seconds_count)" $frames "in the histogram, too"
is "$(agent_is '.incarnations')" 1 "all in one incarnation"

read -ra pids <<<"${pid_of[top]} $(cat "/proc/${pid_of[top]}/task/${pid_of[top]}/children")"
kill -KILL "${pids[@]}" # it must not fold its log at the end
for pid in "${pids[@]}"; do wait_for 5 gone "$pid"; done
"$BUILD/tests/chaos/backlog" order "$world/top/data" >"$world/order"
is "$(sort -nu "$world/order" | wc -l)" "$(sort -n "$world/order" | tail -n 1)" \
	"every frame is in the log"
# before: frames of the backlog that went before the first live one; during: live ones that did not
# wait for its end; run: of the backlog, at most so many between two of them.
read -r before during longest < <(awk -v last="$last" '
	$1 <= last { old++; run++; if (run > longest) longest = run; waiting += live; live = 0; next }
	{ if (!seen++) before = old + 0; live++; run = 0 }
	END { print before, waiting + 0, longest }' "$world/order")
note "before the first live frame $before of the backlog, $during live frames while it drained," \
	"at most $longest of the backlog between two of them"
[ "$before" -lt $((frames / 2)) ]; ok $? "the first live frame did not wait for half of the backlog"
[ "$during" -ge 1 ]; ok $? "live frames were written down while it drained"
tap_end
