#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Lua scripts of a real HAProxy count through the C module: one state that all threads share, and one
# a thread; workers behind a root directory and a user of their own. What the client saw is what the
# fleet has, over reloads and a killed worker; a drain tells clients to leave; promtool accepts every
# text with these metrics in it.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"

for tool in haproxy hey promtool; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
lua=$(haproxy -vv | sed -n 's/^Built with Lua version : Lua \(5\.[0-9]*\).*/\1/p')
module=$BUILD/puc/$lua/tidegate.so
[ -e "$module" ] || skip_all "the module is not built for HAProxy's Lua, ${lua:-none}"
[ "$(id -u)" = 0 ] || skip_all "only root may change HAProxy's root directory"

world_begin scripts
drain_options='  quiet: 60s
  deadline: 120s'
dir=$world/haproxy
mkdir -p "$dir/empty" "$dir/modules"
cp "$module" "$dir/modules/"
new_port
haproxy_port=$port haproxy=http://127.0.0.1:$port
match_gateways "edge=haproxy:$haproxy_port"

# ---- what a user writes ----
cat >"$dir/shared.lua" <<'LUA'
local tg = require "tidegate"
local orders = tg.counter("orders_total", { "route" }, "Requests that the service answered.")
local took = tg.histogram("order_seconds", { "route" }, "Time in the service."):with("/order")
local answered = orders:with("/order")
core.register_service("order", "http", function(applet)
	answered:inc()
	took:observe(0.0005)
	applet:set_status(200)
	applet:add_header("content-length", "3")
	applet:start_response()
	applet:send("ok\n")
end)
tg.start()
LUA
cat >"$dir/threads.lua" <<'LUA'
local tg = require "tidegate"
local seen = tg.counter("seen_total", { "how" }, "Requests that the action saw."):with("thread")
core.register_action("see", { "http-req" }, function() seen:inc() end)
-- In this file: HAProxy 2.6 runs all actions and fetches of a stream in the state of the first.
core.register_fetches("draining", function() return tg.draining() end)
tg.start()
LUA
cat >"$dir/haproxy.cfg" <<CONF
global
  nbthread 2
  maxconn 1000
  chroot $dir/empty
  user nobody
  group nogroup
  stats socket $dir/stats.sock expose-fd listeners
  setenv TIDEGATE_RUNTIME_DIR $run
  lua-prepend-path $dir/modules/?.so cpath
  lua-load $dir/shared.lua
  lua-load-per-thread $dir/threads.lua
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend edge
  bind 127.0.0.1:$haproxy_port
  http-request lua.see
  http-request use-service lua.order
  http-after-response set-header Connection close if { lua.draining -m bool }
CONF
start_edge() {
	TIDEGATE_RUNTIME_DIR=$run haproxy -W -p "$dir/haproxy.pid" -f "$dir/haproxy.cfg" >>"$dir/log" 2>&1 &
	haproxy_pid=$!
	world_pids+=("$haproxy_pid")
	wait_for 10 answers "$haproxy/order" || { cat "$dir/log" >&2; return 1; }
}

# The directory is the agent's, so the agent comes first: these workers cannot make a file later.
start_aggregator; ok $? "the aggregator is ready"
"$tidegate" agent --config "$world/agent.yaml" >>"$world/agent.log" 2>&1 &
agent_pid=$!
wait_for 10 test -d "$run/app"; ok $? "the agent made its directory"
start_edge || { echo "Bail out! haproxy does not start"; exit 1; }
sent=1
wait_for 20 agent_sees_gateway; ok $? "the agent sees HAProxy"

workers() { pgrep -P "$haproxy_pid" | sort | xargs; }
worker_changed() { local now; now=$(workers) && [ -n "$now" ] && [ "$now" != "$1" ]; }
worker_alone() { [ "$(workers | wc -w)" = 1 ]; }
of() { "$1_metric" "$2" 'gateway="edge"'; }
told() { # told agent|fleet: what each kind of state has counted, and the histogram
	echo "$(of "$1" orders_total) $(of "$1" seen_total) $(of "$1" order_seconds_count)"
}
all_told() { [ "$(told "$1")" = "$sent $sent $sent" ]; }
exactly() { # exactly WHAT
	local who
	for who in agent fleet; do
		wait_for 10 all_told $who
		is "$(told $who)" "$sent $sent $sent" "$1: the $who has what the client saw"
	done
}
load() { # load N [hey's options]
	local n=$1
	shift
	hey -n "$n" -c 10 "$@" "$haproxy/order" >"$world/hey.txt" 2>&1
	is "$(client_count "$world/hey.txt" 200)" "$n" "the client saw $n answers"
	sent=$((sent + n))
}

# ---- load ----
# hey sends as many from each of its clients, so counts are multiples of ten.
load 3010
exactly "two threads under load"
worker=$(workers)
is "$(stat -c %u "/proc/$worker")" "$(id -u nobody)" "the worker is nobody"
is "$(readlink "/proc/$worker/root")" "$dir/empty" "and sees an empty directory"
is "$(find "$run/app" -name "$worker-*.seg" | wc -l)" 3 "it has a file for the shared state and one a thread"

grep -q "garbage collector found gateway=edge" "$world/agent.log"
ok $? "its collector is found all the same"

# ---- reloads, while clients come and go ----
polls_begin
hey -n 2530 -c 10 -q 100 -disable-keepalive "$haproxy/order" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
for n in 1 2; do
	was=$(workers)
	pause 0.4
	kill -USR2 "$haproxy_pid"
	wait_for 10 worker_changed "$was" && wait_for 10 worker_alone; ok $? "reload $n: another worker"
done
kill -0 $load 2>/dev/null; ok $? "while the load ran"
wait $load
is "$(client_count "$world/hey.txt" 200)" 2530 "the client saw every answer over two reloads"
sent=$((sent + 2530))
exactly "two reloads"

# ---- a worker is killed; its master goes with it ----
kill_worker() {
	kill -KILL "$(workers)"
	wait_for 10 gone "$haproxy_pid"
}
kill_worker; ok $? "the worker is killed"
exactly "a killed worker"
start_edge; ok $? "another one takes its place"
sent=$((sent + 1))
load 1270
exactly "and goes on"

# Under load: what the client has was counted, and no more than what was in HAProxy's hands.
hey -n 4000 -c 10 -q 100 "$haproxy/order" >"$world/hey.txt" 2>&1 &
load=$!
world_pids+=("$load")
before=$sent
under_way() { [ "$(of agent orders_total)" -gt $((before + 500)) ]; }
wait_for 10 under_way; ok $? "a load is under way"
kill_worker; ok $? "the worker is killed under load"
wait $load
seen=$(client_count "$world/hey.txt" 200)
sent=$((before + seen))
at_least() { [ "$(of agent orders_total)" -ge "$sent" ]; }
wait_for 10 at_least
[ "$seen" -gt 500 ] && at_least && [ "$(of agent orders_total)" -le $((sent + 10)) ]
ok $? "killed under load: $seen answers, $(($(of agent orders_total) - before)) counted"
no_files() { [ -z "$(find "$run/app" -name '*.seg')" ]; }
wait_for 10 no_files; ok $? "and its files are folded"
sent=$(of agent orders_total)
agree() { [ "$(told agent)" = "$(told fleet)" ]; }
wait_for 10 agree; ok $? "agent and fleet agree"
polls_end
is "$(polls_fallen)" "" "no counter fell in $(polls_count) readings"

# ---- a drain ----
start_edge; ok $? "there is a worker again"
knows_ours() { grep -q "gateway found .*master=$haproxy_pid " "$world/agent.log"; }
wait_for 10 knows_ours; ok $? "which the agent sees"
says_close() { curl -si "$haproxy/order" | grep -qi '^connection: close'; }
says_nothing() { ! says_close; }
says_nothing; ok $? "nobody is told to leave"
"$tidegate" drain --config "$world/agent.yaml" --json >"$world/drain" 2>&1 &
drain=$!
wait_for 10 says_close; ok $? "while it is drained, each answer says Connection: close"
"$tidegate" undrain --config "$world/agent.yaml" >/dev/null; ok $? "the drain is taken back"
wait $drain
wait_for 10 says_nothing; ok $? "nor is anybody told afterwards"

is "$(grep -c 'ALERT.*Lua' "$dir/log")" 0 "HAProxy has nothing to say of the scripts"

# ---- promtool ----
accepts() { # accepts NAME COMMAND...
	"${@:2}" >"$world/text" 2>/dev/null
	grep -q '^orders_total{' "$world/text"; ok $? "$1 has the scripts' metrics"
	is "$(promtool check metrics <"$world/text" 2>&1)" "" "promtool accepts $1"
}
accepts "tidegate metrics" env TIDEGATE_RUNTIME_DIR="$run" "$tidegate" metrics
accepts "the agent's /metrics" curl -sf "http://127.0.0.1:$agent_port/metrics"
accepts "the aggregator's /metrics" curl -sf "http://127.0.0.1:$aggregator_port/metrics"
tap_end
