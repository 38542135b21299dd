#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Go: pauses and cycles of a stripped caddy against its own GODEBUG=gctrace=1.
source "$(dirname "$0")/gc-lib.sh"

for needed in "$gc_counter" "$(command -v caddy || echo caddy)" "$(command -v hey || echo hey)"; do
	[ -e "$needed" ] || skip_all "$needed is missing"
done
[ "$(id -u)" = 0 ] || skip_all "root is missing"
gc_dir=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-gc.XXXXXX")
end() {
	gc_watch_end
	kill "$caddy" 2>/dev/null
	wait "$caddy" 2>/dev/null
	rm -rf "$gc_dir"
}
new_port
cat >"$gc_dir/Caddyfile" <<-CONF
{
	admin off
	auto_https off
}
http://127.0.0.1:$port {
	respond "hi"
}
CONF
HOME=$gc_dir GODEBUG=gctrace=1 GOGC=5 caddy run --config "$gc_dir/Caddyfile" \
	--adapter caddyfile >"$gc_dir/trace" 2>&1 &
caddy=$!
trap end EXIT
load() { hey -n "$1" -c 10 "http://127.0.0.1:$port/" >/dev/null; }
wait_for 10 curl -sf "http://127.0.0.1:$port/" || exit 1
load 3000 # so that all its threads are there
threads=$(cd "/proc/$caddy/task" && echo *)
gc_worker="$caddy ${threads//$caddy/}"
gc_watch || exit 1
traced() { grep -c '^gc [0-9]' "$gc_dir/trace"; }
counted() { gc_totals | jq "$1"; }
field() { jq -r ".$1" <<<"$2"; }

is "$(field runtime "$gc_report")" go "the runtime is Go"
is "$(field how "$gc_report")" gopclntab "found in the function table of a stripped binary"

# The trace is written a moment after a cycle, so both are read when they no longer move.
settled() { local a; a=$(traced); pause 0.3; [ "$a" = "$(traced)" ]; }
wait_for 10 settled
before=$(gc_totals) traced_before=$(traced)
load 20000
wait_for 10 settled
after=$(gc_totals) cycles=$(($(traced) - traced_before))
is "$(($(field cycles "$after") - $(field cycles "$before")))" "$cycles" "cycles are those of gctrace"
is "$(($(field stw "$after") - $(field stw "$before")))" $((2 * cycles)) "each stops the world twice"
[ "$cycles" -gt 10 ]
ok $? "there were some"
kill -0 "$caddy"
ok $? "caddy lives"
echo "1..$tap_count"
[ "$tap_failed" = 0 ]
