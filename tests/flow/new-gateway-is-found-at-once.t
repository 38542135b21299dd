#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A gateway that starts while the agent runs is found because it listens, not at the next scan. (That
# every rung of the ladder sees it: tests/bpf/records.c.)
source "$(dirname "$0")/lib.sh"

world_begin found
wait_ready() { curl -sf "http://127.0.0.1:$agent_port/metrics" >/dev/null; }
waits() { grep -q 'no gateway found' "$world/agent.log"; }
found() { [ "$(grep -c 'gateway found gateway=' "$world/agent.log")" -ge "$1" ]; }
gone_is_said() { grep -q 'gateway gone' "$world/agent.log"; }
counts_it() { curl -s -o /dev/null "$gateway/fast"; agent_metric tidegate_requests_total | grep -q '[1-9]'; }

"$tidegate" agent --config "$world/agent.yaml" >>"$world/agent.log" 2>&1 &
agent_pid=$!
wait_for 20 wait_ready && wait_for 20 waits; ok $? "the agent waits for a gateway"
grep -q 'no probe works' "$world/agent.log" && skip_all 'no probe loads here'
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
wait_for 5 found 1; ok $? "nginx is found"
is "$(sed -n 's/.*gateway found gateway=.* found_by=//p' "$world/agent.log" | head -1)" listen \
	"because it listens"
wait_for 5 counts_it; ok $? "and counted"
kill -QUIT "$nginx_pid"
wait_for 5 gone "$nginx_pid"
wait_for 5 gone_is_said; ok $? "its end is noticed"
start_nginx 1 || { echo "Bail out! nginx does not start again"; exit 1; }
wait_for 5 found 2; ok $? "another is found"
is "$(sed -n 's/.*gateway found gateway=.* found_by=//p' "$world/agent.log" | tail -1)" listen \
	"for the same reason"
tap_end
