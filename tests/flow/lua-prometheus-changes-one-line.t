#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A gateway written for nginx-lua-prometheus, with one line changed: two workers, init_by_lua alone,
# its own page. What cannot be had is an error that is counted, and no request fails of it.
source "$(dirname "$0")/resty.sh"

resty_begin lua-prometheus
resty_nginx 2 '
  lua_shared_dict prometheus_metrics 1m;
  init_by_lua_block {
    prometheus = require("resty.tidegate.prometheus").init("prometheus_metrics", {
      prefix = "shop_", agent = "127.0.0.1:'"$agent_port"'" })
    requests = prometheus:counter("http_requests", "Number of HTTP requests", {"host", "status"})
    latency = prometheus:histogram("latency_ms", "HTTP request latency", {"host"}, {1, 2, 3})
    took = prometheus:histogram("took_seconds", "Durations")
    sizes = prometheus:histogram("size_bytes", "Sizes")
    again = prometheus:counter("http_requests", "Number of HTTP requests")
    open = prometheus:gauge("open", "Open ones", {"what"})
    level = prometheus:gauge("level", "The last one")
    volume = prometheus:counter("volume_total", "Parts of one")
  }
  log_by_lua_block {
    if ngx.var.uri ~= "/order" then return end
    requests:inc(1, {ngx.var.host, ngx.var.status})
    latency:observe(20, {ngx.var.host})
    took:observe(0.3)
    open:inc(2, {"door"})
    open:inc(-1, {"door"})
    volume:inc(0.25)
  }' '
    location = /order { content_by_lua_block { ngx.say("ordered") } }
    location = /level {
      content_by_lua_block {
        if ngx.var.arg_pid ~= tostring(ngx.worker.pid()) then return ngx.exit(409) end
        level:set(tonumber(ngx.var.arg_to))
        ngx.say("set")
      }
    }
    location = /bad {
      content_by_lua_block {
        requests:inc(1)
        requests:inc(-1, {"a", "b"})
        requests:inc("x", {"a", "b"})
        requests:del({"a", "b"})
        requests:reset()
        sizes:observe(12)
        again:inc(1)
        ngx.say("still here")
      }
    }
    location = /unset {
      content_by_lua_block { level:set(1) level:reset() open:inc(1, {"gone"}) open:del({"gone"}) ngx.say(1) }
    }
    location = /metrics { content_by_lua_block { prometheus:collect() } }' ||
	{ echo "Bail out! nginx does not start"; exit 1; }

page() { curl -sf "$gateway/metrics"; }
is "$(page)" "" "no agent: the page is empty, and that is an error"
start_agent; ok $? "the agent sees the gateway"
hey -n 400 -c 8 "$gateway/order" >/dev/null
shown() { [ "$(sum_metric "$(page)" "$2" "${3:-}")" = "$1" ]; }
wait_for 10 shown 400 shop_http_requests_total; ok $? "a counter, its name with _total"
is "$(sum_metric "$(page)" shop_http_requests_total 'host="127.0.0.1",status="200"')" 400 "its labels"
is "$(sum_metric "$(page)" shop_latency_seconds_bucket 'le="0.025"')" 400 "milliseconds are seconds: all below 25 ms"
is "$(sum_metric "$(page)" shop_latency_seconds_bucket 'le="0.01"')" 0 "none below 10 ms"
is "$(sum_metric "$(page)" shop_took_seconds_count)" 400 "a histogram without labels"
is "$(sum_metric "$(page)" shop_open 'what="door"')" 400 "what is added to a gauge is summed over workers"
volume=$(sum_metric "$(page)" shop_volume_total)
[ "$volume" -ge 99 ] && [ "$volume" -le 100 ]; ok $? "parts are counted when they are whole: $volume"
is "$(page | grep -c '^# TYPE shop_http_requests_total counter')" 1 "one line of type"
is "$(page | grep -v '^#' | grep -vc '^shop_\|^nginx_metric_errors')" 0 "nothing of others on the page"
# Each of the workers is the last to set it once; the other's sign of life changes nothing.
set_by() { curl -sf "$gateway/level?to=$1&pid=$2"; }
to=0
for pid in $(workers); do
	for other in $(workers); do
		to=$((to + 1))
		[ "$other" = "$pid" ] || wait_for 10 set_by $to "$other"
	done
	to=$((to + 1))
	wait_for 10 set_by $to "$pid"
	wait_for 5 shown $to shop_level; ok $? "what is set is the last one's, not the sum: $to"
	pause 2.2
	is "$(sum_metric "$(page)" shop_level)" $to "and stays"
done

errors() { sum_metric "$(page)" nginx_metric_errors_total; }
before=$(errors || echo 0)
is "$(curl -s "$gateway/bad")" "still here" "errors end no request"
wait_for 5 shown $((before + 7)) nginx_metric_errors_total; ok $? "seven errors are counted: $before, $(errors)"
is "$(sum_metric "$(page)" shop_http_requests_total)" 400 "and nothing else is"
unset_all() { hey -n 60 -c 30 "$gateway/unset" >/dev/null; } # both workers, as good as surely
unset_all
absent() { unset_all; page >"$world/page"; ! grep -q "^shop_level\|what=\"gone\"" "$world/page"; }
wait_for 8 absent; ok $? "gauges that are deleted are absent"
grep "^shop_level\|gone" "$world/page" | sed "s/^/# /"
if command -v promtool >/dev/null; then
	page | promtool check metrics >"$world/promtool" 2>&1
	ok $? "promtool takes the page"
	sed 's/^/# /' "$world/promtool"
fi
tap_end
