# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For tests of resty.tidegate: nginx whose workers are www-data, as distributions run it, and whose
# scripts use the module from the source.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# resty_nginx WORKERS HTTP-LINES SERVER-LINES: http and server blocks are given whole lines.
resty_nginx() {
	mkdir -p "$world/nginx/logs"
	chmod 755 "$world/nginx"
	cat >"$world/nginx/nginx.conf" <<-CONF
	load_module /usr/lib/nginx/modules/ndk_http_module.so;
	load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
	user www-data www-data;
	worker_processes $1;
	pid $world/nginx/nginx.pid;
	error_log $world/nginx/logs/error.log warn;
	env TIDEGATE_RUNTIME_DIR=$run;
	events { worker_connections 1024; }
	http {
	  access_log $world/nginx/logs/access.log combined;
	  client_body_temp_path $world/nginx/body;
	  proxy_temp_path $world/nginx/body;
	  fastcgi_temp_path $world/nginx/body;
	  uwsgi_temp_path $world/nginx/body;
	  scgi_temp_path $world/nginx/body;
	  keepalive_requests 1000000;
	  lua_package_path "$world/lua/?.lua;/usr/share/lua/5.1/?.lua;/usr/share/luajit-2.1.0-beta3/?.lua;;";
	$2
	  server {
	    listen 127.0.0.1:$gateway_port backlog=511;
	    location = /fast { access_log off; return 200 "fast\n"; }
	$3
	  }
	}
	CONF
	nginx -p "$world/nginx/" -c "$world/nginx/nginx.conf" >"$world/nginx/start.log" 2>&1 || {
		cat "$world/nginx/start.log" "$world/nginx/logs/error.log" >&2
		return 1
	}
	wait_for 5 test -s "$world/nginx/nginx.pid" || return 1
	nginx_pid=$(cat "$world/nginx/nginx.pid")
	wait_for 5 curl -sf "$gateway/fast"
}
resty_begin() { # resty_begin NAME [DRAIN-OPTIONS]
	id www-data >/dev/null 2>&1 || skip_all "there is no user www-data"
	world_begin "$1"
	agent_options='group_app: www-data'
	drain_options=${2:-'  on_sigterm: never'}
	write_config
	chmod -R a+rX "$world/lua"
}
workers() { children_of "$nginx_pid"; }
children_of() { cat "/proc/$1/task/$1/children"; }
files_of_app() { find "$run/app" -name '*.seg' ! -name '.*' 2>/dev/null | wc -l; }
metric_is() { [ "$(agent_metric "$@" 2>/dev/null)" = "$wanted" ]; }
becomes() { # becomes WANTED SECONDS METRIC [LABEL-PATTERN]
	wanted=$1
	wait_for "$2" metric_is "${@:3}"
}
