#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# CPU time of a saturated gateway per request, with all always-on probes against without, one after
# the other in pairs; medians of the pairs' ratios. nginx with three handlers, for each tier that
# loads here: "hello" (the least that Lua can do), and two that are calibrated in this run to take 12
# and 100 us of CPU a request without probes, which have budgets; and "tls", the hello inside TLS, keep-alive,
# where plain bytes come from the library's calls. HAProxy and caddy with their hello, by the best tier.
# PAIRS: how many; TIERS: which; HANDLERS: of hello tls 12us 100us others.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/../flow/tls.sh"

world_begin bench-cost
pairs=${PAIRS:-10}
drain_options='  on_sigterm: never'
budget_12us=1.10 budget_100us=1.02

per_request() { # per_request URL: ns of CPU a request
	local before after requests
	before=$(cpu_ns "$worker")
	requests=$(wrk -t1 -c16 -d2s "$1" | awk '/requests in/{print $1}')
	after=$(cpu_ns "$worker")
	echo "$requests" >"$world/requests"
	echo $(((after - before) / requests))
}
with_agent() { # with_agent TIER
	agent_options="probe:
  tier: $1"
	write_config
	sed -i "s|match: .*|match: [\"$gateway_match:$gateway_port\"]|" "$world/agent.yaml"
	local before
	before=$(examined)
	start_agent
	# host.seg still shows what the agent before this one saw: the worker is watched once its
	# libraries were looked for.
	wait_for 5 watching "$before"
}
examined() { grep -c "$last_found" "$world/agent.log" 2>/dev/null; }
watching() { [ "$(examined)" -gt "${1:-0}" ]; }
without_agent() {
	stop_agent
	"$tidegate" agent --detach --config "$world/agent.yaml"
}
loads() { # loads TIER
	with_agent "$1" 2>/dev/null
	without_agent
	[ "$1" = auto ] || grep -q "name=syscalls how=$1" "$world/agent.log"
}

# Turns of a Lua loop with which a request takes so many ns without probes, to 5 %: by the secant
# through none and the last try. Sets $turns and $took.
calibrate() { # calibrate NS
	local least try
	least=$(per_request "$gateway/turns?n=0")
	turns=2000
	for try in 1 2 3 4 5 6 7 8; do
		took=$(per_request "$gateway/turns?n=$turns")
		[ $((took * 20)) -ge $(($1 * 19)) ] && [ $((took * 20)) -le $(($1 * 21)) ] && return 0
		[ "$took" -gt "$least" ] || least=$(per_request "$gateway/turns?n=0")
		turns=$(awk -v t=$turns -v n="$took" -v a="$least" -v want="$1" \
			'BEGIN {x = n > a ? t * (want - a) / (n - a) : 2 * t; printf "%d", x < 1 ? 1 : x}')
	done
	echo "# $try tries, but a request with $turns turns takes $took ns instead of $1"
	return 1
}

measure() { # measure on|off: a line to each handler's file
	local name
	for name in "${!urls[@]}"; do per_request "${urls[$name]}" >>"$world/$name.$1"; done
}
# Interleaved, each order as often as the other: what drifts falls on both sides.
measure_pairs() { # measure_pairs TIER
	local i
	rm -f "$world"/*.on "$world"/*.off
	for i in $(seq "$pairs"); do
		[ $((i % 2)) = 1 ] && measure off
		with_agent "$1"
		measure on
		without_agent
		[ $((i % 2)) = 0 ] && measure off
	done
}
ratios() { paste "$world/$1.on" "$world/$1.off" | awk '{print $1 / $2}'; }
report() { # report NAME TIER: sets $ratio
	local on off
	ratio=$(ratios "$1" | median)
	on=$(median <"$world/$1.on") off=$(median <"$world/$1.off")
	row "gateway_cpu_per_request_$1_$2" "${on%.*}" ns "without probes (${off%.*} ns)" "$ratio" ""
	echo "# $1 $2: $((${on%.*} - ${off%.*})) ns more; ratios $(ratios "$1" | sort -g | tr '\n' ' ')"
}
lowest() { tr ' ' '\n' | grep . | sort -g | head -1; }

# What is not seen costs nothing: the row above it means something if these numbers are alike.
counted() {
	pause 1.2 # a tick
	"$tidegate" metrics --config "$world/agent.yaml" 2>/dev/null |
		awk '/^tidegate_requests_total/{n += $NF} END {printf "%d", n}'
}
tls_seen() { # tls_seen TIER
	local before
	with_agent "$1"
	before=$(counted)
	per_request "$tls/bench" >/dev/null
	echo "# tls $1: $(($(counted) - before)) requests counted, $(cat "$world/requests") made by wrk"
	without_agent
}

# ---- nginx: the budgets ----
declare -A urls=() lowest_of=()
gateway_match=nginx=nginx last_found='TLS library found'
nginx_with_tls
start_nginx 1 || exit 1
handlers=" ${HANDLERS:-hello tls 12us 100us others} "
wanted() { [[ $handlers == *" $1 "* ]]; }
wanted hello && urls[hello]=$gateway/bench
wanted tls && urls[tls]=$tls/bench
worker=$(children_of "$nginx_pid" | awk '{print $1}')
for us in 12 100; do
	wanted ${us}us || continue
	if calibrate ${us}000; then
		urls[${us}us]="$gateway/turns?n=$turns"
		echo "# handler of $us us: $turns turns took $took ns"
	fi
done
for tier in ${TIERS:-fentry tp_btf raw_tp tracepoint}; do
	loads "$tier" || { echo "# $tier does not load here"; continue; }
	wanted tls && tls_seen "$tier"
	measure_pairs "$tier"
	for name in hello tls 12us 100us; do
		[ -n "${urls[$name]:-}" ] || continue
		report $name "$tier"
		lowest_of[$name]="${lowest_of[$name]:-} $ratio"
	done
done
for name in 12us 100us; do
	wanted $name || continue
	limit=budget_$name
	row gateway_cpu_per_request_$name "" ratio "without probes" "$(lowest <<<"${lowest_of[$name]:-}")" "${!limit}"
done
kill -QUIT "$nginx_pid"
wait_for 10 gone "$nginx_pid"
nginx_pid=''

# ---- other gateways: one thread each, as the least that they can do ----
start_other() { # start_other COMMAND...
	new_port
	gateway_port=$port gateway=http://127.0.0.1:$port
	"write_$1"
	shift
	"$@" >"$world/other.log" 2>&1 &
	worker=$!
	world_pids+=("$worker")
	wait_for 10 curl -sf "$gateway/" || { cat "$world/other.log" >&2; return 1; }
}
write_haproxy() {
	cat >"$world/hello.lua" <<-'LUA'
	core.register_service("hello", "http", function(applet)
		applet:set_status(200)
		applet:add_header("content-length", "6")
		applet:start_response()
		applet:send("hello\n")
	end)
	LUA
	cat >"$world/haproxy.cfg" <<-CFG
	global
	  nbthread 1
	  lua-load $world/hello.lua
	defaults
	  mode http
	  timeout client 60s
	  timeout connect 5s
	  timeout server 60s
	frontend hello
	  bind 127.0.0.1:$gateway_port
	  http-request use-service lua.hello
	CFG
}
write_caddy() {
	printf '{\n admin off\n auto_https off\n}\nhttp://127.0.0.1:%s {\n respond "hello"\n}\n' \
		"$gateway_port" >"$world/Caddyfile"
}
other() { # other NAME COMMAND...
	local name=$1
	shift
	command -v "$name" >/dev/null || { echo "# $name is not installed"; return; }
	gateway_match=$name=$name last_found='garbage collector found'
	start_other "$name" "$@" || return
	urls=([$name]="$gateway/")
	loads auto
	measure_pairs auto
	report "$name" auto
	kill "$worker"
	wait "$worker"
}
wanted others && other haproxy haproxy -f "$world/haproxy.cfg"
wanted others && other caddy env HOME="$world" GOMAXPROCS=1 caddy run --config "$world/Caddyfile" --adapter caddyfile
world_end
