#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A worker that collects all the time: its steps are timed for a part of the time only, its full
# collections are counted all the same.
source "$(dirname "$0")/gc-lib.sh"

missing=$(gc_missing)
[ -z "$missing" ] || skip_all "$missing is missing"
gc_begin
gc_nginx_start || exit 1
export GC_BUDGET=10000
gc_watch || exit 1

field() { jq -r ".$1" <<<"$2"; }

# As much as it takes until steps were not timed for a while.
slices=1000
garbage() {
	gc_get "garbage?slices=$slices" >/dev/null
	got=$(gc_totals)
	[ "$(jq '.observed < 0.97 and .missed_ns > 0' <<<"$got")" = true ]
}
before=$(gc_totals)
began=${EPOCHREALTIME/./}
is "$(jq .observed <<<"$before")" 1 "all steps are timed at first"
wait_for 60 garbage
ok $? "a busy worker's steps are timed for a part of the time"
note "$(jq -c '{observed, cost_ns, missed_ns, sum_ns}' <<<"$got")"
elapsed=$((${EPOCHREALTIME/./} - began))
note "$(($(field step "$got") * 1000000 / elapsed)) steps were timed a second"
got=$(gc_measured 'gc?cycles=13&what=collect')
is "$(field probe_full "$got")" 13 "13 full collections are 13, whether or not steps are timed"

quiet() {
	got=$(gc_totals)
	missed=$(field missed_ns "$got")
	pause 1.2
	[ "$(field missed_ns "$(gc_totals)")" = "$missed" ]
}
wait_for 10 quiet
ok $? "an idle worker is not thought to collect"

echo "1..$tap_count"
[ "$tap_failed" = 0 ]
