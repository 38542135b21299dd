#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs and time of each BPF program: absent while the kernel does not count them, there when it does,
# and doctor knows which. What somebody else has switched on stays on.
source "$(dirname "$0")/lib.sh"

switch=/proc/sys/kernel/bpf_stats_enabled
[ -w $switch ] || skip_all "$switch cannot be written"
world_begin statistics
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
doctor_says() {
	"$tidegate" doctor --json --config "$world/agent.yaml" |
		jq -r '.checks[] | select(.name == "bpf-statistics") | .state'
}
was=$(cat $switch)
start_agent; ok $? "the agent sees the gateway"
for _ in 1 2 3; do curl -s -o /dev/null "$gateway/fast"; done
counted() { [ "$(agent_metric tidegate_requests_total || echo 0)" -ge 3 ]; }
wait_for 10 counted; ok $? "it counts"
if [ "$was" = 0 ]; then
	agent_metric tidegate_probe_events_total >/dev/null; is $? 1 "off: no runs are told"
	agent_metric tidegate_probe_seconds_total >/dev/null; is $? 1 "off: no time is told"
	is "$(doctor_says)" degraded "off: doctor says so"
	echo 1 >$switch
	# shellcheck disable=SC2064 # as it is now
	trap "echo 0 >$switch; world_end" EXIT
fi
is "$(doctor_says)" ok "on: doctor says so"
runs() { curl -s -o /dev/null "$gateway/fast"; agent_metric tidegate_probe_events_total "probe=\"$1\"" | grep '[1-9]'; }
program=$(curl -sf "http://127.0.0.1:$agent_port/metrics" |
	sed -n '/^tidegate_probe_state{.*probe="syscalls"/s/.*how="\([a-z_]*\)".*/\1/p')
note "by $program"
[ "$program" = fentry ] && program=fexit_read || program=exit_$program
wait_for 10 runs "$program"; ok $? "on: runs of $program are told"
agent_metric tidegate_probe_seconds_total "probe=\"$program\"" | grep -q '[1-9]'; ok $? "and their time"
is "$(agent_metric tidegate_probe_lost_total || echo none)" none "nothing was lost"
[ "$was" = 0 ] && echo 0 >$switch
is "$(cat $switch)" "$was" "as it was before"
tap_end
