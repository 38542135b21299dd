#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An agent of two aggregators: each gets every frame. One is away for a while, and the agent's courier
# dies meanwhile; then it is there but silent. The other one does not notice; the one that was away
# gets what it has missed, frame by frame.
source "$(dirname "$0")/uppers.sh"

world_begin several
aggregator_write left
aggregator_write right
agent_write agent one "tcp://127.0.0.1:${door_of[left]}" "tcp://127.0.0.1:${door_of[right]}"
aggregator_begin left
aggregator_begin right
agent_begin agent
feed_begin agent
for name in left right; do wait_for 10 aggregator_is_ready $name; ok $? "$name is ready"; done

# agent_at AGGREGATOR FIELD
agent_at() { curl -sf "http://127.0.0.1:${api_of[$1]}/api/v1/agents" | jq ".agents[0].$2"; }
more_frames() { [ "$(agent_at "$1" sequence)" -ge "$2" ]; }
goes_on() { # goes_on AGGREGATOR: five frames more
	local from
	from=$(agent_at "$1" sequence)
	wait_for 15 more_frames "$1" $((from + 5))
}
away() { grep -c "aggregator is away.*:${door_of[$1]} " "$world/agent.log"; }
went_away() { [ "$(away "$1")" -gt "$2" ]; }
wait_for 10 more_frames left 5 && wait_for 10 more_frames right 5; ok $? "both get frames"

before=$(away right)
kill -TERM "${pid_of[right]}" && wait "${pid_of[right]}"
wait_for 15 went_away right "$before"; ok $? "the agent says that one is away"
goes_on left; ok $? "the other goes on"
kill_process agent courier; ok $? "the courier is killed"
goes_on left; ok $? "and the other goes on again"
aggregator_begin right
wait_for 10 aggregator_is_ready right; ok $? "the one that was away is back"
# No frame is missing there, the missed ones included: with the sequence of the other.
has_all() { # has_all AGGREGATOR SEQUENCE
	more_frames "$1" "$2" && [ "$(agent_at "$1" missing)" = 0 ]
}
wait_for 15 has_all right "$(agent_at left sequence)"; ok $? "and has every frame"

# It accepts, its kernel does at least, and is then silent.
before=$(away right)
door=$(child_pid "${pid_of[right]}" door)
kill -STOP "$door"
wait_for 30 went_away right "$before"; ok $? "a silent aggregator is found"
goes_on left; ok $? "and the other goes on"
kill -CONT "$door"
wait_for 15 has_all right "$(agent_at left sequence)"; ok $? "when it speaks again it gets every frame"

feed_end agent; ok $? "the feed ended"
for name in left right; do
	wait_for 20 is_told $name one agent; ok $? "$name tells what was counted"
	told_differs $name one agent
	# Frames that the aggregator applied are as many as sequences: none came by totals alone.
	is "$(agent_at $name 'sequence - .agents[0].frames')" 0 "by every single frame"
done
is "$(agent_at left incarnations)" 1 "all of one incarnation"
tap_end
