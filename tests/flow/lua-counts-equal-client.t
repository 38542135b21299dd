#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# resty.tidegate in a real gateway: counted before there is an agent, by two workers, over a reload,
# a worker killed in the middle of load and a restart of the agent; every total is the client's.
source "$(dirname "$0")/resty.sh"

resty_begin lua-counts
resty_nginx 2 '
  lua_shared_dict sessions 1m;
  lua_shared_dict other 64k;
  init_by_lua_block {
    tg = require "resty.tidegate"
    orders = tg.counter("orders_total", { "route" }, "Orders."):with("/pay")
    sizes = tg.histogram("order_check_seconds", {}, "Checks."):with()
    orders:add(5) -- in the master: no worker has counted it
  }
  init_worker_by_lua_block {
    tg.start()
  }
  log_by_lua_block { tg.log() }' '
    set $tidegate_route "";
    location = /pay {
      set $tidegate_route pay;
      content_by_lua_block { orders:inc() sizes:observe(0.02) ngx.say("paid") }
    }
    location = /named {
      log_by_lua_block { tg.log { route = function() return ngx.var.arg_r end } }
      return 204;
    }
    location = /proxied {
      set $tidegate_route proxied;
      proxy_pass http://127.0.0.1:'"$gateway_port"'/slow;
    }
    location = /slow {
      log_by_lua_block { tg.log { route = "slow" } }
      content_by_lua_block { ngx.sleep(0.05) ngx.say("slow") }
    }
    location = /dict {
      content_by_lua_block {
        local d = ngx.shared.sessions
        d:set("here", 1) d:set("gone", 1, 0.001)
        ngx.update_time() ngx.sleep(0.01)
        d:get("here") d:get("here") d:get("nowhere") d:get("gone") d:get_stale("here")
        ngx.say(d:capacity(), " ", d:free_space())
      }
    }
    location = /threads {
      content_by_lua_block {
        for _ = 1, 7 do ngx.thread.spawn(function() ngx.sleep(30) end) end
        for _ = 1, 5 do ngx.thread.wait(ngx.thread.spawn(function() end)) end
        ngx.thread.wait(ngx.thread.spawn(function() ngx.sleep(2.5) end))
        ngx.exit(200)
      }
    }
    location = /collect { content_by_lua_block { collectgarbage() ngx.say(1) } }
    location = /jit {
      content_by_lua_block {
        local x = 0
        for i = 1, 100000 do x = (x * 31 + i) % 65521 end
        ngx.say(x)
      }
    }' || { echo "Bail out! nginx does not start"; exit 1; }

pay() { hey -n "$1" -c "${2:-10}" "$gateway/pay" >"$world/hey.txt"; }
pay 1000
is "$(grep -c 'counting goes on' "$world/nginx/logs/error.log")" 2 "without an agent each worker says so once"
start_agent; ok $? "the agent starts later"
becomes 1000 10 orders_total; is "$(agent_metric orders_total)" 1000 "what was counted before it is there"
becomes 1000 5 order_check_seconds_count; is "$(agent_metric order_check_seconds_count)" 1000 "histogram too"
is "$(agent_metric order_check_seconds_bucket 'le="0.025"')" 1000 "in the bucket of 25 ms"
is "$(agent_metric tidegate_lua_requests_total 'route="pay",status="200"')" 1000 "the log handler counted them"
is "$(files_of_app)" 2 "each of two workers has its file"

kill -HUP "$nginx_pid"
old_gone() { [ "$(agent_metric tidegate_app_folded_total)" = 2 ]; }
pay 1001 7 # hey sends a multiple of its clients
wait_for 10 old_gone; ok $? "after a reload both old workers were folded"
becomes 2001 5 orders_total; is "$(agent_metric orders_total)" 2001 "nothing lost or doubled by a reload"

# A client that says itself how many answers it got; nginx restarts the worker.
hey -n 20000 -c 8 "$gateway/pay" >"$world/hey.txt" 2>&1 &
load=$!
some() { agent_metric orders_total | awk '{exit !($1 > 2500)}'; }
wait_for 20 some
kill -KILL "$(workers | awk '{print $1}')"
wait $load
answered=$(awk '/\[200\]/{print $2}' "$world/hey.txt")
lines=$(access_log_lines '/pay')
three() { [ "$(agent_metric tidegate_app_folded_total)" = 3 ]; }
wait_for 10 three; ok $? "the killed worker was folded"
pause 1.5 # two ticks: a total that still moves would be seen
got=$(agent_metric orders_total)
# A request counted and not answered is in neither; the one in each of 8 connections may be.
awk -v g="$got" -v a="$((answered + 2001))" 'BEGIN {exit !(g >= a && g <= a + 8)}'
ok $? "SIGKILL under load: $got counted, $answered of 20000 and 2001 answered, $lines logged"
stop_agent
before=$got
pay 500
start_agent
becomes $((before + 500)) 10 orders_total
is "$(agent_metric orders_total)" $((before + 500)) "an agent's restart loses and doubles nothing"

for r in a b; do for _ in 1 2 3; do curl -s "$gateway/named?r=$r"; done; done
curl -s "$gateway/proxied" >/dev/null
becomes 3 5 tidegate_lua_requests_total 'route="a",status="204"'
ok $? "a function names the route"
becomes 1 5 tidegate_lua_upstream_duration_seconds_count 'route="proxied"'; ok $? "time of the upstream"
is "$(agent_metric tidegate_lua_upstream_duration_seconds_bucket 'route="proxied",le="0.025"')" 0 "more than 25 ms"
is "$(agent_metric tidegate_lua_upstream_duration_seconds_bucket 'route="proxied",le="2.5"')" 1 "less than 2.5 s"

numbers=$(for _ in 1 2 3 4; do curl -s "$gateway/dict"; done | tail -1)
becomes 12 5 tidegate_lua_shdict_hits_total 'dict="sessions"'
is "$(agent_metric tidegate_lua_shdict_hits_total 'dict="sessions"')" 12 "hits"
is "$(agent_metric tidegate_lua_shdict_misses_total 'dict="sessions"')" 8 "misses, an expired key is one"
is "$(agent_metric tidegate_lua_shdict_bytes 'dict="sessions"')" "${numbers% *}" "its size"
wanted=${numbers#* }
becomes "$wanted" 5 tidegate_lua_shdict_free_bytes 'dict="sessions"'; ok $? "what is free: $wanted"
is "$(agent_metric tidegate_lua_shdict_bytes 'dict="other"')" 65536 "the other one"

for _ in 1 2 3; do curl -s "$gateway/threads" >/dev/null & world_pids+=($!); done
becomes 24 10 tidegate_lua_coroutines 'kind="thread"'; ok $? "threads that live are counted"
# nginx kills those of a request that ended; a collection takes them.
no_threads() {
	for _ in 1 2 3 4; do curl -s "$gateway/collect" >/dev/null; done
	[ "$(agent_metric tidegate_lua_coroutines 'kind="thread"')" = 0 ]
}
wait_for 20 no_threads; is "$(agent_metric tidegate_lua_coroutines 'kind="thread"')" 0 "and are gone with their requests"
agent_metric tidegate_lua_coroutines 'kind="timer"' | awk '{exit !($1 >= 2)}'; ok $? "running timers: those that record"
agent_metric tidegate_lua_heap_bytes | awk '{exit !($1 > 100000)}'; ok $? "heap"
for _ in 1 2 3 4; do curl -s "$gateway/jit" >/dev/null; done
agent_metric tidegate_luajit_traces | awk '{exit !($1 > 0)}'; ok $? "traces: $(agent_metric tidegate_luajit_traces)"
agent_metric tidegate_luajit_mcode_bytes | awk '{exit !($1 > 100)}'; ok $? "their code: $(agent_metric tidegate_luajit_mcode_bytes)"
is "$(grep -cE '\[(error|alert|crit|emerg)\]' <(grep -v 'exited on signal 9' "$world/nginx/logs/error.log"))" 0 "no error in nginx's log"
tap_end
