#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `tidegate profile` of a real nginx under load: all workers answer, the function that burns the time
# is on top, one profile at a time; a worker killed meanwhile is named; nothing stays behind.
source "$(dirname "$0")/resty.sh"

resty_begin profile
cat >"$world/lua/shop.lua" <<'LUA'
local M = {}
local function price_of(n)
	local sum = 0
	for i = 1, n do sum = (sum * 31 + i) % 1000003 end
	return sum
end
local function greet() return "hello" end
function M.serve() return greet() .. price_of(2000000) end
return M
LUA
chmod -R a+rX "$world/lua"
# First without the module; the second configuration of the same gateway has it.
resty_nginx 2 "" '
    location = /shop { content_by_lua_block { ngx.say(require("shop").serve()) } }' ||
	{ echo "Bail out! nginx does not start"; exit 1; }
start_agent || { echo "Bail out! the agent does not start"; exit 1; }
profile() { "$tidegate" profile --config "$world/agent.yaml" "$@"; }

profile --gateway nginx --seconds 1 2>"$world/none"
is $? 1 "a gateway without the module is an error"
grep -q 'no process of gateway `nginx` answers: does it use resty.tidegate' "$world/none"
ok $? "that says so"
is "$(wc -l <"$world/none")" 1 "in one line"
profile --gateway edge --seconds 1 2>"$world/none"
is $? 1 "an unknown gateway is an error"
grep -q 'no gateway `edge` is known, there are: nginx' "$world/none"; ok $? "that names those there are"

sed -i 's|lua_package_path.*|&\n  init_worker_by_lua_block { require("resty.tidegate").start() }|' \
	"$world/nginx/nginx.conf"
kill -HUP "$nginx_pid"
have_files() { [ "$(files_of_app)" = 2 ]; }
wait_for 10 have_files; ok $? "each worker has its file"
no_profiles() { [ -z "$(find "$run/app" -name '*.folded')" ]; }

hey -z 60s -c 2 "$gateway/shop" >/dev/null 2>&1 &
load=$!
world_pids+=("$load")
profile --gateway nginx --seconds 2 --svg "$world/graph.svg" --folded "$world/folded" 2>"$world/said" &
first=$!
wanted() { grep -q 'a profile is wanted gateway=nginx' "$world/agent.log"; }
wait_for 5 wanted; ok $? "the gateway's record says that one is wanted"
profile --gateway nginx --seconds 1 2>"$world/second"
is $? 1 "a second one at the same time is an error"
grep -q 'a profile of `nginx` is under way: it ends in ' "$world/second"; ok $? "that says until when"
wait $first; is $? 0 "the first one is done"
grep -q '2 processes answered, [1-9][0-9]* samples' "$world/said"; ok $? "both workers answered"
sed 's/^/# /' "$world/said"
# Sum of samples by leaf: what is on top of the stack.
leaf() { awk '{ n = $NF; sub(/ [0-9]+$/, ""); sub(/.*;/, ""); s[$0] += n } END { for (l in s) print s[l], l }' "$1" |
	sort -rn | head -1; }
case $(leaf "$world/folded") in
*price_of* | *shop.lua*) ok 0 "the hot function is on top" ;;
*) ok 1 "the hot function is on top" && head -5 "$world/folded" | sed 's/^/# /' ;;
esac
grep -q 'serve;.*price_of' "$world/folded"; ok $? "below its caller"
xmllint --noout "$world/graph.svg" 2>"$world/xml"; ok $? "the graph is XML"
grep -q '<title>[^<]*price_of [(][0-9]* samples, [0-9.]* %)</title>' "$world/graph.svg"
ok $? "and has a frame of the function"
no_profiles; ok $? "no profile stays behind"

# One of the two dies in the middle.
asked=$(find "$run/app" -name '[0-9]*.seg' -printf '%f\n' | sed 's/-.*//')
victim=${asked%%$'\n'*}
profile --gateway nginx --seconds 2 >"$world/folded" 2>"$world/said" &
first=$!
wanted() { [ "$(grep -c 'a profile is wanted gateway=nginx' "$world/agent.log")" = 2 ]; }
wait_for 5 wanted && kill -KILL "$victim"
wait $first; is $? 0 "a profile goes on when a worker is killed"
grep -q "no answer from 1 process: $victim" "$world/said"; ok $? "that one is named"
grep -q price_of "$world/folded"; ok $? "the others answer, on standard output"
# The worker that nginx puts in its place may see the wish as well; its answer is swept later.
left=$(find "$run/app" -name '*.folded' -printf '%f\n' | sed 's/-.*//' | grep -Fx "$asked")
is "$left" "" "and nothing stays behind of those that were asked"
kill "$load" 2>/dev/null
grep -E '\[(alert|emerg|crit)\]' "$world/nginx/logs/error.log" | grep -v "signal 9" | sed 's/^/# /' | tee "$world/alerts"
is "$(wc -l <"$world/alerts")" 0 "nginx had nothing to complain of"

stop_agent
profile --gateway nginx --seconds 1 2>"$world/none"
is $? 1 "without an agent it is an error"
is "$(wc -l <"$world/none")" 1 "of one line"
tap_end
