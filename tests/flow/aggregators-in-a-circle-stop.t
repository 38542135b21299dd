#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two aggregators are told to feed each other, and a third to feed itself: a mistake that would double
# all totals each second. It is found, said, and the totals stay.
source "$(dirname "$0")/uppers.sh"

world_begin circle
for name in left right self; do
	aggregator_write $name
	sed -i 's/^fleet:/&\n  stale: 2s/' "$world/$name.yaml"
done
feeds() { # feeds NAME AGGREGATOR
	printf 'uplink:\n  id: %s\n  aggregators: ["tcp://127.0.0.1:%s"]\nspool:\n  dir: %s\n' \
		"$1" "${door_of[$2]}" "$world/$1/spool" >>"$world/$1.yaml"
}
feeds left right
feeds right left
feeds self self
agent_write agent one "tcp://127.0.0.1:${door_of[left]}" "tcp://127.0.0.1:${door_of[self]}"
for name in left right self; do aggregator_begin $name; done
agent_begin agent
feed_begin agent
for name in left right self; do wait_for 10 aggregator_is_ready $name; ok $? "$name is ready"; done

said() { grep -q "$2" "$world/$1.log"; }
stopped() { said left 'our own sums come back' && said right 'our own sums come back'; }
wait_for 20 stopped; ok $? "the circle is found, by both"
wait_for 20 said self 'cannot feed itself'; ok $? "and who feeds itself is refused"
feed_end agent; ok $? "the feed ended"
wait_for 20 is_told self one agent; ok $? "the refused one tells what was counted"

sum() { told_by "$1" one | awk '{ n += $3 } END { printf "%.17g\n", n }'; }
total=$(truth_of agent | awk '{ n += $3 } END { printf "%.17g\n", n }')
has_total() { [ "$(sum left)" -ge "$total" ]; }
wait_for 20 has_total; ok $? "and the agent's last frame is there"
pause 2 # what is still under way in the circle
before=$(sum left)
pause 3
is "$(sum left)" "$before" "totals in the circle grow no more"
note "they are $(awk -v a="$before" -v b="$total" 'BEGIN { printf "%.2f", a / b }') times what was counted"

# The mistake is mended at one of them, which no more feeds the other: that one goes on by itself.
sed -i '/^uplink:/,$d' "$world/right.yaml"
kill -HUP "${pid_of[right]}"
no_ferry() { aggregator_is_ready right && ! child_pid "${pid_of[right]}" ferry; }
wait_for 15 no_ferry; ok $? "told so, the one has no ferry any more"
wait_for 20 said left 'are fed again'; ok $? "and the other feeds it again"
has_all() { [ "$(sum right)" -ge "$(sum left)" ]; }
wait_for 20 has_all; ok $? "all that it has"
tap_end
