# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # lib.sh sets world, port, …
# Upstreams for a gateway under test: the demo's nginx as a backend on all of 127.0.0.0/8, so that
# each purpose has an address of its own; by TLS as well, on a port beside. Source it after lib.sh
# and tls.sh.

# Handlers are the demo's; /gone closes without an answer, /half breaks off in the middle of one. A log
# line: the address, the path, the status.
start_backend() { # start_backend [KEEPALIVE-REQUESTS]
	local dir=$world/backend
	new_port
	backend_port=$port
	new_port
	backend_tls_port=$port
	mkdir -p "$dir/logs" "$dir/body"
	chmod 755 "$dir"
	cat >"$dir/handlers.conf" <<-'CONF'
	location = /gone { return 444; }
	location = /half {
	    content_by_lua_block {
	        ngx.header.content_length = 100
	        ngx.print("half")
	        ngx.flush(true)
	        ngx.exit(ngx.ERROR)
	    }
	}
	CONF
	# shellcheck disable=SC2016 # nginx's variables
	make_certificate || return 1
	sed -e "s|listen 127.0.0.1:@PORT@.*|listen @PORT@; listen $backend_tls_port ssl; ssl_certificate $tls_cert; ssl_certificate_key $tls_key;|; s|@PORT@|$backend_port|; s|@WORKERS@|1|; s|@DIR@|$dir|g" \
		-e "s|keepalive_requests .*|keepalive_requests ${1:-1000000};|" \
		-e 's|access_log \(.*\) combined;|log_format to "$server_addr $uri $status"; access_log \1 to;|' \
		-e "s|location = /fast {|include $dir/handlers.conf;\n        &|" \
		"$top/packaging/examples/demo/nginx.conf" >"$dir/nginx.conf"
	nginx -p "$dir/" -c "$dir/nginx.conf" >"$dir/start.log" 2>&1 || {
		cat "$dir/start.log" >&2
		return 1
	}
	wait_for 5 test -s "$dir/nginx.pid" || return 1
	world_pids+=("$(cat "$dir/nginx.pid")")
	wait_for 5 curl -sf "http://127.0.0.1:$backend_port/fast"
}

# Lines of the backend's log of one address.
backend_lines() { awk -v a="$1" '$1 == a' "$world/backend/logs/access.log" | wc -l; }

# What the agent has of one upstream address: a count, 0 while there is none.
upstream_count() { # upstream_count METRIC ADDRESS
	agent_metric "tidegate_upstream_$1" "upstream=\"$2:$backend_port\"" || echo 0
}
upstream_is() { [ "$(upstream_count "$1" "$2")" = "$3" ]; }
# Waits for a tick that has it, then says what it is.
is_upstream() { # is_upstream METRIC ADDRESS WANTED NAME
	wait_for 10 upstream_is "$1" "$2" "$3"
	is "$(upstream_count "$1" "$2")" "$3" "$4"
}
