#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# LuaJIT's sampler interrupts system calls by a signal. While it runs in both workers, with upstreams,
# timers and many keep-alive connections, every request is answered; a worker that is told to end
# leaves its profile; afterwards no timer of the process runs.
source "$(dirname "$0")/resty.sh"

resty_begin lua-profile
resty_nginx 2 '
  init_by_lua_block {
    tg = require "resty.tidegate"
    answered = tg.counter("answered_total"):with()
  }
  init_worker_by_lua_block { tg.start() }
  log_by_lua_block { tg.log() }
  upstream self { server 127.0.0.1:'"$gateway_port"'; keepalive 16; }' '
    set $tidegate_route "";
    location = /back {
      content_by_lua_block { ngx.sleep(0.002) ngx.say(("x"):rep(20000)) }
    }
    location = /front {
      set $tidegate_route front;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      access_by_lua_block { local t = {} for i = 1, 3000 do t[i] = i .. "" end answered:inc() }
      proxy_pass http://self/back;
    }
    location = /profile { content_by_lua_block { ngx.say(tostring(require("resty.tidegate.profile").is_running())) } }' ||
	{ echo "Bail out! nginx does not start"; exit 1; }
start_agent || { echo "Bail out! the agent does not start"; exit 1; }
becomes 2 5 tidegate_app_processes; ok $? "two workers are read"

hey -n 4000 -c 16 "$gateway/front" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
"$tidegate" profile --config "$world/agent.yaml" --gateway nginx --seconds 3 --folded "$world/folded" 2>"$world/said" &
profile=$!
running() { [ "$(curl -s "$gateway/profile")" = true ]; }
wait_for 5 running; ok $? "the sampler runs"
wait $profile; is $? 0 "the profile is taken"
sed 's/^/# /' "$world/said"
wait $load
is "$(awk '/\[200\]/{print $2}' "$world/hey.txt")" 4000 "each of 4000 requests was answered"
becomes 4000 5 answered_total; is "$(agent_metric answered_total)" 4000 "and counted once"
is "$(agent_metric tidegate_lua_requests_total 'route="front",status="200"')" 4000 "by the log handler too"
stopped() { [ "$(curl -s "$gateway/profile")" = false ]; }
wait_for 5 stopped; ok $? "the sampler ended"
is "$(grep -cE '\[(error|alert|crit|emerg)\]' "$world/nginx/logs/error.log")" 0 "nothing in nginx's log"

"$tidegate" profile --config "$world/agent.yaml" --gateway nginx --seconds 6 --folded "$world/folded" 2>"$world/said" &
profile=$!
wait_for 5 running; ok $? "another one runs"
kill -HUP "$nginx_pid"
wait $profile
sed 's/^/# /' "$world/said"
grep -q '[1-9][0-9]* process.* answered' "$world/said"; ok $? "workers that end meanwhile leave theirs"
tap_end
