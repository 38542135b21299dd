# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# kill_test NAME SUPERVISOR-VARIABLE PROCESS...: under load, SIGKILLs the processes one after the
# other; afterwards the fleet's count is the client's, exactly.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kill_test() {
	local supervisor=$1 process pid before total=30000 victims=0
	shift
	start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
	start_aggregator; ok $? "the aggregator is ready"
	start_agent; ok $? "the agent sees the gateway"
	hey -n $total -c 20 -q 300 "$gateway/hello" >"$world/hey.txt" 2>&1 &
	hey_pid=$!
	world_pids+=("$hey_pid")
	for process in "$@"; do
		before=$(agent_metric tidegate_requests_total)
		pause 0.7
		pid=$(child_pid "${!supervisor}" "$process")
		kill -KILL "$pid" && victims=$((victims + 1))
		wait_for 10 another "${!supervisor}" "$process" "$pid"
		ok $? "$process is there again (was $before requests)"
	done
	is $victims $# "each of them was killed"
	kill -0 $hey_pid 2>/dev/null; ok $? "the load ran on while they died"
	wait $hey_pid
	is "$(awk '/\[200\].*responses/{print $2}' "$world/hey.txt")" $total "the client saw every answer"
	wait_for 20 fleet_has $total
	is "$(fleet_metric tidegate_requests_total)" $total "nothing lost, nothing counted twice"
	pause 1.5
	is "$(fleet_metric tidegate_requests_total)" $total "and it stays so"
	is "$(fleet_metric tidegate_request_duration_seconds_count)" $total "nor in the histogram"
}
another() { local now; now=$(child_pid "$1" "$2") && [ "$now" != "$3" ]; }
fleet_has() { [ "$(fleet_metric tidegate_requests_total)" = "$1" ]; }
