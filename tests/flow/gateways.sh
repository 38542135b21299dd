# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Gateways beside lib.sh's nginx: HAProxy as master with one worker of two threads, caddy, an nginx
# of a test's own shape. Each in a directory of its own with an access log, each ended with the
# world. Source it after lib.sh.

haproxy_pid='' caddy_pid=''

# gateways.match of the agent from NAME=EXE:PORT words.
match_gateways() {
	local list
	printf -v list '"%s", ' "$@"
	write_config
	# shellcheck disable=SC2154 # world_begin sets it
	sed -i "s|match: .*|match: [${list%, }]|" "$world/agent.yaml"
}

answers() { curl -sf -o /dev/null "$1"; }

# Answers by itself: /hello, 404 for the rest, /sleep?ms= by its Lua; /up/… goes to the URL below
# $1 (host:port) when there is one. A log line: status, %Tr (first byte) and %Ta (all) in ms, path,
# how it ended (CR: the client left and had asked for nothing, which is logged as 400 all the same).
# haproxy_options: more words for its command line; haproxy_edit: a sed script for its configuration.
start_haproxy() { # start_haproxy [BACKEND]
	local dir=$world/haproxy
	new_port
	# shellcheck disable=SC2154 # new_port sets it
	haproxy_port=$port
	haproxy=http://127.0.0.1:$port
	mkdir -p "$dir"
	cat >"$dir/handlers.lua" <<-'LUA'
	core.register_service("sleep", "http", function(applet)
		core.msleep(tonumber(applet.qs:match("ms=(%d+)")) or 100)
		applet:set_status(200)
		applet:add_header("content-length", "6")
		applet:start_response()
		applet:send("slept\n")
	end)
	LUA
	# Threads that log to one descriptor drop lines when they meet there: each has a frontend, with a
	# log (haproxy_log knows) and, by SO_REUSEPORT, a listener of its own.
	cat >"$dir/haproxy.cfg" <<-CONF
	global
	  nbthread 2
	  lua-load $dir/handlers.lua
	  stats socket $dir/stats.sock expose-fd listeners
	  # Left to itself it tries to raise the limit of descriptors, which a test machine may refuse.
	  maxconn 1000
	defaults common
	  mode http
	  log-format "%ST %Tr %Ta %HP %ts"
	  timeout connect 5s
	  timeout client 30s
	  timeout server 30s
	  http-request return status 200 content-type text/plain string hello if { path /hello }
	  http-request use-service lua.sleep if { path /sleep }
	  http-request return status 404 content-type text/plain string nothing unless { path_beg /up/ }
	frontend one from common
	  log stdout format raw local0
	  bind 127.0.0.1:$haproxy_port thread 1
	  default_backend up
	frontend two from common
	  log stderr format raw local0
	  bind 127.0.0.1:$haproxy_port thread 2
	  default_backend up
	defaults
	  mode http
	  timeout connect 5s
	  timeout server 30s
	backend up
	  http-request replace-path /up(/.*) \\1
	  server up ${1:-127.0.0.1:9}
	CONF
	[ -z "${haproxy_edit:-}" ] || sed -i "$haproxy_edit" "$dir/haproxy.cfg"
	# shellcheck disable=SC2086 # words
	haproxy -W ${haproxy_options:-} -p "$dir/haproxy.pid" -f "$dir/haproxy.cfg" >>"$dir/access.log" 2>>"$dir/error.log" &
	haproxy_pid=$!
	world_pids+=("$haproxy_pid")
	wait_for 10 answers "$haproxy/hello" && return
	cat "$dir/error.log" >&2
	return 1
}

# status, %Tr, %Ta, path; without those that never asked for anything, and without messages.
haproxy_log() {
	awk 'NF == 5 && $1 ~ /^[1-5][0-9][0-9]$/ && $5 != "CR"' "$world"/haproxy/{access,error}.log
}

# Answers by itself: /hello, 404 for the rest; /up/… goes to the URL below $1 when there is one. The
# log is JSON lines: .status, .duration in seconds, .request.uri.
start_caddy() { # start_caddy [BACKEND]
	local dir=$world/caddy
	new_port
	caddy_port=$port
	caddy=http://127.0.0.1:$port
	mkdir -p "$dir/home"
	cat >"$dir/Caddyfile" <<-CONF
	{
		admin off
		auto_https off
	}
	http://127.0.0.1:$caddy_port {
		log {
			output file $dir/access.log
		}
		handle_path /up/* {
			reverse_proxy ${1:-127.0.0.1:9}
		}
		respond /hello "hello"
		respond 404
	}
	CONF
	HOME=$dir/home caddy run --adapter caddyfile --config "$dir/Caddyfile" 2>>"$dir/error.log" &
	caddy_pid=$!
	world_pids+=("$caddy_pid")
	wait_for 20 answers "$caddy/hello" && return
	tail -5 "$dir/error.log" >&2
	return 1
}

# What hey's report says of a status.
client_count() { awk -v s="[$2]" '$1 == s && /responses/ {n += $2} END {print n + 0}' "$1"; }

client_errors() { awk '/^Error distribution/ {on = 1} on && /\[/ {gsub(/[][]/, "", $1); n += $1} END {print n + 0}' "$1"; }

# In how many of the histograms' buckets (schema 3: eight to a doubling) two times lie apart; empty
# when one of them is none.
buckets_apart() { # buckets_apart SECONDS SECONDS
	awk -v a="$1" -v b="$2" 'function bucket(v, x) { x = 8 * log(v) / log(2); return int(x + 1e6) - 1e6 }
		BEGIN { if (a > 0 && b > 0) { d = bucket(a) - bucket(b); print d < 0 ? -d : d } }'
}
# The value at a quantile of the numbers on stdin.
quantile_of() { sort -g | awk -v q="$1" '{v[NR] = $1} END {if (NR) {i = int(q * NR); print v[i < q * NR ? i + 1 : i]}}'; }

# ---- counters that must not fall ----
# Reads the segment and the listener over and over, until polls_end; then the numbers of all reads
# are looked through by polls_fallen, which prints the counters that fell.
polls_pid=''
polls_begin() {
	# shellcheck disable=SC2154 # lib.sh sets them
	while :; do
		# Whole reads only: an agent that is away is no fall.
		"$tidegate" metrics --segment "$run/host.seg" >"$world/poll" && sed 's/^/segment /' "$world/poll"
		curl -sf "http://127.0.0.1:$agent_port/metrics" >"$world/poll" && sed 's/^/listener /' "$world/poll"
		echo tick
		pause 0.05
	done >"$world/polls" 2>/dev/null &
	polls_pid=$!
	world_pids+=("$polls_pid")
}
polls_end() { kill "$polls_pid" 2>/dev/null; wait "$polls_pid" 2>/dev/null; }
polls_count() { grep -c '^tick' "$world/polls"; }
# A series while it is there; requests of a gateway also when its instances change.
polls_fallen() {
	awk '
		$1 == "tick" { for (g in sum) { fall("requests of " g, sum[g]) } delete sum; next }
		$2 ~ /^#/ { next }
		{ key = $0; sub(/ [^ ]*$/, "", key) }
		key ~ /(_total|_bucket|_count)[ {]/ { fall(key, $NF) }
		$2 ~ /^tidegate_requests_total/ && match($0, /gateway="[^"]*"/) {
			sum[$1 " " substr($0, RSTART, RLENGTH)] += $NF
		}
		function fall(what, value) {
			if (value + 0 < last[what] + 0) print what ": " last[what] " to " value
			last[what] = value
		}' "$world/polls"
}
