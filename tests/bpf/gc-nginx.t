#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real nginx with the distribution's stripped LuaJIT: the probes count each collection that a handler
# makes, no more and no less. (How long they last is the bench's affair.)
source "$(dirname "$0")/gc-lib.sh"

missing=$(gc_missing)
[ -z "$missing" ] || skip_all "$missing is missing"
gc_begin
gc_nginx_start || exit 1
gc_watch || exit 1

field() { jq -r ".$1" <<<"$2"; }

is "$(field runtime "$gc_report")" luajit "the worker's runtime is LuaJIT"
is "$(field how "$gc_report")" call-vote "its collector is found by vote"
is "$(field state "$gc_report")" 2 "the probe is ok"

got=$(gc_measured 'gc?cycles=7&what=step')
is "$(field probe_step "$got")" "$(field calls "$got")" "each collectgarbage('step') is one step"
is "$(field probe_cycles "$got")" 7 "7 cycles in steps are 7 cycles"
is "$(field probe_full "$got")" 0 "and no full collection"

got=$(gc_measured 'gc?cycles=13&what=collect')
is "$(field probe_full "$got")" 13 "13 collectgarbage('collect') are 13 full collections"
is "$(field probe_cycles "$got")" 13 "and 13 cycles"
is "$(field probe_step "$got")" 0 "and no step"
is "$(field probe_turn "$got")" 1 "which one turn of the event loop spent"

got=$(gc_measured 'gc?cycles=5&what=step&argument=20')
is "$(field probe_cycles "$got")" 5 "5 cycles in big steps are 5 cycles"
[ "$(field probe_step "$got")" -ge "$(field calls "$got")" ]
ok $? "a big step is at least one step"

echo "1..$tap_count"
[ "$tap_failed" = 0 ]
