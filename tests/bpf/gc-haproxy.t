#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real HAProxy with the distribution's stripped Lua 5.3: the probes count each collection that a service
# makes, no more and no less. (How long they last is the bench's affair.)
source "$(dirname "$0")/gc-lib.sh"

[ "$(id -u)" = 0 ] || skip_all "root is missing"
for needed in "$gc_counter" "$(command -v haproxy || echo haproxy)"; do
	[ -e "$needed" ] || skip_all "$needed is missing"
done
gc_dir=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-gc.XXXXXX")
trap gc_end EXIT
gc_haproxy_start || exit 1
gc_watch || exit 1

field() { jq -r ".$1" <<<"$2"; }

is "$(field runtime "$gc_report")" lua5.3 "the runtime is Lua 5.3"
is "$(field how "$gc_report")" call-vote "its collector is found by vote"
is "$(field state "$gc_report")" 2 "the probe is ok"

got=$(gc_measured 'gc?cycles=7&what=step')
# A stopped collector of Lua 5.3 is asked as well, every 24 kB or so, and does nothing.
[ "$(field probe_step "$got")" -ge "$(field calls "$got")" ]
ok $? "each collectgarbage('step') is a step: $(field calls "$got") of $(field probe_step "$got")"
is "$(field probe_cycles "$got")" 7 "7 cycles in steps are 7 cycles"
is "$(field probe_full "$got")" 0 "and no full collection"

got=$(gc_measured 'gc?cycles=13&what=collect')
is "$(field probe_full "$got")" 13 "13 collectgarbage('collect') are 13 full collections"
is "$(field probe_cycles "$got")" 13 "and 13 cycles"

echo "1..$tap_count"
[ "$tap_failed" = 0 ]
