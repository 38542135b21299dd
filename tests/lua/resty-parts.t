#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# resty/parts.lua in LuaJIT, which distributions have inside nginx only: it runs while nginx begins.
set -u
cd "$(dirname "$0")/../.." || exit 1
modules=/usr/lib/nginx/modules
[ -e $modules/ngx_http_lua_module.so ] || { echo "1..0 # SKIP no nginx with its Lua module"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/nginx.conf" <<CONF
load_module $modules/ndk_http_module.so;
load_module $modules/ngx_http_lua_module.so;
env BUILD;
daemon off;
pid $dir/pid;
events { }
http {
  access_log off;
  client_body_temp_path $dir;
  proxy_temp_path $dir;
  fastcgi_temp_path $dir;
  uwsgi_temp_path $dir;
  scgi_temp_path $dir;
  lua_package_path "$PWD/lua/?.lua;/usr/share/lua/5.1/?.lua;;";
  init_by_lua_file $PWD/tests/lua/resty/parts.lua;
}
CONF
BUILD=${BUILD:-$PWD/build} nginx -p "$dir/" -e "$dir/error.log" -c "$dir/nginx.conf" || {
	sed 's/^/# /' "$dir/error.log"
	exit 1
}
