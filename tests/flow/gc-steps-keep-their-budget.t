#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A budget too small for a worker that collects all the time: its steps are timed for a part of the
# time and estimated for the rest, its full collections are counted each, also by the next keeper.
source "$(dirname "$0")/lib.sh"

world_begin gcduty
agent_options='probe:
  gc_budget: 0.01%'
write_config
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
start_agent; ok $? "the agent sees the gateway"
collector() { grep -q 'garbage collector found' "$world/agent.log"; }
wait_for 10 collector; ok $? "its collector is found"

ratio() { agent_metric tidegate_gc_observed_ratio; }
seconds() { agent_metric tidegate_gc_seconds_total; }
full() { agent_metric tidegate_gc_pause_seconds_count 'phase="full"'; }
links() { find "/sys/fs/bpf/tidegate/$agent_id" -name 'link_gc_*' 2>/dev/null | wc -l; }
all=$(links) # other uprobes too: of TLS
garbage() { hey -n 5000 -c 2 "$gateway/garbage?kb=64" >/dev/null; }
collect() { hey -n 13 -c 1 "$gateway/gccollect" >/dev/null; }

timed_in_part() { garbage && ratio | awk '$1 < 0.97 {seen = 1} END {exit !seen}'; }
wait_for 30 timed_in_part; ok $? "steps are timed for a part of the time: $(ratio)"
before=$(seconds)
awk -v s="$before" 'BEGIN {exit !(s > 0)}'; ok $? "time in the collector is known: $before s"
collect
counted() { [ "$(full)" = "$1" ]; }
wait_for 5 counted 13; is "$(full)" 13 "13 full collections are 13"
kb=$(curl -sf "$gateway/gccollect") # says collectgarbage("count")
near() { agent_metric tidegate_gc_heap_bytes | awk -v kb="$kb" '{d = $1 - kb * 1024; exit !(d > -65536 && d < 65536)}'; }
wait_for 5 near; ok $? "the heap is what Lua says: $kb kB, $(agent_metric tidegate_gc_heap_bytes) bytes"
if [ "$(links)" = 0 ]; then
	note "no bpffs: no pinned links to look at"
else
	rest() { garbage; [ "$(links)" = $((all - 2)) ]; }
	wait_for 20 rest; ok $? "the pins of the step probes go as well: of $all $(links) are left"
fi

keeper=$(child_pid "$agent_pid" keeper)
kill -KILL "$keeper"
another() { local now; now=$(child_pid "$agent_pid" keeper) && [ "$now" != "$keeper" ]; }
wait_for 10 another; ok $? "another keeper is there"
found() { [ "$(grep -c 'garbage collector found' "$world/agent.log")" = 2 ]; }
wait_for 10 found; ok $? "it finds the collector again"
collect
wait_for 5 counted 27; is "$(full)" 27 "13 more after one are 27"
wait_for 5 near; ok $? "the heap is still read"
awk -v a="$before" -v b="$(seconds)" 'BEGIN {exit !(b >= a)}'; ok $? "the estimate did not fall"
"$tidegate" doctor --config "$world/agent.yaml" | grep -q "steps are timed for up to 0.01% of the workers' CPU time"
ok $? "doctor says the budget"
tap_end
