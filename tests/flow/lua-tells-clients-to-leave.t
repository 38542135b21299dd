#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tg.drain_header(): clients with keep-alive connections are told to leave while a drain lasts, and
# none of their requests fails; before and after they stay.
source "$(dirname "$0")/resty.sh"

resty_begin lua-drain '  deadline: 20s
  quiet: 1s
  on_sigterm: never'
resty_nginx 2 '
  init_worker_by_lua_block { tg = require "resty.tidegate" tg.start() }
  header_filter_by_lua_block { tg.drain_header() }' '
    location = /plain { content_by_lua_block { ngx.say("plain") } }
    location = /flag { content_by_lua_block { ngx.say(tostring(tg.draining())) } }
    location = /proxied { proxy_pass http://127.0.0.1:'"$gateway_port"'/plain; }' ||
	{ echo "Bail out! nginx does not start"; exit 1; }
is "$(curl -s "$gateway/flag")" false "no agent, no drain"
start_agent; ok $? "the agent sees the gateway"

# How many connections curl made for three requests of one run.
connections() { curl -s -o /dev/null -w '%{num_connects}\n' "$gateway$1" -o /dev/null "$gateway$1" -o /dev/null "$gateway$1" | awk '{s += $1} END {print s}'; }
is "$(connections /plain)" 1 "before: three requests, one connection"
is "$(connections /proxied)" 1 "proxied ones too"

# A client that keeps asking over one connection: the drain is quiet only once it was told to leave.
hey -z 60s -c 4 -q 20 "$gateway/plain" >"$world/hey.txt" &
load=$!
world_pids+=("$load")
"$tidegate" drain --gateway nginx --config "$world/agent.yaml" >"$world/drain.txt" 2>&1 &
drain=$!
world_pids+=("$drain")
flag() { [ "$(curl -s "$gateway/flag")" = "$1" ]; }
wait_for 5 flag true; ok $? "scripts see the drain"
is "$(connections /plain)" 3 "while it lasts each answer ends its connection"
is "$(connections /proxied)" 3 "proxied ones too"
is "$(curl -si "$gateway/plain" | tr -d '\r' | grep -ci '^connection: close$')" 1 "the header says so, once"
"$tidegate" undrain --gateway nginx --config "$world/agent.yaml" >/dev/null 2>&1; ok $? "undrain"
wait_for 5 flag false; ok $? "scripts see that it is over"
is "$(connections /plain)" 1 "one connection again"
kill -INT $load; wait $load
is "$(grep -c 'Error distribution' "$world/hey.txt")" 0 "no request failed"
wait $drain
tap_end
