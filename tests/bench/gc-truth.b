#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GC time as the probes measure it, against what the handler measures around the same calls in runs
# without probes (which are free of their cost). Fresh workers, interleaved. A busy machine only ever
# adds time, so the best request of each kind is compared. Value: how far the ratio of both is from 1.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/../bpf/gc-lib.sh"

missing=$(gc_missing)
[ -z "$missing" ] || { echo "# gc-truth: $missing is missing"; exit 0; }
gc_begin

names=(gc_step_truth gc_big_step_truth gc_collect_truth)
urls=('gc?cycles=5&what=step' 'gc?cycles=5&what=step&argument=20' 'gc?cycles=5&what=collect')
sums=('.probe_step_ns / .calls' '.probe_step_ns / .calls' '.probe_full_ns / .calls')
of_handler='(.ns - .empty_ns) / .calls'

one_run() { # one_run without|with
	local i
	gc_nginx_start || exit 1
	gc_get 'gc?cycles=5&what=collect' >/dev/null
	[ "$1" = without ] || gc_watch || exit 1
	for i in 0 1 2 0 1 2 0 1 2 0 1 2 0 1 2 0 1 2; do
		if [ "$1" = without ]; then
			gc_get "${urls[i]}" | jq "$of_handler" >>"$gc_dir/without.$i"
			continue
		fi
		gc_measured "${urls[i]}" >"$gc_dir/answer"
		jq "${sums[i]}" "$gc_dir/answer" >>"$gc_dir/with.$i"
		jq "$of_handler" "$gc_dir/answer" >>"$gc_dir/slowed.$i"
		jq .bias_ns "$gc_dir/answer" >>"$gc_dir/bias"
	done
	gc_watch_end
	gc_nginx_end
}
best() { sort -g "$1" | head -n 1; }

for _ in $(seq "${ROUNDS:-5}"); do
	one_run without
	one_run with
done
for i in 0 1 2; do
	truth=$(best "$gc_dir/without.$i")
	probe=$(best "$gc_dir/with.$i")
	echo "# ${names[i]}: handler $truth ns a call, probes $probe ns, ratio $(jq -n "$probe / $truth")"
	row "${names[i]}" "$(jq -n "($probe / $truth - 1) | fabs")" "off by" '' '' 0.10
done
row gc_step_probe_cost \
	"$(jq -n "$(best "$gc_dir/slowed.0") - $(best "$gc_dir/without.0") | floor")" \
	'ns a step' '' '' ''
row gc_probe_bias "$(median <"$gc_dir/bias")" ns '' '' ''
