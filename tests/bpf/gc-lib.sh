# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What gc-nginx.t, gc-haproxy.t and the benches share: a real gateway with gc-cycles.lua, and the counter
# (gc.t with arguments) that watches its worker. GC_WRAP: a command that starts the gateway.
source "$(dirname "${BASH_SOURCE[0]}")/../flow/lib.sh"

gc_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gc_counter=$BUILD/tests/bpf/gc.t
gc_modules=/usr/lib/nginx/modules
gc_luajit=$(ldconfig -p | awk '/libluajit-5.1.so.2 /{print $NF; exit}')
gc_wrap=${GC_WRAP:-} gc_dir='' gc_nginx='' gc_worker='' gc_port=''

gc_end() {
	gc_watch_end
	gc_nginx_end
	[ -n "$gc_dir" ] && rm -rf "$gc_dir"
	gc_dir=''
}

gc_missing() { # prints what is missing, or nothing
	local file
	[ "$(id -u)" = 0 ] || { echo "root"; return; }
	for file in "$gc_counter" "${gc_luajit:-libluajit-5.1.so.2}" $gc_modules/ngx_http_lua_module.so /usr/share/lua/5.1/resty/core.lua; do
		[ -e "$file" ] || { echo "$file"; return; }
	done
}

gc_begin() {
	gc_dir=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-gc.XXXXXX")
	trap gc_end EXIT
	trap 'exit 130' INT TERM
	# A copy of its own: the probes of an agent that watches other gateways here are on the library's
	# file, and would slow what is to be the run without probes.
	cp -L "$gc_luajit" "$gc_dir/"
	new_port
	# shellcheck disable=SC2154 # new_port sets it
	gc_port=$port
	cat >"$gc_dir/nginx.conf" <<-CONF
	daemon off;
	worker_processes 1;
	error_log $gc_dir/error.log;
	pid $gc_dir/nginx.pid;
	load_module $gc_modules/ndk_http_module.so;
	load_module $gc_modules/ngx_http_lua_module.so;
	events {}
	http {
		access_log off;
		client_body_temp_path $gc_dir/body;
		proxy_temp_path $gc_dir/proxy;
		fastcgi_temp_path $gc_dir/fastcgi;
		uwsgi_temp_path $gc_dir/uwsgi;
		scgi_temp_path $gc_dir/scgi;
		lua_package_path "/usr/share/lua/5.1/?.lua;;";
		init_worker_by_lua_block {
			collectgarbage "stop"
			handler = dofile "$gc_here/gc-handler.lua"
		}
		server {
			listen 127.0.0.1:$gc_port;
			location / { return 204; }
			location /gc { content_by_lua_block { handler() } }
			location /garbage { content_by_lua_file "$gc_here/gc-garbage.lua"; }
		}
	}
	CONF
}

gc_get() { curl -sS --max-time 60 "http://127.0.0.1:$gc_port/$1"; }

# A fresh worker each time, so that runs with and without probes begin with the same heap.
gc_nginx_start() {
	LD_LIBRARY_PATH=$gc_dir $gc_wrap nginx -c "$gc_dir/nginx.conf" &
	gc_nginx=$!
	wait_for 10 gc_get "" || { cat "$gc_dir/error.log" >&2; return 1; }
	gc_worker=$(tr -d ' ' <"/proc/$gc_nginx/task/$gc_nginx/children")
}
gc_nginx_end() {
	[ -n "$gc_nginx" ] || return 0
	kill "$gc_nginx" 2>/dev/null
	wait "$gc_nginx" 2>/dev/null
	gc_nginx=''
}

# gc_worker: a pid, or a pid and its threads.
# shellcheck disable=SC2086 # several words
gc_haproxy_start() { # beside gc_dir, or after gc_begin
	new_port
	gc_port=$port
	cat >"$gc_dir/haproxy.cfg" <<-CONF
	global
	  nbthread 1
	  maxconn 100
	  lua-load $gc_here/gc-haproxy.lua
	  # A cycle in steps takes longer than a request may without these.
	  tune.lua.session-timeout 60s
	  tune.lua.service-timeout 60s
	  tune.lua.forced-yield 1000000
	defaults
	  mode http
	  timeout connect 5s
	  timeout client 60s
	  timeout server 60s
	frontend web
	  bind 127.0.0.1:$gc_port
	  http-request use-service lua.gc if { path /gc }
	  http-request use-service lua.nothing
	CONF
	$gc_wrap haproxy -db -f "$gc_dir/haproxy.cfg" >"$gc_dir/error.log" 2>&1 &
	gc_nginx=$!
	gc_worker=$!
	wait_for 10 gc_get "" || { cat "$gc_dir/error.log" >&2; return 1; }
}
gc_watch() { # sets gc_report
	coproc gc_watcher { exec "$gc_counter" $gc_worker 2>"$gc_dir/counter.log"; }
	# shellcheck disable=SC2154 # coproc sets it
	gc_pid=$gc_watcher_PID
	exec {gc_from}<&"${gc_watcher[0]}" {gc_to}>&"${gc_watcher[1]}"
	read -r -t 30 gc_report <&"$gc_from" || { cat "$gc_dir/counter.log" >&2; return 1; }
}
gc_watch_end() {
	[ -n "${gc_to:-}" ] || return 0
	exec {gc_to}>&- {gc_from}<&-
	kill "$gc_pid" 2>/dev/null
	wait "$gc_pid" 2>/dev/null
	gc_to=''
}
gc_totals() { # prints the counter's line
	local line
	echo >&"$gc_to"
	read -r -t 30 line <&"$gc_from" && echo "$line"
}

# gc_measured URL: the handler's answer, and what the probes counted meanwhile, as one object.
gc_measured() {
	local before after answer
	before=$(gc_totals)
	answer=$(gc_get "$1")
	gc_get "" # answered in a later turn of the loop, so the one that collected has ended
	after=$(gc_totals)
	jq -sc '.[0] as $b | .[2] + (.[1] | with_entries(.value -= $b[.key]) |
		with_entries(.key |= "probe_" + .)) + {bias_ns: .[1].bias_ns}' <<<"$before $after $answer"
}
