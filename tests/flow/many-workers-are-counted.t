#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 500 workers, each with a listener of its own and so with the listeners and channels of all: the
# agent sees them all, goes on ticking while it looks for their connections of before, and counts every
# request, also on those connections. A gateway of more processes than are watched: the rest is said.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/talk.sh"

workers=500
ulimit -Sn "$(ulimit -Hn)"
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge 4096 ] || skip_all "only $(ulimit -n) descriptors"
[ "$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)" -ge 4000 ] ||
	skip_all 'less than 4 GB of memory'
world_begin workers
drain_options='  on_sigterm: never'
agent_options='probe:
  threads: 4096'
write_config
nginx_edit='s/backlog=511/backlog=511 reuseport/; s/worker_connections .*/worker_connections 64;/'
# Its Lua is of no interest here, and so many of them are.
nginx_edit+='; /load_module/d; /lua_package_path/d; /init_worker_by_lua_block {/,/^    }/d'
nginx_edit+='; /location = \/\(hello\|work\|sleep\|stall\|garbage\|gccollect\|turns\)/,/^        }/d'
nginx_edit+='; /location = \/bench/,/^        }/d'
start_nginx $workers || { echo "Bail out! nginx does not start"; exit 1; }
there() { [ "$(pgrep -c -P "$nginx_pid")" = $workers ]; }
wait_for 20 there; ok $? "nginx has $workers workers"

request='GET /fast HTTP/1.1\r\nHost: x\r\n\r\n'
answered=0
for i in {1..53}; do
	talk open "c$i" "127.0.0.1:$gateway_port" && talk send "c$i" "$request" && talk read "c$i" &&
		[ "$said" = "200 5" ] && answered=$((answered + 1))
done
is $answered 53 "53 connections are open before the agent comes"
start_agent
of() { agent_metric "tidegate_$1"; }
watched() { [ "$(of workers)" = "$1" ]; }
wait_for 30 watched $workers; is "$(of workers)" $workers "all workers are watched"

# ---- old connections count from their next request on, once they are found ----
in_use() { [ "$(of connections_open)" = 53 ]; }
wait_for 30 in_use; is "$(of connections_open)" 53 "old connections are found"
answered=0
for i in {1..53}; do
	talk send "c$i" "$request" && talk read "c$i" && [ "$said" = "200 5" ] && answered=$((answered + 1))
done
is $answered 53 "each has another request"
hey -n 1009 -c 1 -disable-keepalive "$gateway/fast" >"$world/hey.txt" 2>&1
counted() { [ "$(of requests_total)" = "$1" ]; }
wait_for 10 counted $((53 + 1009))
is "$(of requests_total)" $((53 + 1009)) "requests of old and of new connections are counted"
is "$(of probe_lost_total)" "" "nothing was lost"
is "$(agent_metric tidegate_process_restarts_total 'process="keeper"' || echo 0)" 0 "the keeper lives"
stop_agent; is $? 0 "the agent ends"
"$tidegate" agent --detach --config "$world/agent.yaml" 2>/dev/null

# ---- more processes than a gateway may have (which nginx cannot) ----
new_port
# shellcheck disable=SC2154 # new_port sets it
perl -MIO::Socket::INET -e '
	my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$ARGV[0]", Listen => 7) or die $!;
	my @children = map { fork // die($!) or do { sleep 300; exit } } 1 .. 1100;
	$SIG{TERM} = sub { kill TERM => @children; exit };
	sleep 300' "$port" &
parent=$!
world_pids+=("$parent")
family() { [ "$(pgrep -c -P "$parent")" = 1100 ]; }
wait_for 20 family; ok $? "1,101 processes are one gateway"
sed -i "s|match: .*|match: [\"many=perl:$port\"]|" "$world/agent.yaml"
start_agent
lost() { agent_metric tidegate_probe_lost_total 'reason="threads"'; }
is_lost() { [ "$(lost)" = 77 ]; }
wait_for 20 is_lost; is "$(lost)" 77 "those beyond 1,024 are counted"
grep -q 'processes are not watched: too many of one gateway .*processes=77' "$world/agent.log"
ok $? "and said"
tap_end
