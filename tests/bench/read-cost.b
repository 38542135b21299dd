#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 250,000 series of four workers, each of which counts in one of them at each request. The gateway's
# p99 under wrk while the agent reads all of them each second, against the same while its reader is
# stopped (SIGSTOP; the probes go on): with one connection, which leaves room on the CPUs, and with
# eight, which leave none on a small machine. Beside it the same with as many keys of a lua_shared_dict,
# read each second by get_keys() and get(). Interleaved runs of SECONDS_EACH, PAIRS of them; medians.
source "$(dirname "$0")/../flow/resty.sh"
source "$(dirname "$0")/lib.sh"

pairs=${PAIRS:-9} seconds_each=${SECONDS_EACH:-3}
series=${SERIES:-250000}
resty_begin bench-read
agent_options="$agent_options
app:
  series: $((series + series / 8 + 1000))"
write_config
resty_nginx 4 '
  lua_shared_dict keys 100m;
  init_by_lua_block {
    tg = require "resty.tidegate"
    tg.init { series = '$((series / 4 + series / 16))' }
    counters = {}
  }
  init_worker_by_lua_block {
    local m = tg.counter("bench_total", { "worker_id", "route" }, "Counted by each request.")
    count = '$((series / 4))'
    for i = 1, count do counters[i] = m:with(ngx.worker.id(), "/route/" .. i) end
    tg.start()
    if ngx.worker.id() == 0 then
      for i = 1, '"$series"' do ngx.shared.keys:set("bench_total{route=\"/route/" .. i .. "\"}", i) end
    end
    turn = 0
  }' '
    access_log off;
    location = /count {
      content_by_lua_block {
        turn = turn % count + 1
        counters[turn]:inc()
        ngx.say("counted")
      }
    }
    location = /read {
      content_by_lua_block {
        local d, n = ngx.shared.keys, 0
        for _, key in ipairs(d:get_keys(0)) do if d:get(key) then n = n + 1 end end
        ngx.update_time()
        ngx.say(n, " ", (ngx.now() - ngx.req.start_time()) * 1000)
      }
    }' || exit 1
start_agent || exit 1
all() { [ "$("$tidegate" metrics --segment "$run/app.seg" | grep -c '^bench_total{')" = "$series" ]; }
wait_for 60 all || { echo "# not all of $series series are read"; tail -5 "$world/agent.log"; exit 1; }
courier=$(child_pid "$agent_pid" courier)
before=$(cpu_ns "$courier")
pause 5
row read_agent_cpu_per_second "$(awk -v n="$(($(cpu_ns "$courier") - before))" 'BEGIN {print n / 5e6}')" ms \
	"" "" ""

p99() { # p99 FILE: microseconds
	local clients
	for clients in 1 8; do
		wrk -t1 -c$clients -d"${seconds_each}s" --latency "$gateway/count" | awk '$1 == "99%" {
			v = $2 + 0
			print $2 ~ /us$/ ? v : $2 ~ /ms$/ ? v * 1000 : v * 1e6 }' >>"$world/$1.$clients"
	done
}
stopped() { kill -STOP "$courier"; p99 off; kill -CONT "$courier"; pause 1; }
read_each_second() {
	while :; do
		curl -s "$gateway/read" >>"$world/reads"
		read -rt 1 <> <(:) || true
	done
}
p99 warm
for i in $(seq "$pairs"); do
	[ $((i % 2)) = 1 ] && stopped
	p99 on
	[ $((i % 2)) = 0 ] && stopped
	# A third as often: the other way needs no fine measure.
	[ $((i % 3)) = 0 ] || continue
	read_each_second &
	reader=$!
	p99 dict
	kill "$reader"
done
for clients in 1 8; do
	off=$(median <"$world/off.$clients") on=$(median <"$world/on.$clients")
	dict=$(median <"$world/dict.$clients")
	row "read_gateway_p99_of_$clients" "$on" us "reader stopped ($off us)" \
		"$(awk -v a="$on" -v b="$off" 'BEGIN {print a / b}')" 1.03
	row "read_gateway_p99_of_${clients}_shared_dict" "$dict" us \
		"get_keys() and get() each second; nobody reads ($off us)" \
		"$(awk -v a="$dict" -v b="$off" 'BEGIN {print a / b}')" ""
	echo "# $clients off: $(sort -g "$world/off.$clients" | tr '\n' ' ');" \
		"on: $(sort -g "$world/on.$clients" | tr '\n' ' ')"
done
row read_shared_dict_worker_blocked "$(awk -v n="$series" '$1 == n {print $2}' "$world/reads" | median)" ms \
	"" "" ""
world_end
