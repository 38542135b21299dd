#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GC time as the probes measure it, against what the gateway itself says. nginx (LuaJIT) and HAProxy (Lua
# 5.3): a handler times the same calls in runs without probes, which are free of their cost. Fresh
# workers, interleaved. A busy machine only ever adds time, so the best request of each kind is compared,
# and the gateway runs with real-time priority where that is allowed. caddy (Go): pauses by its own
# go_gc_duration_seconds. Value: how far the ratio of both is from 1.
source "$(dirname "$0")/lib.sh"
! chrt -f 1 true 2>/dev/null || GC_WRAP="chrt -f 1"
source "$(dirname "$0")/../bpf/gc-lib.sh"

missing=$(gc_missing)
[ -z "$missing" ] || { echo "# gc-truth: $missing is missing"; exit 0; }
gc_begin
rounds=${ROUNDS:-8}

urls=('gc?cycles=20&what=step' 'gc?cycles=20&what=step&argument=20' 'gc?cycles=20&what=collect')
# The time of all calls: a stopped collector may be asked more often than the handler asks, for nothing.
sums=(.probe_step_ns .probe_step_ns .probe_full_ns)
of_handler='.ns - .empty_ns'

one_run() { # one_run GATEWAY without|with
	local i
	"gc_$1_start" || exit 1
	gc_get 'gc?cycles=20&what=collect' >/dev/null
	[ "$2" = without ] || gc_watch || exit 1
	for i in 0 1 2 0 1 2 0 1 2; do
		if [ "$2" = without ]; then
			gc_get "${urls[i]}" >"$gc_dir/answer"
			jq "$of_handler" "$gc_dir/answer" >>"$gc_dir/$1.without.$i"
			jq .calls "$gc_dir/answer" >"$gc_dir/$1.calls.$i"
			continue
		fi
		gc_measured "${urls[i]}" >"$gc_dir/answer"
		jq "${sums[i]}" "$gc_dir/answer" >>"$gc_dir/$1.with.$i"
		jq "$of_handler" "$gc_dir/answer" >>"$gc_dir/$1.slowed.$i"
		jq .bias_ns "$gc_dir/answer" >>"$gc_dir/bias"
	done
	gc_watch_end
	gc_nginx_end
}
best() { sort -g "$1" | head -n 1; }
off() { jq -n "($1 / $2 - 1) | fabs"; }

lua_rows() { # lua_rows GATEWAY PREFIX
	local i truth probe names=(step big_step collect)
	for _ in $(seq "$rounds"); do
		one_run "$1" without
		one_run "$1" with
	done
	for i in 0 1 2; do
		truth=$(best "$gc_dir/$1.without.$i") probe=$(best "$gc_dir/$1.with.$i")
		echo "# $1 ${names[i]}: handler $truth ns in $(cat "$gc_dir/$1.calls.$i") calls, probes $probe ns"
		row "$2_${names[i]}_truth" "$(off "$probe" "$truth")" "off by" '' '' 0.05
	done
}

lua_rows nginx gc
row gc_step_probe_cost "$(jq -n "($(best "$gc_dir/nginx.slowed.0") - $(best "$gc_dir/nginx.without.0")) /
	$(cat "$gc_dir/nginx.calls.0") | floor")" 'ns a step' '' '' ''
row gc_probe_bias "$(median <"$gc_dir/bias")" ns '' '' ''
if command -v haproxy >/dev/null; then
	lua_rows haproxy gc_lua53
else
	echo "# gc-truth: haproxy is not installed"
fi

# ---- caddy ----

go_says() { curl -sf "http://127.0.0.1:$admin/metrics" | awk -v n="go_gc_duration_seconds_$1" '$1 == n {printf "%.9f\n", $2}'; }
caddy_load() { hey -n "$1" -c 10 "http://127.0.0.1:$gc_port/" >/dev/null; }
caddy_start() {
	new_port
	gc_port=$port
	new_port
	admin=$port
	cat >"$gc_dir/Caddyfile" <<-CONF
	{
		admin 127.0.0.1:$admin
		auto_https off
	}
	http://127.0.0.1:$gc_port {
		respond "hi"
	}
	CONF
	# shellcheck disable=SC2086 # several words
	HOME=$gc_dir GOGC=5 $gc_wrap caddy run --config "$gc_dir/Caddyfile" --adapter caddyfile \
		>"$gc_dir/error.log" 2>&1 &
	gc_nginx=$!
	wait_for 10 gc_get "" || { cat "$gc_dir/error.log" >&2; return 1; }
	caddy_load 3000 # so that all its threads are there
	gc_worker="$gc_nginx $(cd "/proc/$gc_nginx/task" && echo *)"
}

go_row() {
	local before after said count stw
	caddy_start && gc_watch || exit 1
	said=$(go_says sum) count=$(go_says count) before=$(gc_totals)
	caddy_load 30000
	after=$(gc_totals)
	said=$(jq -n "$(go_says sum) - $said") count=$(jq -n "$(go_says count) - $count | floor")
	stw=$(jq -sn --argjson a "$after" --argjson b "$before" '($a.sum_ns - $b.sum_ns) / 1e9')
	echo "# caddy: $count collections, $said s stopped by its own metrics; probes $stw s," \
		"$(jq -n --argjson a "$after" --argjson b "$before" '$a.cycles - $b.cycles') cycles"
	row gc_go_stw_truth "$(off "$stw" "$said")" 'off by' '' '' 0.05
	gc_watch_end
	gc_nginx_end
}
if command -v caddy >/dev/null && command -v hey >/dev/null; then
	go_row
else
	echo "# gc-truth: caddy or hey is not installed"
fi
