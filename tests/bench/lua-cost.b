#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What metrics cost a script of LuaJIT inside nginx: a counter beside lua_shared_dict:incr in the same
# worker, a histogram, a shared dictionary's get() that is counted, and the log handler: in a loop, and
# as CPU time of real requests with it and with an empty one, in pairs (PAIRS).
source "$(dirname "$0")/../flow/resty.sh"
source "$(dirname "$0")/lib.sh"

pairs=${PAIRS:-7}
resty_begin bench-lua
mkdir -p "$run/app"
chown -R root:www-data "$run"
chmod 2775 "$run/app"
cp "$top/tests/bench/lua-cost.lua" "$world/lua-cost.lua"
chmod 644 "$world/lua-cost.lua"
resty_nginx 1 '
  lua_shared_dict bench 1m;
  init_worker_by_lua_block { tg = require "resty.tidegate" tg.attach() }' '
    access_log off;
    location = /cost { content_by_lua_file '"$world"'/lua-cost.lua; }
    location = /logged {
      content_by_lua_block { ngx.say("hello") }
      log_by_lua_block { tg.log() }
    }
    location = /empty {
      content_by_lua_block { ngx.say("hello") }
      log_by_lua_block { }
    }' || exit 1
took=$(curl -s "$gateway/cost")
value() { jq -r ".$1" <<<"$took"; }
[ -s "$(value file)" ] || { echo "# no file was written to"; cat "$world/nginx/logs/error.log"; exit 1; }
per() { awk -v a="$(value "$1")" -v b="$(value "$2")" 'BEGIN {printf "%.5f", a / b}'; }
row luajit_counter "$(value counter)" ns "" "" 1
row luajit_counter_labelled "$(value labelled)" ns "" "" 1
row luajit_counter_to_shdict "$(value counter)" ns "lua_shared_dict:incr ($(value incr) ns)" "$(per counter incr)" 0.025
row luajit_labelled_to_shdict "$(value labelled)" ns "lua_shared_dict:incr ($(value incr) ns)" "$(per labelled incr)" 0.025
row luajit_gauge "$(value gauge)" ns "" "" ""
row luajit_histogram_one_route "$(value histogram_near)" ns "" "" 6
row luajit_histogram_spread "$(value histogram)" ns "" "" 6
row luajit_shdict_get_counted "$(value get_counted)" ns "get() not counted ($(value get) ns)" "$(per get_counted get)" ""
row luajit_log_in_a_loop "$(value log)" ns "" "" ""

worker=$(workers | awk '{print $1}')
per_request() {
	local before requests
	before=$(cpu_ns "$worker")
	requests=$(wrk -t1 -c8 -d1s "$gateway$1" | awk '/requests in/{print $1}')
	echo $((($(cpu_ns "$worker") - before) / requests))
}
per_request /logged >/dev/null
for i in $(seq "$pairs"); do
	[ $((i % 2)) = 1 ] && per_request /empty >>"$world/empty"
	per_request /logged >>"$world/logged"
	[ $((i % 2)) = 0 ] && per_request /empty >>"$world/empty"
done
more=$(paste "$world/logged" "$world/empty" | awk '{print $1 - $2}' | median)
row luajit_log_per_request "$more" ns "more than an empty log_by_lua ($(median <"$world/empty") ns a request)" \
	"$(paste "$world/logged" "$world/empty" | awk '{print $1 / $2}' | median)" ""
world_end
